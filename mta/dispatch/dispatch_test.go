package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"postrider/mta/delivery"
	"postrider/queue"
	"postrider/resolver"
)

func TestOneMessageIsDeliveredAtOnce(t *testing.T) {
	t.Parallel()
	run(t, nil, func(w *world) {
		w.queue.submit("a.test", 3)
		pass(w.deliver.takes)
		if n := w.queue.count("a.test", queue.Delivered); n != 1 {
			t.Errorf("%d delivered", n)
		}
		// One claim, one answer that there is nothing more: no second worker.
		if w.queue.takes != 2 || w.deliver.connections() != 1 {
			t.Errorf("the queue was asked %d times, %d connections", w.queue.takes, w.deliver.connections())
		}
	})
}

func TestConnectionsGrowFromFiveToTheSitesMaximum(t *testing.T) {
	t.Parallel()
	run(t, nil, func(w *world) {
		for range 2000 {
			w.queue.submit("a.test", 1)
		}
		pass(w.deliver.takes - 1)
		if n := w.deliver.nowOpen("mx.a.test,"); n != 5 {
			t.Errorf("%d connections at first, want 5", n)
		}
		pass(10 * time.Second)
		if n := w.deliver.mostOpen("mx.a.test,"); n != 20 {
			t.Errorf("%d connections at most, want 20", n)
		}
		if n := w.queue.count("a.test", queue.Delivered); n != 2000 {
			t.Errorf("%d delivered", n)
		}
	})
}

func TestConnectionsAreReusedWhileThereIsWork(t *testing.T) {
	t.Parallel()
	run(t, nil, func(w *world) {
		for range 500 {
			w.queue.submit("a.test", 1)
		}
		pass(10 * time.Second)
		if w.deliver.connections() > 20 {
			t.Errorf("%d connections were asked for, for 500 messages", w.deliver.connections())
		}
	})
}

func TestDeadSiteIsProbedByOneConnection(t *testing.T) {
	t.Parallel()
	var dead atomic.Bool
	dead.Store(true)
	run(t, func(o *Options, w *world) {
		w.deliver.script = func(_ *delivery.Plan, a *delivery.Attempt) delivery.Report {
			if dead.Load() {
				return siteFailed(a)
			}
			return delivery.Report{Site: delivery.SiteAlive}
		}
		w.queue.retryAfter = 24 * time.Hour
	}, func(w *world) {
		for range 1000 {
			w.queue.submit("a.test", 1)
		}
		pass(time.Second)
		first := w.deliver.attempted("a.test")
		if first > 5 {
			t.Errorf("%d messages were tried before the site was found dead, want at most 5", first)
		}
		lane, _ := w.Lane("a.test", time.Now())
		if lane.State != "ready" || lane.Until.IsZero() || lane.LastError != "connection refused" {
			t.Errorf("the lane says %+v", lane)
		}
		w.deliver.forgetMost()
		pass(time.Hour) // 1, 2, 4, 8, 16, 30 minutes
		if n := w.deliver.attempted("a.test") - first; n < 4 || n > 6 {
			t.Errorf("%d probes in an hour", n)
		}
		if n := w.deliver.mostOpen("mx.a.test,"); n != 1 {
			t.Errorf("%d connections at a time to a dead site", n)
		}
		dead.Store(false)
		pass(40 * time.Minute)
		if n := w.queue.count("a.test", queue.Delivered); n < 980 {
			t.Errorf("%d delivered after the site came back", n)
		}
		if n := w.deliver.mostOpen("mx.a.test,"); n < 5 {
			t.Errorf("at most %d connections after the site came back: it did not wake as a whole", n)
		}
	})
}

func TestDeadHostsDoNotStopOthers(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		o.Connections = 50
		w.deliver.script = func(p *delivery.Plan, a *delivery.Attempt) delivery.Report {
			if p.Domain[0] == 'x' {
				time.Sleep(30 * time.Second) // a connection that times out
				return siteFailed(a)
			}
			return delivery.Report{Site: delivery.SiteAlive}
		}
	}, func(w *world) {
		for i := range 200 {
			w.queue.submit(fmt.Sprintf("x%d.test", i), 1)
		}
		for range 10 {
			w.queue.submit("ok.test", 1)
		}
		pass(10 * time.Minute)
		if n := w.queue.count("ok.test", queue.Delivered); n != 10 {
			t.Errorf("%d delivered", n)
		}
	})
}

var errServfail = &resolver.Error{Kind: resolver.ServerFailure, Name: "a.test", Type: "MX", Status: "4.4.3"}

func TestDNSFailureRestsTheLaneAndChargesOneMessage(t *testing.T) {
	t.Parallel()
	var fails atomic.Bool
	fails.Store(true)
	run(t, func(o *Options, w *world) {
		w.planner.answer = func(context.Context, string) (*delivery.Plan, error) {
			if fails.Load() {
				return nil, errServfail
			}
			return nil, nil
		}
		w.queue.retryAfter = 24 * time.Hour
	}, func(w *world) {
		var messages []*message
		for range 100 {
			messages = append(messages, w.queue.submit("a.test", 1))
		}
		pass(30 * time.Second)
		charged := 0
		for _, m := range messages {
			charged += m.attempts
		}
		if charged != 1 || w.planner.asked("a.test") != 1 {
			t.Errorf("%d messages charged, %d lookups; want 1 and 1", charged, w.planner.asked("a.test"))
		}
		if o := messages[0].outcomes[0]; o.Stage != queue.StageDNS || o.Scope != queue.ScopeSite || o.Status != "4.4.3" || o.Text == "" {
			t.Errorf("its outcome: %+v", o)
		}
		if lane, _ := w.Lane("a.test", time.Now()); lane.State != "resting" || lane.Until.IsZero() {
			t.Errorf("the lane says %+v", lane)
		}
		w.queue.submit("a.test", 1) // new mail does not wake a resting lane
		pass(time.Second)
		if w.planner.asked("a.test") != 1 {
			t.Error("new mail made a lookup")
		}
		fails.Store(false)
		pass(10 * time.Minute)
		if n := w.queue.count("a.test", queue.Delivered); n != 100 {
			t.Errorf("%d delivered after DNS came back, want all but the one charged", n)
		}
		if w.deliver.attempted("a.test") != 100 {
			t.Errorf("%d attempts", w.deliver.attempted("a.test"))
		}
	})
}

func TestNullMXFailsEverythingWithoutAConnection(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		w.planner.answer = func(context.Context, string) (*delivery.Plan, error) {
			return nil, &resolver.Error{Kind: resolver.NullMX, Name: "a.test", Type: "MX", Status: "5.1.10"}
		}
	}, func(w *world) {
		for range 1000 {
			w.queue.submit("a.test", 2)
		}
		pass(time.Second)
		if n := w.queue.count("a.test", queue.Failed); n != 1000 {
			t.Errorf("%d failed", n)
		}
		if o := w.queue.messages["a.test"][999].outcomes[1]; o.Status != "5.1.10" {
			t.Errorf("outcome: %+v", o)
		}
		if w.deliver.connections() != 0 {
			t.Errorf("%d connections", w.deliver.connections())
		}
		w.queue.submit("a.test", 1) // later mail fails too
		pass(time.Second)
		if n := w.queue.count("a.test", queue.Failed); n != 1001 {
			t.Errorf("%d failed after later mail", n)
		}
	})
}

func TestHangingDNSHoldsNoConnectionAndStarvesNobody(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		o.Lookups, o.Connections = 10, 2
		w.planner.answer = func(ctx context.Context, domain string) (*delivery.Plan, error) {
			if domain[0] == 'x' {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return nil, nil
		}
	}, func(w *world) {
		w.queue.submit("ok.test", 1)
		pass(time.Second)
		for i := range 9 {
			w.queue.submit(fmt.Sprintf("x%d.test", i), 1)
		}
		pass(time.Second)
		w.queue.submit("other.test", 1)
		pass(time.Second)
		if w.queue.count("other.test", queue.Delivered) != 1 {
			t.Error("a healthy domain waits for the hanging ones")
		}
		pass(2 * time.Minute)
		m := w.queue.messages["x0.test"][0]
		if m.attempts != 1 || m.outcomes[0].Verdict != queue.Deferred {
			t.Errorf("after the lookup's time: %+v", m.outcomes[0])
		}
		// Those that hung once get half of the places, at most.
		for i := range 9 {
			w.queue.submit(fmt.Sprintf("x%d.test", i), 1)
		}
		w.planner.forgetMost()
		pass(90 * time.Second)
		w.queue.submit("third.test", 1)
		pass(time.Second)
		if w.queue.count("third.test", queue.Delivered) != 1 || w.planner.mostAtOnce() > 6 {
			t.Errorf("%d lookups at once; the new domain's message: %+v", w.planner.mostAtOnce(), w.queue.messages["third.test"][0])
		}
	})
}

func TestLookupsAreBounded(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		o.Lookups = 7
		w.planner.answer = func(context.Context, string) (*delivery.Plan, error) {
			time.Sleep(100 * time.Millisecond)
			return nil, nil
		}
	}, func(w *world) {
		for i := range 100 {
			w.queue.submit(fmt.Sprintf("d%d.test", i), 1)
		}
		pass(10 * time.Second)
		if w.planner.mostAtOnce() != 7 {
			t.Errorf("%d lookups at once, want 7", w.planner.most)
		}
		for i := range 100 {
			if w.queue.count(fmt.Sprintf("d%d.test", i), queue.Delivered) != 1 {
				t.Errorf("d%d.test was not delivered", i)
			}
		}
	})
}

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

func TestUntriedIsGivenBackUncharged(t *testing.T) {
	t.Parallel()
	first := true
	run(t, func(o *Options, w *world) {
		w.deliver.script = func(_ *delivery.Plan, a *delivery.Attempt) delivery.Report {
			if first {
				first = false
				return delivery.Report{Outcomes: make([]queue.Outcome, len(a.Recipients))}
			}
			return delivery.Report{Site: delivery.SiteAlive}
		}
	}, func(w *world) {
		m := w.queue.submit("a.test", 1)
		pass(time.Second)
		if m.outcomes[0].Verdict != queue.Delivered || m.attempts != 0 {
			t.Errorf("outcome %+v after %d charged attempts", m.outcomes[0], m.attempts)
		}
	})
}

func TestPartlyUntriedGoesOnAtOnce(t *testing.T) {
	t.Parallel()
	var sizes []int
	run(t, func(o *Options, w *world) {
		w.deliver.script = func(_ *delivery.Plan, a *delivery.Attempt) delivery.Report {
			sizes = append(sizes, len(a.Recipients))
			r := delivery.Report{Site: delivery.SiteAlive, MaxRecipients: 4}
			r.Outcomes = all(a, queue.Outcome{Verdict: queue.Delivered, Code: 250, Status: "2.0.0"})
			for i := 4; i < len(r.Outcomes); i++ {
				r.Outcomes[i] = queue.Outcome{}
			}
			return r
		}
	}, func(w *world) {
		m := w.queue.submit("a.test", 10)
		pass(time.Second)
		if !m.final() {
			t.Errorf("outcomes: %+v", m.outcomes)
		}
		if fmt.Sprint(sizes) != "[10 4 2]" {
			t.Errorf("transactions of %v recipients, want 10 4 2: the host's limit is learnt", sizes)
		}
	})
}

func TestSlowDownNarrowsTheSiteAndThenPausesIt(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		o.StartConnections = 8
		w.deliver.script = func(_ *delivery.Plan, a *delivery.Attempt) delivery.Report {
			return delivery.Report{Site: delivery.SiteAlive, Slow: true,
				Outcomes: all(a, queue.Outcome{Verdict: queue.Deferred, Code: 421, Status: "4.7.0", Text: "too many connections"})}
		}
	}, func(w *world) {
		for range 1000 {
			w.queue.submit("a.test", 1)
		}
		pass(30 * time.Second)
		n := w.deliver.attempted("a.test")
		if n > 60 {
			t.Errorf("%d attempts against a site that asks for less", n)
		}
		lane, _ := w.Lane("a.test", time.Now())
		if lane.Why != "site mx.a.test,: paused: a host asked for less" || lane.Until.IsZero() {
			t.Errorf("the lane says %+v", lane)
		}
		pass(10 * time.Minute)
		if w.deliver.attempted("a.test") == n {
			t.Error("the pause does not end")
		}
	})
}

func TestPauseThatAReplyAskedFor(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		w.deliver.script = func(_ *delivery.Plan, a *delivery.Attempt) delivery.Report {
			return delivery.Report{Site: delivery.SiteAlive, Slow: true, Pause: 10 * time.Minute, Why: "reputation"}
		}
	}, func(w *world) {
		for range 100 {
			w.queue.submit("a.test", 1)
		}
		pass(9 * time.Minute)
		if n := w.deliver.attempted("a.test"); n > 10 {
			t.Errorf("%d attempts within the pause", n)
		}
		w.Wake("a.test")
		pass(time.Second)
		if n := w.deliver.attempted("a.test"); n < 2 {
			t.Error("an operator cannot end the pause")
		}
	})
}

func TestPlanIsFoundAnewWhenItExpires(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		w.planner.answer = func(_ context.Context, domain string) (*delivery.Plan, error) {
			p := plan(domain, fmt.Sprintf("mx%d.a.test", w.planner.asked(domain)))
			p.ExpiresAt = time.Now().Add(time.Minute)
			return p, nil
		}
	}, func(w *world) {
		for i := range 10 {
			w.queue.submit("a.test", 1)
			pass(20 * time.Second)
			if n := w.queue.count("a.test", queue.Delivered); n != i+1 {
				t.Fatalf("%d of %d delivered", n, i+1)
			}
		}
		if n := w.planner.asked("a.test"); n != 4 {
			t.Errorf("%d lookups in 200 s with plans for 60 s, want 4", n)
		}
		for range 20_000 { // and under load, while workers have it
			w.queue.submit("a.test", 1)
		}
		pass(5 * time.Minute)
		if n := w.queue.count("a.test", queue.Delivered); n != 20_010 {
			t.Errorf("%d delivered", n)
		}
		if n := len(w.AllSites(time.Now())); n > 2 {
			t.Errorf("%d sites are kept for one domain", n)
		}
	})
}

func TestStopWaitsForWhatIsOnTheWire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{queue: newFakeQueue(t), planner: &fakePlanner{}, deliver: newFakeDeliverer(t)}
		w.deliver.takes = 20 * time.Second
		w.Dispatcher = New(Options{Source: w.queue, Planner: w.planner, Deliverer: w.deliver})
		ctx, cancel := context.WithCancel(t.Context())
		for range 100 {
			w.queue.submit("a.test", 1)
		}
		began := time.Now()
		time.AfterFunc(10*time.Second, cancel)
		if err := w.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("stopped after %v, want when the attempts on the wire ended", took)
		}
		if n := w.queue.count("a.test", queue.Delivered); n != 5 {
			t.Errorf("%d delivered, want the 5 that were on the wire", n)
		}
		if w.queue.open != 0 {
			t.Errorf("%d claims left", w.queue.open)
		}
	})
}

func TestStopEndsWhatTakesLongerThanTheGracePeriod(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{queue: newFakeQueue(t), planner: &fakePlanner{}, deliver: newFakeDeliverer(t)}
		w.deliver.takes = time.Hour
		w.Dispatcher = New(Options{Source: w.queue, Planner: w.planner, Deliverer: w.deliver, Grace: 15 * time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		m := w.queue.submit("a.test", 1)
		began := time.Now()
		time.AfterFunc(10*time.Second, cancel)
		if err := w.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 25*time.Second {
			t.Errorf("stopped after %v, want 10 s and the grace period of 15 s", took)
		}
		if m.attempts != 0 || m.taken {
			t.Errorf("the message was charged or not given back: %+v", m)
		}
	})
}

func TestStopDuringALookup(t *testing.T) {
	t.Parallel()
	var m *message
	run(t, func(o *Options, w *world) {
		w.planner.answer = func(ctx context.Context, _ string) (*delivery.Plan, error) {
			<-ctx.Done()
			return nil, fmt.Errorf("looking up: %w", ctx.Err())
		}
	}, func(w *world) {
		m = w.queue.submit("a.test", 1)
		pass(time.Second)
	})
	if m.attempts != 0 {
		t.Error("our own stop was charged to the message")
	}
}

func TestIdleMeansNoWakeUps(t *testing.T) {
	t.Parallel()
	run(t, nil, func(w *world) {
		w.queue.submit("a.test", 1)
		pass(time.Hour) // the idle lane is forgotten by then
		calls := w.queue.dueCalls
		pass(24 * time.Hour)
		if n := w.queue.dueCalls - calls; n != 0 {
			t.Errorf("the loop woke up %d times in an idle day", n)
		}
		if f := w.Figures(); f.Lanes != 0 || f.Sites != 0 {
			t.Errorf("kept after an idle day: %+v", f)
		}
		w.queue.submit("a.test", 1)
		pass(time.Second)
		if w.queue.count("a.test", queue.Delivered) != 2 {
			t.Error("not delivered after the idle day")
		}
	})
}

func TestMailThatIsDueLaterWakesTheLoop(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		w.deliver.script = func(_ *delivery.Plan, a *delivery.Attempt) delivery.Report {
			return delivery.Report{Site: delivery.SiteAlive,
				Outcomes: all(a, queue.Outcome{Verdict: queue.Deferred, Code: 450, Status: "4.2.0", Text: "later"})}
		}
	}, func(w *world) {
		m := w.queue.submit("a.test", 1)
		pass(11 * time.Minute)
		if m.attempts != 3 {
			t.Errorf("%d attempts in 11 minutes with a retry every 5", m.attempts)
		}
	})
}

func TestSweepIsCalledWhenItWants(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		w.queue.sweepAt = func(now time.Time) time.Time {
			if len(w.queue.messages) == 0 {
				return time.Time{}
			}
			return now.Add(20 * time.Second)
		}
	}, func(w *world) {
		began := time.Now()
		pass(time.Hour)
		if n := len(w.queue.sweeps); n != 1 {
			t.Fatalf("%d sweeps of an empty queue, want one at the start", n)
		}
		w.queue.submit("a.test", 1)
		pass(time.Minute)
		got := w.queue.sweeps[1:]
		if len(got) != 4 || got[0].Sub(began) != time.Hour || got[1].Sub(got[0]) != 20*time.Second {
			t.Errorf("sweeps after mail came: %v", got)
		}
	})
}

func TestSweepIsNeverLongerThanAMinuteAway(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		w.queue.sweepAt = func(now time.Time) time.Time { return now.Add(time.Hour) }
	}, func(w *world) {
		pass(10 * time.Minute)
		if n := len(w.queue.sweeps); n != 11 {
			t.Errorf("%d sweeps in 10 minutes", n)
		}
	})
}

func TestLaneThatGetsMailWhileItRunsDry(t *testing.T) {
	t.Parallel()
	// Every message arrives at the moment that the former one ends, where the
	// worker is about to learn that there is nothing more.
	run(t, nil, func(w *world) {
		for i := range 200 {
			m := w.queue.submit("a.test", 1)
			time.Sleep(w.deliver.takes)
			if i%2 == 0 {
				synctest.Wait()
			}
			_ = m
		}
		pass(time.Second)
		if n := w.queue.count("a.test", queue.Delivered); n != 200 {
			t.Errorf("%d of 200 delivered", n)
		}
	})
}

func TestPolicyLookupFailureIsDeferred(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		w.planner.answer = func(context.Context, string) (*delivery.Plan, error) { return nil, errors.New("sts fetch broke") }
	}, func(w *world) {
		m := w.queue.submit("a.test", 1)
		pass(time.Second)
		if o := m.outcomes[0]; o.Verdict != queue.Deferred || o.Text != "sts fetch broke" || o.Status != "4.4.3" {
			t.Errorf("outcome: %+v", o)
		}
	})
}

// New mail comes after Take found nothing, and before the worker knows.
func TestMailThatComesWhileTheQueueSaysThereIsNone(t *testing.T) {
	t.Parallel()
	for name, isNull := range map[string]bool{"delivered": false, "failed for a fact of DNS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, func(o *Options, w *world) {
				first := true
				w.queue.onEmpty = func(int) {
					if first {
						first = false
						w.queue.submit("a.test", 1)
						time.Sleep(time.Second) // the loop hears of it meanwhile
					}
				}
				if isNull {
					w.planner.answer = func(context.Context, string) (*delivery.Plan, error) {
						return nil, &resolver.Error{Kind: resolver.NullMX, Status: "5.1.10"}
					}
				}
			}, func(w *world) {
				w.queue.submit("a.test", 1)
				pass(time.Minute)
				if n := w.queue.count("a.test", queue.Delivered) + w.queue.count("a.test", queue.Failed); n != 2 {
					t.Errorf("%d of 2 came to an end", n)
				}
			})
		})
	}
}

// A worker waits for the queue while its lane gets another plan, of another
// site.
func TestLaneMovesToAnotherSiteWhileAWorkerStarts(t *testing.T) {
	t.Parallel()
	for slow := range 10 { // which worker is held up depends on chance
		t.Run(fmt.Sprint(slow), func(t *testing.T) {
			t.Parallel()
			run(t, func(o *Options, w *world) {
				o.StartConnections = 1
				w.deliver.takes = 40 * time.Second
				w.planner.answer = func(_ context.Context, domain string) (*delivery.Plan, error) {
					p := plan(domain, fmt.Sprintf("mx%d.a.test", w.planner.asked(domain)))
					p.ExpiresAt = time.Now().Add(time.Minute)
					return p, nil
				}
				w.queue.onTake = func(take int) {
					if take == slow {
						time.Sleep(2 * time.Minute)
					}
				}
			}, func(w *world) {
				for range 20 {
					w.queue.submit("a.test", 1)
				}
				pass(time.Hour)
				if n := w.queue.count("a.test", queue.Delivered); n != 20 {
					lane, _ := w.Lane("a.test", time.Now())
					t.Errorf("%d of 20 delivered; %+v", n, lane)
				}
				if f := w.Figures(); f.Sites != 0 {
					t.Errorf("%d sites are kept", f.Sites)
				}
			})
		})
	}
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

func TestPlanThatIsOverAtOnceIsUsedForAMoment(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		w.planner.answer = func(_ context.Context, domain string) (*delivery.Plan, error) {
			p := plan(domain, "mx.a.test")
			p.ExpiresAt = time.Now()
			return p, nil
		}
	}, func(w *world) {
		for range 100 {
			w.queue.submit("a.test", 1)
		}
		pass(time.Minute)
		if n, asked := w.queue.count("a.test", queue.Delivered), w.planner.asked("a.test"); n != 100 || asked > 2 {
			t.Errorf("%d delivered, %d lookups", n, asked)
		}
	})
}

func TestPauseOutlivesTheLanesOfTheSite(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		w.deliver.script = func(*delivery.Plan, *delivery.Attempt) delivery.Report {
			return delivery.Report{Site: delivery.SiteAlive, Pause: time.Hour, Why: "asked"}
		}
	}, func(w *world) {
		w.queue.submit("a.test", 1)
		pass(30 * time.Minute) // the lane is forgotten
		if f := w.Figures(); f.Lanes != 0 || f.Sites != 1 {
			t.Errorf("figures: %+v", f)
		}
		w.queue.submit("a.test", 1)
		pass(25 * time.Minute)
		if n := w.deliver.attempted("a.test"); n != 1 {
			t.Error("sent within the pause")
		}
		pass(10 * time.Minute)
		if n := w.deliver.attempted("a.test"); n != 2 {
			t.Error("not sent after the pause")
		}
	})
}
