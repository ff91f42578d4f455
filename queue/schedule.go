package queue

import (
	"errors"
	"time"
)

// Schedule says when a deferred recipient is tried again and when it is given
// up (RFC 5321, section 4.5.4.1).
type Schedule struct {
	Retry            []time.Duration           // the last one repeats; empty: an hour
	RetryFor         map[Class][]time.Duration // in place of Retry after an outcome of that class
	Jitter           float64                   // each wait is spread by this fraction either way; 0.2 by default
	ExpireAfter      time.Duration             // counted from the first due time
	DelayNoticeAfter time.Duration             // 0: never
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

// deferral is what the next wait depends on.
type deferral struct {
	attempts int // made so far
	class    Class
	hint     time.Duration // what the remote asked for; 0: nothing
	again    bool          // the attempt before was put off in this way too
}

// nth gives the n-th wait (from 1).
func nth(waits []time.Duration, n int) time.Duration {
	if len(waits) == 0 {
		return time.Hour
	}
	return waits[min(max(n, 1), len(waits))-1]
}

// longest bounds every wait that the schedule can come to.
func (s *Schedule) longest() time.Duration {
	longest := time.Duration(maxRetryAfter)
	for _, d := range s.Retry {
		longest = max(longest, d)
	}
	for _, waits := range s.RetryFor {
		for _, d := range waits {
			longest = max(longest, d)
		}
	}
	return longest + time.Duration(float64(longest)*s.Jitter)
}

// wait is the time until the next attempt. A greylister gets its first repeat
// when it asked for it, or after the first wait; whoever asks again, or for
// ever, gets no more than the schedule has. chance is a number from 0 to 1.
func (s *Schedule) wait(d deferral, chance float64) time.Duration {
	waits, special := s.RetryFor[d.class]
	if !special {
		waits = s.Retry
	}
	asked := d.hint
	if asked == 0 && d.class == ClassGreylisted && !special && !d.again {
		asked = nth(s.Retry, 1)
	}
	wait := nth(waits, d.attempts)
	wait += time.Duration(float64(wait) * s.Jitter * (2*chance - 1))
	if asked <= 0 {
		return wait
	}
	asked = min(max(asked, minRetryAfter), maxRetryAfter)
	asked += time.Duration(float64(asked) * s.Jitter * chance) // later, and never too early
	if d.again {
		return max(asked, wait)
	}
	return asked
}

// next tells when a recipient is tried again after an attempt failed at now,
// and false where there is no time left for that before expiry. The last try
// comes shortly before the expiry, so that the end of a long wait does not cut
// it off.
func (s *Schedule) next(now int64, d deferral, expiry int64, chance float64) (due int64, ok bool) {
	wait := s.wait(d, chance)
	due = now + int64(wait)
	if due < expiry {
		return due, true
	}
	left := time.Duration(expiry - now)
	if left < nth(s.Retry, 1)/2 {
		return 0, false
	}
	return expiry - int64(min(time.Minute, left/2)), true
}
