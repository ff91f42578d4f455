package rehearsal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Passage notes when each message of a load was answered with 250 and when it
// arrived, to tell what lies between. A [Load] and a [Sink] of one process
// share it; messages of other loads are not its business.
type Passage struct {
	run   string // what the load names its messages by
	began time.Time
	// Nanoseconds after began, at least 1; 0: not yet.
	accepted, arrived []atomic.Int64
	count             atomic.Int64 // of those that arrived
}

// NewPassage is for one load of so many messages.
func NewPassage(messages int64) *Passage {
	return &Passage{
		run: newRun(), began: time.Now(),
		accepted: make([]atomic.Int64, messages), arrived: make([]atomic.Int64, messages),
	}
}

// newRun makes the name of a run.
func newRun() string { return fmt.Sprintf("%08x", rand.Uint32()) }

func (p *Passage) since(now time.Time) int64 { return max(1, int64(now.Sub(p.began))) }

// accept notes that message n was answered with 250.
func (p *Passage) accept(n int64, now time.Time) { p.accepted[n].Store(p.since(now)) }

// arrive notes that the message with this Message-ID came, where it is one of
// the load's. Of several times the first counts.
func (p *Passage) arrive(id []byte, now time.Time) {
	n, ok := p.number(id)
	if ok && p.arrived[n].CompareAndSwap(0, p.since(now)) {
		p.count.Add(1)
	}
}

// number reads what appendMessage wrote: <run.0000000042@load.test>.
func (p *Passage) number(id []byte) (int64, bool) {
	rest, ok := bytes.CutPrefix(bytes.TrimPrefix(id, []byte{'<'}), []byte(p.run+"."))
	if !ok {
		return 0, false
	}
	digits, _, ok := bytes.Cut(rest, []byte{'@'})
	if !ok || len(digits) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, n < int64(len(p.arrived))
}

// Arrived is how many messages of the load arrived until now.
func (p *Passage) Arrived() int64 { return p.count.Load() }

// Percentiles of the time from the 250 to the arrival, of the messages that
// have both. A message may arrive before its client has read the 250: that
// counts as no time.
func (p *Passage) Percentiles() Percentiles {
	h := new(histogram)
	for n := range p.accepted {
		accepted, arrived := p.accepted[n].Load(), p.arrived[n].Load()
		if accepted != 0 && arrived != 0 {
			h.add(time.Duration(arrived - accepted))
		}
	}
	return h.percentiles()
}
