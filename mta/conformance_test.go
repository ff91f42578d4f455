package mta_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// namedTest is how docs/conformance.md names a test: its folder and its name,
// perhaps with that of a case.
var namedTest = regexp.MustCompile("`((?:[a-z0-9]+/)*[a-z0-9]+)\\.((?:Test|Fuzz)[A-Za-z0-9_]+)(?:/[^`]+)?`")

// TestConformanceNamesRealTests: each row of docs/conformance.md names tests,
// and they are in the tree.
func TestConformanceNamesRealTests(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/conformance.md")
	if err != nil {
		t.Fatal(err)
	}
	sources := make(map[string]string)
	rows := 0
	for number, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.HasPrefix(line, "| Section") {
			continue
		}
		rows++
		named := namedTest.FindAllStringSubmatch(line, -1)
		if len(named) == 0 {
			t.Errorf("line %d names no test: %s", number+1, line)
		}
		for _, n := range named {
			dir, test := n[1], n[2]
			if _, ok := sources[dir]; !ok {
				sources[dir] = testsIn(t, filepath.Join("..", dir))
			}
			if !strings.Contains(sources[dir], "\nfunc "+test+"(") {
				t.Errorf("line %d: there is no %s in %s", number+1, test, dir)
			}
		}
	}
	if rows == 0 {
		t.Error("no table")
	}
}

// testsIn is the text of a folder's tests, those with a build tag included.
func testsIn(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}
