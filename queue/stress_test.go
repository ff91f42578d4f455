package queue

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestAllAtOnce has everybody use the queue at the same time: clients,
// workers, the reporter, operators, the page, the checker. In the end every
// recipient has got exactly one final state, and nothing is left.
func TestAllAtOnce(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t, func(o *Options) {
		o.BodyMemory = 30_000
		o.memTableSize = 4 << 20
		o.Schedule = func(string) *Schedule {
			return &Schedule{Retry: []time.Duration{time.Millisecond}, ExpireAfter: time.Hour}
		}
	})
	const clients, messages = 4, 150
	var (
		ctx, cancel = context.WithCancel(t.Context())
		submitting  sync.WaitGroup
		others      sync.WaitGroup
		ended       sync.Map // "id recipient": how often
		submitted   atomic.Int64
	)
	count := func(id ID, r string) {
		if _, twice := ended.LoadOrStore(id.String()+r, true); twice {
			t.Errorf("%s for %s ended twice", id, r)
		}
	}
	for c := range clients {
		submitting.Go(func() {
			for i := range messages {
				to := []string{"a@x.test", "b@x.test", "c@y.test", "d@z" + strconv.Itoa(i%7) + ".test"}[:1+(c+i)%4]
				e := envelope(q.Queue, time.Now(), to...)
				body := q.NewBody()
				size := 3000
				if i%40 == 0 {
					size = smallBody + 5000
				}
				body.Write(make([]byte, size))
				if err := q.Submit(ctx, Submission{Envelope: e, Body: body}); err != nil {
					t.Error(err)
				}
				submitted.Add(int64(len(to)))
			}
		})
	}
	work := make(chan string, 1000)
	others.Go(func() { // the dispatcher
		for ctx.Err() == nil {
			domains, _ := q.Due(time.Now(), nil)
			for _, d := range domains {
				work <- d
			}
			q.Sweep(time.Now())
			select {
			case <-q.Changed():
			case <-time.After(time.Millisecond):
			}
		}
		close(work)
	})
	for range 6 {
		others.Go(func() {
			for d := range work {
				for {
					c, ok := q.Take(time.Now(), d, 1+rand.IntN(3))
					if !ok {
						break
					}
					content, err := c.Content()
					if err != nil {
						t.Error(err)
						c.Release(time.Now())
						continue
					}
					if n, err := io.Copy(io.Discard, contentReader(content)); err != nil || n != content.Size {
						t.Errorf("content of %d octets: %d read (%v)", content.Size, n, err)
					}
					content.Close()
					outcomes := make([]Outcome, len(c.Recipients))
					for i := range outcomes {
						outcomes[i] = []Outcome{delivered(), delivered(), deferred(), failed(), {}}[rand.IntN(5)]
						if o := &outcomes[i]; o.Verdict == Delivered || o.Verdict == Failed {
							count(c.Envelope.ID, c.Recipients[i].Address)
						} else {
							o.RetryAfter = 0
						}
					}
					c.Settle(time.Now(), outcomes, Timing{})
				}
			}
		})
	}
	others.Go(func() { // the reporter
		for ctx.Err() == nil {
			b, _ := q.DueNotices(time.Now())
			if b == nil {
				time.Sleep(time.Millisecond)
				continue
			}
			content, err := q.OpenMessage(b.Envelope.ID)
			if err != nil {
				t.Errorf("report: %v", err)
			} else {
				content.Close()
			}
			if rand.IntN(2) == 0 {
				err = q.Dismiss(b, time.Now())
			} else {
				e := envelope(q.Queue, time.Now(), "sender@source.test")
				e.Sender = ""
				err = q.Submit(context.Background(), Submission{Envelope: e, Body: q.NewBody(), Answers: b})
				submitted.Add(1)
			}
			if err != nil {
				t.Errorf("report: %v", err)
			}
		}
	})
	others.Go(func() { // the operator
		for i := 0; ctx.Err() == nil; i++ {
			s := Selector{Domain: []string{"x.test", "y.test", "*.test"}[i%3]}
			for _, act := range []func(context.Context, time.Time, Selector, string) (int, error){q.Hold, q.Retry, q.Unhold} {
				if _, err := act(context.Background(), time.Now(), s, "x"); err != nil {
					t.Error(err)
				}
			}
			if err := q.Suspend(context.Background(), time.Now(), Suspension{Domain: "x.test"}); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Millisecond)
			if _, err := q.Resume(context.Background(), time.Now(), Suspension{}); err != nil {
				t.Error(err)
			}
		}
		if _, err := q.Unhold(context.Background(), time.Now(), Selector{}, "end"); err != nil {
			t.Error(err)
		}
	})
	others.Go(func() { // those who look
		for ctx.Err() == nil {
			list, err := q.List(context.Background(), time.Now(), Selector{}, ID{}, 20)
			if err != nil {
				t.Error(err)
			}
			for _, m := range list {
				if _, err := q.History(m.Envelope.ID); err != nil {
					t.Errorf("history of %s: %v", m.Envelope.ID, err)
				}
			}
			q.Depth(time.Now())
			q.Domains(time.Now(), 3)
			if report, err := q.Check(context.Background()); err != nil || len(report.Problems) > 0 {
				t.Errorf("check: %v %v", report.Problems, err)
			}
		}
	})
	submitting.Wait()
	deadline := time.Now().Add(60 * time.Second)
	for q.busy() {
		if time.Now().After(deadline) {
			t.Errorf("stuck: %+v", q.Depth(time.Now()))
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	others.Wait()
	var n int64
	ended.Range(func(any, any) bool { n++; return true })
	if n != submitted.Load() {
		t.Errorf("%d recipients ended of %d", n, submitted.Load())
	}
	q.settled()
	q.wantKeys("")
	if _, err := q.Message(ID{1}); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// busy reports whether anything is left to do.
func (q *testQueue) busy() bool {
	d := q.Depth(time.Now())
	return d.Messages > 0 || d.UnreportedNotices > 0
}
