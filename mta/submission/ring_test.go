package submission_test

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"postrider/mta/intake"
	"postrider/mta/rehearsal"
	"postrider/mta/submission"
	"postrider/queue"
)

// ring is a server before the real intake and the real queue.
func ring(tb testing.TB) (addr string, q *queue.Queue) {
	tb.Helper()
	q, err := queue.Open(queue.Options{Dir: tb.TempDir(), MinFree: 1})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Error(err)
		}
		if err := q.Close(); err != nil {
			tb.Error(err)
		}
	})
	in, err := intake.New(intake.Options{Queue: q, Hostname: "mail.sender.test", LocalMailTo: "ops@admin.test"})
	if err != nil {
		tb.Fatal(err)
	}
	addr, _ = start(tb, submission.Options{Intake: submission.ToReceiver(in)}, submission.Policy{TrustedNetworks: loopback()}, "")
	return addr, q
}

// A message of go-smtp's client is on disk when it hears 250, as it was sent.
func TestIntoTheQueue(t *testing.T) {
	t.Parallel()
	addr, q := ring(t)
	c, err := gosmtp.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Mail("a@sender.test", &gosmtp.MailOptions{EnvelopeID: "x=1"}); err != nil {
		t.Fatal(err)
	}
	for _, rcpt := range []string{"b@One.test", "root", "c@two.test"} {
		if err := c.Rcpt(rcpt, nil); err != nil {
			t.Fatal(err)
		}
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	// A stray LF, a line that begins with a dot, and no end of the last line.
	const content = "From: a@sender.test\r\nSubject: x\r\n\r\none\n.two\r\nthree"
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	response, err := w.CloseWithResponse()
	if err != nil {
		t.Fatal(err)
	}
	id, err := queue.ParseID(strings.TrimSuffix(strings.TrimPrefix(response.StatusText, "2.0.0 "), " queued"))
	if err != nil {
		t.Fatalf("reply %q: %v", response.StatusText, err)
	}
	m, err := q.Message(id)
	if err != nil {
		t.Fatal(err)
	}
	var rcpts []string
	for _, r := range m.Envelope.Recipients {
		rcpts = append(rcpts, r.Address+" at "+r.Domain)
	}
	if got := strings.Join(rcpts, ", "); got != "b@One.test at one.test, ops@admin.test at admin.test, c@two.test at two.test" {
		t.Errorf("recipients %s", got)
	}
	if m.Envelope.EnvID != "x=1" || m.Envelope.Origin.Via != "smtp" || m.Envelope.Origin.HELO != "localhost" {
		t.Errorf("%+v", m.Envelope)
	}
	stored, err := q.OpenMessage(id)
	if err != nil {
		t.Fatal(err)
	}
	defer stored.Close()
	text := string(stored.Head) + string(stored.Data)
	if !strings.HasSuffix(text, "\r\n\r\none\r\n.two\r\nthree\r\n") || strings.Contains(strings.ReplaceAll(text, "\r\n", ""), "\n") {
		t.Errorf("stored %q", text)
	}
	if !strings.Contains(text, "by mail.sender.test with ESMTP id "+id.String()) {
		t.Errorf("no trace: %q", text)
	}
}

// Whatever way a client sends, each message is queued once.
func TestLoadIntoTheQueue(t *testing.T) {
	t.Parallel()
	for _, way := range []rehearsal.Way{rehearsal.WayPipelined, rehearsal.WayChunked, rehearsal.WayOverlapped, rehearsal.WaySequential} {
		t.Run(way.String(), func(t *testing.T) {
			t.Parallel()
			addr, q := ring(t)
			load, err := rehearsal.NewLoad(rehearsal.LoadOptions{Target: addr, Messages: 200, Recipients: 2, Domains: 7, Way: way})
			if err != nil {
				t.Fatal(err)
			}
			r, err := load.Run(t.Context())
			if err != nil || r.Accepted != 200 {
				t.Fatalf("%+v, %v", r, err)
			}
			if d := q.Depth(time.Now()); d.Messages != 200 || d.Recipients != 400 {
				t.Errorf("%+v", d)
			}
		})
	}
}

// BenchmarkAccept is the way in, from the socket to stable storage, with 20
// sessions and the load generator in the same process.
func BenchmarkAccept(b *testing.B) {
	addr, _ := ring(b)
	load, err := rehearsal.NewLoad(rehearsal.LoadOptions{Target: addr, Messages: int64(b.N)})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	r, err := load.Run(b.Context())
	if err != nil || r.Accepted != int64(b.N) {
		b.Fatalf("%+v, %v", r, err)
	}
	b.ReportMetric(r.PerSecond(), "messages/s")
	b.ReportMetric(float64(r.CPU.Microseconds())/float64(b.N), "cpu-us/op")
	b.ReportMetric(float64(r.Wait.P99.Microseconds()), "p99-us")
}

// BenchmarkSession is what submission itself adds to a message: an intake that
// takes everything stands behind it.
func BenchmarkSession(b *testing.B) {
	addr, _ := start(b, submission.Options{Intake: bin{}}, submission.Policy{TrustedNetworks: loopback()}, "")
	load, err := rehearsal.NewLoad(rehearsal.LoadOptions{Target: addr, Messages: int64(b.N)})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	if r, err := load.Run(b.Context()); err != nil || r.Accepted != int64(b.N) {
		b.Fatalf("%+v, %v", r, err)
	}
}

// bin is an intake that forgets at once.
type bin struct{}

func (bin) CheckRecipient(string) error { return nil }
func (bin) Begin(time.Time, intake.Meta) (submission.Message, error) {
	return bin{}, nil
}
func (bin) Write(p []byte) (int, error)              { return len(p), nil }
func (bin) Commit(context.Context) (queue.ID, error) { return shelfID, nil }
func (bin) Abort()                                   {}
