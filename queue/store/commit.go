package store

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// maxGroup gives how many octets are committed in one step at most, for a size
// of memtable. It stays far below half of one, from where Pebble treats a batch
// differently.
func maxGroup(memTable uint64) int { return int(min(memTable/8, 4<<20)) }

// committer brings batches to the disk, many in one step: while one group is
// being synced the next one gathers. It runs on one goroutine of its own,
// because a failure may strand it: Pebble panics in places where a recover
// cannot help, so the gate stops that goroutine for good before the error
// reaches them. Nobody else ever waits for a lock of Pebble's writing side.
type committer struct {
	mu    sync.Mutex
	queue []*Batch
	taken []chan error // the answers owed for the group under way
	stop  bool
	wake  chan struct{} // capacity 1
	ended chan struct{}
	group pebble.Batch
	most  int // octets in it, beyond its first batch
}

func newCommitter(memTable uint64) *committer {
	return &committer{wake: make(chan struct{}, 1), ended: make(chan struct{}), most: maxGroup(memTable)}
}

// Commit makes the batch durable: it returns nil only after a sync. Concurrent
// calls share their syncs. Errors are ErrFailed, ErrUnknown or that of ctx; with
// all but ErrUnknown nothing was written. Once the batch is on its way to the
// disk, ctx has no say any more.
func (s *Store) Commit(ctx context.Context, b *Batch) error {
	if b.Empty() {
		return nil
	}
	if s.closed.Load() {
		return fmt.Errorf("%w: closed", ErrFailed)
	}
	in := s.cur.Load()
	if err := in.err(); err != nil {
		return err
	}
	c := in.committer
	if b.done == nil {
		b.done = make(chan error, 1)
	}
	c.mu.Lock()
	if c.stop {
		c.mu.Unlock()
		return fmt.Errorf("%w: closed", ErrFailed)
	}
	c.queue = append(c.queue, b)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	select {
	case err := <-b.done:
		return err
	case <-in.broken:
		return in.giveUp(b)
	case <-ctx.Done():
		if c.withdraw(b) {
			return ctx.Err()
		}
	}
	select {
	case err := <-b.done:
		return err
	case <-in.broken:
		return in.giveUp(b)
	}
}

// withdraw takes back a batch that nobody has taken yet.
func (c *committer) withdraw(b *Batch) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.queue, b)
	if i < 0 {
		return false
	}
	c.queue = slices.Delete(c.queue, i, i+1)
	return true
}

// giveUp answers for a batch whose instance has failed. The committer may be
// stranded, or about to answer; its answer is no longer asked for.
func (in *instance) giveUp(b *Batch) error {
	queued := in.committer.withdraw(b)
	b.done = nil
	cause := in.failure.Load().cause
	if queued {
		return fmt.Errorf("%w: %w", ErrFailed, cause)
	}
	return fmt.Errorf("%w: %w", ErrUnknown, cause)
}

// commitLoop runs until the committer is told to stop or the instance fails.
func (in *instance) commitLoop() {
	c := in.committer
	defer close(c.ended)
	for {
		// Whoever is about to commit gets its turn first and joins the group:
		// that costs nothing when nobody is, and a third of the syncs when
		// many are.
		runtime.Gosched()
		if !c.gather() {
			return
		}
		if len(c.taken) == 0 {
			select {
			case <-c.wake:
				continue
			case <-in.broken:
				return
			}
		}
		err := in.apply(&c.group)
		if err == nil {
			err = c.group.SyncWait()
		}
		if err != nil {
			in.fail(err)
		}
		if in.failure.Load() != nil {
			// A sync may be reported as good although an earlier write of
			// this instance has failed: nobody is told so.
			return
		}
		for _, done := range c.taken {
			done <- nil
		}
	}
}

// gather moves what is queued into the next group, and reports whether the
// loop is to go on.
func (c *committer) gather() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.taken)
	c.taken = c.taken[:0]
	c.group.Reset()
	if c.stop && len(c.queue) == 0 {
		return false
	}
	n := 0
	for n < len(c.queue) && (n == 0 || c.group.Len()+c.queue[n].Len() < c.most) {
		b := c.queue[n]
		if err := c.group.Apply(&b.b, nil); err != nil {
			// Only a batch that is malformed, which ours are not.
			panic(err)
		}
		c.taken = append(c.taken, b.done)
		n++
	}
	c.queue = slices.Delete(c.queue, 0, n)
	return true
}

// finish lets the committer end after what is queued.
func (c *committer) finish() {
	c.mu.Lock()
	c.stop = true
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	<-c.ended
}

// apply brings the group into the log and the memtable, without waiting for
// the sync. Whatever panics in Pebble counts as a failure of the store.
func (in *instance) apply(b *pebble.Batch) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
			in.gate.stranded.Store(true) // its locks stay taken
		}
	}()
	return in.db.ApplyNoSyncWait(b, pebble.Sync)
}
