package store

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// damageFile overwrites some octets of the newest file whose name matches.
func damageFile(t *testing.T, fs vfs.FS, dir, pattern string, at float64) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	newest := ""
	for _, n := range names {
		if ok, err := path.Match(pattern, n); err != nil {
			t.Fatal(err)
		} else if ok && n > newest {
			newest = n
		}
	}
	if newest == "" {
		t.Fatalf("no %s in %v", pattern, names)
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
		damageFile(t, fs, "q/store", "*.log", at)
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
		damageFile(t, fs, "q/store", "*.sst", at)
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

// TestDamagedManifest: Pebble would take the damaged place for the end of the
// manifest, and remove the tables named behind it.
func TestDamagedManifest(t *testing.T) {
	t.Parallel()
	for _, at := range []float64{0, 0.1, 0.3, 0.5, 0.7, 0.9} {
		fs := vfs.NewMem()
		opts := Options{Dir: "q/store", FS: fs, MemTableSize: 256 << 10}
		s, err := Open(opts)
		if err != nil {
			t.Fatal(err)
		}
		fillStore(t, s, 1000)
		var b Batch
		for i := range 500 {
			b.Delete(testKey(2 * i))
		}
		if err := s.Commit(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		s.Close()
		damageFile(t, fs, "q/store", "MANIFEST-*", at)
		if s, err = Open(opts); err != nil {
			t.Fatalf("damage at %v: %v", at, err)
		}
		if n, err := count(s, 1000); n != 500 || err != nil {
			t.Errorf("damage at %v: %d records, want 500 (%v)", at, n, err)
		}
		s.Close()
		if names, _ := fs.List("q"); len(names) != 2 {
			t.Errorf("damage at %v: %v", at, names)
		}
	}
}

// TestTornManifest: a crash tore the last record of the manifest. That is
// nothing to mend.
func TestTornManifest(t *testing.T) {
	t.Parallel()
	for name, tail := range map[string][]byte{
		"header":      {1, 2, 3},
		"beginning":   {1, 2, 3, 4, 200, 0, 1, 7, 7},
		"zeros":       make([]byte, 100),
		"whole chunk": nil,
	} {
		fs := vfs.NewMem()
		opts := Options{Dir: "q/store", FS: fs}
		s, err := Open(opts)
		if err != nil {
			t.Fatal(err)
		}
		fillStore(t, s, 10)
		s.Close()
		names, _ := fs.List("q/store")
		for _, n := range names {
			if !strings.HasPrefix(n, "MANIFEST-") {
				continue
			}
			f, err := fs.OpenReadWrite("q/store/"+n, vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(tail, info.Size()); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		if s, err = Open(opts); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n, err := count(s, 10); n != 10 || err != nil {
			t.Errorf("%s: %d records (%v)", name, n, err)
		}
		s.Close()
		if names, _ := fs.List("q"); len(names) != 1 {
			t.Errorf("%s: mended for nothing: %v", name, names)
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
