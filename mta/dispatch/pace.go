package dispatch

import (
	"math/rand/v2"
	"time"

	"postrider/mta/throttle"
)

// Mail of a sender over its rate gets a place of its own in the queue, so that
// each message is put off once and the mail of others goes on. What would have
// its place later than reserveFor asks again, in time for what is free then.
const (
	reserveFor = 10 * time.Minute
	maxSenders = 10_000 // that are remembered while they have nothing to wait for
)

// postpone puts a claim off whose sender is over its rate. It answers whether
// it did; otherwise the message is counted.
func (d *Dispatcher) postpone(c *Claim, l *lane, now time.Time) bool {
	if d.o.SenderRate == nil || c.Reserved {
		return false
	}
	key, perMinute := d.o.SenderRate(c.Envelope.Sender)
	if perMinute <= 0 {
		return false
	}
	d.mu.Lock()
	limit := d.sender(key, perMinute, now)
	h := limit.Message(now)
	isReserved := !h.Holds() || h.Until.Sub(now) <= reserveFor
	if isReserved {
		limit.Send(now)
	} else {
		h.Until = now.Add(reserveFor/2 + rand.N(reserveFor/2))
	}
	if h.Holds() && h.Until.After(l.paced.Until) {
		l.paced = h
	}
	d.mu.Unlock()
	if !h.Holds() {
		return false
	}
	c.Handle.Postpone(now, h.Until, isReserved)
	return true
}

// sender finds the limit for a key, or makes it. The lock is held.
func (d *Dispatcher) sender(key string, perMinute int, now time.Time) *throttle.Limit {
	if l := d.senders[key]; l != nil {
		return l
	}
	if len(d.senders) >= maxSenders {
		for k, l := range d.senders {
			if l.Idle(now) {
				delete(d.senders, k)
			}
		}
	}
	l := throttle.New(throttle.Options{Name: key, MessagesPerMinute: perMinute})
	d.senders[key] = l
	return l
}
