package dispatch

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
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

// TestDeadSiteWakesAsAWhole: the success of the one probe lets everything go
// that waited, at once, and not one connection after the other; also the mail
// over another path to the same hosts, whose own probe is not yet due.
func TestDeadSiteWakesAsAWhole(t *testing.T) {
	t.Parallel()
	var dead atomic.Bool
	dead.Store(true)
	var back chan struct{}
	run(t, func(o *Options, w *world) {
		back = make(chan struct{})
		w.deliver.takes = time.Minute
		w.planner.answer = func(_ context.Context, domain string) (*delivery.Plan, error) {
			p := plan(domain, "mx.shared.test")
			if domain == "demanding.test" {
				p.Key += " another demand"
			}
			p.ExpiresAt = time.Now().Add(24 * time.Hour)
			return p, nil
		}
		w.deliver.script = func(_ *delivery.Plan, a *delivery.Attempt) delivery.Report {
			if dead.Load() {
				return siteFailed(a)
			}
			select {
			case <-back:
			default:
				close(back)
			}
			return delivery.Report{Site: delivery.SiteAlive}
		}
		w.queue.retryAfter = 24 * time.Hour
	}, func(w *world) {
		domains := []string{"a.test", "b.test", "demanding.test"}
		for _, domain := range domains {
			for range 100 {
				w.queue.submit(domain, 1)
			}
		}
		pass(3 * time.Hour)
		if lane, _ := w.Lane("a.test", time.Now()); lane.Window != 1 {
			t.Errorf("the dead site has room for %d connections: the test shows nothing", lane.Window)
		}
		dead.Store(false)
		<-back
		pass(time.Second)
		if n := w.deliver.nowOpen("mx.shared.test,"); n != 5 {
			t.Errorf("%d connections as soon as the probe succeeded, want 5", n)
		}
		for _, domain := range domains {
			if lane, _ := w.Lane(domain, time.Now()); strings.Contains(lane.Why, "will try again") {
				t.Errorf("%s still sits out its wait: %s", domain, lane.Why)
			}
		}
		pass(10 * time.Minute)
		for _, domain := range domains {
			if w.queue.count(domain, queue.Delivered) == 0 {
				t.Errorf("nothing was delivered to %s after its hosts were back", domain)
			}
		}
	})
}

// TestDeadHostsNarrowTheirProvider: the provider's other customers go on over
// half as many connections, and their successes widen it again.
func TestDeadHostsNarrowTheirProvider(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		w.planner.answer = func(_ context.Context, domain string) (*delivery.Plan, error) {
			return plan(domain, domain[:1]+".mail.protection.outlook.com"), nil
		}
		w.deliver.takes = time.Second
		w.deliver.script = func(p *delivery.Plan, a *delivery.Attempt) delivery.Report {
			if p.Domain[0] == 'x' {
				return siteFailed(a)
			}
			return delivery.Report{Site: delivery.SiteAlive}
		}
	}, func(w *world) {
		window := func() int {
			lane, _ := w.Lane("a.test", time.Now())
			return lane.Window
		}
		for range 2000 {
			w.queue.submit("a.test", 1)
		}
		pass(30 * time.Second)
		if n := window(); n != 20 {
			t.Fatalf("room for %d connections after many successes, want 20", n)
		}
		w.queue.submit("x.test", 1)
		narrowest := 20
		for range 30 {
			pass(100 * time.Millisecond)
			narrowest = min(narrowest, window())
		}
		if narrowest < 9 || narrowest > 12 {
			t.Errorf("room for %d connections after one failure, want half", narrowest)
		}
		pass(time.Minute)
		if n := window(); n != 20 {
			t.Errorf("room for %d connections a minute later, want 20 again", n)
		}
	})
}
