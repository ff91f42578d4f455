package queue

import (
	"testing"
	"time"
)

func TestPostponedMailComesBackForItsPlace(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"warm": false, "after a restart": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newTestQueue(t)
			id := q.send(epoch, "a@there.test")
			until := epoch.Add(7 * time.Minute)
			c := q.take(epoch, "there.test")
			if c.Reserved {
				t.Error("nobody postponed it yet")
			}
			c.Postpone(epoch, until, true)
			if restart { // forgotten, so that nothing is late for a reason that is gone
				q.restart()
				q.due(epoch, "there.test")
				if c := q.take(epoch, "there.test"); c.Reserved || c.Attempts != 0 {
					t.Errorf("%+v", c)
				}
				return
			}
			q.nothing(until.Add(-time.Second), "there.test")
			if _, next := q.Due(epoch, nil); !next.Equal(until) {
				t.Errorf("due next at %v", next.Sub(epoch))
			}
			// What an operator does to it does not beat the limit.
			if n, err := q.Retry(t.Context(), epoch, Selector{IDs: []ID{id}}, ""); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			q.nothing(until.Add(-time.Second), "there.test")
			q.due(until, "there.test")
			c = q.take(until, "there.test")
			if !c.Reserved || c.Attempts != 0 {
				t.Errorf("%+v", c)
			}
			c.Release(until)
			if c := q.take(until, "there.test"); c.Reserved {
				t.Error("a place counts once")
			}
		})
	}
}

func TestClockThatLeapsBackDoesNotKeepPostponedMail(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	q.send(epoch, "a@there.test")
	late := epoch.Add(48 * time.Hour)
	q.take(late, "there.test").Postpone(late, late.Add(time.Minute), false)
	if n, err := q.Retry(t.Context(), epoch, Selector{}, ""); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	q.take(epoch, "there.test")
}

func TestPostponedMailCanBeCancelled(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	id := q.send(epoch, "a@there.test")
	c := q.take(epoch, "there.test")
	if n, err := q.Cancel(t.Context(), epoch, Selector{IDs: []ID{id}}, ""); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	c.Postpone(epoch, epoch.Add(time.Minute), true)
	q.nothing(epoch.Add(time.Hour), "there.test")
}
