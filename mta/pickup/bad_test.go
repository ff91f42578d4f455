package pickup_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestBadFiles(t *testing.T) {
	t.Parallel()
	s := newSpool(t, nil)
	s.start()
	elsewhere := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(elsewhere, []byte(message), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		make func(path string) error
		want []string
	}{
		{"broken.eml", content("x-sender: ann@a.test\nx-receiver: bob@b.test\nFrom: ann@a.test\nbroken\n\n"), []string{"file:   broken.eml", "line 4: \"broken\"", "move it here again"}},
		{"address.eml", content("From: ann@a.test\nTo: x\nX-Receiver: bob@\n\n"), []string{"line 3: x-receiver", `"bob@"`}},
		{"to.eml", content("From: ann@a.test\nTo: Bob bob@b.test\n\n"), []string{"line 2: To: "}},
		{"nobody.eml", content("From: ann@a.test\n\n"), []string{"no recipients: the header has no To"}},
		{"root.eml", content("From: ann@a.test\nTo: root\n\n"), []string{"local_mail_to"}},
		{"nul.eml", content(message + "a\x00b\n"), []string{"line 6: a NUL octet"}},
		{"utf16.eml", content("\xff\xfeF\x00r\x00"), []string{"UTF-16"}},
		{"empty.eml", content(""), []string{"no sender"}},
		{"symlink.eml", func(path string) error { return os.Symlink(elsewhere, path) }, []string{"symbolic link"}},
		{"hardlink.eml", func(path string) error { return os.Link(elsewhere, path) }, []string{"hard link"}},
		{"fifo.eml", func(path string) error { return syscall.Mkfifo(path, 0o600) }, []string{"no regular file"}},
	}
	for _, tt := range tests {
		tmp := filepath.Join(filepath.Dir(s.dir), tt.name)
		if err := tt.make(tmp); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, filepath.Join(s.dir, tt.name)); err != nil {
			t.Fatal(err)
		}
		s.until(tt.name+" is set aside", func() bool { return exists(s.dir, "bad", tt.name) })
		note, err := os.ReadFile(filepath.Join(s.dir, "bad", tt.name+".error"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range tt.want {
			if !strings.Contains(string(note), want) {
				t.Errorf("%s: %q is not in\n%s", tt.name, want, note)
			}
		}
	}
	if s.messages() != 0 || !empty(filepath.Join(s.dir, ".taken")) {
		t.Errorf("%d messages were made", s.messages())
	}
	s.moveIn("empty.eml", "") // again: the first one is kept
	s.until("the second one is set aside", func() bool {
		all, _ := filepath.Glob(filepath.Join(s.dir, "bad", "*-empty.eml"))
		return len(all) == 1 && exists(s.dir, "bad", "empty.eml")
	})
}

func content(s string) func(string) error {
	return func(path string) error { return os.WriteFile(path, []byte(s), 0o600) }
}
