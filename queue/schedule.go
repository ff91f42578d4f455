package queue

import (
	"errors"
	"time"
)

// Schedule says when a deferred recipient is tried again and when it is given
// up (RFC 5321, section 4.5.4.1).
type Schedule struct {
	Retry            []time.Duration // the last one repeats; empty: an hour
	Jitter           float64         // each wait is spread by this fraction either way; 0.2 by default
	ExpireAfter      time.Duration   // counted from the first due time
	DelayNoticeAfter time.Duration   // 0: never
}

// DefaultSchedule gives a new copy of what holds where nothing is configured.
func DefaultSchedule() *Schedule {
	return &Schedule{
		Retry: []time.Duration{
			5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute,
			time.Hour, 2 * time.Hour, 4 * time.Hour,
		},
		Jitter:           0.2,
		ExpireAfter:      5 * 24 * time.Hour,
		DelayNoticeAfter: 4 * time.Hour,
	}
}

// The errors that callers decide by.
var (
	ErrFull     = errors.New("queue: no room")
	ErrClosed   = errors.New("queue: closed")
	ErrNotFound = errors.New("queue: no such message")
	// ErrAmbiguous is Find's answer where several IDs begin so.
	ErrAmbiguous = errors.New("queue: several messages have an ID that begins so")
)

// The bounds within which a remote's own hint is followed.
const (
	minRetryAfter = time.Second
	maxRetryAfter = 4 * time.Hour
)

// retry gives the n-th wait (from 1) before jitter.
func (s *Schedule) retry(n int) time.Duration {
	if len(s.Retry) == 0 {
		return time.Hour
	}
	return s.Retry[min(max(n, 1), len(s.Retry))-1]
}

// longest bounds every wait that the schedule can come to.
func (s *Schedule) longest() time.Duration {
	longest := time.Duration(maxRetryAfter)
	for _, d := range s.Retry {
		longest = max(longest, d+time.Duration(float64(d)*s.Jitter))
	}
	return longest
}

// next tells when a recipient is tried again after its n-th attempt failed at
// now, and false where there is no time left for that before expiry. chance
// is a number from 0 to 1. The last try comes shortly before the expiry, so
// that the end of a long wait does not cut it off.
func (s *Schedule) next(now int64, n int, hint time.Duration, expiry int64, chance float64) (due int64, ok bool) {
	wait := s.retry(n)
	wait += time.Duration(float64(wait) * s.Jitter * (2*chance - 1))
	if hint > 0 {
		wait = min(max(hint, minRetryAfter), maxRetryAfter)
	}
	due = now + int64(wait)
	if due < expiry {
		return due, true
	}
	left := time.Duration(expiry - now)
	if left < s.retry(1)/2 {
		return 0, false
	}
	return expiry - int64(min(time.Minute, left/2)), true
}
