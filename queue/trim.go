package queue

import (
	"context"
	"encoding/binary"
	"slices"
	"time"

	"postrider/queue/store"
)

const (
	// How often the history is cut: at thousands of messages a second it gains
	// a gigabyte in some ten minutes.
	trimEvery = 10 * time.Minute
	// Messages still in the queue keep their history, however old; each of
	// them parts the range that is cut in two. More are left to the next time.
	maxTrimGaps = 1000
)

// wantTrim asks the janitor for a cut when it is time for one.
func (q *Queue) wantTrim(now time.Time) {
	if !q.trimmedAt.IsZero() && now.Sub(q.trimmedAt) < trimEvery && !now.Before(q.trimmedAt) {
		return
	}
	q.trimmedAt = now
	select {
	case q.trims <- now:
	default:
	}
}

// trim cuts the history by age and then by size. Keys are ordered by time, so
// a cut is one mark in the store, whatever it removes.
func (q *Queue) trim(now time.Time) {
	cut := idAt(now.Add(-q.opts.History))
	if bySize, err := q.sizeCut(now); err != nil {
		q.log.Warn("the size of the history is not known", "error", err)
	} else if compareID(bySize, cut) > 0 {
		cut = bySize
	}
	if err := q.trimBefore(cut); err != nil {
		q.log.Warn("the history could not be cut; it will be tried again", "error", err)
	}
}

func (q *Queue) trimBefore(cut ID) error {
	lower, _ := keysOf(keyHistory)
	first, ok, err := q.firstID(lower, idKey(keyHistory, cut))
	if err != nil || !ok {
		return err
	}
	kept := q.openBefore(cut)
	var b store.Batch
	from := idKey(keyHistory, first)
	for _, id := range kept {
		if to := idKey(keyHistory, id); string(from) < string(to) {
			b.DeleteRange(from, to)
		}
		from = after(idKey(keyHistory, id))
	}
	if to := idKey(keyHistory, cut); len(kept) < maxTrimGaps && string(from) < string(to) {
		b.DeleteRange(from, to)
	}
	return q.store.Commit(context.Background(), &b)
}

// openBefore gives the oldest messages in the queue, as far as a cut may meet
// them.
func (q *Queue) openBefore(cut ID) (ids []ID) {
	take := func(id ID) {
		if compareID(id, cut) < 0 {
			ids = append(ids, id)
		}
	}
	for i, more := int32(0), true; more; {
		q.mu.Lock()
		for end := i + walkStep; i < end && i < q.slab.used; i++ {
			if e := q.slab.at(i); e.live() {
				take(e.id)
			}
		}
		more = i < q.slab.used
		q.mu.Unlock()
	}
	q.mu.Lock()
	for id := range q.notices.sets {
		take(id)
	}
	q.mu.Unlock()
	slices.SortFunc(ids, compareID)
	ids = slices.Compact(ids)
	return ids[:min(len(ids), maxTrimGaps)]
}

// sizeCut finds the ID before which the history must go to fit its size, by
// halving the time it covers.
func (q *Queue) sizeCut(now time.Time) (ID, error) {
	lower, upper := keysOf(keyHistory)
	size, err := q.store.Size(lower, upper)
	most := q.mostHistory()
	if err != nil || size <= most {
		return ID{}, err
	}
	first, ok, err := q.firstID(lower, upper)
	if err != nil || !ok {
		return ID{}, err
	}
	goal := most / 10 * 9
	from, to := first.Time(), now
	for to.Sub(from) > time.Second {
		middle := from.Add(to.Sub(from) / 2)
		size, err := q.store.Size(idKey(keyHistory, idAt(middle)), upper)
		if err != nil {
			return ID{}, err
		}
		if size > goal {
			from = middle
		} else {
			to = middle
		}
	}
	return idAt(to), nil
}

// mostHistory is what the history may take, in octets. On a small disk it must
// not be the past that turns new mail away.
func (q *Queue) mostHistory() uint64 {
	most := uint64(q.opts.HistorySize)
	if s := q.room.ask(); s.err == nil && s.total > 0 {
		most = min(most, s.total/10)
	}
	return most
}

// idAt gives the lowest ID of a time.
func idAt(t time.Time) (id ID) {
	if ms := t.UnixMilli(); ms > 0 {
		binary.BigEndian.PutUint64(id[:8], uint64(ms)<<16)
	}
	return id
}
