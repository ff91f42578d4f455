package dispatch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"postrider/mta/delivery"
	"postrider/queue"
)

// TestNothingIsLostWhateverHappens plays random hosts, DNS failures, limits and
// new mail, in fake time, and looks at the end whether every message found its
// end and every limit was kept.
func TestNothingIsLostWhateverHappens(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			rnd := rand.New(rand.NewPCG(seed, 1))
			chance := func(n int) bool {
				mu.Lock()
				defer mu.Unlock()
				return rnd.IntN(n) == 0
			}
			until := time.Time{}
			wild := func() bool { return time.Now().Before(until) }
			run(t, func(o *Options, w *world) {
				o.Connections = 1 + rnd.IntN(12)
				o.SiteConnections, o.StartConnections = 1+rnd.IntN(6), 1+rnd.IntN(3)
				o.Lookups = 1 + rnd.IntN(4)
				o.Limits = func(domain string) Limits {
					if domain[0] == '3' {
						return Limits{Connections: 1, MessagesPerMinute: 600}
					}
					return Limits{}
				}
				w.deliver.takes = 50 * time.Millisecond
				until = time.Now().Add(20 * time.Minute)
				w.planner.answer = func(ctx context.Context, domain string) (*delivery.Plan, error) {
					if wild() && chance(5) {
						time.Sleep(time.Second)
						return nil, errServfail
					}
					host := "mx." + domain[1:] // ten domains share hosts
					if chance(3) {
						host = domain[:1] + ".l.google.com"
					}
					p := plan(domain, host)
					p.ExpiresAt = time.Now().Add(time.Minute)
					return p, nil
				}
				w.deliver.script = func(_ *delivery.Plan, a *delivery.Attempt) delivery.Report {
					r := delivery.Report{Site: delivery.SiteAlive}
					switch {
					case !wild():
					case chance(10):
						return siteFailed(a)
					case chance(10):
						r.Outcomes = make([]queue.Outcome, len(a.Recipients))
					case chance(10):
						r.Slow = true
						r.Outcomes = all(a, queue.Outcome{Verdict: queue.Deferred, Code: 451, Status: "4.0.0", Text: "slow"})
					case chance(20):
						r.Pause, r.Why = time.Minute, "asked"
					case chance(10):
						r.MaxRecipients = 2
						r.Outcomes = all(a, queue.Outcome{Verdict: queue.Delivered, Code: 250, Status: "2.0.0", Text: "ok"})
						for i := 2; i < len(r.Outcomes); i++ {
							r.Outcomes[i] = queue.Outcome{}
						}
					}
					return r
				}
			}, func(w *world) {
				const messages = 600
				for range messages {
					mu.Lock()
					domain := fmt.Sprintf("%d.%d.test", rnd.IntN(5), rnd.IntN(4))
					n := 1 + rnd.IntN(5)
					wait := time.Duration(rnd.IntN(3000)) * time.Millisecond
					mu.Unlock()
					w.queue.submit(domain, n)
					time.Sleep(wait)
				}
				pass(6 * time.Hour)
				total := 0
				for domain, list := range w.queue.messages {
					for _, m := range list {
						total++
						if !m.final() {
							lane, _ := w.Lane(domain, time.Now())
							t.Fatalf("%s waits for ever: %+v; %+v", domain, lane, w.Figures())
						}
					}
				}
				if total != messages {
					t.Errorf("%d messages", total)
				}
				if most := w.deliver.mostOpen(""); most > w.o.Connections {
					t.Errorf("%d connections, allowed are %d", most, w.o.Connections)
				}
				if f := w.Figures(); f.Lanes != 0 || f.Sites != 0 || f.Connections != 0 {
					t.Errorf("kept when idle: %+v", f)
				}
			})
		})
	}
}
