package queue

import (
	"errors"
	"time"
)

const (
	// The rest between two walks over all entries, for each entry: the walks
	// take a thousandth of a core at most.
	sweepRestPerEntry = 10 * time.Microsecond
	sweepRest         = 100 * time.Millisecond
)

// Sweep fails what has waited longer than its schedule allows or past its
// DeliverBy, and writes the delay notices that are owed, for all that waits,
// tried or not; it answers when it wants to be called next (zero: when Changed
// says so).
func (q *Queue) Sweep(now time.Time) (next time.Time) {
	at := nanos(now)
	q.mu.Lock()
	q.see(now)
	q.wantTrim(now)
	if q.sweepAt == 0 || at < q.sweepAt || !q.clock.trusted(at) || q.refusing() {
		defer q.mu.Unlock()
		return q.nextSweep(at, 0)
	}
	entries := q.slab.count
	q.sweepAt = 0 // whatever is entered from here on counts
	q.mu.Unlock()
	var earliest int64
	for i, more := int32(0), true; more; {
		var due []ID
		due, i, earliest, more = q.sweepStep(at, i, earliest)
		for _, id := range due {
			if !q.sweepMessage(id, at) {
				earliest = at // once more
			}
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if earliest != 0 && (q.sweepAt == 0 || earliest < q.sweepAt) {
		q.sweepAt = earliest
	}
	return q.nextSweep(at, max(sweepRest, time.Duration(entries)*sweepRestPerEntry))
}

func (q *Queue) nextSweep(at int64, rest time.Duration) time.Time {
	next := q.sweepAt
	if next == 0 {
		return time.Time{}
	}
	if !q.clock.trusted(at) {
		next = max(next, q.clock.distrust)
	}
	if q.refusing() {
		rest = max(rest, time.Second)
	}
	return timeOf(max(next, at+int64(rest)))
}

// sweepStep looks at the next entries and gives the messages that want
// attention, and when the first of the others will.
func (q *Queue) sweepStep(at int64, i int32, earliest int64) ([]ID, int32, int64, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var due []ID
	for end := i + walkStep; i < end && i < q.slab.used; i++ {
		e := q.slab.at(i)
		switch {
		case !e.live() || e.sweepAt == 0:
		case e.sweepAt <= at:
			if k := len(due); k == 0 || due[k-1] != e.id {
				due = append(due, e.id)
			}
		case earliest == 0 || e.sweepAt < earliest:
			earliest = e.sweepAt
		}
	}
	return due, i, earliest, i < q.slab.used
}

// sweepMessage expires and warns for the recipients of one message that are
// not claimed: those settle themselves. It reports whether the message could
// be read.
func (q *Queue) sweepMessage(id ID, at int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.writer.waitForRoom()
	if q.index.first(id) == noEntry {
		return true
	}
	m, err := q.hot(id)
	var d *damage
	if errors.As(err, &d) {
		if q.index.first(id) != noEntry {
			q.setAside(id, at, err)
		}
		return true
	}
	if err != nil {
		return false
	}
	defer q.unpin(m)
	q.happened = q.happened[:0]
	var changed []int32
	for r := range m.states {
		if q.sweepRecipient(m, int32(r), at) {
			changed = append(changed, int32(r))
		}
	}
	q.regroupAll(m, at)
	if len(changed) > 0 {
		q.record(m, changed, Timing{}, at)
	}
	q.rest(m, at)
	return true
}

// regroupAll brings all entries of a message to their places.
func (q *Queue) regroupAll(m *message, at int64) {
	for i := q.index.first(m.id); i != noEntry; {
		next := q.slab.at(i).next
		q.regroup(m, i, at)
		i = next
	}
}

func (q *Queue) sweepRecipient(m *message, r int32, at int64) bool {
	s := &m.states[r]
	if s.final() || s.active {
		return false
	}
	if by := nanos(m.env.DeliverBy); s.status == StatusHeld && (by == 0 || at < by) {
		return false // held mail does not age, but a deadline is a deadline
	}
	to := &m.env.Recipients[r]
	schedule := q.schedule(to.Domain)
	end := expiry(schedule, m, s)
	if at >= end {
		q.expire(m, r, s.last, at)
		return true
	}
	if w := warning(schedule, m, s, to.Notify); w != 0 && at >= w {
		s.warned = true
		s.dirty = true
		q.owe(m, r, NoticeDelay, at, end)
		return true
	}
	return false
}
