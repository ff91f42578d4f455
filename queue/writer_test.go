package queue

import (
	"testing"
	"testing/synctest"
)

// TestResultsThatWaitForTheDiskAreBounded: whoever settles waits while the
// results that are not yet written are too many or too large, and goes on when
// the writer takes them.
func TestResultsThatWaitForTheDiskAreBounded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		changes, octets int
		stopped         bool
		waits           bool
	}{
		"nothing":                          {},
		"few and small":                    {changes: 10, octets: 1000},
		"almost too large":                 {changes: 1, octets: maxUnwrittenOctets - 1000},
		"few and too large":                {changes: 1, octets: maxUnwrittenOctets, waits: true},
		"almost too many":                  {changes: maxUnwritten - 1},
		"too many":                         {changes: maxUnwritten, waits: true},
		"too large, and none would end it": {octets: maxUnwrittenOctets},
		"too many, without a writer":       {changes: maxUnwritten, octets: maxUnwrittenOctets, stopped: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				q := new(Queue)
				w := &q.writer
				w.init(q)
				q.setRunning(!c.stopped)
				if c.octets > 0 {
					w.batch.Set([]byte("k"), make([]byte, c.octets))
				}
				for range c.changes {
					w.commit(w.begin(nil))
				}
				goesOn := false
				go func() {
					q.mu.Lock()
					defer q.mu.Unlock()
					w.waitForRoom()
					goesOn = true
				}()
				synctest.Wait()
				if goesOn == c.waits {
					t.Errorf("with %d results of %d octets: goes on %v", c.changes, w.batch.Len(), goesOn)
				}
				if c.waits {
					if _, taken := q.nextGroup(); len(taken) != c.changes {
						t.Errorf("the writer took %d of %d results", len(taken), c.changes)
					}
				}
				synctest.Wait()
				if !goesOn {
					t.Error("still waits after the writer has taken the results")
				}
			})
		})
	}
}
