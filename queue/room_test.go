package queue

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"postrider/queue/store"
)

func TestFullDisk(t *testing.T) {
	t.Parallel()
	var space atomic.Pointer[diskSpace]
	var log syncBuffer
	q := newTestQueue(t, func(o *Options) {
		o.MinFree = 0
		o.space = func() diskSpace { return *space.Load() }
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	for name, c := range map[string]struct {
		space diskSpace
		full  bool
	}{
		"plenty":            {diskSpace{free: 1 << 40, total: 1 << 41, freeInodes: 1e6, totalInodes: 1e6}, false},
		"no inodes counted": {diskSpace{free: 1 << 40, total: 1 << 41}, false},
		"little":            {diskSpace{free: 100 << 20, total: 1 << 41}, true},
		"small disk":        {diskSpace{free: 200 << 20, total: 1 << 30}, false},
		"very small disk":   {diskSpace{free: 60 << 20, total: 200 << 20}, false},
		"small full disk":   {diskSpace{free: 100 << 20, total: 1 << 30}, true},
		"very small, full":  {diskSpace{free: 40 << 20, total: 200 << 20}, true},
		"few inodes":        {diskSpace{free: 1 << 40, total: 1 << 41, freeInodes: 10, totalInodes: 1e6}, true},
		"no answer":         {diskSpace{err: errors.New("no answer")}, true},
	} {
		space.Store(&c.space)
		q.room.asked.Store(0)
		body := q.NewBody()
		err := q.Submit(context.Background(), Submission{Envelope: envelope(q.Queue, epoch, "a@there.test"), Body: body})
		body.Discard()
		if errors.Is(err, ErrFull) != c.full {
			t.Errorf("%s: %v", name, err)
		}
		if full := q.Err() != nil; full != c.full {
			t.Errorf("%s: Err says %v", name, q.Err())
		}
		if err := q.Room(); errors.Is(err, ErrFull) != c.full {
			t.Errorf("%s: Room says %v", name, err)
		}
		// A large body goes to the disk before it is submitted.
		body = q.NewBody()
		if _, err := body.Write(make([]byte, 2*smallBody)); errors.Is(err, ErrFull) != c.full {
			t.Errorf("%s: a large body: %v", name, err)
		}
		body.Discard()
	}
	space.Store(&diskSpace{free: 1 << 40, total: 1 << 41})
	q.room.asked.Store(0)
	if err := q.Room(); err != nil {
		t.Error(err)
	}
	if text := log.String(); !strings.Contains(text, "turned away") || !strings.Contains(text, "room for new mail again") {
		t.Errorf("the log:\n%s", text)
	}
}

// TestRoomIsAskedForAgain: nobody has to send mail for it to be found out that
// there is room again.
func TestRoomIsAskedForAgain(t *testing.T) {
	t.Parallel()
	var short atomic.Bool
	short.Store(true)
	cause := errors.New("hardly any memory left")
	q := newTestQueue(t, func(o *Options) {
		o.Pressure = func() error {
			if short.Load() {
				return cause
			}
			return nil
		}
	})
	body := q.NewBody()
	err := q.Submit(context.Background(), Submission{Envelope: envelope(q.Queue, epoch, "a@there.test"), Body: body})
	body.Discard()
	if !errors.Is(err, ErrFull) || !errors.Is(err, cause) {
		t.Fatalf("submit: %v", err)
	}
	short.Store(false)
	for deadline := time.Now().Add(10 * time.Second); q.Err() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("stuck:", q.Err())
		}
	}
	q.send(epoch, "a@there.test")
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		limit, bodies, cache int64
		table                uint64
		tables               int
	}{
		{0, 32_000_000, 0, 0, 0},
		{64 << 20, 8 << 20, smallestCache, smallestMemTable, 2},
		{256 << 20, 32_000_000, 8 << 20, 16 << 20, 4},
		{16 << 30, 32_000_000, store.DefaultCacheSize, store.DefaultMemTableSize, store.DefaultMemTables},
	} {
		o := Options{MemoryLimit: c.limit}
		o.setDefaults()
		if o.BodyMemory != c.bodies || o.cacheSize != c.cache || o.memTableSize != c.table || o.memTables != c.tables {
			t.Errorf("limit %d: bodies %d, cache %d, %d memtables of %d", c.limit, o.BodyMemory, o.cacheSize, o.memTables, o.memTableSize)
		}
	}
}
