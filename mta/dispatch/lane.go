package dispatch

import (
	"time"

	"postrider/mta/delivery"
	"postrider/mta/throttle"
	"postrider/queue"
)

// laneState is what a lane does. Its changes:
//
//	empty -> routing    work became due, and there is no plan, or an old one
//	empty -> ready      work became due, and there is a plan
//	routing -> ready    a plan was found
//	routing -> resting  there is none for now: DNS failed
//	routing -> empty    there is none, and all that was due has failed
//	resting -> routing  after a while
//	ready -> held       a limit of its own holds
//	held -> ready       after a while, or when something is given back
//	ready -> routing    the plan expired
//	ready -> empty      the queue has nothing more
type laneState uint8

const (
	laneEmpty laneState = iota
	laneRouting
	laneResting
	laneReady
	laneHeld
)

// lane is what waits for one destination domain.
type lane struct {
	domain string
	state  laneState
	// named counts how often the queue named the domain. The queue names it
	// again only after Take answered "nothing more"; a worker that got this answer
	// makes the lane empty only if the count is still what it was before.
	named uint64

	plan      *delivery.Plan
	planUntil time.Time
	path      *path
	turn      node[*lane] // in path.ready while state is laneReady
	// isStarting: a worker was started for it and has not yet asked the queue.
	// Until it has, no second one is: the queue may hold a single message.
	isStarting bool

	limit         *throttle.Limit // its own; nil: none is set
	maxRecipients int
	hold          throttle.Hold // with laneHeld
	paced         throttle.Hold // of a sender whose mail was postponed: the last of it
	alarm         alarm
	rest          time.Duration // the current one; doubles while DNS fails
	restUntil     time.Time

	workers   int  // that carry it now
	isHanging bool // with laneRouting: see hang
	idleSince time.Time
	idleTurn  node[*lane] // in Dispatcher.idle while state is laneEmpty
	isSlow    bool        // its last lookup failed for lack of time

	lastError   string // of the last attempt that did not deliver
	lastErrorAt time.Time
}

// message says whether the lane's own limits let another message go, and holds
// the lane where they do not.
func (d *Dispatcher) message(l *lane, now time.Time) bool {
	if l.limit == nil {
		return true
	}
	if h := l.limit.Message(now); h.Holds() {
		d.holdLane(l, h)
		return false
	}
	return true
}

// connection is the same for another connection.
func (d *Dispatcher) connection(l *lane, now time.Time) bool {
	if l.limit == nil {
		return true
	}
	if h := l.limit.Connection(now); h.Holds() {
		d.holdLane(l, h)
		return false
	}
	return d.message(l, now)
}

func (d *Dispatcher) holdLane(l *lane, h throttle.Hold) {
	l.state, l.hold = laneHeld, h
	l.turn.leave()
	d.set(&l.alarm, h.Until)
}

// release makes a held lane ready again.
func (d *Dispatcher) release(l *lane) {
	if l.state != laneHeld {
		return
	}
	l.hold = throttle.Hold{}
	d.set(&l.alarm, time.Time{})
	l.state = laneReady
	l.path.ready.push(&l.turn)
	d.offer(l.path)
}

// hasExpired sends a lane with an old plan to be routed anew.
func (d *Dispatcher) hasExpired(l *lane, now time.Time) bool {
	if now.Before(l.planUntil) {
		return false
	}
	l.turn.leave()
	d.route(l)
	return true
}

// empty takes in that the queue has nothing more for the lane, unless it was
// named since.
func (d *Dispatcher) empty(l *lane, named uint64, now time.Time) {
	if l.named == named && (l.state == laneReady || l.state == laneHeld) {
		d.becomeEmpty(l, now)
	}
}

func (d *Dispatcher) becomeEmpty(l *lane, now time.Time) {
	l.turn.leave()
	d.set(&l.alarm, time.Time{})
	l.state, l.hold = laneEmpty, throttle.Hold{}
	l.idleSince = now
	d.idle.push(&l.idleTurn)
	if d.idle.count > maxIdle {
		d.forget(d.idle.first.value, now)
	}
	if d.idleAlarm.index == 0 {
		d.set(&d.idleAlarm, now.Add(keepIdle))
	}
}

// failed keeps the last error for people.
func (l *lane) failed(o *queue.Outcome, now time.Time) {
	l.lastError, l.lastErrorAt = errorText(o), now
}
