package queue

import (
	"slices"
	"testing"
	"time"
)

func (q *testQueue) suspend(now time.Time, s Suspension) {
	q.t.Helper()
	if err := q.Suspend(q.t.Context(), now, s); err != nil {
		q.t.Fatal(err)
	}
}

func (q *testQueue) resume(now time.Time, s Suspension, want int) {
	q.t.Helper()
	ended, err := q.Resume(q.t.Context(), now, s)
	if err != nil || len(ended) != want {
		q.t.Fatalf("resumed %+v (%v), want %d", ended, err, want)
	}
}

// TestSuspend: what matches is not handed out, whether it was there before or
// comes later, until it is resumed, or its time is over; a restart changes
// nothing.
func TestSuspend(t *testing.T) {
	type mail struct{ sender, tag, domain string }
	all := []mail{{"a@src.test", "news", "x.test"}, {"b@src.test", "", "x.test"}, {"a@src.test", "", "y.sub.test"}, {"c@other.test", "news", "y.sub.test"}, {"", "", "z.test"}}
	for name, c := range map[string]struct {
		s       Suspension
		matches []int
	}{
		"domain":        {Suspension{Domain: "x.test"}, []int{0, 1}},
		"subdomains":    {Suspension{Domain: "*.sub.test"}, []int{2, 3}},
		"sender":        {Suspension{Sender: "a@src.test"}, []int{0, 2}},
		"sender domain": {Suspension{Sender: "@src.test"}, []int{0, 1, 2}},
		"null sender":   {Suspension{Sender: NullSender}, []int{4}},
		"tag":           {Suspension{Tag: "news"}, []int{0, 3}},
		"site":          {Suspension{Site: "mx.x"}, []int{0, 1}},
		"two of them":   {Suspension{Tag: "news", Domain: "x.test"}, []int{0}},
		"everything":    {Suspension{}, []int{0, 1, 2, 3, 4}},
		"nothing":       {Suspension{Tag: "other"}, nil},
	} {
		for _, when := range []string{"before", "after", "scheduled", "restart"} {
			for _, end := range []string{"resumed", "over"} {
				t.Run(name+" "+when+" "+end, func(t *testing.T) {
					t.Parallel()
					q := newTestQueue(t)
					s := c.s
					s.Since, s.Reason = epoch, "blocked by the provider"
					if end == "over" {
						s.Until = epoch.Add(time.Hour)
					}
					if when != "after" {
						q.suspend(epoch, s)
					}
					ids := make(map[ID]int)
					for i, m := range all {
						e := envelope(q.Queue, epoch, "r@"+m.domain)
						e.Sender, e.Tag = m.sender, m.tag
						if when == "scheduled" {
							e.NotBefore = epoch.Add(time.Minute)
						}
						ids[q.submit(e, testBody)] = i
					}
					if when == "after" {
						q.suspend(epoch, s)
					}
					if when == "restart" {
						q.restart()
					}
					now := epoch.Add(2 * time.Minute)
					taken := q.takeAll(now, ids)
					for i := range all {
						if slices.Contains(taken, i) == slices.Contains(c.matches, i) {
							t.Errorf("taken: %v, suspended should be %v", taken, c.matches)
							break
						}
					}
					if got := q.Suspensions(now); len(got) != 1 || got[0].Reason != s.Reason || !got[0].Since.Equal(epoch) {
						t.Errorf("suspensions %+v", got)
					}
					if end == "over" {
						if len(c.matches) > 0 {
							if _, next := q.Due(now, nil); !next.Equal(s.Until) {
								t.Errorf("next at %v", next)
							}
						}
						now = s.Until
					} else {
						q.resume(now, c.s, 1)
					}
					taken = append(taken, q.takeAll(now, ids)...)
					if len(taken) != len(all) {
						t.Errorf("taken in the end: %v", taken)
					}
					if got := q.Suspensions(now); len(got) != 0 {
						t.Errorf("suspensions %+v", got)
					}
					q.settled()
					q.restart()
					if got := q.Suspensions(epoch); len(got) != 0 {
						t.Errorf("suspensions after a restart %+v", got)
					}
				})
			}
		}
	}
}

// takeAll delivers what Due names, after telling the domains' sites.
func (q *testQueue) takeAll(now time.Time, ids map[ID]int) (taken []int) {
	q.t.Helper()
	domains, _ := q.Due(now, nil)
	for _, d := range domains {
		q.SetSite(now, d, map[string]string{"x.test": "mx.x", "y.sub.test": "mx.y"}[d])
		for {
			c, ok := q.Take(now, d, 10)
			if !ok {
				break
			}
			taken = append(taken, ids[c.Envelope.ID])
			settle(c, now, delivered())
		}
	}
	return taken
}

func TestSuspensionIsReplaced(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	q.suspend(epoch, Suspension{Domain: "x.test", Since: epoch, Reason: "first"})
	q.suspend(epoch, Suspension{Domain: "y.test", Since: epoch.Add(1)})
	q.suspend(epoch, Suspension{Domain: "x.test", Since: epoch.Add(2), Reason: "second"})
	q.restart()
	got := q.Suspensions(epoch)
	if len(got) != 2 || got[1].Reason != "second" {
		t.Fatalf("suspensions %+v", got)
	}
	q.resume(epoch, Suspension{Domain: "z.test"}, 0)
	q.resume(epoch, Suspension{}, 2)
}

// TestSuspensionThatIsOverIsNotTold: also before the queue has seen to its end.
func TestSuspensionThatIsOverIsNotTold(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	if err := q.Suspend(t.Context(), epoch, Suspension{Domain: "there.test", Until: epoch.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if before, after := q.Suspensions(epoch), q.Suspensions(epoch.Add(time.Hour)); len(before) != 1 || len(after) != 0 {
		t.Errorf("before its end %v, then %v", before, after)
	}
}
