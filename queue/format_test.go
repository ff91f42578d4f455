package queue

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var updateStore = flag.Bool("update-store", false, "write testdata/store-v1 anew: only where the format is meant to change")

const oldStore = "testdata/store-v1"

// The messages of the old store, by their envelope ID.
const (
	oldFresh    = "fresh"
	oldTried    = "tried"
	oldHeld     = "held"
	oldLarge    = "large"
	oldOwed     = "owed"
	oldFinished = "finished"
)

// fillOldStore makes one message of every kind.
func fillOldStore(q *testQueue) {
	send := func(name, body string, change func(*Envelope), to ...string) {
		e := envelope(q.Queue, epoch, to...)
		e.EnvID = name
		if change != nil {
			change(e)
		}
		q.submit(e, body)
	}
	send(oldTried, testBody, nil, "a@tried.test", "b@tried.test")
	q.take(epoch, "tried.test").Settle(epoch, []Outcome{delivered(), deferred()}, Timing{Connect: time.Second})
	send(oldOwed, testBody, nil, "a@owed.test", "b@later.test")
	settle(q.take(epoch, "owed.test"), epoch, failed())
	send(oldFinished, testBody, nil, "a@finished.test")
	settle(q.take(epoch, "finished.test"), epoch, delivered())
	send(oldFresh, testBody, func(e *Envelope) {
		full := fullEnvelope()
		full.ID, full.EnvID, full.ArrivedAt, full.Held = e.ID, oldFresh, epoch, false
		full.NotBefore, full.DeliverBy = epoch.Add(time.Hour), epoch.Add(48*time.Hour)
		*e = *full
	})
	send(oldHeld, testBody, func(e *Envelope) { e.Held = true }, "a@held.test")
	send(oldLarge, strings.Repeat("0123456789abcdef", smallBody/16+1), nil, "a@large.test")
	body := q.NewBody()
	io.WriteString(body, testBody)
	e := envelope(q.Queue, epoch, "a@marked.test")
	if err := q.Submit(q.t.Context(), Submission{Envelope: e, Body: body, Mark: "pickup/old.eml"}); err != nil {
		q.t.Fatal(err)
	}
	q.suspend(epoch, Suspension{Domain: "suspended.test", Since: epoch, Reason: "old"})
	q.settled()
}

// TestOldStore opens a store that an earlier program wrote. Every later format
// has to read this one.
func TestOldStore(t *testing.T) {
	t.Parallel()
	if *updateStore {
		writeOldStore(t)
	}
	dir := filepath.Join(t.TempDir(), "queue")
	if err := os.CopyFS(dir, os.DirFS(oldStore)); err != nil {
		t.Fatal(err)
	}
	opts := testOptions(vfs.Default)
	opts.Dir = dir
	q := &testQueue{t: t, opts: opts}
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	q.start()
	defer func() {
		q.settled()
		q.checked()
		q.stop()
	}()
	all, err := q.List(t.Context(), epoch, Selector{}, ID{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	byName := make(map[string]*Message)
	for _, m := range all {
		byName[m.Envelope.EnvID] = m
		content, err := q.OpenMessage(m.Envelope.ID)
		readAll(t, content, err)
	}
	if len(all) != 6 || byName[oldFinished] != nil {
		t.Fatalf("%d messages: %v", len(all), byName)
	}
	tried := byName[oldTried].States
	if tried[0].Status != StatusDelivered || tried[1].Status != StatusWaiting || tried[1].Attempts != 1 ||
		!tried[1].DueAt.Equal(epoch.Add(5*time.Minute)) || tried[1].Last.Text != "greylisted" || tried[1].Last.Remote.Host != "mx.there.test" {
		t.Errorf("tried: %+v", tried)
	}
	if s := byName[oldHeld].States[0].Status; s != StatusHeld {
		t.Errorf("held: %v", s)
	}
	fresh := byName[oldFresh].Envelope
	want := fullEnvelope()
	if fresh.Recipients[0] != want.Recipients[0] || fresh.Recipients[1] != want.Recipients[1] || fresh.Origin != want.Origin ||
		!fresh.RequireTLS || fresh.Ret != RetHeaders || fresh.Priority != PriorityUrgent || fresh.Tag != "tag" || !fresh.DeliverBy.Equal(epoch.Add(48*time.Hour)) {
		t.Errorf("fresh: %+v", fresh)
	}
	settle(q.take(epoch, "later.test"), epoch, delivered())
	q.settled()
	if b, _ := q.DueNotices(epoch); b == nil || b.Envelope.EnvID != oldOwed || b.Notices[0].Outcome.Text != "no such user" {
		t.Errorf("notices: %+v", b)
	}
	if marked, err := q.Marked("pickup/old.eml"); !marked || err != nil {
		t.Errorf("mark: %v %v", marked, err)
	}
	if s := q.Suspensions(epoch); len(s) != 1 || s[0].Domain != "suspended.test" {
		t.Errorf("suspensions: %+v", s)
	}
	events, err := q.History(byName[oldTried].Envelope.ID)
	if err != nil || len(events) != 3 || events[2].Timing.Connect != time.Second {
		t.Errorf("history: %+v %v", events, err)
	}
}

func writeOldStore(t *testing.T) {
	if err := os.RemoveAll(oldStore); err != nil {
		t.Fatal(err)
	}
	opts := testOptions(vfs.Default)
	opts.Dir = oldStore
	q := &testQueue{t: t, opts: opts}
	q.start()
	fillOldStore(q)
	q.restart() // brings all into tables
	q.stop()
	for _, name := range []string{"lock", "tmp"} {
		if err := os.Remove(filepath.Join(oldStore, name)); err != nil {
			t.Fatal(err)
		}
	}
}
