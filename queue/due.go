package queue

import (
	"time"
)

// promoteAtOnce bounds how many entries one call moves from waiting to ready,
// and so how long the lock is held when very many fall due together.
const promoteAtOnce = 4096

// attach puts an entry where it belongs, or frees it where nothing is left to
// do for it.
func (q *Queue) attach(i int32, now int64) {
	e := q.slab.at(i)
	if e.open == 0 && e.active == 0 && e.held == 0 {
		if e.pins == 0 {
			q.freeEntry(i)
		}
		return
	}
	ln := q.lanes.all[e.lane]
	switch {
	case e.open == 0 || e.pins > 0:
		e.place = placeIdle
	case e.due <= now:
		q.makeReady(i, ln)
	default:
		e.place = placeWaiting
		ln.waiting.push(q.timed(e.due, i), q.entryMoved)
		q.laneWaits(e.lane, ln)
	}
	ln.counts.add(e, 1)
	q.total.add(e, 1)
	if e.sweepAt != 0 && (q.sweepAt == 0 || e.sweepAt < q.sweepAt) {
		q.sweepAt = e.sweepAt
	}
}

func (q *Queue) makeReady(i int32, ln *lane) {
	e := q.slab.at(i)
	if q.suspended(e, ln) {
		e.place = placeParked
		return
	}
	e.place = placeReady
	q.lanes.enter(&ln.rounds[roundOf(e.priority)], q.timed(e.due, i), e.sender, q.entryMoved)
	ln.ready++
	q.list(e.lane, ln)
}

// list makes Due name a lane that has work.
func (q *Queue) list(l int32, ln *lane) {
	if ln.named || ln.listed {
		return
	}
	ln.listed = true
	q.fresh = append(q.fresh, l)
	q.signal()
}

func (q *Queue) timed(at int64, ref int32) timed {
	q.seq++
	return timed{at: at, ref: ref, seq: q.seq}
}

// detach takes an entry out of wherever it is. Its numbers may be changed
// then; attach follows.
func (q *Queue) detach(i int32) {
	e := q.slab.at(i)
	ln := q.lanes.all[e.lane]
	ln.counts.add(e, -1)
	q.total.add(e, -1)
	switch e.place {
	case placeReady:
		q.lanes.leave(&ln.rounds[roundOf(e.priority)], e.sender, e.pos, q.entryMoved)
		ln.ready--
	case placeWaiting:
		ln.waiting.remove(e.pos, q.entryMoved)
		q.laneWaits(e.lane, ln)
	}
	e.place = placeIdle
}

func (q *Queue) freeEntry(i int32) {
	e := q.slab.at(i)
	if m := q.messages[e.id]; m != nil {
		if g := m.groupOf(e.lane); g != nil {
			g.lane = -1
		}
	}
	q.index.remove(i)
	q.senders.drop(e.sender)
	q.tags.drop(e.tag)
	l := e.lane
	q.slab.release(i)
	q.lanes.all[l].entries--
	q.tidy(l)
}

// tidy frees a lane that nothing refers to.
func (q *Queue) tidy(l int32) {
	ln := q.lanes.all[l]
	if ln.entries == 0 && !ln.named && !ln.listed {
		q.lanes.release(l)
	}
}

// laneWaits keeps a lane's place among the lanes after its heap has changed.
func (q *Queue) laneWaits(l int32, ln *lane) {
	switch {
	case len(ln.waiting) == 0:
		if ln.pos >= 0 {
			q.waiting.remove(ln.pos, q.laneMoved)
			ln.pos = -1
		}
		return
	case ln.pos < 0:
		q.waiting.push(q.timed(ln.waiting[0].at, l), q.laneMoved)
	case q.waiting[ln.pos].at != ln.waiting[0].at:
		q.waiting.fix(ln.pos, ln.waiting[0].at, q.laneMoved)
	default:
		return
	}
	if ln.pos == 0 { // the next wake-up has changed
		q.signal()
	}
}

// promote moves what has become due from a lane's heap to its rounds.
func (q *Queue) promote(l int32, ln *lane, now int64, limit int) {
	moved := false
	for len(ln.waiting) > 0 && ln.waiting[0].at <= now && limit > 0 {
		limit--
		moved = true
		i := ln.waiting[0].ref
		e := q.slab.at(i)
		ln.waiting.remove(0, q.entryMoved)
		ln.counts.add(e, -1)
		q.total.add(e, -1)
		q.makeReady(i, ln)
		ln.counts.add(e, 1)
		q.total.add(e, 1)
	}
	if moved {
		q.laneWaits(l, ln)
	}
}

// Due names the domains that have come to have work due at now, and when the
// next one will (zero: never). A domain is named once; it is named again only
// after Take has answered for it that there is nothing more, and new work has
// become due since. buf is reused for the answer.
func (q *Queue) Due(now time.Time, buf []string) (domains []string, next time.Time) {
	at := nanos(now)
	domains = buf[:0]
	q.mu.Lock()
	defer q.mu.Unlock()
	q.see(now)
	q.endSuspensions(at)
	for limit := promoteAtOnce; limit > 0 && len(q.waiting) > 0 && q.waiting[0].at <= at; {
		l := q.waiting[0].ref
		ln := q.lanes.all[l]
		before := len(ln.waiting)
		q.promote(l, ln, at, limit)
		limit -= before - len(ln.waiting)
	}
	for _, l := range q.fresh {
		ln := q.lanes.all[l]
		ln.listed = false
		if ln.ready == 0 || ln.named || q.refusing() {
			q.tidy(l)
			continue
		}
		ln.named = true
		domains = append(domains, ln.name)
	}
	q.fresh = q.fresh[:0]
	if len(q.waiting) > 0 {
		next = timeOf(q.waiting[0].at)
	}
	if until := timeOf(q.suspendedUntil); !until.IsZero() && (next.IsZero() || until.Before(next)) {
		next = until
	}
	return domains, next
}

// refusing reports whether claims are kept back because the store has failed.
func (q *Queue) refusing() bool { return q.down || q.store.Broken() }

// relist makes Due name every lane that has work, after a time in which none
// was handed out.
func (q *Queue) relist() {
	for l, ln := range q.lanes.all {
		if ln != nil && ln.ready > 0 {
			q.list(int32(l), ln)
		}
	}
	q.signal()
}
