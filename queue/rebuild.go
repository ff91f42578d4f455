package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postrider/queue/store"
)

// rebuilder makes the schedule in memory from the store, in one walk over the
// envelopes and, beside it, one over the states.
type rebuilder struct {
	q       *Queue
	aside   map[ID]bool // messages set aside before
	states  *store.Iter
	more    bool // states stands on a key
	digest  digest
	orphans [][]byte // records whose message is gone
	ended   []*Envelope
	broken  []*damage
}

// rebuild is part of Open: nothing else uses the queue yet.
func (q *Queue) rebuild() error {
	r := &rebuilder{q: q, aside: make(map[ID]bool)}
	lower, upper := keysOf(keyDamaged)
	err := q.store.Scan(lower, upper, func(key, _ []byte) error {
		r.aside[idOf(key)] = true
		return nil
	})
	if err == nil {
		err = r.notices()
	}
	if err == nil {
		err = r.envelopes()
	}
	if err != nil {
		return fmt.Errorf("queue: rebuild the schedule: %w", err)
	}
	return r.mend()
}

// notices counts what has not been reported yet.
func (r *rebuilder) notices() error {
	lower, upper := keysOf(keyNotice)
	return r.q.store.Scan(lower, upper, func(key, value []byte) error {
		if len(key) != noticeKeySize || r.aside[idOf(key)] {
			return nil
		}
		var at int64
		if rec, err := openRecord(value); err == nil {
			rec.uint() // attempts
			at = rec.int()
		}
		r.q.notices.add(idOf(key), at)
		return nil
	})
}

func (r *rebuilder) envelopes() error {
	var err error
	if r.states, err = r.q.store.NewIter(keysOf(keyState)); err != nil {
		return err
	}
	r.more = r.states.Next()
	lower, upper := keysOf(keyEnvelope)
	err = r.q.store.Scan(lower, upper, r.envelope)
	r.skipStates(ID{}, true)
	if cerr := r.states.Close(); err == nil {
		err = cerr
	}
	for _, s := range r.q.notices.sets {
		r.q.notices.place(r.q, s, 0)
	}
	return err
}

// envelope enters one message into the schedule.
func (r *rebuilder) envelope(key, value []byte) error {
	id := idOf(key)
	if len(key) != idKeySize || r.aside[id] {
		return nil
	}
	r.skipStates(id, false)
	if r.more && idOf(r.states.Key()) == id {
		r.withStates(id, value)
		return nil
	}
	rec, err := borrowRecord(value)
	if err == nil {
		rec.readDigest(&r.digest)
		if rec.bad {
			err = errDamaged
		}
	}
	if err != nil {
		r.broken = append(r.broken, &damage{id, "read its envelope", err})
		return nil
	}
	r.fresh(id, &r.digest)
	return nil
}

// fresh enters a message that was never tried: its digest says enough.
func (r *rebuilder) fresh(id ID, d *digest) {
	q := r.q
	due := d.firstDue()
	for k, domain := range d.domains {
		i := q.slab.alloc()
		e := q.slab.at(i)
		*e = entry{
			id:        id,
			due:       due,
			lane:      q.lanes.get(domain),
			sender:    q.senders.use(d.sender),
			tag:       q.tags.use(d.tag),
			priority:  d.priority,
			scheduled: d.notBefore > d.arrivedAt,
			open:      int32(d.counts[k]),
		}
		e.look(d.deliverBy)
		if d.flags&envelopeHeld != 0 {
			e.open, e.held = 0, e.open
		} else {
			schedule := q.schedule(domain)
			e.look(due + int64(schedule.ExpireAfter))
			if schedule.DelayNoticeAfter > 0 {
				e.look(due + int64(schedule.DelayNoticeAfter))
			}
		}
		q.lanes.all[e.lane].entries++
		q.index.add(i)
		q.attach(i, 0)
	}
}

// withStates enters a message of which something is known already.
func (r *rebuilder) withStates(id ID, record []byte) {
	env, err := decodeEnvelope(id, record)
	if err != nil {
		r.broken = append(r.broken, &damage{id, "read its envelope", err})
		return
	}
	m := newMessage(env)
	for r.more && idOf(r.states.Key()) == id {
		value, err := r.states.Value()
		if err == nil {
			err = m.readPart(r.states.Key(), value)
		}
		if err != nil {
			r.broken = append(r.broken, &damage{id, "read its state", err})
			return
		}
		r.more = r.states.Next()
	}
	r.q.enter(m, 0)
	if r.q.index.first(id) == noEntry && r.q.notices.sets[id] == nil {
		r.ended = append(r.ended, env)
	}
}

// skipStates passes over states that belong to no message before id.
func (r *rebuilder) skipStates(id ID, all bool) {
	for r.more {
		at := idOf(r.states.Key())
		if !all && compareID(at, id) >= 0 {
			return
		}
		if !r.aside[at] {
			r.orphans = append(r.orphans, append([]byte(nil), r.states.Key()...))
		}
		r.more = r.states.Next()
	}
}

// mend removes what a crash has left over, and sets aside what cannot be read.
func (r *rebuilder) mend() error {
	q := r.q
	q.mu.Lock()
	for _, env := range r.ended {
		q.endMessage(env, nanos(env.ArrivedAt))
	}
	for _, d := range r.broken {
		q.setAside(d.id, foundAt(d.id), d)
	}
	for _, key := range r.orphans {
		q.writer.batch.Delete(key)
	}
	for id, s := range q.notices.sets {
		known, err := q.store.Has(idKey(keyEnvelope, id))
		if err == nil && !known {
			lower, upper := keysOfMessage(keyNotice, id)
			q.writer.batch.DeleteRange(lower, upper)
			q.notices.drop(s)
			q.log.Warn("notices of a message that is gone were dropped", "id", id)
		}
	}
	if !q.writer.batch.Empty() {
		q.writer.commit(q.writer.begin(nil))
	}
	q.mu.Unlock()
	if q.store.Mended() {
		if err := q.nameLost(); err != nil {
			return err
		}
	}
	if n := len(r.orphans) + len(r.ended); n > 0 {
		q.log.Info("removed what a crash had left over", "records", n)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	return q.writeAll(ended)
}

// nameLost looks, after a mending of the store, for messages of which only a
// part is left, and sets them aside: whoever reads the log learns their IDs.
func (q *Queue) nameLost() error {
	lost := make(map[ID]string)
	look := func(kind, other byte, what string) error {
		lower, upper := keysOf(kind)
		return q.store.Scan(lower, upper, func(key, _ []byte) error {
			id := idOf(key)
			found, err := q.store.Has(idKey(other, id))
			if err != nil || found {
				return err
			}
			if other == keyBody {
				if found, err = q.store.Has(idKey(keyLargeBody, id)); err != nil || found {
					return err
				}
			}
			lost[id] = what
			return nil
		})
	}
	for _, kind := range []byte{keyBody, keyLargeBody} {
		if err := look(kind, keyEnvelope, "find its envelope"); err != nil {
			return fmt.Errorf("queue: look for what was lost: %w", err)
		}
	}
	if err := look(keyEnvelope, keyBody, "find its body"); err != nil {
		return fmt.Errorf("queue: look for what was lost: %w", err)
	}
	if err := q.lostSuspects(lost); err != nil {
		return fmt.Errorf("queue: look for what was lost: %w", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	named := 0
	for id, what := range lost {
		m := q.messages[id]
		if m != nil && m.ended {
			continue
		}
		cause := &damage{id, what, errors.New("lost with a damaged part of the store")}
		if named++; named <= maxNamed || m != nil && m.active > 0 {
			q.setAside(id, foundAt(id), cause)
		} else {
			q.putAside(id, foundAt(id), cause)
		}
	}
	if named > maxNamed {
		q.log.Error("more messages are set aside than are named here; queue check names all", "messages", named)
	}
	return nil
}

// maxNamed bounds the lines about what one mending has lost.
const maxNamed = 1000

// lostSuspects adds those messages that damaged records of the log have named,
// and of which the store knows neither a part nor the end.
func (q *Queue) lostSuspects(lost map[ID]string) error {
	suspects, more := q.vetter.take()
	for id := range suspects {
		known, err := q.store.Has(idKey(keyEnvelope, id))
		for _, kind := range []byte{keyBody, keyLargeBody} {
			if err == nil && !known {
				known, err = q.store.Has(idKey(kind, id))
			}
		}
		if err == nil && !known {
			known, err = q.hasEnded(id)
		}
		if err != nil {
			return err
		}
		if !known {
			lost[id] = "find it"
		}
	}
	if more {
		q.log.Error("more messages may be lost than can be named", "named", len(suspects))
	}
	return nil
}

// hasEnded reports whether the history knows the end of a message.
func (q *Queue) hasEnded(id ID) (ended bool, err error) {
	lower, upper := keysOfMessage(keyHistory, id)
	err = q.store.Scan(lower, upper, func(_, value []byte) error {
		env, derr := new(story).decodeHistory(id, value)
		ended = ended || derr == nil && env != nil
		return nil
	})
	return ended, err
}

// sweepFiles removes body files that no record names: of bodies that were
// never submitted, and of messages whose end came before the unlinking.
func (q *Queue) sweepFiles() error {
	names, err := q.fs.List(q.tempDir())
	if err != nil {
		return fmt.Errorf("queue: list %s: %w", q.tempDir(), err)
	}
	for _, name := range names {
		if err := q.fs.Remove(q.fs.PathJoin(q.tempDir(), name)); err != nil {
			return fmt.Errorf("queue: remove an unfinished body: %w", err)
		}
	}
	for i := range 256 {
		dir, _ := q.bodyFile(ID{15: byte(i)})
		if err := q.sweepBodies(dir); err != nil {
			return err
		}
	}
	return nil
}

func (q *Queue) sweepBodies(dir string) error {
	names, err := q.fs.List(dir)
	if err != nil {
		return fmt.Errorf("queue: list %s: %w", dir, err)
	}
	for _, name := range names {
		id, err := ParseID(name)
		if err != nil {
			q.log.Warn("a file that is not the queue's lies in its directory", "file", q.fs.PathJoin(dir, name))
			continue
		}
		named, err := q.store.Has(idKey(keyLargeBody, id))
		if err != nil {
			return fmt.Errorf("queue: %w", err)
		}
		if named {
			continue
		}
		if err := q.fs.Remove(q.fs.PathJoin(dir, name)); err != nil {
			return fmt.Errorf("queue: remove the file of an ended message: %w", err)
		}
	}
	return nil
}

// setAside takes a message that cannot be read out of the schedule, so that it
// stops nobody. Its records stay where they are, with a mark beside them.
func (q *Queue) setAside(id ID, at int64, cause error) {
	if m := q.messages[id]; m != nil && m.active > 0 {
		m.broken = cause // when the last claim settles, see rest
		return
	}
	q.log.Error("a message cannot be read and is set aside", "id", id, "error", cause)
	q.putAside(id, at, cause)
}

// putAside is setAside for a message without claims, and says nothing.
func (q *Queue) putAside(id ID, at int64, cause error) {
	for i := q.index.first(id); i != noEntry; {
		next := q.slab.at(i).next
		q.detach(i)
		e := q.slab.at(i)
		e.open, e.held, e.active = 0, 0, 0
		q.attach(i, at)
		i = next
	}
	m := q.messages[id]
	c := q.writer.begin(m)
	if m != nil {
		m.ended = true
		q.unkeep(m)
	}
	w := &q.writer
	w.record.begin()
	w.record.int(at)
	w.record.string(clip(cause.Error()))
	w.batch.Set(idKey(keyDamaged, id), w.record.end())
	q.happened = append(q.happened[:0], happening{recipient: -1, kind: EventDamaged, text: cause.Error()})
	q.putHistory(id, nil, false, Timing{}, at)
	q.writer.commit(c)
}

// foundAt is when damage is found that is not found at a time we were told.
func foundAt(id ID) int64 { return max(time.Now().UnixNano(), nanos(id.Time())) }

func compareID(a, b ID) int {
	for i := range a {
		if a[i] != b[i] {
			return int(a[i]) - int(b[i])
		}
	}
	return 0
}

// Marked reports whether a pickup mark was set by a Submit; Unmark removes it.
func (q *Queue) Marked(mark string) (bool, error) {
	return q.store.Has(markKey(mark))
}

// Unmark removes a pickup mark; one that is not there is removed already.
func (q *Queue) Unmark(mark string) error {
	var b store.Batch
	b.Delete(markKey(mark))
	if err := q.store.Commit(context.Background(), &b); err != nil {
		return fmt.Errorf("queue: remove the mark %.80q: %w", mark, err)
	}
	return nil
}
