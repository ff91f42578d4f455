package queue

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestScheduleNext(t *testing.T) {
	t.Parallel()
	s := &Schedule{Retry: []time.Duration{5 * time.Minute, 10 * time.Minute, time.Hour}, Jitter: 0.2}
	const expiry = 24 * time.Hour
	for name, c := range map[string]struct {
		at     time.Duration // since the start
		n      int
		hint   time.Duration
		chance float64
		want   time.Duration // 0: given up
	}{
		"first":                      {at: 0, n: 1, chance: 0.5, want: 5 * time.Minute},
		"second":                     {at: 0, n: 2, chance: 0.5, want: 10 * time.Minute},
		"third":                      {at: 0, n: 3, chance: 0.5, want: time.Hour},
		"the last one repeats":       {at: 0, n: 30, chance: 0.5, want: time.Hour},
		"least jitter":               {at: 0, n: 1, chance: 0, want: 4 * time.Minute},
		"most jitter":                {at: 0, n: 1, chance: 1, want: 6 * time.Minute},
		"a hint":                     {at: 0, n: 3, hint: 10 * time.Minute, chance: 0, want: 10 * time.Minute},
		"a hint is never early":      {at: 0, n: 3, hint: 10 * time.Minute, chance: 1, want: 12 * time.Minute},
		"a hint of nothing":          {at: 0, n: 1, hint: 1, chance: 0, want: time.Second},
		"a hint of days":             {at: 0, n: 1, hint: 72 * time.Hour, chance: 0, want: 4 * time.Hour},
		"a last try before expiry":   {at: 23*time.Hour + 30*time.Minute, n: 9, chance: 0.5, want: 23*time.Hour + 59*time.Minute},
		"little time for it":         {at: expiry - 150*time.Second, n: 9, chance: 0.5, want: expiry - time.Minute},
		"no time for another":        {at: expiry - 149*time.Second, n: 9, chance: 0.5},
		"over":                       {at: expiry, n: 1, chance: 0.5},
		"over long ago":              {at: expiry + time.Hour, n: 1, chance: 0.5},
		"a hint beyond the expiry":   {at: 23 * time.Hour, n: 1, hint: 2 * time.Hour, chance: 0.5, want: expiry - time.Minute},
		"just in time":               {at: 22*time.Hour + 59*time.Minute, n: 3, chance: 0.5, want: 23*time.Hour + 59*time.Minute},
		"exactly at the expiry late": {at: 23 * time.Hour, n: 3, chance: 0.5, want: expiry - time.Minute},
	} {
		due, ok := s.next(nanos(epoch.Add(c.at)), deferral{attempts: c.n, hint: c.hint}, nanos(epoch.Add(expiry)), c.chance)
		if ok != (c.want != 0) || ok && due != nanos(epoch.Add(c.want)) {
			t.Errorf("%s: %v %v, want %v", name, timeOf(due).Sub(epoch), ok, c.want)
		}
	}
	if d := new(Schedule).wait(deferral{attempts: 1}, 0.5); d != time.Hour {
		t.Errorf("without a list: %v", d)
	}
}

func TestScheduleWaitByClass(t *testing.T) {
	t.Parallel()
	general := &Schedule{Retry: []time.Duration{5 * time.Minute, 10 * time.Minute, time.Hour}, Jitter: 0.2}
	special := &Schedule{Retry: general.Retry, Jitter: 0.2, RetryFor: map[Class][]time.Duration{
		ClassMailboxFull: {2 * time.Hour, 12 * time.Hour}, ClassGreylisted: {time.Minute, 3 * time.Minute},
	}}
	for name, c := range map[string]struct {
		s      *Schedule
		d      deferral
		chance float64
		want   time.Duration
	}{
		"a class":                         {special, deferral{attempts: 1, class: ClassMailboxFull}, 0.5, 2 * time.Hour},
		"its last one repeats":            {special, deferral{attempts: 7, class: ClassMailboxFull}, 0.5, 12 * time.Hour},
		"with jitter":                     {special, deferral{attempts: 1, class: ClassMailboxFull}, 0, 96 * time.Minute},
		"another class":                   {special, deferral{attempts: 2, class: ClassNetwork}, 0.5, 10 * time.Minute},
		"greylisted":                      {general, deferral{attempts: 1, class: ClassGreylisted}, 0, 5 * time.Minute},
		"greylisted, most jitter":         {general, deferral{attempts: 1, class: ClassGreylisted}, 1, 6 * time.Minute},
		"greylisted late":                 {general, deferral{attempts: 3, class: ClassGreylisted}, 0, 5 * time.Minute},
		"greylisted again":                {general, deferral{attempts: 3, class: ClassGreylisted, again: true}, 0.5, time.Hour},
		"greylisted with a hint":          {general, deferral{attempts: 3, class: ClassGreylisted, hint: time.Minute}, 0, time.Minute},
		"a hint for ever":                 {general, deferral{attempts: 3, class: ClassGreylisted, hint: time.Minute, again: true}, 0.5, time.Hour},
		"a long hint again":               {general, deferral{attempts: 1, class: ClassGreylisted, hint: time.Hour, again: true}, 0, time.Hour},
		"greylisted as configured":        {special, deferral{attempts: 2, class: ClassGreylisted}, 0.5, 3 * time.Minute},
		"greylisted, hint before setting": {special, deferral{attempts: 2, class: ClassGreylisted, hint: 7 * time.Minute}, 0, 7 * time.Minute},
	} {
		if got := c.s.wait(c.d, c.chance); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if got := c.s.wait(c.d, 1); got > c.s.longest() {
			t.Errorf("%s: %v is beyond the longest wait", name, got)
		}
	}
}

// TestGreylistingIsSoonOnce: the second reply of the kind meets the schedule.
func TestGreylistingIsSoonOnce(t *testing.T) {
	t.Parallel()
	s := &Schedule{Retry: []time.Duration{5 * time.Minute, time.Hour}, ExpireAfter: 24 * time.Hour}
	q := newTestQueue(t, oneSchedule(s))
	q.send(epoch, "a@there.test")
	lost := Outcome{Verdict: Deferred, Scope: ScopeSite, Stage: StageConnect, Status: "4.4.1", Text: "refused", Class: ClassNetwork}
	grey := Outcome{Verdict: Deferred, Stage: StageRCPT, Code: 450, Status: "4.7.1", Text: "greylisted", Class: ClassGreylisted}
	at := epoch
	for _, step := range []struct {
		o    Outcome
		wait time.Duration
	}{{lost, 5 * time.Minute}, {grey, 5 * time.Minute}, {grey, time.Hour}, {lost, time.Hour}, {grey, 5 * time.Minute}} {
		settle(q.take(at, "there.test"), at, step.o)
		next := at.Add(step.wait)
		q.nothing(next.Add(-time.Second), "there.test")
		at = next
	}
	q.take(at, "there.test")
}

// TestDefaultScheduleTotals is the table as an operator reads it: when the
// n-th attempt is made.
func TestDefaultScheduleTotals(t *testing.T) {
	t.Parallel()
	s := DefaultSchedule()
	var at time.Duration
	for n, want := range []time.Duration{
		5 * time.Minute, 15 * time.Minute, 35 * time.Minute, 75 * time.Minute, 135 * time.Minute,
		255 * time.Minute, 495 * time.Minute, 735 * time.Minute,
	} {
		due, ok := s.next(nanos(epoch.Add(at)), deferral{attempts: n + 1}, nanos(epoch.Add(s.ExpireAfter)), 0.5)
		at = timeOf(due).Sub(epoch)
		if !ok || at != want {
			t.Errorf("attempt %d at %v, want %v", n+2, at, want)
		}
	}
}

func oneSchedule(s *Schedule) func(*Options) {
	return func(o *Options) { o.Schedule = func(string) *Schedule { return s } }
}

var shortSchedule = &Schedule{
	Retry:            []time.Duration{10 * time.Minute},
	ExpireAfter:      time.Hour,
	DelayNoticeAfter: 20 * time.Minute,
}

// lastEvent gives the newest line of a message's history.
func (q *testQueue) lastEvent(id ID) Event {
	q.t.Helper()
	q.settled()
	events, err := q.History(id)
	if err != nil {
		q.t.Fatal(err)
	}
	return events[len(events)-1]
}

func TestExpiryKeepsLastReply(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t, oneSchedule(shortSchedule))
	id := q.send(epoch, "a@there.test")
	for _, m := range []int{0, 10, 20, 30, 40, 50} {
		settle(q.take(epoch.Add(time.Duration(m)*time.Minute), "there.test"), epoch.Add(time.Duration(m)*time.Minute), deferred())
	}
	last := epoch.Add(59 * time.Minute) // the last try, a minute before the expiry
	q.nothing(last.Add(-time.Second), "there.test")
	settle(q.take(last, "there.test"), last, deferred())
	e := q.lastEvent(id)
	if e.Kind != EventExpired || e.Outcome.Verdict != Failed || e.Outcome.Status != "4.4.7" || e.Attempt != 7 ||
		e.Outcome.Text != "not delivered within 59m0s; last reply: 451 4.7.1 greylisted" || e.Outcome.Remote.Host != "mx.there.test" {
		t.Fatalf("event %+v, outcome %+v", e, e.Outcome)
	}
	b, _ := q.DueNotices(last)
	if b == nil || b.Notices[0].Kind != NoticeFailure || b.Notices[0].Attempts != 7 {
		t.Fatalf("notices %+v", b)
	}
	if err := q.Dismiss(b, last); err != nil {
		t.Fatal(err)
	}
}

func TestSweepFailsWhatWasNeverTried(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t, oneSchedule(shortSchedule))
	id := q.send(epoch, "a@there.test")
	q.due(epoch, "there.test")
	if next := q.Sweep(epoch); !next.Equal(epoch.Add(20 * time.Minute)) {
		t.Fatalf("sweep again at %v", next)
	}
	at := epoch.Add(20 * time.Minute)
	if next := q.Sweep(at); !next.Equal(epoch.Add(time.Hour)) {
		t.Fatalf("sweep again at %v", next.Sub(epoch))
	}
	q.settled()
	b, next := q.DueNotices(at) // it is due, so others may fail too
	if b != nil || !next.Equal(at.Add(5*time.Minute)) {
		t.Fatalf("notices %+v at %v", b, next)
	}
	at = next
	b, _ = q.DueNotices(at)
	if b == nil || b.Notices[0].Kind != NoticeDelay || !b.Notices[0].RetryUntil.Equal(epoch.Add(time.Hour)) {
		t.Fatalf("notices %+v", b)
	}
	if err := q.Dismiss(b, at); err != nil {
		t.Fatal(err)
	}
	q.Sweep(at.Add(10 * time.Minute)) // warned once
	q.settled()
	if b, _ := q.DueNotices(at.Add(20 * time.Minute)); b != nil {
		t.Fatalf("a second warning: %+v", b)
	}
	q.restart() // nor after a restart
	q.Sweep(at.Add(10 * time.Minute))
	q.settled()
	if b, _ := q.DueNotices(at.Add(20 * time.Minute)); b != nil {
		t.Fatalf("a second warning after a restart: %+v", b)
	}
	q.Sweep(epoch.Add(time.Hour - time.Second))
	q.settled()
	if _, err := q.Message(id); err != nil {
		t.Fatal(err)
	}
	q.Sweep(epoch.Add(time.Hour))
	e := q.lastEvent(id)
	if e.Kind != EventExpired || e.Outcome.Text != "not delivered within 1h0m0s: never tried" {
		t.Fatalf("event %+v, outcome %+v", e, e.Outcome)
	}
	q.nothing(epoch.Add(time.Hour), "there.test")
}

func TestHeldMailDoesNotAge(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change       func(*Envelope)
		hold, unhold time.Duration
		expire       time.Duration // since epoch
	}{
		"held at once":        {func(e *Envelope) { e.Held = true }, -1, 5 * time.Hour, 6 * time.Hour},
		"held later":          {func(*Envelope) {}, 30 * time.Minute, 5 * time.Hour, 5*time.Hour + 30*time.Minute},
		"scheduled and held":  {func(e *Envelope) { e.Held = true; e.NotBefore = epoch.Add(2 * time.Hour) }, -1, 5 * time.Hour, 6 * time.Hour},
		"released before due": {func(e *Envelope) { e.Held = true; e.NotBefore = epoch.Add(9 * time.Hour) }, -1, 5 * time.Hour, 10 * time.Hour},
		"a deadline beats it": {func(e *Envelope) { e.DeliverBy = epoch.Add(5*time.Hour + 10*time.Minute) }, 30 * time.Minute, 5 * time.Hour, 5*time.Hour + 10*time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newTestQueue(t, oneSchedule(shortSchedule))
			e := envelope(q.Queue, epoch, "a@there.test")
			c.change(e)
			q.submit(e, testBody)
			all := Selector{Sender: "sender@source.test"}
			if c.hold >= 0 {
				if n, err := q.Hold(t.Context(), epoch.Add(c.hold), all, "look at it"); n != 1 || err != nil {
					t.Fatal(n, err)
				}
			}
			q.nothing(epoch.Add(c.unhold), "there.test")
			q.Sweep(epoch.Add(c.unhold))
			q.restart()
			if n, err := q.Unhold(t.Context(), epoch.Add(c.unhold), all, "fine"); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			q.Sweep(epoch.Add(c.expire - time.Second))
			q.settled()
			if m, err := q.Message(e.ID); err != nil || m.States[0].Status != StatusWaiting {
				t.Fatalf("before its time: %+v %v", m, err)
			}
			q.Sweep(epoch.Add(c.expire))
			q.settled()
			if m, err := q.Message(e.ID); err != nil || m.States[0].Status != StatusFailed {
				t.Fatalf("after its time: %+v %v", m, err)
			}
		})
	}
}

func TestUntriedCostsNothing(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	id := q.send(epoch, "a@there.test", "b@there.test")
	for i := range 3 {
		c := q.take(epoch, "there.test")
		if c.Attempts != 0 || len(c.Recipients) != 2 || !c.DueAt.Equal(epoch) {
			t.Fatalf("claim %d: %+v", i, c)
		}
		if i == 1 {
			c.Release(epoch)
		} else {
			settle(c, epoch, Outcome{})
		}
		c.Release(epoch) // no effect
	}
	if events, err := q.History(id); err != nil || len(events) != 1 {
		t.Fatalf("history %+v %v", events, err)
	}
	q.wantKeys("em")
}

func TestNoticesObeyNotify(t *testing.T) {
	t.Parallel()
	passed := delivered()
	passed.Passed = true
	for name, c := range map[string]struct {
		sender  string
		notify  Notify
		outcome Outcome
		want    NoticeKind // 0: none
	}{
		"failure by default":         {"s@src.test", 0, failed(), NoticeFailure},
		"failure wanted":             {"s@src.test", NotifyFailure, failed(), NoticeFailure},
		"failure not wanted":         {"s@src.test", NotifySuccess | NotifyDelay, failed(), 0},
		"never":                      {"s@src.test", NotifyNever, failed(), 0},
		"never, whatever else":       {"s@src.test", NotifyNever | NotifyFailure, failed(), 0},
		"null sender":                {"", NotifyFailure, failed(), 0},
		"success by default":         {"s@src.test", 0, delivered(), 0},
		"success wanted":             {"s@src.test", NotifySuccess, delivered(), NoticeSuccess},
		"success passed on":          {"s@src.test", NotifySuccess, passed, 0},
		"success, only failure":      {"s@src.test", NotifyFailure, delivered(), 0},
		"success to the null sender": {"", NotifySuccess, delivered(), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newTestQueue(t)
			e := envelope(q.Queue, epoch, "a@there.test")
			e.Sender = c.sender
			e.Recipients[0].Notify = c.notify
			q.submit(e, testBody)
			settle(q.take(epoch, "there.test"), epoch, c.outcome)
			q.settled()
			b, _ := q.DueNotices(epoch)
			if c.want == 0 {
				if b != nil {
					t.Fatalf("notices %+v", b)
				}
				q.wantKeys("")
				return
			}
			if b == nil || len(b.Notices) != 1 || b.Notices[0].Kind != c.want || b.Notices[0].Attempts != 1 {
				t.Fatalf("notices %+v", b)
			}
			q.wantKeys("emsn")
		})
	}
}

// TestClockLeap: the wall clock jumps; nothing is given up until somebody had
// the time to look.
func TestClockLeap(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t, oneSchedule(shortSchedule))
	leapt := time.Duration(0)
	q.clock.elapsed = func(from, to time.Time) (wall, monotonic time.Duration) {
		wall = to.Sub(from)
		monotonic, leapt = wall-leapt, 0
		return wall, monotonic
	}
	id := q.send(epoch, "a@there.test")
	settle(q.take(epoch, "there.test"), epoch, deferred())
	leapt = 300 * 24 * time.Hour
	now := epoch.Add(leapt)
	next := q.Sweep(now)
	if want := now.Add(distrustFor); !next.Equal(want) {
		t.Fatalf("sweep again at %v, want %v", next, want)
	}
	settle(q.take(now, "there.test"), now, deferred()) // tried, and not given up
	if e := q.lastEvent(id); e.Kind != EventDeferred {
		t.Fatalf("event %+v", e)
	}
	// It was a mistake, and the clock is set back: what waits does not wait
	// for the wrong time.
	leapt = -300 * 24 * time.Hour
	now = epoch.Add(2 * time.Minute)
	q.due(now, "there.test")
	settle(q.take(now, "there.test"), now, deferred())
	if m, err := q.Message(id); err != nil || m.States[0].Attempts != 3 || !m.States[0].DueAt.Equal(now.Add(10*time.Minute)) {
		t.Fatalf("message %+v %v", m, err)
	}
	// And a leap that was meant expires mail, ten minutes later.
	leapt = 300 * 24 * time.Hour
	now = now.Add(leapt)
	q.Sweep(now)
	q.settled()
	if _, err := q.Message(id); err != nil {
		t.Fatal(err)
	}
	now = now.Add(distrustFor)
	q.Sweep(now)
	if e := q.lastEvent(id); e.Kind != EventExpired {
		t.Fatalf("event %+v", e)
	}
}

// TestWrongClockAtStart: what was written under a clock far ahead is not
// waited for until then; what a person asked to be late is.
func TestWrongClockAtStart(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t, oneSchedule(shortSchedule))
	ahead := epoch.Add(300 * 24 * time.Hour)
	fresh := q.send(ahead, "a@fresh.test")
	q.send(ahead, "a@tried.test")
	settle(q.take(ahead, "tried.test"), ahead, deferred())
	late := envelope(q.Queue, epoch, "a@late.test")
	late.NotBefore = epoch.Add(48 * time.Hour)
	q.submit(late, testBody)
	q.settled()
	q.restart()
	q.due(epoch, "fresh.test", "tried.test")
	if c := q.take(epoch, "fresh.test"); c.Envelope.ID != fresh {
		t.Fatalf("claim %+v", c)
	}
	q.take(epoch, "tried.test")
	q.nothing(epoch, "late.test")
	q.take(late.NotBefore, "late.test")
}

func TestDeliverBy(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t, oneSchedule(shortSchedule))
	e := envelope(q.Queue, epoch, "a@there.test")
	e.DeliverBy = epoch.Add(8 * time.Minute)
	id := q.submit(e, testBody)
	settle(q.take(epoch, "there.test"), epoch, deferred()) // 10 minutes would be too late
	at := epoch.Add(7 * time.Minute)
	q.nothing(at.Add(-time.Second), "there.test")
	q.take(at, "there.test").Release(at)
	if next := q.Sweep(at); !next.Equal(e.DeliverBy) {
		t.Fatalf("sweep again at %v", next.Sub(epoch))
	}
	q.Sweep(e.DeliverBy)
	if got := q.lastEvent(id); got.Kind != EventExpired || !strings.Contains(got.Outcome.Text, "greylisted") {
		t.Fatalf("event %+v", got)
	}
}

func TestADeadlineEndsHeldMail(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(q *testQueue, e *Envelope){
		"held at once": func(q *testQueue, e *Envelope) {
			e.Held = true
			q.submit(e, testBody)
		},
		"held after an attempt": func(q *testQueue, e *Envelope) {
			q.submit(e, testBody)
			settle(q.take(epoch, "there.test"), epoch, deferred())
			if n, err := q.Hold(t.Context(), epoch, Selector{Domain: "there.test"}, "look at it"); n != 1 || err != nil {
				q.t.Fatal(n, err)
			}
		},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %t", name, restart), func(t *testing.T) {
				t.Parallel()
				q := newTestQueue(t, oneSchedule(shortSchedule))
				e := envelope(q.Queue, epoch, "a@there.test")
				e.DeliverBy = epoch.Add(3 * time.Hour) // the schedule alone would end it after one
				prepare(q, e)
				q.settled()
				if restart {
					q.restart()
				}
				q.Due(epoch, nil)
				if next := q.Sweep(epoch.Add(2 * time.Hour)); !next.Equal(e.DeliverBy) {
					t.Fatalf("sweep again at %v", next)
				}
				q.settled()
				if m, err := q.Message(e.ID); err != nil || m.States[0].Status != StatusHeld {
					t.Fatalf("before its deadline: %+v %v", m, err)
				}
				q.Sweep(e.DeliverBy)
				got := q.lastEvent(e.ID)
				if got.Kind != EventExpired || !strings.HasPrefix(got.Outcome.Text, "not delivered by its deadline, 2") {
					t.Fatalf("event %+v, outcome %+v", got, got.Outcome)
				}
			})
		}
	}
}

// TestHeldMailDoesNotAgeBesideMailThatDoes: of two recipients of one message
// one is held; the other expires, and the sweep that sees to that passes the
// held one by.
func TestHeldMailDoesNotAgeBesideMailThatDoes(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t, oneSchedule(shortSchedule))
	e := envelope(q.Queue, epoch, "a@there.test", "b@elsewhere.test")
	q.submit(e, testBody)
	if n, err := q.Hold(t.Context(), epoch, Selector{Domain: "there.test"}, "look at it"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	q.Sweep(epoch.Add(100 * time.Hour))
	q.settled()
	m, err := q.Message(e.ID)
	if err != nil || m.States[0].Status != StatusHeld || m.States[1].Status != StatusFailed {
		t.Errorf("%+v %v", m, err)
	}
}
