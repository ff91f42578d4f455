package store

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// compactingDB has compactions that take a minute each.
type compactingDB struct {
	c                      *compactions
	mu                     sync.Mutex
	allowed, waiting, most int
	running, done          int
}

func (d *compactingDB) GetAllowedWithoutPermission() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.allowed
}

func (d *compactingDB) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting > 0, pebble.WaitingCompaction{}
}

func (d *compactingDB) Schedule(h pebble.CompactionGrantHandle) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting == 0 {
		return false
	}
	d.waiting--
	d.compact(h)
	return true
}

func (d *compactingDB) compact(h pebble.CompactionGrantHandle) {
	d.running++
	d.most = max(d.most, d.running)
	go func() {
		h.Started()
		time.Sleep(time.Minute) // of the bubble's clock
		d.mu.Lock()
		d.running--
		d.done++
		d.mu.Unlock()
		h.Done()
	}()
}

// wants is what the database does when it finds that it should compact.
func (d *compactingDB) wants(n int) {
	for range n {
		ok, h := d.c.TrySchedule()
		d.mu.Lock()
		if ok {
			d.compact(h)
		} else {
			d.waiting++
		}
		d.mu.Unlock()
	}
}

func (d *compactingDB) allow(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.allowed = n
}

func newCompactingDB(allowed int) *compactingDB {
	d := &compactingDB{c: newCompactions(), allowed: allowed}
	d.c.Register(1, d)
	return d
}

func (d *compactingDB) expect(t *testing.T, running, waiting, done int) {
	t.Helper()
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running != running || d.waiting != waiting || d.done != done {
		t.Errorf("%d run, %d wait, %d are done; not %d, %d, %d", d.running, d.waiting, d.done, running, waiting, done)
	}
}

func TestCompactionsWaitForTheirTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newCompactingDB(1)
		d.wants(5)
		d.expect(t, 1, 4, 0)
		time.Sleep(time.Minute)
		d.expect(t, 1, 3, 1)
		d.allow(2) // as after a flush; nobody says so
		time.Sleep(2 * lookAgain)
		d.expect(t, 2, 2, 1)
		time.Sleep(2 * time.Minute)
		d.expect(t, 0, 0, 5)
		if d.most != 2 {
			t.Errorf("%d at once", d.most)
		}
		d.wants(1)
		d.expect(t, 1, 0, 5)
		time.Sleep(time.Minute)
		d.expect(t, 0, 0, 6)
		d.c.Unregister()
	})
}

func TestMoreCompactionsMayRunAtOnceWhenToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newCompactingDB(1)
		d.wants(3)
		d.allow(3)
		d.c.UpdateGetAllowedWithoutPermission()
		d.expect(t, 3, 0, 0)
		time.Sleep(time.Minute)
		d.expect(t, 0, 0, 3)
		d.c.Unregister()
	})
}

func TestNoTimerWithoutWaitingCompactions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newCompactingDB(1)
		d.wants(2)
		time.Sleep(time.Hour)
		d.expect(t, 0, 0, 2)
		d.c.mu.Lock()
		defer d.c.mu.Unlock()
		if d.c.again != nil {
			t.Error("it still looks")
		}
	})
}

func TestNothingIsCompactedAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newCompactingDB(1)
		d.wants(3)
		d.c.Unregister()
		time.Sleep(time.Hour)
		d.expect(t, 0, 2, 1)
		if ok, _ := d.c.TrySchedule(); ok {
			t.Error("begun after the end")
		}
	})
}
