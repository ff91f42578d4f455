package dispatch

import (
	"time"

	"postrider/mta/delivery"
)

// inFlight is a claim on its way through delivery.
type inFlight struct {
	delivery.Attempt
	claim Claim
	lane  *lane
}

// worker is one connection of a path. It is delivery's Work.
//
// Its goroutine outlives the connection: a session needs a deep stack, and
// growing a new one for each message that finds its lane empty was measured as
// a twentieth of all CPU. It waits in again for the next connection.
type worker struct {
	d       *Dispatcher
	again   chan struct{} // nil: it has no goroutine yet
	isLast  bool          // again means the end
	site    *site
	path    *path
	lane    *lane // that it takes from at present
	isProbe bool
	isAside bool  // total does not count it
	alarm   alarm // when it steps aside
	turnAt  time.Time
	first   *inFlight
	spare   []*inFlight
}

func newWorker(d *Dispatcher) *worker {
	w := &worker{d: d}
	w.alarm.ring = w.stepAside
	return w
}

// begin lets the worker run. The lock need not be held.
func (w *worker) begin() {
	if w.again != nil {
		w.again <- struct{}{}
		return
	}
	w.again = make(chan struct{}, 1)
	w.d.crew.Go(func() {
		for w.run(); ; w.run() {
			if <-w.again; w.isLast {
				return
			}
		}
	})
}

// dismiss ends the goroutine of a worker that is closed and not spare.
func (w *worker) dismiss() {
	if w.again != nil {
		w.isLast = true
		w.again <- struct{}{}
	}
}

// run carries what the worker's path has, and gives the slot back. A worker
// that the loop made asks the queue itself; then it sees to it that the next
// one is made, and so on, for as long as the queue has more.
func (w *worker) run() {
	if w.first == nil {
		w.takeFirst()
	}
	if w.first != nil {
		w.makeNext()
	}
	for f := w.first; f != nil; f = w.next() {
		w.first = nil
		w.d.o.Deliverer.Deliver(w.d.ctx, f.Plan, &f.Attempt, w)
	}
	w.close()
}

// takeFirst asks the queue for the lane that the worker was made for.
func (w *worker) takeFirst() {
	w.d.mu.Lock()
	p := w.picked()
	w.d.mu.Unlock()
	w.first = w.take(p)
	w.d.mu.Lock()
	p.lane.isStarting = false
	if p.lane.state == laneReady && p.lane.path.site != w.site {
		w.d.start(p.lane.path.site, time.Now()) // it was routed anew meanwhile
	}
	w.d.mu.Unlock()
}

// makeNext makes one more worker, if there is a slot and the queue has a
// message for it.
func (w *worker) makeNext() {
	w.d.mu.Lock()
	n := w.d.reserve(w.site, time.Now())
	w.d.mu.Unlock()
	if n == nil {
		return
	}
	if n.takeFirst(); n.first == nil {
		n.close()
		return
	}
	n.begin()
}

// picked is a lane that the queue is about to be asked for.
type picked struct {
	lane          *lane
	plan          *delivery.Plan
	named         uint64
	maxRecipients int
}

func (w *worker) picked() picked {
	return picked{w.lane, w.lane.plan, w.lane.named, w.lane.maxRecipients}
}

// take asks the queue; nil: it has nothing more for the lane. No lock is held:
// the queue may have to read.
func (w *worker) take(p picked) *inFlight {
	now := time.Now()
	claim, ok := w.d.o.Source.Take(now, p.lane.domain, p.maxRecipients)
	for ok && w.d.postpone(&claim, p.lane, now) {
		now = time.Now()
		claim, ok = w.d.o.Source.Take(now, p.lane.domain, p.maxRecipients)
	}
	if !ok {
		w.d.mu.Lock()
		w.uncount()
		w.d.empty(p.lane, p.named, now)
		w.d.mu.Unlock()
		return nil
	}
	var f *inFlight
	if n := len(w.spare); n > 0 {
		f, w.spare = w.spare[n-1], w.spare[:n-1]
	} else {
		f = &inFlight{}
		f.Value = f
	}
	f.claim, f.lane, f.Plan = claim, p.lane, p.plan
	f.Envelope, f.Recipients, f.Content = claim.Envelope, claim.Recipients, claim.Handle
	return f
}

// pick chooses the lane whose turn it is on this connection.
func (w *worker) pick(now time.Time) (p picked, ok bool) {
	d := w.d
	d.mu.Lock()
	defer d.mu.Unlock()
	// What follows the probe of dead hosts waits until it has succeeded.
	if d.stopping || !w.path.limit.DeadSince().IsZero() || w.mustYield(now) {
		return picked{}, false
	}
	for n := w.path.ready.count; n > 0; n-- {
		l, _ := w.path.ready.turn()
		if d.hasExpired(l, now) || l != w.lane && !d.connection(l, now) || !d.message(l, now) {
			continue
		}
		if d.messageHold(w.site, now) {
			return picked{}, false
		}
		if l != w.lane {
			w.leave()
			w.enter(l, now)
		}
		w.count(now)
		return w.picked(), true
	}
	return picked{}, false
}

// messageHold reports whether the messages of the site, or all, have reached
// their rate, and sees to it that the site is looked at again.
func (d *Dispatcher) messageHold(s *site, now time.Time) bool {
	if h := s.limit.Message(now); h.Holds() {
		d.set(&s.alarm, h.Until)
		return true
	}
	if h := d.total.Message(now); h.Holds() {
		d.waiting.push(&s.waiting)
		d.set(&d.roomAlarm, h.Until)
		return true
	}
	return false
}

// next takes the next message for this connection.
func (w *worker) next() *inFlight {
	for {
		p, ok := w.pick(time.Now())
		if !ok {
			return nil
		}
		if f := w.take(p); f != nil {
			return f
		}
	}
}

// Next is for delivery.
func (w *worker) Next() (*delivery.Attempt, bool) {
	f := w.next()
	if f == nil {
		return nil, false
	}
	return &f.Attempt, true
}

// Done is for delivery.
func (w *worker) Done(a *delivery.Attempt, r *delivery.Report) {
	f := a.Value.(*inFlight)
	now := r.EndedAt
	if now.IsZero() { // nothing was tried
		now = time.Now()
		r.StartedAt = now
	}
	if r.IsUntried() {
		f.claim.Handle.Release(now)
	} else {
		w.d.settle(f.claim, r.Outcomes, r.Timing, r.StartedAt, now)
		w.d.learn(w, f.lane, r, now)
	}
	f.claim, f.lane, f.Attempt = Claim{}, nil, delivery.Attempt{Value: f}
	w.spare = append(w.spare, f)
}

// learn takes in what an attempt told about its host, path and site.
func (d *Dispatcher) learn(w *worker, l *lane, r *delivery.Report, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, p := w.site, w.path
	if r.MaxRecipients > 0 && r.MaxRecipients < l.maxRecipients {
		l.maxRecipients = r.MaxRecipients
	}
	for i := range r.Outcomes {
		if isFailure(r.Outcomes[i].Verdict) {
			l.failed(&r.Outcomes[i], now)
			break
		}
	}
	switch {
	case r.Site == delivery.SiteFailed:
		p.limit.Failed(now, r.StartedAt)
		s.limit.Narrow()
	case r.Site == delivery.SiteAlive && p.limit.Succeeded(now):
		d.revive(p)
	}
	switch {
	case r.Slow:
		if s.limit.Window() == 1 {
			s.limit.Pause(now.Add(d.o.BackoffFirst), "a host asked for less")
		}
		s.limit.Narrow()
	case r.Site == delivery.SiteAlive:
		s.limit.Succeeded(now)
	}
	if r.Pause > 0 {
		s.limit.Pause(now.Add(r.Pause), r.Why)
	}
	if s.ready.count > 0 && s.limit.InUse() < s.limit.Window() {
		d.start(s, now)
	}
}
