package dispatch

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postrider/mta/delivery"
	"postrider/queue"
)

// endless is a queue that has the same message for every domain, n times.
type endless struct {
	domains  []string
	left     atomic.Int64
	settled  chan struct{} // closed after the last one
	ended    atomic.Int64
	total    int64
	envelope *queue.Envelope
	changes  chan struct{}
	once     sync.Once
}

func newEndless(domains, n int) *endless {
	e := &endless{settled: make(chan struct{}), changes: make(chan struct{}, 1), total: int64(n)}
	e.left.Store(int64(n))
	for i := range domains {
		e.domains = append(e.domains, fmt.Sprintf("d%d.test", i))
	}
	e.envelope = &queue.Envelope{Sender: "s@from.test", ArrivedAt: time.Now(), Recipients: []queue.Recipient{{Address: "r@d0.test", Domain: "d0.test"}}}
	return e
}

func (e *endless) Due(_ time.Time, buf []string) (domains []string, next time.Time) {
	e.once.Do(func() { domains = append(buf, e.domains...) })
	return domains, next
}
func (e *endless) Changed() <-chan struct{}         { return e.changes }
func (e *endless) Sweep(time.Time) (next time.Time) { return next }
func (e *endless) Take(now time.Time, _ string, _ int) (Claim, bool) {
	if e.left.Add(-1) < 0 {
		return Claim{}, false
	}
	return Claim{Envelope: e.envelope, Recipients: e.envelope.Recipients, DueAt: now, Handle: (*endlessHandle)(e)}, true
}

type endlessHandle endless

func (h *endlessHandle) Content() (*queue.Content, error) { panic("not opened here") }
func (h *endlessHandle) Release(time.Time)                { panic("nothing is untried here") }
func (h *endlessHandle) Postpone(_, _ time.Time, _ bool)  { panic("nobody has a rate here") }
func (h *endlessHandle) Settle(time.Time, []queue.Outcome, queue.Timing) {
	if h.ended.Add(1) == h.total {
		close(h.settled)
	}
}

// instant delivers everything at once.
type instant struct{ remote *queue.Remote }

func (i instant) Deliver(_ context.Context, _ *delivery.Plan, first *delivery.Attempt, work delivery.Work) {
	for a, ok := first, true; ok; a, ok = work.Next() {
		now := time.Now()
		r := delivery.Report{Site: delivery.SiteAlive, StartedAt: now, EndedAt: now, Outcomes: make([]queue.Outcome, len(a.Recipients))}
		for n := range r.Outcomes {
			r.Outcomes[n] = queue.Outcome{Verdict: queue.Delivered, Code: 250, Status: "2.0.0", Text: "2.0.0 ok", Remote: i.remote}
		}
		work.Done(a, &r)
	}
}
func (instant) Close() {}

// BenchmarkDispatch is claim to settle, without queue and network.
func BenchmarkDispatch(b *testing.B) {
	text := slog.New(slog.NewTextHandler(io.Discard, nil))
	for _, bb := range []struct {
		name    string
		domains int
		log     *slog.Logger
	}{
		{"1 domain", 1, nil},
		{"100 domains", 100, nil},
		{"10000 domains", 10_000, nil},
		{"100 domains, logged", 100, text},
	} {
		b.Run(bb.name, func(b *testing.B) {
			source := newEndless(bb.domains, b.N)
			d := New(Options{Source: source, Planner: &fakePlanner{}, Logger: bb.log, Deliverer: instant{&queue.Remote{Host: "mx.d0.test"}}})
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			ended := make(chan struct{})
			b.ReportAllocs()
			b.ResetTimer()
			go func() { d.Run(ctx); close(ended) }()
			<-source.settled
			b.StopTimer()
			cancel()
			<-ended
		})
	}
}

// BenchmarkLoneMessages is the whole way of messages that come one by one to
// idle lanes: loop, worker, claim, and the answer that there is nothing more.
func BenchmarkLoneMessages(b *testing.B) {
	q := &lone{changes: make(chan struct{}, 1), settled: make(chan struct{}, 1)}
	d := New(Options{Source: q, Planner: &fakePlanner{}, Deliverer: instant{&queue.Remote{Host: "mx.d0.test"}}})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan struct{})
	go func() { d.Run(ctx); close(ended) }()
	b.ReportAllocs()
	for b.Loop() {
		q.due.Store(true)
		q.mail.Store(true)
		q.changes <- struct{}{}
		<-q.settled
	}
	cancel()
	<-ended
}

type lone struct {
	due, mail atomic.Bool
	changes   chan struct{}
	settled   chan struct{}
}

var loneEnvelope = &queue.Envelope{Recipients: []queue.Recipient{{Address: "r@d0.test", Domain: "d0.test"}}}

func (q *lone) Due(_ time.Time, buf []string) (domains []string, next time.Time) {
	if q.due.Swap(false) {
		buf = append(buf, "d0.test")
	}
	return buf, next
}
func (q *lone) Changed() <-chan struct{}         { return q.changes }
func (q *lone) Sweep(time.Time) (next time.Time) { return next }
func (q *lone) Take(now time.Time, _ string, _ int) (Claim, bool) {
	if !q.mail.Swap(false) {
		return Claim{}, false
	}
	return Claim{Envelope: loneEnvelope, Recipients: loneEnvelope.Recipients, DueAt: now, Handle: (*loneHandle)(q)}, true
}

type loneHandle lone

func (h *loneHandle) Content() (*queue.Content, error)                { panic("not opened here") }
func (h *loneHandle) Release(time.Time)                               { panic("nothing is untried here") }
func (h *loneHandle) Postpone(_, _ time.Time, _ bool)                 { panic("nobody has a rate here") }
func (h *loneHandle) Settle(time.Time, []queue.Outcome, queue.Timing) { h.settled <- struct{}{} }
