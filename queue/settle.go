package queue

import (
	"fmt"
	"time"
)

// happening is one line of history in the making. What a settle comes to is
// first gathered, then written.
type happening struct {
	recipient int32
	kind      EventKind
	attempt   uint32
	outcome   *Outcome
	next      int64
	text      string
}

// Settle ends the claim with one outcome per recipient, in their order. It
// does not wait for the disk, unless thousands of results wait for it already.
// The schedule of the domain turns Deferred into a due time, or into Failed
// when the message's time is over. A missing outcome counts as Untried. A
// second Settle or Release of a claim does nothing.
func (c *Claim) Settle(now time.Time, outcomes []Outcome, t Timing) {
	q, m := c.q, c.m
	at := nanos(now)
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.done {
		return
	}
	c.done = true
	q.writer.waitForRoom()
	q.see(now)
	schedule := q.schedule(m.env.Recipients[c.picked[0]].Domain)
	q.happened = q.happened[:0]
	for k, r := range c.picked {
		s := &m.states[r]
		s.active = false
		if k < len(outcomes) && outcomes[k].Verdict != Untried {
			q.settleOne(m, r, &outcomes[k], schedule, at)
		}
		if o := s.order; o.kind != 0 && !s.final() {
			s.order = order{}
			q.obey(m, r, o, at)
		}
	}
	m.active--
	q.regroup(m, c.entry, at)
	if len(q.happened) > 0 {
		q.record(m, c.picked, t, at)
	}
	q.rest(m, at)
}

// settleOne turns an outcome into a recipient's new state, and owes the
// sender a notice where one is wanted.
func (q *Queue) settleOne(m *message, r int32, o *Outcome, schedule *Schedule, at int64) {
	s := &m.states[r]
	s.dirty = true
	s.attempts++
	s.lastAt = at
	switch o.Verdict {
	case Delivered:
		q.finish(m, r, StatusDelivered, o)
		if !o.Passed {
			q.owe(m, r, NoticeSuccess, at, 0)
		}
		q.happen(m, r, EventDelivered, o)
		return
	case Failed:
		q.finish(m, r, StatusFailed, o)
		q.owe(m, r, NoticeFailure, at, 0)
		q.happen(m, r, EventFailed, o)
		return
	}
	d := deferral{attempts: int(s.attempts), class: o.Class, hint: o.RetryAfter}
	d.again = s.last != nil && (s.last.RetryAfter > 0 || s.last.Class == ClassGreylisted)
	due, ok := schedule.next(at, d, expiry(schedule, m, s), q.chance())
	if !ok && !q.clock.trusted(at) {
		due, ok = at+int64(nth(schedule.Retry, 1)), true
	}
	if !ok {
		q.expire(m, r, o, at)
		return
	}
	s.due = due
	s.last = o
	q.happen(m, r, EventDeferred, o)
}

// happen adds a line of history for a recipient.
func (q *Queue) happen(m *message, r int32, kind EventKind, o *Outcome) *happening {
	s := &m.states[r]
	h := happening{recipient: r, kind: kind, attempt: s.attempts, outcome: o}
	if kind == EventDeferred {
		h.next = s.due
	}
	q.happened = append(q.happened, h)
	return &q.happened[len(q.happened)-1]
}

// expire gives a recipient up because its time is over.
func (q *Queue) expire(m *message, r int32, last *Outcome, at int64) {
	o := expired(m, &m.states[r], last, at)
	q.finish(m, r, StatusFailed, o)
	q.owe(m, r, NoticeFailure, at, 0)
	q.happen(m, r, EventExpired, o)
	q.tellGivenUp(m, r, at)
}

func (q *Queue) tellGivenUp(m *message, r int32, at int64) {
	if q.opts.GivenUp != nil {
		q.opts.GivenUp(timeOf(at), m.env, &m.env.Recipients[r], m.states[r].last)
	}
}

// finish gives a recipient its final state.
func (q *Queue) finish(m *message, r int32, status Status, o *Outcome) {
	s := &m.states[r]
	s.status = status
	s.dirty = true
	s.last = o
	s.order = order{}
	m.open--
}

// expired is the outcome of a recipient whose time is over. It keeps the last
// words of the remote side, which say what stood in the way.
func expired(m *message, s *recipientState, last *Outcome, at int64) *Outcome {
	o := &Outcome{Verdict: Failed, Scope: ScopeRecipient, Stage: StageQueue, Status: "4.4.7", Class: ClassExpired}
	if by := m.env.DeliverBy; !by.IsZero() && !timeOf(at).Before(by) {
		o.Text = "not delivered by its deadline, " + by.UTC().Format(time.RFC3339)
	} else {
		age := time.Duration(at - m.firstDue() - s.paused).Round(time.Second)
		o.Text = fmt.Sprintf("not delivered within %s", age)
	}
	switch {
	case last == nil:
		o.Text += ": never tried"
	case last.Code != 0:
		o.Text += fmt.Sprintf("; last reply: %d %s %s", last.Code, last.Status, last.Text)
	default:
		o.Text += "; last attempt: " + last.Text
	}
	o.Text = clip(o.Text)
	if last != nil {
		o.Remote = last.Remote
		if last.Class != ClassNone {
			o.Class = last.Class
		}
	}
	return o
}

// regroup brings an entry to its place after its recipients' states changed.
func (q *Queue) regroup(m *message, i int32, at int64) {
	q.detach(i)
	q.recompute(m, i, at)
	q.attach(i, at)
}

// record writes down what has happened to recipients: in the same write their
// new states or, where nothing is left to do, the message's end. changed are
// the recipients whose states differ now, rising.
func (q *Queue) record(m *message, changed []int32, t Timing, at int64) {
	c := q.writer.begin(m)
	n := q.notices.sets[m.id]
	if m.open == 0 && n == nil {
		c.ended = true
		m.ended = true
		q.erase(m.env, m.stored)
	} else {
		q.putStates(m, changed)
	}
	q.putHistory(m.id, m.env, c.ended, t, at)
	if n != nil {
		n.unwritten++
		c.notices = n
		q.notices.place(q, n, at)
	}
	q.writer.commit(c)
}

// putStates writes the parts that hold the changed recipients.
func (q *Queue) putStates(m *message, changed []int32) {
	m.stored = true
	for i := range q.happened {
		// The outcomes are the caller's: what stays in memory is a copy.
		h := &q.happened[i]
		if s := &m.states[h.recipient]; s.last != nil && s.last == h.outcome {
			kept := *s.last
			kept.Text = clip(kept.Text)
			s.last = &kept
		}
	}
	last := -1
	for _, r := range changed {
		if part := int(r) / statesPerPart; part != last {
			last = part
			q.putPart(m, part)
		}
	}
}

func (q *Queue) putPart(m *message, part int) {
	w := &q.writer
	from := part * statesPerPart
	w.record.begin()
	encodePart(&w.record, m.states[from:min(from+statesPerPart, len(m.states))])
	record := w.record.end()
	key, value := w.batch.Reserve(stateKeySize, len(record))
	putStateKey(key, m.id, part)
	copy(value, record)
}

// erase deletes a message and all that belongs to it but its history.
func (q *Queue) erase(env *Envelope, stored bool) {
	b := q.writer.batch
	var key [stateKeySize]byte
	putIDKey(key[:], keyEnvelope, env.ID)
	b.Delete(key[:idKeySize])
	if env.large {
		key[0] = keyLargeBody
	} else {
		key[0] = keyBody
	}
	b.Delete(key[:idKeySize])
	if stored {
		for part := range parts(len(env.Recipients)) {
			putStateKey(key[:], env.ID, part)
			b.Delete(key[:])
		}
	}
}

// parts is how many state records a message can have.
func parts(recipients int) int { return (recipients + statesPerPart - 1) / statesPerPart }

// rest lets go of a message when no more work on it is at hand.
func (q *Queue) rest(m *message, at int64) {
	if !m.ended && m.active == 0 && m.cost > 0 && !q.workAtHand(m.id, at) {
		q.unkeep(m)
	}
	if n := q.notices.sets[m.id]; n != nil {
		q.notices.place(q, n, at)
	}
	if m.broken != nil && m.active == 0 && !m.ended {
		q.setAside(m.id, at, m.broken)
	}
	q.cool(m)
}

// workAtHand reports whether a message has claims in flight, or recipients
// that are due.
func (q *Queue) workAtHand(id ID, now int64) bool {
	for i := q.index.first(id); i != noEntry; i = q.slab.at(i).next {
		if e := q.slab.at(i); e.active > 0 || e.place == placeReady || e.place == placeWaiting && e.due <= now {
			return true
		}
	}
	return false
}
