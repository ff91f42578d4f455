package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

func open(t *testing.T, fs vfs.FS) *Store {
	t.Helper()
	s, err := Open(Options{Dir: "store", FS: fs, MemTableSize: 1 << 20, CacheSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(s *Store, key, value string) error {
	var b Batch
	b.Set([]byte(key), []byte(value))
	return s.Commit(context.Background(), &b)
}

func TestCommitSurvivesPowerLoss(t *testing.T) {
	t.Parallel()
	fs := vfs.NewCrashableMem()
	s := open(t, fs)
	for i := range 100 {
		if err := put(s, fmt.Sprint("k", i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	after := open(t, fs.CrashClone(vfs.CrashCloneCfg{}))
	for i := range 100 {
		if _, err := after.Get([]byte(fmt.Sprint("k", i)), nil); err != nil {
			t.Fatalf("k%d: %v", i, err)
		}
	}
	if _, err := after.Get([]byte("never"), nil); !errors.Is(err, ErrAbsent) {
		t.Fatalf("absent key: %v", err)
	}
}

// failing makes chosen operations fail while on is set.
type failing struct {
	on    atomic.Bool
	kinds map[errorfs.OpKind]bool
}

func (f *failing) String() string { return "failing" }
func (f *failing) MaybeError(op errorfs.Op) error {
	if f.on.Load() && f.kinds[op.Kind] {
		return errorfs.ErrInjected
	}
	return nil
}

// TestFailedWriteIsNeverAcknowledged writes from many goroutines while the
// disk begins to fail; after a reopening everything acknowledged is there.
func TestFailedWriteIsNeverAcknowledged(t *testing.T) {
	for name, kinds := range map[string]map[errorfs.OpKind]bool{
		"sync":           {errorfs.OpFileSync: true, errorfs.OpFileSyncData: true},
		"write":          {errorfs.OpFileWrite: true},
		"create":         {errorfs.OpCreate: true, errorfs.OpReuseForWrite: true},
		"write and sync": {errorfs.OpFileWrite: true, errorfs.OpFileSync: true, errorfs.OpFileSyncData: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mem := vfs.NewCrashableMem()
			f := &failing{kinds: kinds}
			s := open(t, errorfs.Wrap(mem, f))
			var (
				mu    sync.Mutex
				acked []string
				wg    sync.WaitGroup
				value = string(make([]byte, 4000))
			)
			for w := range 16 {
				wg.Go(func() {
					for i := 0; ; i++ {
						key := fmt.Sprintf("%d/%d", w, i)
						err := put(s, key, value)
						if err != nil {
							if !errors.Is(err, ErrFailed) && !errors.Is(err, ErrUnknown) {
								t.Errorf("unexpected error: %v", err)
							}
							return
						}
						mu.Lock()
						acked = append(acked, key)
						if len(acked) == 200 {
							f.on.Store(true)
						}
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			<-s.Failed()
			if s.Err() == nil {
				t.Fatal("a failed store has no error")
			}
			if err := s.Reopen(); err == nil && len(kinds) > 1 {
				t.Fatal("reopened on a failing disk")
			}
			f.on.Store(false)
			if err := s.Reopen(); err != nil {
				t.Fatal(err)
			}
			if err := put(s, "after", "x"); err != nil {
				t.Fatal(err)
			}
			crashed := open(t, mem.CrashClone(vfs.CrashCloneCfg{}))
			for _, key := range append(acked, "after") {
				if _, err := s.Get([]byte(key), nil); err != nil {
					t.Fatalf("lost in process: %s: %v", key, err)
				}
				if _, err := crashed.Get([]byte(key), nil); err != nil {
					t.Fatalf("lost in a crash: %s: %v", key, err)
				}
			}
		})
	}
}

// TestLongFailure: the disk fails for as long as ten attempts to open the
// store again. Nothing piles up, and then it works.
func TestLongFailure(t *testing.T) {
	t.Parallel()
	f := &failing{kinds: map[errorfs.OpKind]bool{errorfs.OpFileWrite: true}}
	s := open(t, errorfs.Wrap(vfs.NewMem(), f))
	if err := put(s, "before", "x"); err != nil {
		t.Fatal(err)
	}
	f.on.Store(true)
	if err := put(s, "never", "x"); !errors.Is(err, ErrUnknown) {
		t.Fatalf("write on a failing disk: %v", err)
	}
	if err := put(s, "never", "x"); !errors.Is(err, ErrFailed) {
		t.Fatalf("write on a failed store: %v", err)
	}
	for range 10 {
		if err := s.Reopen(); err == nil || errors.Is(err, ErrHopeless) {
			t.Fatalf("reopen on a failing disk: %v", err)
		}
	}
	if s.abandoned > 0 {
		t.Errorf("%d instances were left behind", s.abandoned)
	}
	f.on.Store(false)
	if err := s.Reopen(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get([]byte("before"), nil); err != nil {
		t.Error(err)
	}
	if err := put(s, "after", "x"); err != nil {
		t.Error(err)
	}
}
