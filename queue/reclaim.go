package queue

import (
	"context"
	"time"
)

// While the disk is short of space, room is made of what the store still holds
// of ended messages. Of itself it would come back with further writes only,
// and there are none while mail is turned away.
const (
	reclaimAfter    = time.Second
	reclaimAfterMax = 10 * time.Second
	// What a message takes beside its body, and somewhat more.
	messageExtra = 1000
)

// reclaim runs from the moment the disk is found short until it is not, again
// and again, until ctx ends. On a disk with room it does nothing.
func (q *Queue) reclaim(ctx context.Context) {
	for {
		select {
		case <-q.room.short:
		case <-ctx.Done():
			return
		}
		select {
		case q.trims <- time.Now():
		default: // it is about to be cut
		}
		q.store.Spare(true)
		delay, messages := q.reclaimAfter, -1
		for q.room.look() && pause(ctx, delay) {
			now := q.inQueue()
			gave, err := q.makeRoom(ctx, now != messages)
			if err != nil && ctx.Err() == nil {
				q.log.Warn("room could not be made on the queue's disk; it will be tried again", "error", err)
			}
			if messages = now; gave {
				delay = q.reclaimAfter
			} else {
				delay = min(2*delay, reclaimAfterMax)
			}
		}
		q.store.Spare(false)
	}
}

func (q *Queue) inQueue() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.index.count
}

// makeRoom gives up logs, and tables where enough of them is dead, and tells
// whether it did. Neither is begun without the room that it takes first: a
// write that fails for want of it would fail the store. Without less mail than
// the last time there is nothing new among the tables.
func (q *Queue) makeRoom(ctx context.Context, less bool) (gave bool, err error) {
	use, err := q.store.Usage()
	if err != nil {
		return false, err
	}
	free, flush := q.room.ask().free, q.store.FlushNeeds()
	if free < flush {
		return false, nil
	}
	worth := flush / 4
	if use.Logs > worth {
		if err := q.store.Flush(ctx); err != nil {
			return false, err
		}
		gave = true
	}
	if !less && !gave || use.Raw == 0 {
		return gave, nil
	}
	alive, err := q.alive()
	if err != nil {
		return gave, err
	}
	// Both are measured before packing, in which they are much alike.
	keep := uint64(float64(use.Tables) * min(1, float64(alive)/float64(use.Raw)))
	history, err := q.store.Size(keysOf(keyHistory))
	if err != nil {
		return gave, err
	}
	keep = min(use.Tables, keep+history)
	dead := use.Tables - keep
	if dead < max(worth, use.Tables/4) || q.room.ask().free < keep+flush {
		return gave, nil
	}
	q.log.Info("the store is compacted to make room", "tables_mb", use.Tables/1_000_000, "dead_mb", dead/1_000_000)
	return true, q.store.Compact(ctx)
}

// alive is about how many octets of the tables the messages in the queue need.
func (q *Queue) alive() (octets uint64, err error) {
	var d digest
	lower, upper := keysOf(keyEnvelope)
	err = q.store.Scan(lower, upper, func(_, value []byte) error {
		r, err := borrowRecord(value)
		if err != nil {
			return nil // it is set aside when its turn comes
		}
		r.readDigest(&d)
		octets += messageExtra
		if d.flags&envelopeLarge == 0 && !r.bad {
			octets += uint64(d.size)
		}
		return nil
	})
	return octets, err
}
