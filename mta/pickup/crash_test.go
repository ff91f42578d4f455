package pickup_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"postrider/mta/intake"
	"postrider/mta/pickup"
	"postrider/queue"
)

// TestCrashBeforeSubmit: a file was claimed, and is not a message yet.
func TestCrashBeforeSubmit(t *testing.T) {
	t.Parallel()
	s := newSpool(t, nil)
	s.start()
	s.stop()
	id := s.q.NewID(time.Now())
	claimed := filepath.Join(s.dir, ".taken", id.String()+".eml")
	if err := os.WriteFile(claimed, []byte(message), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	if got := s.next(); got != id {
		t.Errorf("the message is %s; its claim was %s", got, id)
	}
	s.until("the file is gone", func() bool { return !exists(claimed) })
	if s.messages() != 1 {
		t.Errorf("%d messages were made", s.messages())
	}
}

// TestCrashAfterSubmit: a file has become a message, and was not unlinked.
func TestCrashAfterSubmit(t *testing.T) {
	t.Parallel()
	s := newSpool(t, nil)
	s.start()
	s.stop()
	id := s.q.NewID(time.Now())
	claimed := filepath.Join(s.dir, ".taken", id.String()+".eml")
	if err := os.WriteFile(claimed, []byte(message), 0o600); err != nil {
		t.Fatal(err)
	}
	msg, err := s.receive.Begin(time.Now(), intake.Meta{
		Envelope: &queue.Envelope{ID: id, Sender: "ann@a.test", Recipients: []queue.Recipient{{Address: "bob@b.test"}}}, Mark: id.String(),
	})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(msg, message)
	if _, err := msg.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.start()
	s.until("the file is gone", func() bool { return !exists(claimed) })
	s.until("the mark is removed", func() bool { marked, err := s.q.Marked(id.String()); return err == nil && !marked })
	s.stop()
	if n := len(s.taken); n != 0 || s.messages() != 1 {
		t.Errorf("%d messages were made of it again; there are %d", n, s.messages())
	}
}

// TestStopWhileFull: a claimed file that could not be handed over is for the
// next start.
func TestStopWhileFull(t *testing.T) {
	t.Parallel()
	s := newSpool(t, nil)
	s.refuse = func(*queue.Envelope) error {
		return &intake.Error{Code: 452, Status: "4.3.1", Text: "no room"}
	}
	s.start()
	s.moveIn("a.eml", message)
	s.until("the file is claimed", func() bool { return !exists(s.dir, "a.eml") })
	s.stop()
	if empty(filepath.Join(s.dir, ".taken")) {
		t.Fatal("the file is gone")
	}
	s.refuse = nil
	s.start()
	s.next()
	s.until("nothing is left to do", func() bool { return empty(filepath.Join(s.dir, ".taken")) })
	s.stop()
	if s.messages() != 1 {
		t.Errorf("%d messages", s.messages())
	}
}

func TestQueueIsFull(t *testing.T) {
	t.Parallel()
	s := newSpool(t, nil)
	var mu sync.Mutex
	refused := 0
	s.refuse = func(*queue.Envelope) error {
		mu.Lock()
		defer mu.Unlock()
		if refused++; refused <= 3 {
			return &intake.Error{Code: 452, Status: "4.3.1", Text: "no room"}
		}
		return nil
	}
	s.start()
	for i := range 20 {
		s.moveIn(fmt.Sprintf("%d.eml", i), message)
	}
	for range 20 {
		s.next()
	}
	s.until("the directory is empty", func() bool { return empty(s.dir) && empty(filepath.Join(s.dir, ".taken")) })
	if s.messages() != 20 || len(s.taken) != 0 {
		t.Errorf("%d messages, %d too many", s.messages(), len(s.taken))
	}
}

// TestOneMessageCannotBeSigned: what concerns one file holds up no other.
func TestOneMessageCannotBeSigned(t *testing.T) {
	t.Parallel()
	s := newSpool(t, func(o *pickup.Options) { o.Workers = 1 })
	s.refuse = func(env *queue.Envelope) error {
		if env.Tag == "stuck" {
			return &intake.Error{Code: 451, Status: "4.3.5", Text: "cannot be signed"}
		}
		return nil
	}
	s.start()
	s.moveIn("a.eml", "x-job: stuck\n"+message)
	s.until("it is claimed", func() bool { return !exists(s.dir, "a.eml") })
	s.moveIn("b.eml", message)
	s.next()
	s.stop()
	if empty(filepath.Join(s.dir, ".taken")) || s.messages() != 1 {
		t.Error("the file that waits is gone")
	}
}
