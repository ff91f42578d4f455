package dispatch

import (
	"context"
	"time"

	"postrider/mta/delivery"
	"postrider/queue"
)

// Source is where mail comes from; FromQueue makes one.
type Source interface {
	// Due, Changed, Take and Sweep are as in queue.Queue.
	Due(now time.Time, buf []string) (domains []string, next time.Time)
	Changed() <-chan struct{}
	Take(now time.Time, domain string, maxRecipients int) (Claim, bool)
	Sweep(now time.Time) (next time.Time)
}

// Claim is one message and recipients of it at one domain.
type Claim struct {
	Envelope   *queue.Envelope
	Recipients []queue.Recipient
	Attempts   int
	DueAt      time.Time
	Reserved   bool // it was postponed with isReserved
	Handle     Handle
}

// Handle ends a claim: with one of Settle, Release and Postpone. *queue.Claim is
// one.
type Handle interface {
	Content() (*queue.Content, error)
	Settle(now time.Time, outcomes []queue.Outcome, t queue.Timing)
	Release(now time.Time)
	Postpone(now, until time.Time, isReserved bool)
}

// FromQueue makes a queue a Source.
func FromQueue(q *queue.Queue) Source { return queueSource{q} }

type queueSource struct{ *queue.Queue }

func (q queueSource) Take(now time.Time, domain string, maxRecipients int) (Claim, bool) {
	c, ok := q.Queue.Take(now, domain, maxRecipients)
	if !ok {
		return Claim{}, false
	}
	return Claim{Envelope: c.Envelope, Recipients: c.Recipients, Attempts: c.Attempts, DueAt: c.DueAt, Reserved: c.Reserved, Handle: c}, true
}

// Planner finds the way to a domain. *delivery.Planner is one.
type Planner interface {
	Plan(ctx context.Context, domain string) (*delivery.Plan, error)
}

// Deliverer carries attempts out. *delivery.Agent is one.
type Deliverer interface {
	Deliver(ctx context.Context, plan *delivery.Plan, first *delivery.Attempt, work delivery.Work)
	Close()
}

// Observer learns what attempts came to, for the metrics.
type Observer interface {
	// Attempt is called once for each attempt that was settled, by its worker.
	// The value is valid until it returns; it must not block.
	Attempt(a *Attempt)
}

// Attempt is what an attempt came to.
type Attempt struct {
	At       time.Time
	Envelope *queue.Envelope
	Outcomes []queue.Outcome
	Number   int           // 1 for the first
	Waited   time.Duration // due, but for a connection or a limit
	Timing   queue.Timing
}
