package throttle

import "time"

// rate spreads events evenly: so many a minute, with a burst of one second's
// worth (at least one). The zero value has no limit.
//
// It keeps one time only (the generic cell rate algorithm): the moment at which
// the bucket would be full again.
type rate struct {
	perMinute int
	interval  time.Duration // between two events
	tolerance time.Duration // how far events may run ahead of even spacing
	fullAt    time.Time
}

func newRate(perMinute int) rate {
	if perMinute <= 0 {
		return rate{}
	}
	interval := (time.Minute + time.Duration(perMinute) - 1) / time.Duration(perMinute) // rounded up: never one too many
	burst := max(1, perMinute/60)
	return rate{perMinute: perMinute, interval: interval, tolerance: time.Duration(burst-1) * interval}
}

// next is when the next event may happen; not after now: at once.
func (r *rate) next() time.Time {
	if r.perMinute == 0 {
		return time.Time{}
	}
	return r.fullAt.Add(-r.tolerance)
}

// take counts an event at now, whether it was due or not.
func (r *rate) take(now time.Time) {
	if r.perMinute == 0 {
		return
	}
	if r.fullAt.Before(now) {
		r.fullAt = now
	}
	r.fullAt = r.fullAt.Add(r.interval)
}

// putBack undoes a take whose event did not happen.
func (r *rate) putBack() {
	if r.perMinute != 0 {
		r.fullAt = r.fullAt.Add(-r.interval)
	}
}

// tighten lowers the rate to perMinute, where that is less.
func (r *rate) tighten(perMinute int) {
	if perMinute <= 0 || r.perMinute != 0 && perMinute >= r.perMinute {
		return
	}
	fullAt := r.fullAt
	*r = newRate(perMinute)
	r.fullAt = fullAt
}
