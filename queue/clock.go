package queue

import "time"

const (
	// A wall clock that moves by this much against the monotonic one has been
	// set, not run.
	clockLeap = time.Hour
	// How long nothing is given up after a leap: if the new time is wrong,
	// whoever keeps the clock has until then to mend it.
	distrustFor = 10 * time.Minute
)

// clock watches the times that the queue is told.
type clock struct {
	last     time.Time
	distrust int64 // until when no age is believed, unix nanoseconds
	elapsed  func(from, to time.Time) (wall, monotonic time.Duration)
}

// elapsed measures a span with either clock; without monotonic readings both
// are the same.
func elapsed(from, to time.Time) (wall, monotonic time.Duration) {
	return to.Round(0).Sub(from.Round(0)), to.Sub(from)
}

// see takes note of the time and reports whether the clock has leapt, or is
// seen for the first time.
func (c *clock) see(now time.Time) bool {
	last := c.last
	c.last = now
	if last.IsZero() {
		return true
	}
	wall, monotonic := c.elapsed(last, now)
	if (wall - monotonic).Abs() < clockLeap {
		return false
	}
	c.distrust = nanos(now) + int64(distrustFor)
	return true
}

// trusted reports whether ages may be believed.
func (c *clock) trusted(at int64) bool {
	return at >= c.distrust || at < c.distrust-int64(distrustFor)
}

// see watches the clock for leaps. After one, what waits for a time that the
// schedule cannot have meant is brought back to where it can.
func (q *Queue) see(now time.Time) {
	first := q.clock.last.IsZero()
	if !q.clock.see(now) {
		return
	}
	if !first {
		q.log.Warn("the clock has leapt: nothing is given up for a while", "now", now, "for", distrustFor)
	}
	at := nanos(now)
	for i := range q.slab.used {
		e := q.slab.at(i)
		if !e.live() || e.place != placeWaiting || e.scheduled {
			continue
		}
		latest := at + int64(q.schedule(q.lanes.all[e.lane].name).longest())
		if e.due <= latest {
			continue
		}
		q.detach(i)
		e.due = at
		q.attach(i, at)
	}
}
