package mta

import (
	"os"
	"slices"
	"testing"
)

func TestFileStoreSurvives(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := newFileStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"example.test", "../outside", "a/b", "UPPER", "+", "=", ""}
	for _, name := range names {
		if err := s.Put(name, []byte("first")); err != nil {
			t.Fatalf("Put(%q): %v", name, err)
		}
		if err := s.Put(name, []byte("value of "+name)); err != nil {
			t.Fatalf("Put(%q) again: %v", name, err)
		}
	}
	again, err := newFileStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		got, err := again.Get(name)
		if err != nil || string(got) != "value of "+name {
			t.Errorf("Get(%q) = %q, %v", name, got, err)
		}
	}
	keys, err := again.Keys()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	want := slices.Clone(names)
	slices.Sort(want)
	if !slices.Equal(keys, want) {
		t.Errorf("Keys() = %q, want %q", keys, want)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != len(names) {
		t.Errorf("%d files for %d names: something was left behind, or written elsewhere", len(entries), len(names))
	}
	if err := again.Delete("example.test"); err != nil {
		t.Fatal(err)
	}
	if err := again.Delete("example.test"); err != nil {
		t.Errorf("deleting what is not there: %v", err)
	}
	if got, err := again.Get("example.test"); got != nil || err != nil {
		t.Errorf("after Delete: %q, %v", got, err)
	}
}
