package config

import (
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

const referenceFile = "../docs/configuration.md"

func TestTheReferenceIsUpToDate(t *testing.T) {
	t.Parallel()
	if *update {
		if err := os.WriteFile(referenceFile, []byte(Reference()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != Reference() {
		t.Errorf("%s does not show the keys as they are: run go test ./config -run Reference -update", referenceFile)
	}
}

func TestTheExampleIsTheDefault(t *testing.T) {
	t.Parallel()
	c, d := mustParse(t, Example()), Default()
	c.File, c.origins = d.File, d.origins
	if !reflect.DeepEqual(c, d) {
		t.Errorf("the example makes\n%+v\nnot\n%+v", c, d)
	}
	for i, line := range strings.Split(Example(), "\n") {
		if strings.HasPrefix(line, "#") && len(line) > 100 {
			t.Errorf("line %d is %d long", i+1, len(line))
		}
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, table := range Tables() {
		if table.Doc == "" {
			t.Errorf("[%s] has no text", table.Path)
		}
		for _, k := range table.Keys {
			if seen[k.Path] {
				t.Errorf("%s stands twice", k.Path)
			}
			seen[k.Path] = true
			if !strings.HasSuffix(k.Doc, ".") && !strings.HasSuffix(k.Doc, ")") {
				t.Errorf("%s: its text is no sentence: %q", k.Path, k.Doc)
			}
			if (k.Default == "") != table.Repeated {
				t.Errorf("%s: default %q", k.Path, k.Default)
			}
			if table.Repeated && !k.required && k.Otherwise == "" {
				t.Errorf("%s does not say what holds without it", k.Path)
			}
			if k.Range() == "" {
				t.Errorf("%s has no range", k.Path)
			}
		}
	}
	if len(seen) < 60 {
		t.Errorf("%d keys", len(seen))
	}
}
