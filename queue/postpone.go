package queue

import "time"

// longestSlot bounds how far ahead a slot may lie: one that is further away was
// given before the clock leapt.
const longestSlot = time.Hour

// Postpone gives the claim back as Release does, to be due again at until, at
// most an hour ahead: a limit of our own holds it, which costs no attempt.
// isReserved comes back as Claim.Reserved: the claim has paid for its place
// already. It is kept in memory only; after a restart the claim is due at once.
func (c *Claim) Postpone(now, until time.Time, isReserved bool) {
	q := c.q
	q.mu.Lock()
	if !c.done {
		e := q.slab.at(c.entry) // it is there for as long as the claim is
		e.slot, e.reserved = nanos(until), isReserved
	}
	q.mu.Unlock()
	c.Release(now)
}

// slotAt is when a postponed entry that is due may be taken.
func (e *entry) slotAt(now int64) int64 {
	if e.slot > now+int64(longestSlot) {
		return now
	}
	return e.slot
}
