package dispatch

import (
	"context"
	"fmt"
	"testing"
	"time"

	"postrider/mta/delivery"
	"postrider/queue"
)

// TestDeadDestinationsDoNotSlowHealthyOnes: half of the destinations are dead,
// five times as many as connections and lookups are allowed. The healthy ones are
// served at least 95 % as fast as without the dead.
func TestDeadDestinationsDoNotSlowHealthyOnes(t *testing.T) {
	t.Parallel()
	const destinations, each = 1000, 12
	served := func(t *testing.T, dead int, kind string) (took time.Duration) {
		run(t, func(o *Options, w *world) {
			o.Connections, o.Lookups = 200, 200
			w.deliver.connects = func(p *delivery.Plan) time.Duration {
				if p.Domain[0] == 'x' && kind == "silent" {
					return 30 * time.Second
				}
				return 0
			}
			w.planner.answer = func(_ context.Context, domain string) (*delivery.Plan, error) {
				if domain[0] == 'x' && kind == "without DNS" {
					time.Sleep(20 * time.Second)
					return nil, errServfail
				}
				return nil, nil
			}
			w.deliver.script = func(p *delivery.Plan, a *delivery.Attempt) delivery.Report {
				if p.Domain[0] == 'x' {
					time.Sleep(time.Millisecond)
					return siteFailed(a)
				}
				time.Sleep(100 * time.Millisecond)
				return delivery.Report{Site: delivery.SiteAlive}
			}
		}, func(w *world) {
			var healthy []*message
			began := time.Now()
			for i := range destinations * each {
				if i < dead {
					w.queue.submit(fmt.Sprintf("x%d.test", i), 1)
				}
				healthy = append(healthy, w.queue.submit(fmt.Sprintf("h%d.test", i%destinations), 1))
			}
			pass(3 * time.Minute)
			for _, m := range healthy {
				if m.outcomes[0].Verdict != queue.Delivered {
					t.Fatalf("%s is still waiting", m.domain)
				}
				took = max(took, m.settledAt.Sub(began))
			}
		})
		return took
	}
	alone := served(t, 0, "")
	for _, kind := range []string{"refusing", "silent", "without DNS"} {
		t.Run(kind, func(t *testing.T) {
			if beside := served(t, destinations, kind); float64(alone) < 0.95*float64(beside) {
				t.Errorf("served in %v beside the dead, %v without", beside, alone)
			}
		})
	}
}
