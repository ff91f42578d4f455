package intake_test

import (
	"context"
	"errors"
	"io"
	"log"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/mta/intake"
	"postrider/queue"
)

var now = time.Date(2026, 7, 4, 9, 30, 0, 0, time.FixedZone("", 2*60*60))

// shelf is a queue whose Submit keeps what it gets, for tests to look at.
type shelf struct {
	*queue.Queue
	err  error // of Submit
	room error // of Room

	mu   sync.Mutex
	last stored
}

type stored struct {
	env     queue.Envelope
	prefix  string
	body    string
	answers *queue.NoticeBatch
	mark    string
}

func (s *shelf) Room() error { return s.room }

func (s *shelf) Submit(_ context.Context, sub queue.Submission) error {
	if s.err != nil {
		return s.err
	}
	r, err := sub.Body.Reader()
	if err != nil {
		return err
	}
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	r.Close()
	sub.Body.Discard()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = stored{*sub.Envelope, string(sub.Prefix), string(body), sub.Answers, sub.Mark}
	return nil
}

func openQueue(t testing.TB) *queue.Queue {
	t.Helper()
	q, err := queue.Open(queue.Options{Dir: t.TempDir(), MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

// bodies makes IDs and bodies for all shelves: opening a store takes time.
var bodies *queue.Queue

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "intake")
		if err != nil {
			log.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if bodies, err = queue.Open(queue.Options{Dir: dir, MinFree: 1}); err != nil {
			log.Fatal(err)
		}
		defer bodies.Close()
		return m.Run()
	}())
}

func newShelf(testing.TB) *shelf { return &shelf{Queue: bodies} }

func newReceiver(t testing.TB, q intake.Queue, change func(*intake.Options)) *intake.Receiver {
	t.Helper()
	opts := intake.Options{Queue: q, Hostname: "mx.home.test"}
	if change != nil {
		change(&opts)
	}
	r, err := intake.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func meta(to ...string) intake.Meta {
	env := &queue.Envelope{Sender: "ann@a.test", Origin: queue.Origin{Via: "smtp"}}
	for _, a := range to {
		env.Recipients = append(env.Recipients, queue.Recipient{Address: a})
	}
	if len(to) == 0 {
		env.Recipients = []queue.Recipient{{Address: "bob@b.test"}}
	}
	return intake.Meta{Envelope: env, Protocol: "ESMTP"}
}

// take brings content in, in pieces of the given size (0: at once).
func take(r *intake.Receiver, m intake.Meta, content string, size int) error {
	msg, err := r.Begin(now, m)
	if err != nil {
		return err
	}
	defer msg.Abort()
	if size == 0 {
		size = max(len(content), 1)
	}
	for content != "" {
		n := min(size, len(content))
		if _, err := msg.Write([]byte(content[:n])); err != nil {
			return err
		}
		content = content[n:]
	}
	_, err = msg.Commit(context.Background())
	return err
}

func mustTake(t *testing.T, r *intake.Receiver, m intake.Meta, content string) {
	t.Helper()
	if err := take(r, m, content, 0); err != nil {
		t.Fatal(err)
	}
}

// refusal is the *Error that an error has to be.
func refusal(t *testing.T, err error) *intake.Error {
	t.Helper()
	var e *intake.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v; want an *intake.Error", err)
	}
	return e
}

// split gives header and text of a message in CRLF form.
func split(message string) (header, text string) {
	if strings.HasPrefix(message, "\r\n") {
		return "", message[2:]
	}
	i := strings.Index(message, "\r\n\r\n")
	if i < 0 {
		return message, ""
	}
	return message[:i+2], message[i+4:]
}

// full is a header that lacks nothing.
const full = "From: ann@a.test\r\nDate: Sat, 4 Jul 2026 09:29:59 +0200\r\nMessage-ID: <1@a.test>\r\n"

func readBack(t *testing.T, q *queue.Queue, id queue.ID) string {
	t.Helper()
	c, err := q.OpenMessage(id)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	content := string(c.Head) + string(c.Data)
	if c.File != nil {
		rest, err := io.ReadAll(c.File)
		if err != nil {
			t.Fatal(err)
		}
		content += string(rest)
	}
	return content
}
