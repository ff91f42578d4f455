package dispatch

import (
	"time"

	"postrider/mta/throttle"
)

// turn is how long a worker keeps its slot while others wait for it. Shorter
// turns would cost connections, longer ones let a single message wait for more
// than a moment behind a million.
const turn = 250 * time.Millisecond

// keepSpare is how many workers are kept for the next connections. Each has a
// stack of 8 to 32 KB.
const keepSpare = 64

// start gives a site the workers that it may have. The lock is held.
func (d *Dispatcher) start(s *site, now time.Time) {
	for w := d.reserve(s, now); w != nil; w = d.reserve(s, now) {
		w.begin()
	}
}

// startWaiting hands what is free of the total to the sites that wait for it,
// in turns. The lock is held.
func (d *Dispatcher) startWaiting(now time.Time) {
	for d.waiting.count > 0 && !d.hasNoRoom(now) {
		s := d.waiting.first.value
		s.waiting.leave()
		if w := d.reserve(s, now); w != nil {
			w.begin()
			d.waiting.push(&s.waiting)
		}
	}
}

// reserve takes a slot for a lane of the site: of everything that limits
// connections, or of nothing. Nil: no lane needs one, or a limit holds. The lock
// is held.
func (d *Dispatcher) reserve(s *site, now time.Time) *worker {
	if d.stopping || s.ready.count == 0 || d.isHeld(s, now) {
		return nil
	}
	for n := s.ready.count; n > 0; n-- {
		p, _ := s.ready.turn()
		if p.aside > 0 && p.aside == p.workers {
			p.turn.leave() // Connecting offers it again
			continue
		}
		if h := p.limit.Connection(now); h.Holds() {
			d.rest(p, h)
			continue
		}
		if l := d.choose(p, now); l != nil {
			return d.open(l, now)
		}
	}
	return nil
}

// isHeld reports whether a limit of the total or of the site holds, and sees to
// it that the site is looked at again.
func (d *Dispatcher) isHeld(s *site, now time.Time) bool {
	if h := firstHold(s.limit, now); h.Holds() {
		d.set(&s.alarm, h.Until)
		return true
	}
	if d.hasNoRoom(now) {
		d.waiting.push(&s.waiting)
		return true
	}
	return false
}

// hasNoRoom reports whether a limit of the total holds.
func (d *Dispatcher) hasNoRoom(now time.Time) bool {
	h := firstHold(d.total, now)
	d.set(&d.roomAlarm, h.Until)
	return h.Holds()
}

// firstHold asks a limit for a connection and a message: who gets the one
// takes the other at once.
func firstHold(l *throttle.Limit, now time.Time) throttle.Hold {
	if h := l.Connection(now); h.Holds() {
		return h
	}
	return l.Message(now)
}

// choose finds a lane of the path that may have another worker, in turns.
func (d *Dispatcher) choose(p *path, now time.Time) *lane {
	for n := p.ready.count; n > 0; n-- {
		l, _ := p.ready.turn()
		if l.isStarting || d.hasExpired(l, now) || !d.connection(l, now) {
			continue
		}
		return l
	}
	if p.ready.count == 0 {
		p.turn.leave()
	}
	return nil
}

// open makes a worker with a slot, and the first message counted.
func (d *Dispatcher) open(l *lane, now time.Time) *worker {
	var w *worker
	if n := len(d.spare); n > 0 {
		w, d.spare = d.spare[n-1], d.spare[:n-1]
	} else {
		w = newWorker(d)
	}
	d.running.Add(1)
	w.site, w.path, w.turnAt = l.path.site, l.path, now
	w.isProbe = l.path.limit.Open(now)
	l.path.workers++
	w.site.limit.Open(now)
	d.total.Open(now)
	w.enter(l, now)
	l.isStarting = true
	w.count(now)
	return w
}

// close gives the slot back, and lets others have it.
func (w *worker) close() {
	d, p, s, now := w.d, w.path, w.site, time.Now()
	d.mu.Lock()
	w.leave()
	p.workers--
	p.limit.Close(w.isProbe)
	s.limit.Close(false)
	d.total.Close(false)
	if w.isProbe {
		d.offer(p)
	}
	if p.lanes == 0 && p.workers == 0 {
		d.forgetPath(p, now)
	}
	w.site, w.path = nil, nil
	if len(d.spare) < keepSpare {
		d.spare = append(d.spare, w)
	} else {
		w.dismiss()
	}
	d.startWaiting(now)
	d.start(s, now)
	d.mu.Unlock()
	d.running.Done()
}

// enter and leave tell a lane that the worker carries it. The lock is held.
func (w *worker) enter(l *lane, now time.Time) {
	w.lane = l
	l.workers++
	if l.limit != nil {
		l.limit.Open(now)
	}
}

func (w *worker) leave() {
	l := w.lane
	w.lane = nil
	l.workers--
	if l.limit == nil {
		return
	}
	l.limit.Close(false)
	if l.hold.Reason == throttle.Full {
		w.d.release(l)
	}
}

// count takes a message from every limit; uncount gives it back. The lock is
// held.
func (w *worker) count(now time.Time) {
	w.d.total.Send(now)
	w.site.limit.Send(now)
	if l := w.lane.limit; l != nil {
		l.Send(now)
	}
}

func (w *worker) uncount() {
	w.d.total.PutBack()
	w.site.limit.PutBack()
	if l := w.lane.limit; l != nil {
		l.PutBack()
	}
}

// mustYield reports whether the worker had its turn and others wait for what
// it holds. The lock is held.
func (w *worker) mustYield(now time.Time) bool {
	if now.Sub(w.turnAt) < turn {
		return false
	}
	if ring := &w.d.waiting; ring.count > 1 || ring.count == 1 && ring.first.value != w.site {
		return true
	}
	ready := &w.site.ready
	return ready.count > 1 || ready.count == 1 && ready.first.value != w.path
}
