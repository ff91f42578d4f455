package store

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// damageFile overwrites some octets of the newest file with a suffix.
func damageFile(t *testing.T, fs vfs.FS, dir, suffix string, at float64) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	newest := ""
	for _, n := range names {
		if strings.HasSuffix(n, suffix) && n > newest {
			newest = n
		}
	}
	if newest == "" {
		t.Fatalf("no %s in %v", suffix, names)
	}
	f, err := fs.OpenReadWrite(fs.PathJoin(dir, newest), vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("0123456789abcdef"), int64(at*float64(info.Size()))); err != nil {
		t.Fatal(err)
	}
}

func testKey(i int) []byte { return fmt.Appendf(nil, "e%016d", i) }

// fill writes n records of 2 KB, each its own commit.
func fillStore(t *testing.T, s *Store, n int) {
	t.Helper()
	for i := range n {
		if err := put(s, string(testKey(i)), strings.Repeat(fmt.Sprint(i, " "), 400)); err != nil {
			t.Fatal(err)
		}
	}
}

func count(s *Store, n int) (found int, err error) {
	for i := range n {
		_, err := s.Get(testKey(i), nil)
		if err == nil {
			found++
		} else if !errors.Is(err, ErrAbsent) {
			return found, err
		}
	}
	return found, nil
}

func TestDamagedLogIsMended(t *testing.T) {
	t.Parallel()
	for _, at := range []float64{0.1, 0.3, 0.5, 0.7} {
		fs := vfs.NewMem()
		s, err := Open(Options{Dir: "q/store", FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		fillStore(t, s, 300)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		damageFile(t, fs, "q/store", ".log", at)
		s, err = Open(Options{Dir: "q/store", FS: fs})
		if err != nil {
			t.Fatalf("damage at %v: %v", at, err)
		}
		// A block of 32 KB holds some 25 records; one that spans it is lost too.
		if n, err := count(s, 300); err != nil || n < 270 || n == 300 {
			t.Errorf("damage at %v: %d of 300 records are left (%v)", at, n, err)
		}
		if err := put(s, "after", "x"); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if names, _ := fs.List("q"); !strings.Contains(strings.Join(names, " "), "store.damaged-") {
			t.Errorf("the damaged store was not kept: %v", names)
		}
	}
}

func TestDamagedTableIsMended(t *testing.T) {
	t.Parallel()
	for _, at := range []float64{0.01, 0.2, 0.5, 0.7} {
		fs := vfs.NewMem()
		opts := Options{Dir: "q/store", FS: fs, MemTableSize: 4 << 20, CacheSize: 1 << 10}
		s, err := Open(opts)
		if err != nil {
			t.Fatal(err)
		}
		fillStore(t, s, 1000)
		if err := s.cur.Load().db.Flush(); err != nil {
			t.Fatal(err)
		}
		s.Close()
		damageFile(t, fs, "q/store", ".sst", at)
		if s, err = Open(opts); err != nil {
			t.Fatal(err)
		}
		if _, err := count(s, 1000); !errors.Is(err, ErrFailed) {
			t.Fatalf("damage at %v: reading gives %v", at, err)
		}
		<-s.Failed()
		if err := s.Reopen(); err != nil {
			t.Fatal(err)
		}
		if n, err := count(s, 1000); err != nil || n < 970 || n == 1000 {
			t.Errorf("damage at %v: %d of 1000 records are left (%v)", at, n, err)
		}
		s.Close()
		if s, err = Open(opts); err != nil {
			t.Fatal(err)
		}
		if n, err := count(s, 1000); err != nil || n < 970 {
			t.Errorf("damage at %v: %d of 1000 records are left after a restart (%v)", at, n, err)
		}
		s.Close()
	}
}

// TestDamagedManifest: what the mending cannot help is left as it was.
func TestDamagedManifest(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	s, err := Open(Options{Dir: "q/store", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	fillStore(t, s, 10)
	s.Close()
	names, _ := fs.List("q/store")
	for _, n := range names {
		if strings.HasPrefix(n, "MANIFEST-") {
			damageFile(t, fs, "q/store", n, 0)
		}
	}
	for range 2 {
		if _, err := Open(Options{Dir: "q/store", FS: fs}); err == nil {
			t.Fatal("a damaged manifest was not noticed")
		}
		if names, _ := fs.List("q"); len(names) != 1 {
			t.Fatalf("left behind: %v", names)
		}
	}
}

// TestMendingCutShort: the power went between the two renames.
func TestMendingCutShort(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	s, err := Open(Options{Dir: "q/store", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	fillStore(t, s, 10)
	s.Close()
	if err := fs.Rename("q/store", "q/store.damaged-20270102T030405.000"); err != nil {
		t.Fatal(err)
	}
	if err := fs.MkdirAll("q/store", 0o700); err != nil { // as the queue does at start
		t.Fatal(err)
	}
	if s, err = Open(Options{Dir: "q/store", FS: fs}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n, err := count(s, 10); n != 10 || err != nil {
		t.Fatalf("%d of 10 records (%v)", n, err)
	}
}

func TestBeyond(t *testing.T) {
	t.Parallel()
	key := append([]byte{'e'}, make([]byte, 16)...)
	key[16] = 0xff
	if got := beyond(key, 0); got[16] != 0 || got[15] != 1 {
		t.Errorf("carry: %x", got)
	}
	if got := beyond(key, 8*16); got[0] != 'f' {
		t.Errorf("next kind: %x", got)
	}
	if got := beyond([]byte{0xff}, 8*16); got != nil {
		t.Errorf("beyond the end: %x", got)
	}
}
