package delivery

import (
	"cmp"
	"context"
	"time"

	"postrider/mta/smtpclient"
	"postrider/mta/tlspolicy"
	"postrider/queue"
)

// maxRounds is how many connections may end before their turn comes to an
// attempt, until it is given back as Untried.
const maxRounds = 3

// waiting is an attempt that a connection is needed for.
type waiting struct {
	attempt *Attempt
	plan    *Plan // of its domain
	kind    tlspolicy.Message
	rounds  int // connections that ended under it
}

func (c *carrier) wait(a *Attempt) waiting {
	w := waiting{attempt: a, plan: cmp.Or(a.Plan, c.given)}
	switch env := a.Envelope; {
	case env.RequireTLS: // RFC 8689, section 4.1: it overrides the header field
		w.kind = tlspolicy.MessageRequireTLS
	case env.TLSIgnored:
		w.kind = tlspolicy.MessageTLSIgnored
	}
	return w
}

// carrier is one Deliver: attempts waiting, and one session at a time for them.
type carrier struct {
	agent *Agent
	ctx   context.Context // of this Deliver, which the carrier does not outlive
	given *Plan           // with Deliver
	plan  *Plan           // of the walk, and of the session that it has found
	work  Work

	// pending were taken from work and come before what it has next: the first
	// attempt, and what a session ended under or could not take.
	pending []waiting
	walk    walk
	session *session
	kind    tlspolicy.Message // that the session was opened for
	started int               // transactions in this round
	spare   []*flight
	report  Report

	next func() (*smtpclient.Transaction, bool)
	done func(*smtpclient.Transaction, *smtpclient.Result)
}

func newCarrier(a *Agent) *carrier {
	c := &carrier{agent: a}
	c.next, c.done = c.nextTransaction, c.transactionDone
	return c
}

func (c *carrier) begin(ctx context.Context, plan *Plan, first *Attempt, work Work) {
	c.ctx, c.given, c.plan, c.work = ctx, plan, plan, work
	c.pending = append(c.pending[:0], c.wait(first))
}

// end forgets everything that would keep memory alive.
func (c *carrier) end() {
	c.ctx, c.given, c.plan, c.work, c.session = nil, nil, nil, nil, nil
	clear(c.pending[:cap(c.pending)])
	clear(c.walk.candidates[:cap(c.walk.candidates)])
	c.walk = walk{candidates: c.walk.candidates[:0]}
	c.report = Report{}
}

// run works in rounds of one session each.
func (c *carrier) run() {
	for len(c.pending) > 0 {
		head := &c.pending[0]
		if c.walk.attempt != head.attempt {
			c.plan = head.plan
			c.walk.begin(head.attempt, head.kind, time.Now())
		}
		c.session = c.connect()
		if c.session == nil {
			c.giveUp()
			return
		}
		c.carry()
	}
}

// carry runs the session until there is no more for it, or it ends.
func (c *carrier) carry() {
	s := c.session
	c.kind, c.started = c.walk.kind, 0
	err := s.smtp.Run(c.ctx, c.next, c.done)
	switch now := time.Now(); {
	case err != nil:
		s.drop()
	case c.ctx.Err() == nil && !s.isUnwanted && s.mayCarryMore(c.plan.MaxMessages, c.agent.o.Life, now) && c.agent.pool.put(s, now):
	default:
		s.quit()
	}
	c.session = nil
	if err == nil && c.ctx.Err() != nil {
		c.returnPending()
	}
}

// nextTransaction is what the session asks for more.
func (c *carrier) nextTransaction() (*smtpclient.Transaction, bool) {
	s := c.session
	for {
		if s.isUnwanted || !s.mayCarryMore(c.plan.MaxMessages, c.agent.o.Life, time.Now()) {
			return nil, false
		}
		w, ok := c.nextWaiting()
		if !ok {
			return nil, false
		}
		f := c.flight(w)
		f.remote = s.speakFor(w.plan, w.kind)
		if !f.prepare(s, c.agent.o.Converter) {
			c.reportLocal(f)
			continue
		}
		f.number = s.count
		f.isFirst = s.isReused && c.started == 0
		s.count++
		c.started++
		return &f.tx, true
	}
}

// nextWaiting takes the attempt at the head; one whose message has another TLS
// demand than the session was opened for waits for the next round.
func (c *carrier) nextWaiting() (w waiting, ok bool) {
	if len(c.pending) == 0 {
		a, ok := c.work.Next()
		if !ok {
			return waiting{}, false
		}
		c.pending = append(c.pending, c.wait(a))
	}
	w = c.pending[0]
	if !c.fits(w.kind) {
		return waiting{}, false
	}
	c.pending = append(c.pending[:0], c.pending[1:]...)
	return w, true
}

// fits reports whether the session meets the demand of a message of that kind.
func (c *carrier) fits(kind tlspolicy.Message) bool {
	if kind == c.kind {
		return true
	}
	for i := range c.plan.Hosts {
		h := &c.plan.Hosts[i]
		if h.demands[kind].key != h.demands[c.kind].key || h.demands[kind].Refused != nil {
			return false
		}
	}
	return true
}

func (c *carrier) flight(w waiting) *flight {
	var f *flight
	if n := len(c.spare); n > 0 {
		f, c.spare = c.spare[n-1], c.spare[:n-1]
	} else {
		f = newFlight()
	}
	f.waiting = w
	return f
}

// free keeps a flight for the next attempt, without what the last one held.
func (c *carrier) free(f *flight) {
	f.waiting = waiting{}
	f.outcomes, f.openErr, f.remote = nil, nil, nil
	clear(f.tx.Rcpts)
	f.tx.From, f.tx.Params = "", ""
	const few = 100 // recipients; a larger buffer is not kept
	if cap(f.tx.Rcpts) > few {
		f.tx.Rcpts, f.who = nil, nil
	}
	c.spare = append(c.spare, f)
}

// transactionDone takes in what came of a transaction.
func (c *carrier) transactionDone(tx *smtpclient.Transaction, res *smtpclient.Result) {
	f := tx.Value.(*flight)
	f.discard()
	s := c.session
	s.remote = f.remote // the next one may be on its way, in other words
	w := f.waiting
	end := judgeEnd(f, res, s.label)
	if end.next != again {
		c.agent.observeShared(s, w)
	}
	switch {
	case end.next == again:
		c.again(w)
	case end.next == elsewhere:
		// The walk goes on, or begins where this attempt was not the first.
		end.fault.remote = s.remote
		c.walk.note(end.fault)
		c.walk.sessions++
		c.pending = append(c.pending, w)
	default:
		r := c.begun(res.StartedAt)
		r.Outcomes = f.outcomes
		r.EndedAt = res.EndedAt
		r.Timing.Transfer = res.EndedAt.Sub(res.StartedAt)
		r.MaxRecipients = s.ext.RcptMax
		classify(f, res, s, c.peer(w.attempt), *c.agent.rules.Load(), r)
		if res.Final.Code/100 == 2 {
			s.hasDelivered = true
		}
		if !c.toOtherFamily(w, r) {
			c.hand(w.attempt, r)
		}
	}
	c.free(f)
}

// again has an attempt that was not come to carried over another connection.
func (c *carrier) again(w waiting) {
	w.rounds++
	if w.rounds <= maxRounds && c.ctx.Err() == nil {
		if c.walk.attempt == w.attempt {
			c.walk.attempt = nil // begin anew
		}
		c.pending = append(c.pending, w)
		return
	}
	c.giveBack(w.attempt)
}

// giveBack reports an attempt as untried.
func (c *carrier) giveBack(a *Attempt) {
	r := c.begun(time.Now())
	r.EndedAt = r.StartedAt
	r.Outcomes = make([]queue.Outcome, len(a.Recipients))
	c.hand(a, r)
}

// begun readies the report. The time to connect is told with the first
// attempt of a session.
func (c *carrier) begun(at time.Time) *Report {
	r := &c.report
	*r = Report{StartedAt: at}
	if s := c.session; s != nil && s.took > 0 {
		r.Timing.Connect = s.took
		r.StartedAt = c.walk.since
		s.took = 0
	}
	return r
}

// reportLocal reports an attempt that was decided without the host.
func (c *carrier) reportLocal(f *flight) {
	now := time.Now()
	r := c.begun(now)
	r.EndedAt = now
	r.Outcomes = f.outcomes
	r.MaxRecipients = c.session.ext.RcptMax
	c.hand(f.attempt, r)
	c.free(f)
}

// giveUp ends what waits for a connection that cannot be had: the attempt at
// the head bears it, the others were not come to.
func (c *carrier) giveUp() {
	w := &c.walk
	now := time.Now()
	r := c.begun(w.since)
	r.StartedAt, r.EndedAt = w.since, now
	r.Timing.Connect = now.Sub(w.since)
	head := c.pending[0].attempt
	c.pending = append(c.pending[:0], c.pending[1:]...)
	r.Outcomes = make([]queue.Outcome, len(head.Recipients))
	f := w.worst
	if f == nil {
		f = &fault{stage: queue.StageDNS, status: "4.4.3", text: "the route has no host"}
	}
	if !f.isAborted && c.ctx.Err() == nil {
		o := f.outcome(w.faults-1, w.allPermanent && w.faults > 0)
		isPatience := c.agent.rules.Load().judge(&o, c.peer(head), r)
		if o.Verdict == queue.Deferred && !f.isOwn && !w.isMessages(f) && !isPatience {
			r.Site = SiteFailed
		}
		fill(r.Outcomes, o)
	}
	c.hand(head, r)
	c.returnPending()
}

// isMessages reports whether a fault may come from the TLS demand that this
// message has on top of the others'.
func (w *walk) isMessages(f *fault) bool {
	return w.kind == tlspolicy.MessageRequireTLS && (f.stage == queue.StageSTARTTLS || f.stage == queue.StagePolicy)
}

// returnPending gives back what was not come to.
func (c *carrier) returnPending() {
	for _, w := range c.pending {
		c.giveBack(w.attempt)
	}
	c.pending = c.pending[:0]
}

// peer is whom replies about an attempt are from.
func (c *carrier) peer(a *Attempt) peer {
	p := peer{plan: cmp.Or(a.Plan, c.given), site: c.agent.o.Site}
	if len(a.Recipients) > 0 {
		p.domain = a.Recipients[0].Domain
	}
	return p
}

// hand gives a finished attempt back, with every reason classified.
func (c *carrier) hand(a *Attempt, r *Report) {
	if c.walk.attempt == a {
		c.walk.attempt = nil // the caller may use it again, for another message
	}
	for i := range r.Outcomes {
		classifyReason(&r.Outcomes[i])
	}
	c.work.Done(a, r)
}

func fill(outcomes []queue.Outcome, o queue.Outcome) {
	for i := range outcomes {
		outcomes[i] = o
	}
}
