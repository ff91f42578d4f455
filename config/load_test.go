package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// site is a host in a temporary directory, as an ordinary user sees it. Tests
// that run as root give the files away.
type site struct {
	host
	t *testing.T
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, host: host{dir: t.TempDir(), uid: os.Geteuid(), read: readFile, canWrite: func(string) bool { return true }}}
	s.systemFile = filepath.Join(s.dir, "etc", "postrider.toml")
	if s.uid == 0 {
		s.uid = 65534
		s.own(s.dir)
	}
	return s
}

func (s *site) own(path string) {
	s.t.Helper()
	if os.Geteuid() == 0 {
		if err := os.Chown(path, s.uid, -1); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *site) write(name, text string, mode fs.FileMode) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		s.t.Fatal(err)
	}
	s.own(path)
	return path
}

func (s *site) load(o Options) *Config {
	s.t.Helper()
	c, err := load(o, s.host)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func TestWhichFileIsRead(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		prepare func(*site)
		options Options
		want    string // the host name in the file that counts; empty: none
		warning string
	}{
		{"named", func(*site) {}, Options{File: "conf/named.toml", Local: true}, "named.test", ""},
		{"local", func(*site) {}, Options{Local: true}, "local.test", "is taken, since it is in the working directory"},
		{"not for other commands", func(*site) {}, Options{}, "system.test", ""},
		{"not for root", func(s *site) { s.uid = 0 }, Options{Local: true}, "system.test", "is not taken: this is root; name it with --config"},
		{"not of somebody else", func(s *site) { s.uid++ }, Options{Local: true}, "system.test", "belongs to another user"},
		{"not where others write", func(s *site) { _ = os.Chmod(s.dir, 0o777) }, Options{Local: true}, "system.test", "can be written by others"},
		{"not what others write", func(s *site) { _ = os.Chmod(filepath.Join(s.dir, localFile), 0o666) }, Options{Local: true}, "system.test", "can be written by others"},
		{"none", func(s *site) { _ = os.Remove(s.systemFile) }, Options{}, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.write("conf/named.toml", "hostname = 'named.test'", 0o644)
			s.write(localFile, "hostname = 'local.test'", 0o644)
			s.write("etc/postrider.toml", "hostname = 'system.test'", 0o644)
			tt.prepare(s)
			c := s.load(tt.options)
			if c.Hostname != tt.want {
				t.Errorf("read %q (%s), not %q", c.Hostname, c.File, tt.want)
			}
			if all := strings.Join(c.Warnings, "\n"); tt.warning == "" && all != "" || !strings.Contains(all, tt.warning) {
				t.Errorf("warnings %q, not %q", all, tt.warning)
			}
		})
	}
}

func TestAMissingFileIsAnError(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if _, err := load(Options{File: "nowhere.toml"}, s.host); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), filepath.Join(s.dir, "nowhere.toml")) {
		t.Errorf("%v", err)
	}
}

func TestPathsStartAtTheFile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("conf/keys/k.pem", "", 0o600)
	s.write("conf/p.toml", "state_dir = 'data'\n[[dkim]]\ndomain='a.test'\nselector='s'\nkey_file='keys/k.pem'\n[[pickup.directory]]\ndir='/abs/spool'\n", 0o644)
	c := s.load(Options{File: "conf/p.toml"})
	got := []string{c.StateDir, c.Pickup.Dir, c.DKIM[0].KeyFile, c.Pickup.Directories()[1].Dir, c.Submission.TLSCertFile}
	want := []string{s.dir + "/conf/data", s.dir + "/conf/data/pickup", s.dir + "/conf/keys/k.pem", "/abs/spool", ""}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nnot %q", got, want)
	}
	c = s.load(Options{Environ: []string{"POSTRIDER_STATE_DIR=x/../here"}})
	if c.StateDir != s.dir+"/here" {
		t.Errorf("without a file: %s", c.StateDir)
	}
}

func TestWhereTheDefaultStateDirCannotBeWritten(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.canWrite = func(dir string) bool { return dir != "/var/lib/postrider" }

	c := s.load(Options{Local: true})
	if want := filepath.Join(s.dir, localStateDir); c.StateDir != want || c.Pickup.Dir != want+"/pickup" || len(c.Warnings) != 1 {
		t.Errorf("%s, %s, %q", c.StateDir, c.Pickup.Dir, c.Warnings)
	}
	if c := s.load(Options{}); c.StateDir != "/var/lib/postrider" {
		t.Errorf("another command looks in %s", c.StateDir)
	}
	if c := s.load(Options{Local: true, Environ: []string{"POSTRIDER_STATE_DIR=/var/lib/postrider"}}); c.StateDir != "/var/lib/postrider" {
		t.Errorf("set, and yet %s", c.StateDir)
	}
	for name, change := range map[string]func(*host){
		"root":             func(h *host) { h.uid = 0 },
		"somebody else":    func(h *host) { h.uid++ },
		"writable for all": func(h *host) { _ = os.Chmod(h.dir, 0o777) },
	} {
		h := s.host
		change(&h)
		var e *Error
		if _, err := load(Options{Local: true}, h); !errors.As(err, &e) || e.Key != "state_dir" || e.Hint == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCanWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{dir: true, dir + "/new/below": true, file + "/below": false} {
		if got := canWrite(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func TestKeyFiles(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	good := s.write("good.pem", "", 0o600)
	group := s.write("group.pem", "", 0o640)
	world := s.write("world.pem", "", 0o604)
	dkim := func(file string) string { return "[[dkim]]\ndomain='a.test'\nselector='s'\nkey_file='" + file + "'\n" }
	tests := map[string]struct{ text, want, hint string }{
		"good":            {dkim(good), "", ""},
		"group":           {dkim(group), "p.toml:4:1: dkim.key_file: " + group + " can be read or written by others (mode 0640)", "chmod 600 " + group},
		"world":           {dkim(world), "p.toml:4:1: dkim.key_file: " + world + " can be read or written by others (mode 0604)", "chmod 600 " + world},
		"missing":         {dkim("no.pem"), "p.toml:4:1: dkim.key_file: open " + s.dir + "/no.pem: no such file or directory", ""},
		"directory":       {dkim("."), "p.toml:4:1: dkim.key_file: " + s.dir + " is no regular file", ""},
		"tls":             {"[submission]\ntls_cert_file='world.pem'\ntls_key_file='good.pem'\n", "", ""},
		"tls key":         {"[submission]\ntls_cert_file='world.pem'\ntls_key_file='world.pem'\n", "p.toml:3:1: submission.tls_key_file: " + world + " can be read or written by others (mode 0604)", "chmod 600 " + world},
		"tls certificate": {"[submission]\ntls_cert_file='no.pem'\ntls_key_file='good.pem'\n[[submission.listener]]\nlisten=['127.0.0.1:1']\n", "p.toml:2:1: submission.tls_cert_file: open " + s.dir + "/no.pem: no such file or directory", ""},
		"further tls key": {"[[submission.listener]]\nlisten=['127.0.0.1:1']\ntls_cert_file='good.pem'\ntls_key_file='group.pem'\n", "p.toml:4:1: submission.listener.tls_key_file: " + group + " can be read or written by others (mode 0640)", "chmod 600 " + group},
	}
	for name, tt := range tests {
		s.write("p.toml", tt.text, 0o644)
		_, err := load(Options{File: "p.toml"}, s.host)
		var errs Errors
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.want != "" && (!errors.As(err, &errs) || len(errs) != 1 || errs[0].Error() != s.dir+"/"+tt.want || errs[0].Hint != tt.hint):
			t.Errorf("%s: %v", name, err)
		}
		for _, o := range []Options{{File: "p.toml", Client: true}, {File: "p.toml", KeysUnseen: true}} {
			if _, err := load(o, s.host); err != nil {
				t.Errorf("%s: %+v looks at key files: %v", name, o, err)
			}
		}
	}
}

func TestHashesThatEverybodyCanRead(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("p.toml", aUser, 0o644)
	if c := s.load(Options{File: "p.toml"}); len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "password hashes") {
		t.Errorf("%q", c.Warnings)
	}
	s.write("p.toml", aUser, 0o640)
	if c := s.load(Options{File: "p.toml"}); len(c.Warnings) != 0 {
		t.Errorf("%q", c.Warnings)
	}
}

func TestAClientWithoutAccess(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("etc/postrider.toml", "hostname = 'system.test'", 0o600)
	s.read = func(path string) ([]byte, error) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
	}
	if c := s.load(Options{Client: true}); c.Hostname != "" || c.File != "" || len(c.Warnings) != 1 {
		t.Errorf("%q %q", c.Hostname, c.Warnings)
	}
	for _, o := range []Options{{}, {Client: true, File: s.systemFile}} {
		if _, err := load(o, s.host); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestTheServersWarningsAreNotTheClients(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.write("p.toml", "mode = 'silent'", 0o644)
	for o, want := range map[bool]int{false: 1, true: 0} {
		if c := s.load(Options{File: "p.toml", Client: o}); len(c.Warnings) != want {
			t.Errorf("client %v: %q", o, c.Warnings)
		}
	}
}

// Programs still find the server while somebody edits its configuration.
func TestAClientAndAFaultyFile(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for name, tt := range map[string]struct{ text, stateDir string }{
		"bad value": {"state_dir = '/srv/mail'\nmode = 'x'\n", "/srv/mail"},
		"syntax":    {"state_dir = '/srv/mail'\nmode = \n", "/var/lib/postrider"},
	} {
		s.write("etc/postrider.toml", tt.text, 0o644)
		if c := s.load(Options{Client: true}); c.StateDir != tt.stateDir || len(c.Warnings) != 1 {
			t.Errorf("%s: %s %q", name, c.StateDir, c.Warnings)
		}
		for _, o := range []Options{{}, {KeysUnseen: true}, {Client: true, File: s.systemFile}} {
			if _, err := load(o, s.host); err == nil {
				t.Errorf("%s: %+v: no error", name, o)
			}
		}
	}
}
