package queue

import (
	"errors"
	"slices"
	"time"
)

// Claim is one message and recipients of it at one domain, held by one
// worker, until Settle. Its exported fields are read-only.
type Claim struct {
	Envelope   *Envelope // shared: Envelope.Recipients holds those of ALL domains
	Recipients []Recipient
	Attempts   int       // attempts made before this one, the largest of the recipients'
	DueAt      time.Time // since when it was due
	Reserved   bool      // it was postponed to a place of its own, and comes back for it

	q      *Queue
	m      *message
	entry  int32
	picked []int32 // the recipients' places in the envelope, rising
	done   bool
}

// Take hands out the next due claim of a domain: urgent before normal before
// bulk, then in turns by sender, then oldest due first. maxRecipients caps the
// recipients in one claim; what is over stays due.
// ok is false where nothing is due (or all is held, suspended or claimed), and
// while the store is out of order.
func (q *Queue) Take(now time.Time, domain string, maxRecipients int) (c *Claim, ok bool) {
	at := nanos(now)
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		l, ln := q.lanes.find(domain)
		if ln == nil {
			return nil, false
		}
		q.promote(l, ln, at, promoteAtOnce)
		_, i := ln.pick()
		if i == noEntry || q.refusing() {
			ln.named = false
			q.tidy(l)
			return nil, false
		}
		m := q.messages[q.slab.at(i).id]
		if m == nil {
			var err error
			if m, err = q.fetch(i, at); err != nil {
				continue // set aside, or left alone for a while
			}
		} else {
			m.pins++
		}
		c := q.claim(m, i, at, max(maxRecipients, 1))
		q.unpin(m)
		if c != nil {
			return c, true
		}
	}
}

// readRest is how long a message is left alone that could not be read for a
// reason that passes.
const readRest = 10 * time.Second

// fetch reads the message of an entry from the disk, and pins it. Meanwhile
// nobody else finds the entry.
func (q *Queue) fetch(i int32, now int64) (*message, error) {
	e := q.slab.at(i)
	id := e.id
	q.detach(i)
	e.pins++
	q.attach(i, now)
	m, err := q.hot(id)
	q.detach(i)
	e.pins--
	if err != nil {
		e.due = now + int64(readRest)
		q.attach(i, now)
		var d *damage
		if errors.As(err, &d) {
			q.setAside(id, now, err)
		}
		return nil, err
	}
	q.recompute(m, i, now)
	q.attach(i, now)
	return m, nil
}

// claim marks the due recipients of an entry as claimed. It gives nil where
// none is due after all; the entry has its right place then.
func (q *Queue) claim(m *message, i int32, now int64, limit int) *Claim {
	e := q.slab.at(i)
	if !e.live() || e.id != m.id {
		return nil // it has ended while the message was being read
	}
	c := &Claim{Envelope: m.env, q: q, m: m, entry: i, Reserved: e.reserved}
	e.slot, e.reserved = 0, false
	g := m.groupOf(e.lane)
	schedule := q.schedule(q.lanes.all[e.lane].name)
	due := now
	for _, r := range g.recipients {
		s := &m.states[r]
		if s.status != StatusWaiting || s.active {
			continue
		}
		if s.due > now && dueOf(schedule, m, s, now) > now {
			continue
		}
		if c.picked == nil && len(g.recipients) > 1 {
			c.picked = make([]int32, 0, min(limit, int(e.open)))
		}
		if len(g.recipients) == 1 {
			c.picked = g.recipients
		} else {
			c.picked = append(c.picked, r)
		}
		s.active = true
		due = min(due, s.due)
		c.Attempts = max(c.Attempts, int(s.attempts))
		if len(c.picked) == limit {
			break
		}
	}
	if len(c.picked) > 0 {
		c.DueAt = timeOf(due)
		c.Recipients = pickRecipients(m.env.Recipients, c.picked)
		m.active++
	}
	q.pass(e)
	q.detach(i)
	q.recompute(m, i, now)
	q.attach(i, now)
	if len(c.picked) == 0 {
		return nil
	}
	return c
}

// pass ends the turn of an entry's sender.
func (q *Queue) pass(e *entry) {
	if e.place != placeReady {
		return
	}
	r := &q.lanes.all[e.lane].rounds[roundOf(e.priority)]
	if r.cur.sender == e.sender {
		r.cur = r.cur.next
	}
}

// pickRecipients gives the chosen recipients, without copying where they are
// neighbours.
func pickRecipients(all []Recipient, picked []int32) []Recipient {
	first, last := picked[0], picked[len(picked)-1]
	if int(last-first)+1 == len(picked) {
		return slices.Clip(all[first : last+1])
	}
	chosen := make([]Recipient, len(picked))
	for k, r := range picked {
		chosen[k] = all[r]
	}
	return chosen
}

// recompute brings an entry's numbers in line with its recipients' states.
func (q *Queue) recompute(m *message, i int32, now int64) {
	e := q.slab.at(i)
	e.open, e.active, e.held = 0, 0, 0
	e.due, e.sweepAt = 0, 0
	g := m.groupOf(e.lane)
	if g == nil {
		return
	}
	schedule := q.schedule(q.lanes.all[e.lane].name)
	for _, r := range g.recipients {
		s := &m.states[r]
		switch {
		case s.final():
		case s.active:
			e.active++
		case s.status == StatusHeld:
			e.held++
			e.look(nanos(m.env.DeliverBy))
		default:
			e.open++
			if due := dueOf(schedule, m, s, now); e.due == 0 || due < e.due {
				e.due = due
			}
			e.look(lookAt(schedule, m, s, m.env.Recipients[r].Notify))
		}
	}
	if e.open > 0 && now != 0 {
		e.due = max(e.due, e.slotAt(now))
	}
}

func (q *Queue) schedule(domain string) *Schedule {
	if s := q.opts.Schedule(domain); s != nil {
		return s
	}
	return DefaultSchedule()
}

// dueOf is when a recipient is tried next. A time further away than any wait
// of the schedule was written by a clock that was wrong then, or the clock is
// wrong now: what nobody asked to be late is due at once.
func dueOf(schedule *Schedule, m *message, s *recipientState, now int64) int64 {
	if s.due <= now || now == 0 || s.attempts == 0 && m.env.scheduled() || s.due <= now+int64(schedule.longest()) {
		return s.due
	}
	return now
}

// expiry is when a recipient is given up: its schedule's time after it was
// first due, not counting the time it was held; or the message's own deadline,
// if that is earlier.
func expiry(schedule *Schedule, m *message, s *recipientState) int64 {
	at := m.firstDue() + s.paused + int64(schedule.ExpireAfter)
	if by := nanos(m.env.DeliverBy); by != 0 {
		at = min(at, by)
	}
	return at
}

// warning is when a delay notice is owed for a recipient; 0: never.
func warning(schedule *Schedule, m *message, s *recipientState, notify Notify) int64 {
	if s.warned || schedule.DelayNoticeAfter <= 0 || m.env.Sender == "" || !notify.Wants(NotifyDelay) {
		return 0
	}
	return m.firstDue() + s.paused + int64(schedule.DelayNoticeAfter)
}

// lookAt is when Sweep has something to do for a waiting recipient.
func lookAt(schedule *Schedule, m *message, s *recipientState, notify Notify) int64 {
	at := expiry(schedule, m, s)
	if w := warning(schedule, m, s, notify); w != 0 {
		at = min(at, w)
	}
	return at
}

// Content opens the bytes to send. It is called once per attempt; the caller
// closes it. A missing or damaged body is an error that names what is wrong;
// the caller then settles with ScopeMessage, Deferred, and the queue sets the
// message aside.
func (c *Claim) Content() (*Content, error) {
	content, err := c.q.content(c.m)
	if err == nil {
		if f, ok := content.File.(*fileReader); ok {
			f.damaged = c.damaged
		}
		return content, nil
	}
	var d *damage
	if errors.As(err, &d) {
		c.damaged(err)
	}
	return content, err
}

// damaged has the message set aside when its claims have settled.
func (c *Claim) damaged(err error) {
	c.q.mu.Lock()
	defer c.q.mu.Unlock()
	c.m.broken = err
}

// content gives a message's content from memory or from the disk.
func (q *Queue) content(m *message) (*Content, error) {
	q.mu.Lock()
	if b := m.buf; b != nil {
		b.hold()
		prefix := m.prefix
		q.mu.Unlock()
		return &Content{Head: b.b[prefix:], Data: b.b[:prefix], Size: int64(len(b.b)), buf: b}, nil
	}
	q.mu.Unlock()
	return q.readContent(m.id)
}

// Release gives the claim back as if it had never been taken.
func (c *Claim) Release(now time.Time) { c.Settle(now, nil, Timing{}) }
