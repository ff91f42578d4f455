package bounce_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postrider/mta/bounce"
	"postrider/mta/intake"
	"postrider/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const message = "From: ann@a.test\r\nTo: bob@b.test\r\nSubject: x\r\nMessage-ID: <1@a.test>\r\n\r\ntext\r\n"

// ring is a queue, an intake and a reporter, all real.
type ring struct {
	t        *testing.T
	q        *queue.Queue
	receiver *intake.Receiver
	reporter *bounce.Reporter
	told     chan told
	stop     func()
}

type told struct {
	n   int
	why bounce.Drop // empty: reported
}

func (r *ring) Reported(n int)                 { r.told <- told{n: n} }
func (r *ring) Dropped(n int, why bounce.Drop) { r.told <- told{n, why} }

func newRing(t *testing.T, change func(*bounce.Options, *intake.Options)) *ring {
	t.Helper()
	return newRingIn(t, t.TempDir(), change)
}

func newRingIn(t *testing.T, dir string, change func(*bounce.Options, *intake.Options)) *ring {
	t.Helper()
	q, err := queue.Open(queue.Options{Dir: dir, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	r := &ring{t: t, q: q, told: make(chan told, 10_000)}
	in := intake.Options{Queue: q, Hostname: "mx.home.test"}
	out := bounce.Options{Queue: q, Hostname: "mx.home.test", Observer: r}
	if change != nil {
		change(&out, &in)
	}
	if r.receiver, err = intake.New(in); err != nil {
		t.Fatal(err)
	}
	if out.Intake == nil {
		out.Intake = bounce.ToReceiver(r.receiver)
	}
	if r.reporter, err = bounce.New(out); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	queueCtx, cancelQueue := context.WithCancel(context.Background())
	var wg, queueDone sync.WaitGroup
	queueDone.Go(func() { q.Run(queueCtx) })
	wg.Go(func() { r.reporter.Run(ctx) })
	r.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		cancelQueue()
		queueDone.Wait()
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *ring) send(env *queue.Envelope, content string) queue.ID {
	r.t.Helper()
	msg, err := r.receiver.Begin(time.Now(), intake.Meta{Envelope: env, Protocol: "ESMTP"})
	if err != nil {
		r.t.Fatal(err)
	}
	defer msg.Abort()
	if _, err := io.WriteString(msg, content); err != nil {
		r.t.Fatal(err)
	}
	id, err := msg.Commit(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// settle takes the claim on a domain, and ends it with outcomes made by f.
func (r *ring) settle(domain string, f func(queue.Recipient) queue.Outcome) {
	r.t.Helper()
	c, ok := r.q.Take(time.Now(), domain, 100)
	if !ok {
		r.t.Fatalf("no claim on %s", domain)
	}
	var outcomes []queue.Outcome
	for _, rcpt := range c.Recipients {
		outcomes = append(outcomes, f(rcpt))
	}
	c.Settle(time.Now(), outcomes, queue.Timing{})
}

func failed(queue.Recipient) queue.Outcome {
	return queue.Outcome{
		Verdict: queue.Failed, Stage: queue.StageRCPT, Code: 550, Status: "5.1.1", Text: "user unknown",
		Remote: &queue.Remote{Host: "mx.b.test", IP: netip.MustParseAddr("192.0.2.1")},
	}
}

func (r *ring) next() told {
	r.t.Helper()
	select {
	case x := <-r.told:
		return x
	case <-time.After(30 * time.Second):
		r.t.Fatal("nothing was reported or dropped")
	}
	panic("unreachable")
}

// report gives the report that waits for a domain.
func (r *ring) report(domain string) (*queue.Envelope, string) {
	r.t.Helper()
	c, ok := r.q.Take(time.Now(), domain, 100)
	if !ok {
		r.t.Fatalf("no report for %s", domain)
	}
	defer c.Release(time.Now())
	content, err := c.Content()
	if err != nil {
		r.t.Fatal(err)
	}
	defer content.Close()
	text := string(content.Head) + string(content.Data)
	if content.File != nil {
		rest, err := io.ReadAll(content.File)
		if err != nil {
			r.t.Fatal(err)
		}
		text += string(rest)
	}
	return c.Envelope, text
}

func to(addresses ...string) *queue.Envelope {
	env := &queue.Envelope{Sender: "ann@a.test", Origin: queue.Origin{Via: "smtp"}}
	for _, a := range addresses {
		env.Recipients = append(env.Recipients, queue.Recipient{Address: a})
	}
	return env
}

func TestFailureIsReported(t *testing.T) {
	t.Parallel()
	r := newRing(t, nil)
	env := to("bob@b.test")
	env.EnvID, env.Recipients[0].ORcpt = "e7", "rfc822;bob@old.test"
	id := r.send(env, message)
	r.settle("b.test", failed)
	if got := r.next(); got != (told{n: 1}) {
		t.Fatalf("got %+v", got)
	}
	report, text := r.report("a.test")
	if report.Sender != "" || report.Recipients[0].Address != "ann@a.test" || report.Origin.Via != "bounce" || report.MessageID != "<"+report.ID.String()+"@mx.home.test>" {
		t.Errorf("envelope %+v", report)
	}
	for _, want := range []string{
		"From: Mail Delivery System <MAILER-DAEMON@mx.home.test>\r\n", "To: <ann@a.test>\r\n", "Auto-Submitted: auto-replied\r\n", "In-Reply-To: <1@a.test>\r\n",
		"Final-Recipient: rfc822; bob@b.test\r\n", "Original-Recipient: rfc822;bob@old.test\r\n", "Action: failed\r\n", "Status: 5.1.1\r\n",
		"Original-Envelope-Id: e7\r\n", "Remote-MTA: dns; mx.b.test\r\n", "Diagnostic-Code: smtp; 550 5.1.1 user unknown\r\n", "Final-Log-ID: " + id.String() + "\r\n",
		"Content-Type: message/rfc822\r\n\r\nReceived: by mx.home.test with ESMTP id " + id.String(), "\r\n\r\ntext\r\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.HasPrefix(text, "Received:") {
		t.Error("our own report has a trace field")
	}
	if d := r.q.Depth(time.Now()); d.Messages != 1 || d.UnreportedNotices != 0 {
		t.Errorf("the queue holds %+v", d)
	}
	events, err := r.q.History(id)
	if err != nil || events[len(events)-1].Kind != queue.EventReported || events[len(events)-1].Text != report.ID.String() {
		t.Errorf("history %+v, %v", events, err)
	}
}

func TestOneReportForAMessage(t *testing.T) {
	t.Parallel()
	r := newRing(t, nil)
	r.send(to("bob@b.test", "carl@b.test", "dora@b.test"), message)
	r.settle("b.test", func(rcpt queue.Recipient) queue.Outcome {
		o := failed(rcpt)
		if rcpt.Address == "carl@b.test" {
			o = queue.Outcome{Verdict: queue.Delivered, Code: 250, Status: "2.0.0"}
		}
		return o
	})
	if got := r.next(); got != (told{n: 2}) {
		t.Fatalf("got %+v", got)
	}
	_, text := r.report("a.test")
	if strings.Contains(text, "Final-Recipient: rfc822; carl@b.test") || strings.Count(text, "Final-Recipient") != 2 {
		t.Errorf("got\n%s", text)
	}
}

func TestNothingIsOwed(t *testing.T) {
	t.Parallel()
	r := newRing(t, nil)
	env := to("bob@b.test")
	env.Sender = ""
	r.send(env, message)
	env = to("bob@b.test")
	env.Recipients[0].Notify = queue.NotifyNever
	r.send(env, message)
	r.settle("b.test", failed)
	r.settle("b.test", failed)
	r.send(to("carl@c.test"), message) // this one is reported, behind the others
	r.settle("c.test", failed)
	if got := r.next(); got != (told{n: 1}) {
		t.Fatalf("got %+v", got)
	}
	if d := r.q.Depth(time.Now()); d.Messages != 1 {
		t.Errorf("the queue holds %+v", d)
	}
}

func TestSuccessAndHeadersOnly(t *testing.T) {
	t.Parallel()
	r := newRing(t, nil)
	env := to("bob@b.test")
	env.Recipients[0].Notify = queue.NotifySuccess
	env.Ret = queue.RetFull // not for successes
	r.send(env, message)
	r.settle("b.test", func(queue.Recipient) queue.Outcome {
		return queue.Outcome{Verdict: queue.Delivered, Code: 250, Status: "2.0.0", Text: "ok", Remote: &queue.Remote{Host: "mx.b.test"}}
	})
	r.next()
	_, text := r.report("a.test")
	if !strings.Contains(text, "Action: relayed\r\n") || !strings.Contains(text, "Content-Type: text/rfc822-headers\r\n") || strings.Contains(text, "\r\ntext\r\n") {
		t.Errorf("got\n%s", text)
	}
}

func TestWhatIsReturned(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*queue.Envelope)
		size   int
		whole  bool
	}{
		{name: "by default", size: 100, whole: true},
		{name: "RET=FULL", change: func(e *queue.Envelope) { e.Ret = queue.RetFull }, size: 100, whole: true},
		{name: "RET=HDRS", change: func(e *queue.Envelope) { e.Ret = queue.RetHeaders }, size: 100},
		{name: "REQUIRETLS", change: func(e *queue.Envelope) { e.RequireTLS = true }, size: 100},
		{name: "just under the limit", size: 49_000, whole: true},
		{name: "over the limit", change: func(e *queue.Envelope) { e.Ret = queue.RetFull }, size: 51_000},
		{name: "in a file", size: 300_000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRing(t, nil)
			env := to("bob@b.test")
			if tt.change != nil {
				tt.change(env)
			}
			r.send(env, message+strings.Repeat("0123456789abcd\r\n", tt.size/16)+"the end\r\n")
			r.settle("b.test", failed)
			if got := r.next(); got != (told{n: 1}) {
				t.Fatalf("got %+v", got)
			}
			report, text := r.report("a.test")
			if whole := strings.Contains(text, "\r\nthe end\r\n"); whole != tt.whole || whole != strings.Contains(text, "Content-Type: message/rfc822\r\n") {
				t.Errorf("whole: %t; want %t", whole, tt.whole)
			}
			if !strings.Contains(text, "\r\nSubject: x\r\n") || len(text) > 55_000 {
				t.Errorf("a report of %d octets", len(text))
			}
			if report.RequireTLS != env.RequireTLS {
				t.Errorf("REQUIRETLS is %t", report.RequireTLS)
			}
		})
	}
}

// TestLocalSender: cron's sender is root at this host.
func TestLocalSender(t *testing.T) {
	t.Parallel()
	r := newRing(t, func(_ *bounce.Options, in *intake.Options) { in.LocalMailTo = "admin@office.test" })
	env := to("bob@b.test")
	env.Sender = "root"
	r.send(env, message)
	r.settle("b.test", failed)
	if got := r.next(); got != (told{n: 1}) {
		t.Fatalf("got %+v", got)
	}
	if report, _ := r.report("office.test"); report.Recipients[0].Address != "admin@office.test" {
		t.Errorf("the report went to %+v", report.Recipients)
	}
}

func TestDoubleBounce(t *testing.T) {
	t.Parallel()
	r := newRing(t, nil) // nobody takes local mail
	env := to("bob@b.test")
	env.Sender = "root"
	r.send(env, message)
	r.settle("b.test", failed)
	if got := r.next(); got != (told{1, bounce.DoubleBounce}) {
		t.Fatalf("got %+v", got)
	}
	if d := r.q.Depth(time.Now()); d.Messages != 0 || d.UnreportedNotices != 0 {
		t.Errorf("the queue holds %+v", d)
	}
}

func TestReportsAreNotReported(t *testing.T) {
	t.Parallel()
	r := newRing(t, nil)
	r.send(to("bob@b.test"), message)
	r.settle("b.test", failed)
	r.next()
	r.settle("a.test", failed) // the report
	r.send(to("carl@c.test"), message)
	r.settle("c.test", failed)
	r.next()
	if d := r.q.Depth(time.Now()); d.Messages != 1 || len(r.told) != 0 {
		t.Errorf("the queue holds %+v", d)
	}
}

func TestStorm(t *testing.T) {
	t.Parallel()
	r := newRing(t, func(o *bounce.Options, _ *intake.Options) { o.MaxPerHour = 3 })
	for range 10 {
		r.send(to("bob@b.test"), message)
		r.settle("b.test", failed)
	}
	other := to("bob@b.test")
	other.Sender = "eve@e.test"
	r.send(other, message)
	r.settle("b.test", failed)
	counts := make(map[told]int)
	for range 11 {
		counts[r.next()]++
	}
	if counts[told{n: 1}] != 4 || counts[told{1, bounce.Storm}] != 7 {
		t.Errorf("got %v", counts)
	}
	r.report("e.test")
	if d := r.q.Depth(time.Now()); d.Messages != 4 || d.UnreportedNotices != 0 {
		t.Errorf("the queue holds %+v", d)
	}
}

// flaky refuses reports for now, as a full queue does.
type flaky struct {
	bounce.Intake
	refuse func() bool
}

func (f *flaky) Begin(now time.Time, m intake.Meta) (bounce.Message, error) {
	if f.refuse() {
		return nil, &intake.Error{Code: 452, Status: "4.3.1", Text: "no room", Err: queue.ErrFull}
	}
	return f.Intake.Begin(now, m)
}

// returning tells of notices that were given back.
type returning struct {
	bounce.Queue
	back chan *queue.NoticeBatch
}

func (r *returning) Return(b *queue.NoticeBatch, now time.Time) {
	r.Queue.Return(b, now.Add(-time.Hour)) // so that they need not rest
	r.back <- b
}

func TestQueueIsFull(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	tries := 0
	back := make(chan *queue.NoticeBatch, 10)
	f := &flaky{refuse: func() bool {
		mu.Lock()
		defer mu.Unlock()
		tries++
		return tries <= 2
	}}
	r := newRing(t, func(o *bounce.Options, _ *intake.Options) {
		o.Queue = &returning{o.Queue, back}
		o.Intake = f
	})
	f.Intake = bounce.ToReceiver(r.receiver)
	r.send(to("bob@b.test"), message)
	r.settle("b.test", failed)
	<-back
	<-back
	if got := r.next(); got != (told{n: 1}) {
		t.Fatalf("got %+v", got)
	}
	r.report("a.test")
	if d := r.q.Depth(time.Now()); d.Messages != 1 {
		t.Errorf("the queue holds %+v", d)
	}
}

// broken hands out content that cannot be read to its end.
type broken struct{ bounce.Queue }

func (b broken) OpenMessage(queue.ID) (*queue.Content, error) {
	return &queue.Content{Head: []byte("Received: x\r\n"), File: io.MultiReader(strings.NewReader(message), badReader{}), Size: int64(13 + len(message))}, nil
}

type badReader struct{}

func (badReader) Read([]byte) (int, error) { return 0, errors.New("checksum does not match") }

// TestDamagedMessage: the sender is told, without a message that is not his.
func TestDamagedMessage(t *testing.T) {
	t.Parallel()
	r := newRing(t, func(o *bounce.Options, _ *intake.Options) { o.Queue = broken{o.Queue} })
	r.send(to("bob@b.test"), message)
	r.settle("b.test", failed)
	if got := r.next(); got != (told{n: 1}) {
		t.Fatalf("got %+v", got)
	}
	if _, text := r.report("a.test"); !strings.Contains(text, "Action: failed") || strings.Contains(text, "\r\ntext\r\n") {
		t.Errorf("got\n%s", text)
	}
}

// TestRestart: notices that nobody came to report are reported by the next process.
func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRingIn(t, dir, func(o *bounce.Options, _ *intake.Options) { o.Queue = mute{o.Queue} })
	id := r.send(to("bob@b.test"), message)
	r.settle("b.test", failed)
	r.stop()
	r = newRingIn(t, dir, nil)
	if got := r.next(); got != (told{n: 1}) {
		t.Fatalf("got %+v", got)
	}
	if _, text := r.report("a.test"); !strings.Contains(text, "Final-Log-ID: "+id.String()) {
		t.Errorf("got\n%s", text)
	}
	r.stop()
	r = newRingIn(t, dir, nil)
	r.stop()
	if len(r.told) != 0 {
		t.Error("it was reported again")
	}
}

// mute is a queue that has nothing to report.
type mute struct{ bounce.Queue }

func (mute) DueNotices(time.Time) (*queue.NoticeBatch, time.Time) { return nil, time.Time{} }

func TestManySenders(t *testing.T) {
	t.Parallel()
	r := newRing(t, nil)
	const n = 200
	for i := range n {
		env := to(fmt.Sprintf("bob%d@b.test", i))
		env.Sender = fmt.Sprintf("ann%d@a.test", i)
		r.send(env, message)
		r.settle("b.test", failed)
	}
	for range n {
		if got := r.next(); got != (told{n: 1}) {
			t.Fatalf("got %+v", got)
		}
	}
	if d := r.q.Depth(time.Now()); d.Messages != n || d.UnreportedNotices != 0 {
		t.Errorf("the queue holds %+v", d)
	}
}
