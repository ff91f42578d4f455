package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postrider/queue/store"
)

// overwrite changes a record behind the queue's back.
func (q *testQueue) overwrite(key []byte, change func([]byte) []byte) {
	q.t.Helper()
	value, err := q.store.Get(key, nil)
	if err != nil {
		q.t.Fatal(err)
	}
	var b store.Batch
	if value = change(value); value == nil {
		b.Delete(key)
	} else {
		b.Set(key, value)
	}
	if err := q.store.Commit(context.Background(), &b); err != nil {
		q.t.Fatal(err)
	}
}

func flip(b []byte) []byte {
	b[len(b)/2] ^= 0x40
	return b
}

func gone([]byte) []byte { return nil }

// TestDamagedRecordIsSetAside: one record does not read. Its message is named
// and set aside; the other one is delivered.
func TestDamagedRecordIsSetAside(t *testing.T) {
	state := func(id ID) []byte {
		key := make([]byte, stateKeySize)
		putStateKey(key, id, 0)
		return key
	}
	for name, c := range map[string]struct {
		key     func(ID) []byte
		change  func([]byte) []byte
		restart bool
	}{
		"envelope damaged":            {func(id ID) []byte { return idKey(keyEnvelope, id) }, flip, false},
		"envelope damaged at start":   {func(id ID) []byte { return idKey(keyEnvelope, id) }, flip, true},
		"envelope gone":               {func(id ID) []byte { return idKey(keyEnvelope, id) }, gone, false},
		"body damaged":                {func(id ID) []byte { return idKey(keyBody, id) }, flip, false},
		"body damaged before a start": {func(id ID) []byte { return idKey(keyBody, id) }, flip, true},
		"body gone":                   {func(id ID) []byte { return idKey(keyBody, id) }, gone, false},
		"state damaged":               {state, flip, false},
		"state damaged at start":      {state, flip, true},
		"state of a newer version":    {state, func(b []byte) []byte { b[0]++; return b }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log syncBuffer
			q := newTestQueue(t, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			bad, good := q.send(epoch, "a@there.test", "b@there.test"), q.send(epoch, "c@there.test")
			for range 2 {
				settle(q.take(epoch, "there.test"), epoch, deferred())
			}
			q.settled()
			q.overwrite(c.key(bad), c.change)
			if c.restart {
				q.restart()
			}
			now := epoch.Add(time.Hour)
			q.Due(now, nil)
			for {
				claim, ok := q.Take(now, "there.test", 10)
				if !ok {
					break
				}
				content, err := claim.Content()
				if claim.Envelope.ID == bad {
					if err == nil {
						t.Fatal("a damaged body was opened")
					}
					settle(claim, now, Outcome{Verdict: Deferred, Scope: ScopeMessage, Text: err.Error()})
					continue
				}
				readAll(t, content, err)
				settle(claim, now, delivered())
			}
			q.settled()
			if _, err := q.Message(good); !errors.Is(err, ErrNotFound) {
				t.Errorf("the sound message: %v", err)
			}
			if _, err := q.Message(bad); !errors.Is(err, ErrNotFound) {
				t.Errorf("the damaged message: %v", err)
			}
			if !strings.Contains(log.String(), "set aside\" id="+bad.String()) {
				t.Errorf("the log does not name it:\n%s", log.String())
			}
			events, err := q.History(bad)
			if err != nil || !slices.ContainsFunc(events, func(e Event) bool { return e.Kind == EventDamaged }) {
				t.Errorf("history %v %v", events, err)
			}
			report, err := q.Check(context.Background())
			if err != nil || len(report.SetAside) != 1 || report.SetAside[0] != bad {
				t.Errorf("check %+v %v", report, err)
			}
			q.restart()
			if d := q.Depth(now); d.Messages != 0 {
				t.Errorf("after a restart: %+v", d)
			}
		})
	}
}

func TestDamagedBodyFile(t *testing.T) {
	for name, damage := range map[string]func(fs vfs.FS, name string) error{
		"missing": func(fs vfs.FS, name string) error { return fs.Remove(name) },
		"shorter": func(fs vfs.FS, name string) error {
			f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
			if err != nil {
				return err
			}
			return f.Close()
		},
		"changed": func(fs vfs.FS, name string) error {
			f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte("other"), 70000)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newTestQueue(t)
			id := q.submit(envelope(q.Queue, epoch, "a@there.test"), strings.Repeat("x", 2*smallBody))
			_, file := q.bodyFile(id)
			if err := damage(q.fs, file); err != nil {
				t.Fatal(err)
			}
			c := q.take(epoch, "there.test")
			content, err := c.Content()
			if err == nil {
				_, err = new(bytes.Buffer).ReadFrom(content.File)
				content.Close()
			}
			if err == nil || !strings.Contains(err.Error(), id.String()) {
				t.Fatalf("error %v", err)
			}
			settle(c, epoch, Outcome{Verdict: Deferred, Scope: ScopeMessage, Text: err.Error()})
			q.settled()
			// It is set aside with the attempt that has found it, also where that
			// was halfway through the content, and never tried again.
			report, err := q.Check(context.Background())
			if err != nil || len(report.SetAside) != 1 || len(report.Problems) != 0 {
				t.Fatalf("check %+v %v", report, err)
			}
			if d := q.Depth(epoch); d.Recipients != 0 {
				t.Errorf("%d recipients wait", d.Recipients)
			}
		})
	}
}

// TestDamageWhileClaimed: two claims are in flight when the body turns out to
// be damaged. The message is set aside when the last of them has settled.
func TestDamageWhileClaimed(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	id := q.send(epoch, "a@there.test", "b@other.test")
	q.restart()
	one, two := q.take(epoch, "there.test"), q.take(epoch, "other.test")
	q.overwrite(idKey(keyBody, id), gone)
	if err := q.nameLost(); err != nil {
		t.Fatal(err)
	}
	settle(one, epoch, delivered())
	q.settled()
	q.wantKeys("es")
	settle(two, epoch, deferred())
	q.settled()
	q.wantKeys("esz")
	if d := q.Depth(epoch); d.Messages != 0 || d.Active != 0 {
		t.Errorf("depth %+v", d)
	}
	settle(two, epoch, delivered()) // a second settle does nothing
}

// TestNoticesAreGone: no notice of a set can be read any more. The message
// ends, and its sound neighbour's notice is reported.
func TestNoticesAreGone(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{"damaged": flip, "gone": gone} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newTestQueue(t)
			bad, good := q.send(epoch, "a@there.test"), q.send(epoch, "a@there.test")
			for range 2 {
				settle(q.take(epoch, "there.test"), epoch, failed())
			}
			q.settled()
			key := make([]byte, noticeKeySize)
			putNoticeKey(key, bad, 0, NoticeFailure)
			q.overwrite(key, change)
			b, _ := q.DueNotices(epoch)
			if b == nil || b.Envelope.ID != good {
				t.Fatalf("notices %+v", b)
			}
			if err := q.Dismiss(b, epoch); err != nil {
				t.Fatal(err)
			}
			q.settled()
			q.wantKeys("")
			if d := q.Depth(epoch); d.UnreportedNotices != 0 || d.Messages != 0 {
				t.Errorf("depth %+v", d)
			}
		})
	}
}

// TestDamagedTableIsMendedInProcess: the store meets a damaged table while the
// queue is in use. It is mended without a restart; what was in the damaged
// place is set aside, all else is delivered.
func TestDamagedTableIsMendedInProcess(t *testing.T) {
	for _, start := range []bool{false, true} {
		t.Run(fmt.Sprint("at start ", start), func(t *testing.T) {
			t.Parallel()
			const n = 400
			var log syncBuffer
			q := newTestQueue(t, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)); o.BodyMemory = 1 })
			for range n {
				q.send(epoch, "a@there.test")
			}
			q.restart() // the log becomes a table
			q.stop()
			damageTable(t, q.fs, q.storeDir())
			q.start()
			if start && !strings.Contains(log.String(), "mended") {
				// The walk at start reads the envelopes: damage in there is
				// met at once.
				t.Log("the damage is not among the envelopes")
			}
			done := 0
			for deadline := time.Now().Add(20 * time.Second); ; {
				if d := q.Depth(epoch); d.Recipients == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("stuck with %+v\n%s", q.Depth(epoch), log.String())
				}
				c, ok := q.Take(epoch, "there.test", 10)
				if !ok {
					q.Due(epoch, nil)
					time.Sleep(time.Millisecond)
					continue
				}
				content, err := c.Content()
				if err != nil {
					settle(c, epoch, Outcome{Verdict: Deferred, Scope: ScopeMessage, RetryAfter: 1, Text: err.Error()})
					continue
				}
				readAll(t, content, nil)
				done++
				settle(c, epoch, delivered())
			}
			if done < n*8/10 || done == n {
				t.Errorf("%d of %d messages were delivered", done, n)
			}
			if !strings.Contains(log.String(), "the store was mended") {
				t.Errorf("it was not mended:\n%s", log.String())
			}
		})
	}
}

// damageTable overwrites octets in the middle of the largest table.
func damageTable(t *testing.T, fs vfs.FS, dir string) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	largest, size := "", int64(0)
	for _, n := range names {
		info, err := fs.Stat(fs.PathJoin(dir, n))
		if err == nil && strings.HasSuffix(n, ".sst") && info.Size() > size {
			largest, size = fs.PathJoin(dir, n), info.Size()
		}
	}
	f, err := fs.OpenReadWrite(largest, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("0123456789abcdef"), size/3); err != nil {
		t.Fatal(err)
	}
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
