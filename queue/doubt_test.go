package queue

import (
	"errors"
	"io/fs"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"golang.org/x/sys/unix"
)

// TestDoubtAfterReopening: the answer to a failed write comes when the store
// was opened again already. The queue does not wait for another failure to
// settle the doubt.
func TestDoubtAfterReopening(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	id := q.send(epoch, "a@there.test")
	q.restart() // nothing is in memory but the schedule
	m, err := q.Message(id)
	if err != nil {
		t.Fatal(err)
	}
	q.suspect(&Submission{Envelope: m.Envelope, Body: q.NewBody()})
	for deadline := time.Now().Add(10 * time.Second); q.Err() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("stuck:", q.Err())
		}
	}
	q.wantKeys("")
	q.due(epoch, "there.test")
	q.nothing(epoch, "there.test") // what the schedule has of it is found to be gone
}

// TestDoubtWhileGoingOn: the store does not count as sound while a message is
// in doubt.
func TestDoubtWhileGoingOn(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	q.mu.Lock()
	q.down = true
	q.doubts = []doubt{{env: envelope(q.Queue, epoch, "a@there.test")}}
	q.mu.Unlock()
	if q.goOn() || q.Err() == nil {
		t.Fatal("work goes on with a message in doubt")
	}
	if err := q.clearDoubts(); err != nil {
		t.Fatal(err)
	}
	if !q.goOn() || q.Err() != nil {
		t.Fatalf("no work without doubts: %v", q.Err())
	}
}

// TestStoreOutOfOrder: what cannot be read because the store does not answer
// is neither damaged nor forgotten: it is swept, claimed and delivered later.
func TestStoreOutOfOrder(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	id := q.send(epoch, "a@there.test")
	q.restart() // nothing is in memory
	q.Sweep(epoch)
	q.stop()
	late := epoch.Add(6 * 24 * time.Hour)
	if q.sweepMessage(id, nanos(late)) {
		t.Error("the sweep counts it as read")
	}
	q.mu.Lock()
	i := q.index.first(id)
	_, err := q.fetch(i, nanos(epoch))
	q.mu.Unlock()
	if due := timeOf(q.slab.at(i).due); err == nil || !due.Equal(epoch.Add(readRest)) {
		t.Errorf("error %v, due again at %v", err, due)
	}
	q.start()
	settle(q.take(epoch, "there.test"), epoch, delivered())
	q.settled()
	q.wantKeys("")
}

// TestNoFilesToReadWith: the system lacks files at present. That is no damage:
// the messages wait a little and are delivered.
func TestNoFilesToReadWith(t *testing.T) {
	t.Parallel()
	var lacking atomic.Bool
	disk := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if lacking.Load() && op.Kind == errorfs.OpOpen {
			return &fs.PathError{Op: "open", Path: op.Path, Err: unix.EMFILE}
		}
		return nil
	})
	q := newTestQueue(t, func(o *Options) { o.fs = errorfs.Wrap(o.fs, disk) })
	id := q.submit(envelope(q.Queue, epoch, "a@there.test"), string(make([]byte, 2*smallBody)))
	c := q.take(epoch, "there.test")
	lacking.Store(true)
	_, err := c.Content()
	if !errors.Is(err, unix.EMFILE) {
		t.Fatalf("content: %v", err)
	}
	lacking.Store(false)
	settle(c, epoch, Outcome{Verdict: Deferred, Scope: ScopeMessage, Text: err.Error()})
	q.due(epoch.Add(time.Hour), "there.test")
	c = q.take(epoch.Add(time.Hour), "there.test")
	content, err := c.Content()
	readAll(t, content, err)
	if c.Envelope.ID != id {
		t.Fatalf("claim of %s", c.Envelope.ID)
	}
	settle(c, epoch.Add(time.Hour), delivered())
}
