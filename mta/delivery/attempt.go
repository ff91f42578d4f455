package delivery

import (
	"time"

	"postrider/queue"
)

// Attempt is one message to some recipients at one domain. It belongs to the
// caller and must not change until Done was called for it.
type Attempt struct {
	// Plan is that of the recipients' domain, with the key of the plan that
	// Deliver was called with; nil: that one.
	Plan       *Plan
	Envelope   *queue.Envelope
	Recipients []queue.Recipient
	Content    Opener
	// Value is the caller's own.
	Value any
}

// Opener opens what is to be sent. *queue.Claim is one.
type Opener interface {
	Content() (*queue.Content, error)
}

// Work is where a connection's attempts come from and go to. Both methods are
// called by the goroutine that called Deliver, and must not block.
type Work interface {
	// Next gives the next attempt for the plan's key; ok is false where there
	// is none for this connection now.
	Next() (a *Attempt, ok bool)
	// Done is called once for every attempt, in no certain order. The report is
	// valid until Done returns; its Outcomes belong to whom they are handed to.
	Done(a *Attempt, r *Report)
	// Connecting tells that an address is called, which may take long where
	// nobody answers, and then that it answered or was given up.
	Connecting(isConnecting bool)
}

// Report is what came of an attempt.
type Report struct {
	Outcomes  []queue.Outcome // one per recipient, in their order
	Timing    queue.Timing
	StartedAt time.Time // when the first connection for it was looked for, or its turn came on one
	EndedAt   time.Time
	Site      SiteNews
	// Slow: a host asked us to send less, or more slowly.
	Slow bool
	// Pause: a host asked for a rest of this length, in the words of Why.
	Pause time.Duration
	Why   string
	// MaxRecipients is the most that a host takes in one transaction; 0: not
	// known to be limited.
	MaxRecipients int
}

// SiteNews is what an attempt told about the site as a whole.
type SiteNews uint8

const (
	SiteUnknown SiteNews = iota // nothing: the reason was ours, or the message's
	SiteAlive                   // a host took part in a transaction
	SiteFailed                  // no host could be used, for a reason that will meet the next attempt too
)

// IsUntried reports whether nothing came of the attempt for any recipient.
func (r *Report) IsUntried() bool {
	for i := range r.Outcomes {
		if r.Outcomes[i].Verdict != queue.Untried {
			return false
		}
	}
	return true
}
