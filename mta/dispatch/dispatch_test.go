package dispatch

import (
	"context"
	"fmt"
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

func TestLookupsAreBounded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		takes time.Duration
		want  int
	}{
		"answering": {40 * time.Millisecond, 7},
		"hanging":   {time.Second, 7 + 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, func(o *Options, w *world) {
				o.Lookups, o.HangingLookups = 7, 5
				w.planner.answer = func(context.Context, string) (*delivery.Plan, error) {
					time.Sleep(c.takes)
					return nil, nil
				}
			}, func(w *world) {
				for i := range 100 {
					w.queue.submit(fmt.Sprintf("d%d.test", i), 1)
				}
				pass(20 * time.Second)
				if w.planner.mostAtOnce() != c.want {
					t.Errorf("%d lookups at once, want %d", w.planner.most, c.want)
				}
				for i := range 100 {
					if w.queue.count(fmt.Sprintf("d%d.test", i), queue.Delivered) != 1 {
						t.Errorf("d%d.test was not delivered", i)
					}
				}
			})
		})
	}
}

// Connections that nobody answers are bounded too, and leave the others alone.
func TestConnectionsAsideAreBounded(t *testing.T) {
	t.Parallel()
	run(t, func(o *Options, w *world) {
		o.Connections, o.Aside = 10, 30
		w.deliver.connects = func(p *delivery.Plan) time.Duration {
			if p.Domain == "ok.test" {
				return 0
			}
			return 30 * time.Second
		}
	}, func(w *world) {
		for i := range 100 {
			w.queue.submit(fmt.Sprintf("d%d.test", i), 1)
		}
		pass(10 * time.Second)
		if n := w.deliver.mostOpen(""); n != 40 {
			t.Errorf("%d connections at once, want 10 and 30 aside", n)
		}
		w.queue.submit("ok.test", 1)
		pass(time.Minute)
		if w.queue.count("ok.test", queue.Delivered) != 1 {
			t.Error("not delivered when a place was free again")
		}
		pass(2 * time.Minute)
		if f := w.Figures(); f.Connections != 0 {
			t.Errorf("%+v", f)
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
