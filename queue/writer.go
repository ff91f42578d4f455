package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"postrider/queue/store"
)

// maxUnwritten bounds the results that wait for the disk, and their octets: a
// result of a message with many recipients brings the states of a hundred.
// Settle waits beyond it.
const (
	maxUnwritten       = 4096
	maxUnwrittenOctets = 2 << 20
)

// How long a failed store is left alone before it is opened again.
const (
	reopenAfter    = time.Second
	reopenAfterMax = time.Minute
	// What waits for the disk is tried again this soon where the store is
	// stalled, not failed.
	retryWrite = 100 * time.Millisecond
)

// change is one step of one message that is on its way to the disk.
type change struct {
	m       *message
	ended   bool       // the message is deleted
	unlink  ID         // whose body's file is to be removed
	notices *noticeSet // that has notices in this step
	done    chan error // told when it is on the disk, where somebody waits
}

// writer gathers what claims settle, and commits it in groups. All but write
// is under the queue's lock.
type writer struct {
	batch    *store.Batch
	spare    *store.Batch
	changes  []change
	used     []change // of the group before: the memory is used again
	record   recordWriter
	wake     chan struct{}
	space    sync.Cond
	running  bool
	unlinks  []ID
	unlinked chan struct{} // wakes the unlinker
}

func (w *writer) init(q *Queue) {
	w.batch, w.spare = new(store.Batch), new(store.Batch)
	w.wake = make(chan struct{}, 1)
	w.unlinked = make(chan struct{}, 1)
	w.space.L = &q.mu
}

// begin starts a change. What is put into the batch until commit is written
// in one step, or not at all.
func (w *writer) begin(m *message) change {
	w.record.b = w.record.b[:0]
	if m != nil {
		m.writes++
	}
	return change{m: m}
}

func (w *writer) commit(c change) {
	w.changes = append(w.changes, c)
	w.rouse()
}

func (w *writer) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// waitForRoom waits while too many results wait for the disk. Without a
// writer there is nobody to wait for.
func (w *writer) waitForRoom() {
	for w.running && (len(w.changes) >= maxUnwritten || len(w.changes) > 0 && w.batch.Len() >= maxUnwrittenOctets) {
		w.space.Wait()
	}
}

// write runs the writer until ctx ends and all is written.
func (q *Queue) write(ctx context.Context) error {
	q.setRunning(true)
	defer q.setRunning(false)
	for {
		select {
		case <-ctx.Done():
			return q.writeLast()
		case <-q.writer.wake:
		case <-q.store.Failed():
		}
		if err := q.recover(ctx); err != nil {
			return err
		}
		if err := q.writeAll(ctx); err != nil {
			return err
		}
	}
}

func (q *Queue) setRunning(running bool) {
	q.mu.Lock()
	q.writer.running = running
	q.writer.space.Broadcast()
	q.mu.Unlock()
}

// writeLast makes one attempt to write what is left.
func (q *Queue) writeLast() error {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	return q.writeAll(ended)
}

// writeAll commits group after group until nothing is left. A group that
// cannot be written is kept and tried again, after the store was opened again
// if need be; only the end of ctx ends that.
func (q *Queue) writeAll(ctx context.Context) error {
	for {
		batch, changes := q.nextGroup()
		if len(changes) == 0 {
			return nil
		}
		for {
			err := q.store.Commit(context.Background(), batch)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return fmt.Errorf("queue: %d results could not be written, their messages will be tried again: %w", len(changes), err)
			}
			if err := q.recover(ctx); err != nil {
				return err
			}
			pause(ctx, retryWrite)
		}
		q.written(batch, changes)
	}
}

func (q *Queue) nextGroup() (*store.Batch, []change) {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := &q.writer
	batch, changes := w.batch, w.changes
	if len(changes) == 0 {
		return nil, nil
	}
	w.batch, w.changes = w.spare, w.used[:0]
	w.spare, w.used = nil, nil
	if w.batch == nil {
		w.batch = new(store.Batch)
	}
	w.space.Broadcast()
	return batch, changes
}

// written makes the group's changes true in memory.
func (q *Queue) written(batch *store.Batch, changes []change) {
	batch.Reset()
	q.mu.Lock()
	defer q.mu.Unlock()
	w := &q.writer
	for i := range changes {
		c := &changes[i]
		if c.done != nil {
			c.done <- nil
		}
		if c.unlink != (ID{}) {
			w.unlinks = append(w.unlinks, c.unlink)
		}
		if n := c.notices; n != nil {
			n.unwritten--
			q.notices.place(q, n, 0)
		}
		m := c.m
		if m == nil {
			continue
		}
		m.writes--
		if c.ended && m.env.large {
			w.unlinks = append(w.unlinks, m.id)
		}
		q.cool(m)
	}
	if len(w.unlinks) > 0 {
		select {
		case w.unlinked <- struct{}{}:
		default:
		}
	}
	clear(changes)
	w.spare, w.used = batch, changes[:0]
}

// recover opens a failed store again, however long that takes, and settles
// what was in doubt. It returns an error only where a new process is needed.
// The schedule in memory stays: everything it holds was acknowledged.
func (q *Queue) recover(ctx context.Context) error {
	if !q.store.Broken() && !q.isDown() {
		return nil
	}
	q.mu.Lock()
	q.down = true
	q.mu.Unlock()
	for delay := q.reopenAfter; ; delay = min(2*delay, reopenAfterMax) {
		if !pause(ctx, delay) {
			return nil // the last attempt to write tells what is lost
		}
		err := q.store.Reopen()
		if errors.Is(err, store.ErrHopeless) {
			return fmt.Errorf("queue: %w", err)
		}
		if err == nil {
			err = q.clearDoubts()
		}
		if err == nil && q.store.Mended() {
			err = q.nameLost()
		}
		if err != nil {
			q.log.Error("the queue's store is still out of order", "error", err, "again_in", min(2*delay, reopenAfterMax))
		} else if q.goOn() {
			q.log.Info("the queue's store works again")
			return nil
		}
	}
}

// goOn ends the time in which the queue refuses to work, unless one more
// message has come into doubt.
func (q *Queue) goOn() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.doubts) > 0 {
		return false
	}
	q.down = false
	q.relist()
	q.notices.signal()
	return true
}

func (q *Queue) isDown() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.down
}

// clearDoubts removes messages whose clients were told to keep them, but
// which are found in the store after all. Notices that they answered are owed
// again.
func (q *Queue) clearDoubts() error {
	q.mu.Lock()
	doubts := q.doubts
	q.mu.Unlock()
	var b store.Batch
	var files []ID
	for i := range doubts {
		d := &doubts[i]
		id := d.env.ID
		if d.env.large {
			files = append(files, id)
		}
		found, err := q.store.Has(idKey(keyEnvelope, id))
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		for _, kind := range []byte{keyEnvelope, keyBody, keyLargeBody} {
			b.Delete(idKey(kind, id))
		}
		if d.mark != "" {
			b.Delete(markKey(d.mark))
		}
		if d.answers != nil {
			d.answers.restore(&b)
		}
	}
	if err := q.store.Commit(context.Background(), &b); err != nil {
		return err
	}
	q.mu.Lock()
	q.doubts = q.doubts[len(doubts):]
	q.writer.unlinks = append(q.writer.unlinks, files...)
	q.mu.Unlock()
	select {
	case q.writer.unlinked <- struct{}{}:
	default:
	}
	return nil
}

// clean is the janitor: it removes the files of bodies that are no longer
// needed and cuts the history, until stop.
func (q *Queue) clean(stop <-chan struct{}) {
	for {
		q.unlink()
		select {
		case <-q.writer.unlinked:
		case now := <-q.trims:
			q.trim(now)
		case <-stop:
			q.unlink()
			return
		}
	}
}

func (q *Queue) unlink() {
	q.mu.Lock()
	ids := q.writer.unlinks
	q.writer.unlinks = nil
	q.mu.Unlock()
	for _, id := range ids {
		_, name := q.bodyFile(id)
		if err := q.fs.Remove(name); err != nil {
			// The next start removes it: no record names it.
			q.log.Warn("cannot remove the file of an ended message", "id", id, "file", name, "error", err)
		}
	}
}

// pause waits, and reports whether ctx has not ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
