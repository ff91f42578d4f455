package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"postrider/mta/delivery"
	"postrider/queue"
	"postrider/resolver"
)

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
