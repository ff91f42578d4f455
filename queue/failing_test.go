package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// failingDisk makes chosen operations fail while on is set.
type failingDisk struct {
	on    atomic.Bool
	match func(errorfs.Op) bool
}

func (f *failingDisk) String() string { return "failing disk" }
func (f *failingDisk) MaybeError(op errorfs.Op) error {
	if f.on.Load() && f.match(op) {
		return errorfs.ErrInjected
	}
	return nil
}

func ofKinds(kinds ...errorfs.OpKind) func(errorfs.Op) bool {
	return func(op errorfs.Op) bool {
		for _, k := range kinds {
			if op.Kind == k {
				return true
			}
		}
		return false
	}
}

func withDisk(f *failingDisk) func(*Options) {
	return func(o *Options) { o.fs = errorfs.Wrap(o.fs, f) }
}

// TestFailingDisk lets clients and workers run while the disk fails and works
// again, over and over. No message that was acknowledged is lost, none that
// was refused stays, no outcome is forgotten, and all without a restart.
func TestFailingDisk(t *testing.T) {
	for name, match := range map[string]func(errorfs.Op) bool{
		"sync":  ofKinds(errorfs.OpFileSync, errorfs.OpFileSyncData),
		"write": ofKinds(errorfs.OpFileWrite),
		"all":   ofKinds(errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileWrite, errorfs.OpCreate),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := &failingDisk{match: match}
			q := newTestQueue(t, withDisk(disk), func(o *Options) { o.memTableSize = 4 << 20 })
			w := &failingWorld{q: q, fate: make(map[ID]bool), accepted: make(map[ID]bool), refused: make(map[ID]bool)}
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			for i := range 6 {
				wg.Go(func() { w.submit(ctx, i) })
			}
			for range 2 {
				wg.Go(func() { w.work(ctx) })
			}
			for range 3 {
				w.waitFor(200)
				disk.on.Store(true)
				w.waitRefused()
				disk.on.Store(false)
			}
			w.waitFor(200)
			cancel()
			wg.Wait()
			w.verify()
		})
	}
}

type failingWorld struct {
	q  *testQueue
	mu sync.Mutex
	// fate: delivered (true) or claimed and lost
	fate, accepted, refused map[ID]bool
	turned                  atomic.Int64 // away
}

func (w *failingWorld) submit(ctx context.Context, client int) {
	for n := 0; ctx.Err() == nil; n++ {
		e := envelope(w.q.Queue, epoch, "a@there.test")
		body := w.q.NewBody()
		size := 2000
		if n%50 == 0 {
			size = smallBody + 1000
		}
		_, err := io.WriteString(body, strings.Repeat("x", size))
		if err == nil {
			err = w.q.Submit(ctx, Submission{Envelope: e, Body: body})
		}
		body.Discard()
		w.mu.Lock()
		if err == nil {
			w.accepted[e.ID] = true
		} else {
			w.refused[e.ID] = true
			w.turned.Add(1)
		}
		w.mu.Unlock()
		if err != nil {
			pause(ctx, time.Millisecond)
		}
	}
}

func (w *failingWorld) work(ctx context.Context) {
	for ctx.Err() == nil {
		c, ok := w.q.Take(epoch, "there.test", 10)
		if !ok {
			pause(ctx, time.Millisecond)
			continue
		}
		content, err := c.Content()
		if err != nil {
			c.Release(epoch)
			continue
		}
		_, err = io.Copy(io.Discard, contentReader(content))
		_ = content.Close() // only read from
		if err != nil {
			c.Release(epoch)
			continue
		}
		w.mu.Lock()
		w.fate[c.Envelope.ID] = true
		w.mu.Unlock()
		settle(c, epoch, delivered())
	}
}

// waitFor waits until n more messages were accepted.
func (w *failingWorld) waitFor(n int) {
	w.mu.Lock()
	goal := len(w.accepted) + n
	w.mu.Unlock()
	for {
		w.mu.Lock()
		have := len(w.accepted)
		w.mu.Unlock()
		if have >= goal {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// waitRefused waits until every client was turned away.
func (w *failingWorld) waitRefused() {
	for goal := w.turned.Load() + 12; w.turned.Load() < goal; {
		time.Sleep(time.Millisecond)
	}
}

func (w *failingWorld) verify() {
	t := w.q.t
	w.q.settled()
	for id := range w.accepted {
		_, err := w.q.Message(id)
		if delivered := w.fate[id]; delivered != errors.Is(err, ErrNotFound) {
			t.Errorf("%s: delivered: %v, in the queue: %v", id, delivered, err)
		}
		if events, err := w.q.History(id); err != nil || w.fate[id] && len(events) != 2 {
			t.Errorf("%s: history %v %v", id, events, err)
		}
	}
	for id := range w.refused {
		if w.fate[id] {
			t.Errorf("%s was refused and delivered", id)
		}
		if _, err := w.q.History(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s was refused and is there: %v", id, err)
		}
	}
	// The same after a crash: all was on stable storage.
	w.q.opts.fs = w.q.fs
	w.q.crash()
	for id := range w.accepted {
		if _, err := w.q.Message(id); w.fate[id] != errors.Is(err, ErrNotFound) {
			t.Errorf("%s after a crash: delivered: %v, in the queue: %v", id, w.fate[id], err)
		}
	}
}

// TestDoubtfulAnswerIsOwedAgain: the write that reports notices fails on its
// way, yet is found afterwards: it is undone as a whole.
func TestDoubtfulAnswerIsOwedAgain(t *testing.T) {
	t.Parallel()
	disk := &failingDisk{match: ofKinds(errorfs.OpFileSync, errorfs.OpFileSyncData)}
	q := newTestQueue(t, withDisk(disk))
	id := q.send(epoch, "a@there.test")
	settle(q.take(epoch, "there.test"), epoch, failed())
	q.settled()
	b, _ := q.DueNotices(epoch)
	report := envelope(q.Queue, epoch, "sender@source.test")
	report.Sender = ""
	disk.on.Store(true)
	err := q.Submit(context.Background(), Submission{Envelope: report, Body: q.NewBody(), Answers: b, Mark: "mark"})
	if !errors.Is(err, ErrFull) {
		t.Fatalf("submit on a failing disk: %v", err)
	}
	disk.on.Store(false)
	q.Return(b, epoch)
	for q.Err() != nil {
		time.Sleep(time.Millisecond)
	}
	if marked, err := q.Marked("mark"); marked || err != nil {
		t.Fatalf("marked: %v %v", marked, err)
	}
	q.wantKeys("emsn")
	b, _ = q.DueNotices(epoch.Add(noticeRest))
	if b == nil || b.Envelope.ID != id {
		t.Fatalf("notices %+v", b)
	}
	if err := q.Dismiss(b, epoch); err != nil {
		t.Fatal(err)
	}
	q.settled()
	q.wantKeys("")
}

// TestFailingBodyFile: the file of a large body cannot be written, synced or
// named: the message is refused and nothing is left behind.
func TestFailingBodyFile(t *testing.T) {
	for name, kind := range map[string]errorfs.OpKind{
		"create": errorfs.OpCreate,
		"write":  errorfs.OpFileWrite,
		"sync":   errorfs.OpFileSync,
		"rename": errorfs.OpRename,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := &failingDisk{match: func(op errorfs.Op) bool {
				return op.Kind == kind && !strings.Contains(op.Path, "store")
			}}
			q := newTestQueue(t, withDisk(disk))
			body := q.NewBody()
			defer body.Discard()
			disk.on.Store(true)
			_, err := body.Write(make([]byte, 3*smallBody))
			if err == nil {
				err = q.Submit(context.Background(), Submission{Envelope: envelope(q.Queue, epoch, "a@there.test"), Body: body})
				if !errors.Is(err, ErrFull) {
					t.Fatalf("submit: %v", err)
				}
			}
			if err == nil || kind == errorfs.OpCreate && !strings.Contains(err.Error(), "large body") {
				t.Fatalf("error %v", err)
			}
			disk.on.Store(false)
			body.Discard()
			q.wantKeys("")
			if files, err := q.fs.List(q.tempDir()); err != nil || len(files) > 0 {
				t.Fatalf("left behind: %v %v", files, err)
			}
			if err := q.store.Err(); err != nil {
				t.Fatalf("the store is not to blame: %v", err)
			}
		})
	}
}

// TestPowerLossAtEveryStep cuts the power after each operation on the disk in
// turn, while a message goes all its way, and looks at what is left.
func TestPowerLossAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, size := range []int{100, 2 * smallBody} {
		for step := int64(0); ; step++ {
			reached := powerLoss(t, size, step)
			if !reached {
				if step < 5 {
					t.Fatalf("the disk was used %d times only", step)
				}
				break
			}
		}
	}
}

// cutter takes an image of the disk, as a crash would leave it, at one step.
type cutter struct {
	fs    *vfs.MemFS
	left  atomic.Int64
	image atomic.Pointer[vfs.MemFS]
}

func (c *cutter) String() string { return "cutter" }
func (c *cutter) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && c.left.Add(-1) == -1 {
		c.image.Store(c.fs.CrashClone(vfs.CrashCloneCfg{}))
	}
	return nil
}

func powerLoss(t *testing.T, size int, step int64) (reached bool) {
	t.Helper()
	fs := vfs.NewCrashableMem()
	c := &cutter{fs: fs}
	c.left.Store(1 << 60)
	q := newTestQueue(t, func(o *Options) { o.fs = errorfs.Wrap(fs, c) })
	q.fs = fs
	var stage atomic.Value
	stage.Store("before")
	at := func(name string) bool { // name: what is certain from here on
		if c.image.Load() != nil {
			return true
		}
		stage.Store(name)
		return false
	}
	c.left.Store(step)
	id := q.submit(envelope(q.Queue, epoch, "a@there.test", "b@there.test"), strings.Repeat("x", size))
	cut := at("accepted")
	if !cut {
		q.take(epoch, "there.test").Settle(epoch, []Outcome{delivered(), deferred()}, Timing{})
		q.settled()
		cut = at("deferred")
	}
	if !cut {
		later := epoch.Add(5 * time.Minute)
		settle(q.take(later, "there.test"), later, failed())
		q.settled()
		cut = at("failed")
	}
	if !cut {
		b, _ := q.DueNotices(epoch.Add(5 * time.Minute))
		report := envelope(q.Queue, epoch, "sender@source.test")
		report.Sender = ""
		body := q.NewBody()
		if err := q.Submit(context.Background(), Submission{Envelope: report, Body: body, Answers: b}); err != nil {
			t.Fatal(err)
		}
		q.settled()
		at("reported")
	}
	image := c.image.Load()
	if image == nil {
		return false
	}
	after := &testQueue{t: t, fs: image, opts: testOptions(image)}
	after.start()
	defer func() {
		after.settled()
		after.checked()
		after.stop()
	}()
	if got := after.story(id); got < minStory[stage.Load().(string)] || got > minStory[stage.Load().(string)]+1 {
		t.Fatalf("size %d, step %d, certain: %v; found story %d", size, step, stage.Load(), got)
	}
	return true
}

var minStory = map[string]int{"before": 0, "accepted": 1, "deferred": 2, "failed": 3, "reported": 4}

// story tells how far a message of powerLoss has come: 0 unknown, 1 accepted,
// 2 tried once, 3 failed with a notice owed, 4 reported.
func (q *testQueue) story(id ID) int {
	m, err := q.Message(id)
	if errors.Is(err, ErrNotFound) {
		if _, err := q.History(id); errors.Is(err, ErrNotFound) {
			return 0
		}
		return 4
	}
	if err != nil {
		q.t.Fatal(err)
	}
	content, err := q.OpenMessage(id)
	readAll(q.t, content, err)
	switch s := fmt.Sprint(m.States[0].Status, m.States[1].Status, m.States[1].Attempts); s {
	case fmt.Sprint(StatusWaiting, StatusWaiting, 0):
		return 1
	case fmt.Sprint(StatusDelivered, StatusWaiting, 1):
		return 2
	case fmt.Sprint(StatusDelivered, StatusFailed, 2):
		if b, _ := q.DueNotices(epoch.Add(time.Hour)); b == nil {
			return 4 // reported; the rest was swept up
		}
		return 3
	default:
		q.t.Fatalf("state %s", s)
		return -1
	}
}
