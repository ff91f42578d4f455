package queue

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// epoch is when the tests' time begins.
var epoch = time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)

func plenty() diskSpace { return diskSpace{free: 1 << 40, total: 1 << 41} }

// testQueue is a queue on files in memory, with a writer running.
type testQueue struct {
	*Queue
	t    testing.TB
	fs   *vfs.MemFS
	opts Options
	stop func()
}

func testOptions(fs vfs.FS) Options {
	return Options{
		Dir:          "queue",
		Logger:       slog.New(slog.DiscardHandler),
		fs:           fs,
		space:        plenty,
		memTableSize: 1 << 20,
		MinFree:      1,
	}
}

func newTestQueue(t testing.TB, change ...func(*Options)) *testQueue {
	t.Helper()
	fs := vfs.NewCrashableMem()
	q := &testQueue{t: t, fs: fs, opts: testOptions(fs)}
	for _, c := range change {
		c(&q.opts)
	}
	q.start()
	t.Cleanup(func() {
		q.settled()
		q.checked()
		q.stop()
	})
	return q
}

func (q *testQueue) start() {
	q.t.Helper()
	var err error
	if q.Queue, err = Open(q.opts); err != nil {
		q.t.Fatal(err)
	}
	q.chance = func() float64 { return 0.5 } // no jitter
	q.reopenAfter = time.Millisecond
	q.reclaimAfter = time.Millisecond
	q.run()
}

func (q *testQueue) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	inner := q.Queue
	go func() { done <- inner.Run(ctx) }()
	q.stop = func() {
		cancel()
		if err := <-done; err != nil {
			q.t.Errorf("run: %v", err)
		}
		if err := inner.Close(); err != nil {
			q.t.Errorf("close: %v", err)
		}
		q.stop = func() {}
	}
}

// restart closes the queue in order and opens it again.
func (q *testQueue) restart() {
	q.t.Helper()
	q.stop()
	q.start()
}

// crash goes on with what was on stable storage at this moment.
func (q *testQueue) crash() {
	q.t.Helper()
	after := q.fs.CrashClone(vfs.CrashCloneCfg{})
	q.stop()
	q.fs, q.opts.fs = after, after
	q.start()
}

// settled waits until all that was settled is on the disk.
func (q *testQueue) settled() {
	q.t.Helper()
	if err := q.flush(context.Background()); err != nil {
		q.t.Fatal(err)
	}
}

func envelope(q *Queue, now time.Time, to ...string) *Envelope {
	e := &Envelope{
		ID:        q.NewID(now),
		Sender:    "sender@source.test",
		ArrivedAt: now,
		MessageID: "<1@source.test>",
		Origin:    Origin{Via: "smtp", HELO: "client.test"},
	}
	for _, a := range to {
		e.Recipients = append(e.Recipients, Recipient{Address: a, Domain: a[strings.LastIndexByte(a, '@')+1:]})
	}
	return e
}

const (
	testPrefix = "Received: from client.test\r\n"
	testBody   = "Subject: test\r\n\r\nHello.\r\n"
)

func (q *testQueue) submit(e *Envelope, body string) ID {
	q.t.Helper()
	b := q.NewBody()
	defer b.Discard()
	if _, err := io.WriteString(b, body); err != nil {
		q.t.Fatal(err)
	}
	if err := q.Submit(context.Background(), Submission{Envelope: e, Prefix: []byte(testPrefix), Body: b}); err != nil {
		q.t.Fatal(err)
	}
	return e.ID
}

func (q *testQueue) send(now time.Time, to ...string) ID {
	q.t.Helper()
	return q.submit(envelope(q.Queue, now, to...), testBody)
}

// due asks for the domains with work.
func (q *testQueue) due(now time.Time, want ...string) time.Time {
	q.t.Helper()
	got, next := q.Due(now, nil)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		q.t.Fatalf("due at %v: %q, want %q", now.Sub(epoch), got, want)
	}
	return next
}

func (q *testQueue) take(now time.Time, domain string) *Claim {
	q.t.Helper()
	c, ok := q.Take(now, domain, 100)
	if !ok {
		q.t.Fatalf("nothing to take for %s at %v", domain, now.Sub(epoch))
	}
	return c
}

func (q *testQueue) nothing(now time.Time, domain string) {
	q.t.Helper()
	if c, ok := q.Take(now, domain, 100); ok {
		q.t.Fatalf("%s for %v at %v", c.Envelope.ID, c.Recipients, now.Sub(epoch))
	}
}

// settle ends a claim with the same outcome for all.
func settle(c *Claim, now time.Time, o Outcome) {
	all := make([]Outcome, len(c.Recipients))
	for i := range all {
		all[i] = o
	}
	c.Settle(now, all, Timing{})
}

func delivered() Outcome {
	return Outcome{Verdict: Delivered, Stage: StageFinal, Code: 250, Status: "2.0.0", Text: "ok",
		Remote: &Remote{Host: "mx.there.test"}}
}

func deferred() Outcome {
	return Outcome{Verdict: Deferred, Stage: StageRCPT, Code: 451, Status: "4.7.1", Text: "greylisted",
		Remote: &Remote{Host: "mx.there.test"}}
}

func failed() Outcome {
	return Outcome{Verdict: Failed, Stage: StageRCPT, Code: 550, Status: "5.1.1", Text: "no such user",
		Remote: &Remote{Host: "mx.there.test"}}
}

func readAll(t testing.TB, c *Content, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var b bytes.Buffer
	b.Write(c.Head)
	b.Write(c.Data)
	if c.File != nil {
		if _, err := io.Copy(&b, c.File); err != nil {
			t.Fatal(err)
		}
	}
	if int64(b.Len()) != c.Size {
		t.Fatalf("content has %d octets, says %d", b.Len(), c.Size)
	}
	return b.String()
}

// keys lists what is in the store, apart from history and the store's own.
func (q *testQueue) keys() []string {
	q.t.Helper()
	var all []string
	for _, kind := range []byte{keyEnvelope, keyBody, keyLargeBody, keyState, keyNotice, keyMark, keyDamaged} {
		lower, upper := keysOf(kind)
		if err := q.store.Scan(lower, upper, func(key, _ []byte) error {
			all = append(all, fmt.Sprintf("%c", key[0]))
			return nil
		}); err != nil {
			q.t.Fatal(err)
		}
	}
	return all
}

func (q *testQueue) wantKeys(want string) {
	q.t.Helper()
	if got := strings.Join(q.keys(), ""); got != want {
		q.t.Fatalf("keys %q, want %q", got, want)
	}
}

func TestDeliverAtOnce(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	id := q.send(epoch, "a@there.test")
	select {
	case <-q.Changed():
	default:
		t.Fatal("new mail does not wake anybody")
	}
	q.due(epoch, "there.test")
	c := q.take(epoch, "there.test")
	if c.Envelope.ID != id || len(c.Recipients) != 1 || c.Attempts != 0 || !c.DueAt.Equal(epoch) {
		t.Fatalf("claim %+v", c)
	}
	content, err := c.Content()
	if got := readAll(t, content, err); got != testPrefix+testBody {
		t.Fatalf("content %q", got)
	}
	q.due(epoch)
	q.nothing(epoch, "there.test")
	settle(c, epoch.Add(time.Second), delivered())
	q.settled()
	q.wantKeys("")
	if d := q.Depth(epoch); d != (Depth{}) {
		t.Fatalf("depth %+v", d)
	}
}

func TestDeferredIsTriedAgain(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]func(*testQueue){
		"same process": func(q *testQueue) { q.settled() },
		"restart":      (*testQueue).restart,
		"crash":        func(q *testQueue) { q.settled(); q.crash() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newTestQueue(t)
			id := q.send(epoch, "a@there.test", "b@there.test", "c@other.test")
			q.due(epoch, "other.test", "there.test")
			c := q.take(epoch, "there.test")
			c.Settle(epoch, []Outcome{delivered(), deferred()}, Timing{})
			again(q)
			at := epoch.Add(5 * time.Minute)
			q.Due(at.Add(-time.Second), nil)
			q.nothing(at.Add(-time.Second), "there.test")
			c = q.take(at, "there.test")
			if len(c.Recipients) != 1 || c.Recipients[0].Address != "b@there.test" || c.Attempts != 1 {
				t.Fatalf("claim %+v", c)
			}
			content, err := c.Content()
			if got := readAll(t, content, err); got != testPrefix+testBody {
				t.Fatalf("content %q", got)
			}
			settle(c, at, delivered())
			settle(q.take(at, "other.test"), at, delivered())
			q.settled()
			q.wantKeys("")
			events, err := q.History(id)
			if err != nil {
				t.Fatal(err)
			}
			var kinds []EventKind
			for _, e := range events {
				kinds = append(kinds, e.Kind)
			}
			want := []EventKind{EventAccepted, EventDelivered, EventDeferred, EventDelivered, EventDelivered}
			if !slices.Equal(kinds, want) {
				t.Fatalf("history %v, want %v", kinds, want)
			}
			if e := events[2]; e.Recipient != "b@there.test" || e.Outcome.Text != "greylisted" ||
				e.Outcome.Remote.Host != "mx.there.test" || e.Attempt != 1 || !e.Next.Equal(at) {
				t.Fatalf("deferral %+v", e)
			}
		})
	}
}

func TestClaimLostInCrashIsDueAgain(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	id := q.send(epoch, "a@there.test")
	q.take(epoch, "there.test")
	q.crash()
	q.due(epoch, "there.test")
	if c := q.take(epoch, "there.test"); c.Envelope.ID != id {
		t.Fatalf("claim of %s, want %s", c.Envelope.ID, id)
	}
}

func TestFailureOwesNotice(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	id := q.send(epoch, "a@there.test", "b@other.test")
	q.due(epoch, "other.test", "there.test")
	settle(q.take(epoch, "there.test"), epoch, failed())
	q.settled()
	b, next := q.DueNotices(epoch)
	if b != nil || !next.Equal(epoch.Add(5*time.Minute)) {
		t.Fatalf("notices while another domain is due: %+v, %v", b, next)
	}
	settle(q.take(epoch, "other.test"), epoch, failed())
	q.settled()
	q.restart()
	b, _ = q.DueNotices(epoch)
	if b == nil || len(b.Notices) != 2 || b.Envelope.ID != id || b.Notices[0].Outcome.Text != "no such user" ||
		b.Notices[1].Recipient.Address != "b@other.test" || b.Notices[0].Kind != NoticeFailure {
		t.Fatalf("notices %+v", b)
	}
	if again, _ := q.DueNotices(epoch); again != nil {
		t.Fatal("the same notices twice")
	}
	content, err := q.OpenMessage(id)
	if got := readAll(t, content, err); got != testPrefix+testBody {
		t.Fatalf("content %q", got)
	}
	report := envelope(q.Queue, epoch, "sender@source.test")
	report.Sender = ""
	body := q.NewBody()
	io.WriteString(body, "Subject: failed\r\n\r\n")
	if err := q.Submit(context.Background(), Submission{Envelope: report, Body: body, Answers: b}); err != nil {
		t.Fatal(err)
	}
	q.settled()
	q.wantKeys("em")
	q.due(epoch, "source.test")
	settle(q.take(epoch, "source.test"), epoch, failed())
	q.settled()
	q.wantKeys("") // a null sender gets no report
	if b, _ := q.DueNotices(epoch.Add(time.Hour)); b != nil {
		t.Fatalf("notices %+v", b)
	}
}

func TestLargeBodyIsFile(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	body := "Subject: large\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 20000)
	e := envelope(q.Queue, epoch, "a@there.test")
	q.submit(e, body)
	q.wantKeys("eM")
	q.crash()
	c := q.take(epoch, "there.test")
	content, err := c.Content()
	if got := readAll(t, content, err); got != testPrefix+body {
		t.Fatalf("content has %d octets", len(got))
	}
	if _, name := q.bodyFile(e.ID); true {
		if _, err := q.fs.Stat(name); err != nil {
			t.Fatal(err)
		}
		settle(c, epoch, delivered())
		q.restart()
		if _, err := q.fs.Stat(name); err == nil {
			t.Fatal("the file of a delivered message is still there")
		}
	}
	q.wantKeys("")
}
