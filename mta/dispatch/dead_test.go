package dispatch

import (
	"fmt"
	"testing"
	"time"

	"postrider/mta/delivery"
	"postrider/queue"
)

// TestDeadDestinationsDoNotSlowHealthyOnes: ten thousand destinations, half of
// them refuse connections. The healthy ones are served at least 95 % as fast as
// without the dead.
func TestDeadDestinationsDoNotSlowHealthyOnes(t *testing.T) {
	t.Parallel()
	const destinations, each = 5000, 12
	served := func(dead int) (took time.Duration) {
		run(t, func(o *Options, w *world) {
			w.deliver.script = func(p *delivery.Plan, a *delivery.Attempt) delivery.Report {
				if p.Domain[0] == 'x' {
					time.Sleep(time.Millisecond)
					return siteFailed(a)
				}
				time.Sleep(100 * time.Millisecond)
				return delivery.Report{Site: delivery.SiteAlive}
			}
		}, func(w *world) {
			for i := range dead {
				w.queue.submit(fmt.Sprintf("x%d.test", i), 1)
			}
			var healthy []*message
			began := time.Now()
			for i := range destinations * each {
				healthy = append(healthy, w.queue.submit(fmt.Sprintf("h%d.test", i%destinations), 1))
			}
			pass(time.Minute)
			for _, m := range healthy {
				if m.outcomes[0].Verdict != queue.Delivered {
					t.Fatalf("%s is still waiting", m.domain)
				}
				took = max(took, m.settledAt.Sub(began))
			}
		})
		return took
	}
	alone, beside := served(0), served(destinations)
	if float64(alone) < 0.95*float64(beside) {
		t.Errorf("served in %v beside the dead, %v without", beside, alone)
	}
}
