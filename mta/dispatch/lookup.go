package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postrider/mta/delivery"
	"postrider/mta/throttle"
	"postrider/queue"
)

// slowLookup is how long a failed lookup may take before the next one for that
// lane is put behind those of others.
const slowLookup = time.Second

// lookups are the plans that are looked for, a bounded number at a time.
type lookups struct {
	running, slow int
	hanging       int // of which nothing was heard for a while; not in running
	waiting       ring[*lane]
	waitingSlow   ring[*lane] // hung before: they get at most half of the places
}

// route has a plan looked for.
func (d *Dispatcher) route(l *lane) {
	l.state = laneRouting
	d.set(&l.alarm, time.Time{})
	if l.isSlow {
		d.lookups.waitingSlow.push(&l.turn)
	} else {
		d.lookups.waiting.push(&l.turn)
	}
	d.startLookups()
}

func (d *Dispatcher) startLookups() {
	q := &d.lookups
	for !d.stopping && q.running < d.o.Lookups {
		var l *lane
		switch {
		case q.waiting.first != nil:
			l = q.waiting.first.value
		case q.waitingSlow.first != nil && q.slow < max(1, d.o.Lookups/2):
			l = q.waitingSlow.first.value
			q.slow++
		default:
			return
		}
		l.turn.leave()
		q.running++
		d.running.Add(1)
		d.set(&l.alarm, time.Now().Add(asideAfter))
		go d.lookup(l, l.isSlow)
	}
}

// hang lets another lookup begin while that of the lane waits for an answer, as
// with connections; see asideAfter.
func (d *Dispatcher) hang(l *lane) {
	q := &d.lookups
	if q.hanging >= d.o.HangingLookups {
		return
	}
	l.isHanging = true
	q.hanging++
	q.running--
	d.startLookups()
}

// lookup finds the plan of a lane and ends its state laneRouting.
func (d *Dispatcher) lookup(l *lane, wasSlow bool) {
	defer d.running.Done()
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(d.ctx, d.o.LookupTime,
		fmt.Errorf("finding the way to %s took longer than %v", l.domain, d.o.LookupTime))
	plan, err := d.o.Planner.Plan(ctx, l.domain)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = context.Cause(ctx)
	}
	cancel()
	d.mu.Lock()
	d.set(&l.alarm, time.Time{})
	isHanging := l.isHanging
	l.isHanging = false
	if err == nil {
		l.rest, l.isSlow = 0, false
		now := time.Now()
		d.join(l, plan, now)
		d.ready(l, now)
	}
	d.mu.Unlock()
	if err != nil && d.ctx.Err() == nil { // that we stop says nothing about the domain
		d.unroutable(l, delivery.PlanOutcome(err), time.Since(began) >= slowLookup)
	}
	d.mu.Lock()
	if isHanging {
		d.lookups.hanging--
	} else {
		d.lookups.running--
	}
	if wasSlow {
		d.lookups.slow--
	}
	d.startLookups()
	d.mu.Unlock()
}

// unroutable settles mail that there is no way for: all of it, where that is a
// fact; else one message, so that the reason is on record, while the others
// wait with the lane, untouched.
func (d *Dispatcher) unroutable(l *lane, o queue.Outcome, isSlow bool) {
	isFact := o.Verdict == queue.Failed
	for d.ctx.Err() == nil {
		d.mu.Lock()
		named := l.named
		d.mu.Unlock()
		now := time.Now()
		claim, ok := d.o.Source.Take(now, l.domain, d.o.MaxRecipients)
		if !ok {
			d.settledAll(l, named, now)
			return
		}
		outcomes := make([]queue.Outcome, len(claim.Recipients))
		for i := range outcomes {
			outcomes[i] = o
		}
		d.settle(claim, outcomes, queue.Timing{}, now, now)
		if !isFact {
			d.restLane(l, &o, isSlow, now)
			return
		}
	}
}

// settledAll ends the state laneRouting where nothing is left; new work that
// came meanwhile is routed.
func (d *Dispatcher) settledAll(l *lane, named uint64, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l.named != named {
		d.route(l)
		return
	}
	d.becomeEmpty(l, now)
}

// restLane leaves a lane alone for a while.
func (d *Dispatcher) restLane(l *lane, o *queue.Outcome, isSlow bool, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l.failed(o, now)
	l.isSlow = isSlow
	l.rest = min(max(2*l.rest, d.o.BackoffFirst), d.o.BackoffLongest)
	l.state, l.restUntil = laneResting, now.Add(throttle.Spread(l.rest))
	d.set(&l.alarm, l.restUntil)
}
