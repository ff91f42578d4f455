package dispatch

import (
	"context"
	"fmt"
	"testing"
	"time"

	"postrider/mta/delivery"
	"postrider/queue"
)

func TestTotalOfConnectionsIsSharedInTurns(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) { o.Connections = 3 }, func(w *world) {
		for range 1000 {
			w.queue.submit("big.test", 1)
		}
		pass(time.Second)
		for i := range 20 {
			w.queue.submit(fmt.Sprintf("small%d.test", i), 1)
		}
		pass(3 * time.Second)
		for i := range 20 {
			if w.queue.count(fmt.Sprintf("small%d.test", i), queue.Delivered) != 1 {
				t.Errorf("small%d.test waits behind a big one", i)
			}
		}
		pass(time.Minute)
		if w.deliver.mostOpen("") != 3 || w.queue.count("big.test", queue.Delivered) != 1000 {
			t.Errorf("%d connections at most, %d delivered", w.deliver.mostOpen(""), w.queue.count("big.test", queue.Delivered))
		}
	})
}

func TestSingleMessageIsNotDelayedByThousandsOnTheSameSite(t *testing.T) {
	t.Parallel()
	for name, hosts := range map[string]func(domain string) string{
		"same hosts": func(string) string { return "mx.shared.test" },
		"own hosts":  func(domain string) string { return domain[:1] + ".mail.protection.outlook.com" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, func(o *Options, w *world) {
				w.planner.answer = func(_ context.Context, domain string) (*delivery.Plan, error) {
					return plan(domain, hosts(domain)), nil
				}
				w.deliver.takes = 100 * time.Millisecond
			}, func(w *world) {
				for range 20_000 {
					w.queue.submit("big.test", 1)
				}
				pass(time.Minute)
				m := w.queue.submit("one.test", 1)
				pass(time.Second)
				if m.outcomes[0].Verdict != queue.Delivered {
					t.Error("still waiting after a second")
				}
				if n := w.queue.count("big.test", queue.Delivered); n < 5000 || n == 20_000 {
					t.Errorf("%d of the others are delivered: the test shows nothing", n)
				}
			})
		})
	}
}

func TestDomainsOfAProviderShareItsLimit(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		w.planner.answer = func(_ context.Context, domain string) (*delivery.Plan, error) {
			return plan(domain, domain[:2]+".mail.protection.outlook.com"), nil
		}
		o.StartConnections = 4
		o.Limits = func(domain string) Limits {
			if domain == "d7.test" {
				return Limits{SiteConnections: 8} // the smallest of all counts
			}
			return Limits{SiteConnections: 12}
		}
	}, func(w *world) {
		for i := range 10 {
			for range 200 {
				w.queue.submit(fmt.Sprintf("d%d.test", i), 1)
			}
		}
		pass(time.Minute)
		if w.deliver.mostOpen("") != 8 {
			t.Errorf("%d connections at once to the provider, want 8", w.deliver.mostOpen(""))
		}
		for i := range 10 {
			if n := w.queue.count(fmt.Sprintf("d%d.test", i), queue.Delivered); n != 200 {
				t.Errorf("d%d.test: %d delivered", i, n)
			}
		}
		if got := w.DomainsOf("outlook"); len(got) != 10 {
			t.Errorf("domains of the site: %v", got)
		}
	})
}

func TestDestinationLimits(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		w.planner.answer = func(_ context.Context, domain string) (*delivery.Plan, error) {
			return plan(domain, "mx.shared.test"), nil
		}
		o.Limits = func(domain string) Limits {
			if domain == "slow.test" {
				return Limits{Connections: 1, MessagesPerMinute: 6}
			}
			return Limits{}
		}
	}, func(w *world) {
		for range 100 {
			w.queue.submit("slow.test", 1)
			w.queue.submit("fast.test", 1)
		}
		pass(time.Minute - time.Second)
		if n := w.queue.count("slow.test", queue.Delivered); n != 6 {
			t.Errorf("%d delivered in a minute, want 6", n)
		}
		if n := w.queue.count("fast.test", queue.Delivered); n != 100 {
			t.Errorf("%d of the other domain delivered", n)
		}
		lane, _ := w.Lane("slow.test", time.Now())
		if lane.State != "held" || lane.Why != "slow.test: limited to 6 messages a minute" || lane.Until.IsZero() {
			t.Errorf("the lane says %+v", lane)
		}
		if m := w.queue.messages["slow.test"][50]; m.attempts != 0 {
			t.Error("a limit of our own counted as an attempt")
		}
	})
}

// TestSenderRateLetsOthersPass: batch mail of one sender over several domains goes
// at its pace, each message is put off a few times at most, and others pass it by.
func TestSenderRateLetsOthersPass(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, _ *world) {
		o.SenderRate = func(sender string) (string, int) {
			if sender == "batch@shop.test" {
				return "sender @shop.test", 60
			}
			return "", 0
		}
	}, func(w *world) {
		const batch = 1000
		domains := []string{"a.test", "b.test"}
		var all []*message
		for i := range batch {
			all = append(all, w.queue.submitFrom("batch@shop.test", domains[i%2], 1))
		}
		other := w.queue.submit("a.test", 1)
		pass(time.Second)
		if other.outcomes[0].Verdict != queue.Delivered {
			t.Error("another sender's message waits behind the batch")
		}
		lane, _ := w.Lane("a.test", time.Now())
		if lane.Why != "sender @shop.test: limited to 60 messages a minute" || lane.Until.Before(time.Now()) {
			t.Errorf("the lane says %+v", lane)
		}
		sent := func() int {
			return w.queue.count("a.test", queue.Delivered) + w.queue.count("b.test", queue.Delivered) - 1
		}
		for minute := 1; minute <= 3; minute++ {
			pass(time.Minute)
			if n := sent(); n < 60*minute || n > 60*minute+3 {
				t.Errorf("%d sent after %d minutes", n, minute)
			}
		}
		pass(batch*time.Second + reserveFor)
		if n := sent(); n != batch {
			t.Errorf("%d of %d sent in the end", n, batch)
		}
		for _, m := range all {
			if m.attempts > 0 || m.postponed > 4 {
				t.Errorf("message %d: %d attempts, put off %d times", m.number, m.attempts, m.postponed)
			}
		}
	})
}

func TestMessagesPerMinuteInAll(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) { o.MessagesPerMinute = 60 }, func(w *world) {
		for range 100 {
			w.queue.submit("a.test", 1)
			w.queue.submit("b.test", 1)
		}
		pass(time.Minute - time.Millisecond)
		a, b := w.queue.count("a.test", queue.Delivered), w.queue.count("b.test", queue.Delivered)
		if a+b != 60 || a < 20 || b < 20 {
			t.Errorf("%d and %d delivered in a minute, want 60 in all, shared", a, b)
		}
	})
}

func TestOnlyMessagesThatAreSentCountForARate(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) { o.MessagesPerMinute = 600 }, func(w *world) {
		for i := range 200 {
			w.queue.submit("a.test", 1)
			pass(w.deliver.takes)
			if n := w.queue.count("a.test", queue.Delivered); n != i+1 {
				t.Fatalf("%d of %d delivered at once, at less than 600 a minute", n, i+1)
			}
			pass(100 * time.Millisecond)
		}
	})
}

// TestDomainsWithTheSameHostsShareTheirLimit: no table names these hosts; that
// they serve several domains is learnt from DNS.
func TestDomainsWithTheSameHostsShareTheirLimit(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		w.planner.answer = func(_ context.Context, domain string) (*delivery.Plan, error) {
			if domain == "other.test" {
				return plan(domain, "mx1.shared.test"), nil // one host fewer is another site
			}
			return plan(domain, "mx1.shared.test", "mx2.shared.test"), nil
		}
		w.deliver.takes = time.Second
	}, func(w *world) {
		for i := range 10 {
			for range 200 {
				w.queue.submit(fmt.Sprintf("d%d.test", i), 1)
			}
		}
		w.queue.submit("other.test", 1)
		pass(500 * time.Millisecond)
		if shared, all := w.deliver.nowOpen("mx1.shared.test,mx2.shared.test,"), w.deliver.nowOpen(""); shared != 5 || all != 6 {
			t.Errorf("%d connections at first to what ten domains share, %d in all; want 5 and 6", shared, all)
		}
		pass(10 * time.Minute)
		if n := w.deliver.mostOpen("mx1.shared.test,mx2.shared.test,"); n != 20 {
			t.Errorf("%d connections at most, want 20 for all ten domains", n)
		}
		for i := range 10 {
			if n := w.queue.count(fmt.Sprintf("d%d.test", i), queue.Delivered); n != 200 {
				t.Errorf("d%d.test: %d delivered", i, n)
			}
		}
	})
}
