package bounce

import (
	"sync"
	"time"
)

// storm counts the reports of the present hour, by sender.
type storm struct {
	most int

	mu     sync.Mutex
	since  time.Time
	counts map[string]int
}

const (
	stormSpan = time.Hour
	// maxSenders bounds the memory. When there are more, none of them alone is
	// a storm's victim.
	maxSenders = 100_000
)

// allow counts a report, and reports whether the sender may have it.
func (s *storm) allow(now time.Time, sender string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counts == nil {
		s.counts, s.since = make(map[string]int), now
	}
	if _, known := s.counts[sender]; !known && len(s.counts) >= maxSenders {
		return true
	}
	s.counts[sender]++
	return s.counts[sender] <= s.most
}

// over ends the hour, where it is over, and answers how many reports were
// dropped in it, by sender.
func (s *storm) over(now time.Time) map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counts == nil || now.Sub(s.since) < stormSpan {
		return nil
	}
	counts := s.counts
	s.counts = nil
	for sender, n := range counts {
		if n <= s.most {
			delete(counts, sender)
		} else {
			counts[sender] = n - s.most
		}
	}
	return counts
}

// tellStorm logs what was dropped in an hour that is over.
func (r *Reporter) tellStorm(now time.Time) {
	for sender, n := range r.storm.over(now) {
		r.log.Warn("reports were dropped, since their sender had too many in an hour", "to", sender, "dropped", n, "limit", r.storm.most)
	}
}
