package dkim

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestSources(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{KeyFileName("b.example.test", "s1"), KeyFileName("a.test", "s1"), "a.test.s2.txt", "README", ".pem", ".s.pem", "a..pem", "nodot.pem"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "dir.test.s.pem"), 0o700); err != nil {
		t.Fatal(err)
	}
	configured := []Source{{"c.test", "s1", "/c"}, {"a.test", "s1", "/elsewhere"}}
	got, err := Sources(configured, dir)
	want := append(slices.Clone(configured), Source{"b.example.test", "s1", filepath.Join(dir, "b.example.test.s1.pem")})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v %v", got, err)
	}
	if got, err := Sources(configured, filepath.Join(dir, "nowhere")); err != nil || !slices.Equal(got, configured) {
		t.Errorf("without a directory: %v %v", got, err)
	}
	if _, err := Sources(nil, filepath.Join(dir, "README")); err == nil {
		t.Error("a file was read as a directory")
	}
}
