package store

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// compactions lets as many compactions run as the database allows itself. It
// does what Pebble's own scheduler does, which looks every 100 ms whether one
// may begin, for ever: on an idle server those were nearly all wake-ups. This
// one looks only while a compaction waits. It serves one database.
type compactions struct {
	db pebble.DBForCompaction

	mu         sync.Mutex
	running    int
	isGranting bool
	granted    sync.Cond   // isGranting has ended
	again      *time.Timer // set while a compaction waits
	ended      bool
}

// lookAgain is how often the database is asked whether more may run than when
// a compaction was made to wait.
const lookAgain = 100 * time.Millisecond

func newCompactions() *compactions {
	c := &compactions{}
	c.granted.L = &c.mu
	return c
}

func (c *compactions) Register(_ int, db pebble.DBForCompaction) { c.db = db }

// Unregister returns when no call to the database is under way and none will
// follow.
func (c *compactions) Unregister() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.again != nil {
		c.again.Stop()
	}
	for c.isGranting {
		c.granted.Wait()
	}
}

// TrySchedule is called with the database's locks held: no compaction may be
// begun from here.
func (c *compactions) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false, nil
	}
	if c.running < c.db.GetAllowedWithoutPermission() {
		c.running++
		return true, c
	}
	c.wait(lookAgain)
	return false, nil
}

// UpdateGetAllowedWithoutPermission hints that more may run than before.
func (c *compactions) UpdateGetAllowedWithoutPermission() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.again != nil {
		c.wait(0)
	}
}

// wait sees to it that grant runs. The lock is held.
func (c *compactions) wait(d time.Duration) {
	switch {
	case c.ended:
	case c.again == nil:
		c.again = time.AfterFunc(d, c.look)
	default:
		c.again.Reset(d)
	}
}

// look is what the timer does. A refusal from now on sets the next one.
func (c *compactions) look() {
	c.mu.Lock()
	c.again = nil
	c.mu.Unlock()
	c.grant()
}

// grant begins the compactions that wait and may run.
func (c *compactions) grant() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.isGranting {
		c.granted.Wait()
	}
	if c.ended {
		return
	}
	c.isGranting = true
	isWaiting := true
	for isWaiting && c.running < c.db.GetAllowedWithoutPermission() {
		c.running++ // before it runs: it may be done before Schedule returns
		c.mu.Unlock()
		isWaiting, _ = c.db.GetWaitingCompaction()
		isWaiting = isWaiting && c.db.Schedule(c)
		c.mu.Lock()
		if !isWaiting {
			c.running--
		}
	}
	c.isGranting = false
	c.granted.Broadcast()
	if isWaiting {
		c.wait(lookAgain)
	}
}

// The rest is pebble.CompactionGrantHandle; what a compaction costs is not
// measured.

func (c *compactions) Started()                                                {}
func (c *compactions) MeasureCPU(pebble.CompactionGoroutineKind)               {}
func (c *compactions) CumulativeStats(stats pebble.CompactionGrantHandleStats) {}

// Done is called by a compaction that has ended, without locks.
func (c *compactions) Done() {
	c.mu.Lock()
	c.running--
	c.mu.Unlock()
	c.grant()
}
