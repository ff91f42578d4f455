package dispatch

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"postrider/mta/delivery"
	"postrider/queue"
)

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
