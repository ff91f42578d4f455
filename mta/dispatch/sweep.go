package dispatch

import "time"

// sweepAtLeast bounds the time between two sweeps while mail waits: what came
// since the last one may expire before the time that it named.
const sweepAtLeast = time.Minute

// sweeper calls the queue's Sweep when it wants to be called.
type sweeper struct {
	source Source
	// next is when; zero: not before the queue has changed.
	next time.Time
	due  bool
}

func newSweeper(s Source) *sweeper { return &sweeper{source: s, due: true} }

// changed takes in that there is something new in the queue.
func (s *sweeper) changed() {
	if s.next.IsZero() {
		s.due = true
	}
}

// sweep sweeps if it is time to, and answers when it wants to be called again;
// zero: when the queue has changed.
func (s *sweeper) sweep(now time.Time) time.Time {
	if !s.due && (s.next.IsZero() || now.Before(s.next)) {
		return s.next
	}
	s.due = false
	s.next = s.source.Sweep(now)
	if limit := now.Add(sweepAtLeast); limit.Before(s.next) {
		s.next = limit
	}
	return s.next
}
