package throttle

import (
	"math/rand/v2"
	"time"
)

// spread is the part by which Spread changes a wait.
const spread = 0.1

// backoff is the state of a peer that may be dead. While it is, nothing is
// opened until a time; then one probe; its failure doubles the wait, its
// success ends the state.
type backoff struct {
	first, longest time.Duration // 0: never dead
	wait           time.Duration // the wait that ends at until
	since, until   time.Time     // zero since: alive
	probing        bool
	lastSuccess    time.Time
}

func (b *backoff) isDead() bool { return !b.since.IsZero() }

// failed takes in that something begun at began found the peer dead. It is not
// believed when another got through in the meantime; and what began before the
// death was known says nothing new.
func (b *backoff) failed(now, began time.Time) {
	if b.first <= 0 || began.Before(b.lastSuccess) {
		return
	}
	switch {
	case !b.isDead():
		b.since = now
		b.wait = b.first
	case began.Before(b.since) || now.Before(b.until):
		return
	default:
		b.wait = min(b.wait*2, b.longest)
	}
	b.until = now.Add(Spread(b.wait))
}

// succeeded answers whether that brought the peer back to life.
func (b *backoff) succeeded(now time.Time) (revived bool) {
	b.lastSuccess = now
	if !b.isDead() {
		return false
	}
	b.since, b.until, b.wait = time.Time{}, time.Time{}, 0
	return true
}

// Spread lengthens or shortens a wait at random by up to a tenth, so that what
// failed in one moment is not tried again in one moment.
func Spread(d time.Duration) time.Duration {
	return d + time.Duration((2*rand.Float64()-1)*spread*float64(d))
}
