package mta_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// The rooms depend in one direction (docs/architecture.md). A package that is
// not named here may import what its nearest parent in this table may.
// "" is a package that imports nothing of ours.
var arrows = map[string][]string{
	"postrider/config":   {},
	"postrider/resolver": {"postrider/resolver/resolvertest"},
	"postrider/dkim":     {},
	"postrider/queue":    {"postrider/queue/"},

	// Leaves of mta: knowledge of one protocol or of one piece of arithmetic.
	"postrider/mta/mailaddr":   {},
	"postrider/mta/smtpwire":   {},
	"postrider/mta/smtpclient": {"postrider/mta/smtpwire"},
	"postrider/mta/smtpserver": {"postrider/mta/smtpwire"},
	"postrider/mta/throttle":   {},
	"postrider/mta/mtasts":     {},
	"postrider/mta/dane":       {},
	"postrider/mta/tlsrpt":     {},
	"postrider/mta/tlspolicy":  {},
	"postrider/mta/dsn":        {},
	"postrider/mta/memory":     {},

	"postrider/mta/intake":     {"postrider/queue", "postrider/mta/mailaddr"},
	"postrider/mta/submission": {"postrider/queue", "postrider/mta/intake", "postrider/mta/mailaddr", "postrider/mta/smtpserver", "postrider/mta/smtpwire"},
	"postrider/mta/pickup":     {"postrider/queue", "postrider/mta/intake", "postrider/mta/mailaddr"},
	"postrider/mta/suppress":   {"postrider/queue", "postrider/mta/dispatch", "postrider/mta/mailaddr"},
	"postrider/mta/bounce":     {"postrider/queue", "postrider/mta/intake", "postrider/mta/mailaddr", "postrider/mta/dsn"},
	"postrider/mta/delivery":   {"postrider/queue", "postrider/resolver", "postrider/mta/smtpclient", "postrider/mta/smtpwire", "postrider/mta/tlspolicy", "postrider/mta/mailaddr"},
	"postrider/mta/compose":    {"postrider/mta/mailaddr"},
	"postrider/mta/api/wire":   {},
	"postrider/mta/api":        {"postrider/queue", "postrider/config", "postrider/resolver", "postrider/mta/intake", "postrider/mta/mailaddr", "postrider/mta/compose", "postrider/mta/pickup", "postrider/mta/suppress", "postrider/mta/api/wire"},
	"postrider/mta/sendmail":   {"postrider/mta/compose", "postrider/mta/mailaddr", "postrider/mta/smtpserver", "postrider/mta/api/client", "postrider/mta/api/wire"},
	"postrider/mta/metrics":    {"postrider/queue", "postrider/dkim", "postrider/mta/bounce", "postrider/mta/intake"},
	"postrider/mta/doctor":     {"postrider/dkim", "postrider/queue", "postrider/resolver", "postrider/mta/delivery", "postrider/mta/memory", "postrider/mta/smtpwire", "postrider/mta/api/client", "postrider/mta/api/wire"},
	"postrider/mta/dispatch":   {"postrider/queue", "postrider/resolver", "postrider/mta/delivery", "postrider/mta/throttle", "postrider/mta/tlspolicy"},
}

// shared by tests and the demo alone, never by what runs in production.
var testOnly = []string{"postrider/mta/smtptest", "postrider/resolver/resolvertest"}

type listed struct {
	ImportPath string
	Imports    []string
}

func TestImportsFollowTheArrows(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		allowed, ok := rule(p.ImportPath)
		if !ok {
			continue
		}
		for _, imp := range p.Imports {
			if !strings.HasPrefix(imp, "postrider/") || permitted(imp, allowed) || strings.HasPrefix(imp, p.ImportPath+"/") {
				continue
			}
			t.Errorf("%s imports %s, against the arrows of docs/architecture.md", p.ImportPath, imp)
		}
	}
}

func TestNothingImportsTheCommand(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		for _, imp := range p.Imports {
			if strings.HasPrefix(imp, "postrider/cmd/") {
				t.Errorf("%s imports %s: the command is the top", p.ImportPath, imp)
			}
		}
	}
}

func TestProductionDoesNotImportFakes(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		if strings.HasPrefix(p.ImportPath, "postrider/mta/rehearsal") {
			continue
		}
		for _, imp := range p.Imports {
			for _, fake := range testOnly {
				if imp == fake && p.ImportPath != fake {
					t.Errorf("%s imports %s outside its tests", p.ImportPath, imp)
				}
			}
		}
	}
}

func rule(path string) ([]string, bool) {
	for p := path; p != "postrider" && p != "."; p = p[:strings.LastIndex(p, "/")] {
		if allowed, ok := arrows[p]; ok {
			return allowed, true
		}
		if !strings.Contains(p, "/") {
			break
		}
	}
	return nil, false
}

func permitted(imp string, allowed []string) bool {
	for _, a := range allowed {
		if imp == a || strings.HasSuffix(a, "/") && strings.HasPrefix(imp, a) {
			return true
		}
	}
	return false
}

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "postrider/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list named %d packages: too few to be this project", len(all))
	}
	return all
}
