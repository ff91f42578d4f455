package resolvertest

import (
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Fault is a way to misbehave for a name. The zero value does nothing; what is
// set adds up.
type Fault struct {
	Type  uint16 // for queries of this type only; 0: any
	Times int    // for so many queries, then no more; 0: for ever

	Drop     bool          // no answer at all
	Delay    time.Duration // answer later
	Hold     chan struct{} // answer when it is closed (or the zone is)
	Rcode    int           // answer with this code and no records
	Extended *dns.EDNS0_EDE
	Lame     bool // a referral to other servers
	Silent   bool // no recursion: an empty answer without authority
	Truncate bool // over UDP: cut short, and the TC bit
	// TruncateTCP sets the TC bit over TCP as well, where it means nothing.
	TruncateTCP bool
	Hangup      bool // over TCP: close instead of an answer
	Partial     bool // aliases are not followed in the answer
	Clear       bool // without the AD bit

	WrongID       bool // the answer carries another ID
	WrongQuestion bool // the answer repeats another question
	NoQuestion    bool // the answer repeats no question
	Unrelated     bool // the records belong to another name
	Garbage       bool // the octets after the header are no DNS message
	NoSOA         bool // denials come without a SOA record
}

// plan is a fault at work.
type plan struct {
	Fault
	once     sync.Once
	released chan struct{}
}

// Bogus is what a validating resolver says about a name whose signatures do
// not hold.
func Bogus() Fault {
	return Fault{Rcode: dns.RcodeServerFailure, Extended: &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus, ExtraText: "no valid signature"}}
}

// Fail makes the server misbehave for queries of a name, and only that name.
// Several faults of a name are gone through in order, the first that fits and
// is not used up applies.
func (z *Zone) Fail(name string, f Fault) {
	z.mu.Lock()
	defer z.mu.Unlock()
	p := &plan{Fault: f, released: make(chan struct{})}
	z.faults[canonical(name)] = append(z.faults[canonical(name)], p)
}

// Mend takes all faults of a name away.
func (z *Zone) Mend(name string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, f := range z.faults[canonical(name)] {
		f.release()
	}
	delete(z.faults, canonical(name))
}

func (f *plan) release() {
	f.once.Do(func() { close(f.released) })
}

// fault takes the fault that applies to a query now; z.mu is held.
func (z *Zone) fault(name string, qtype uint16) *plan {
	for _, f := range z.faults[name] {
		if f.Type != 0 && f.Type != qtype || f.Times < 0 {
			continue
		}
		if f.Times == 1 {
			f.Times = -1 // used up
		} else if f.Times > 1 {
			f.Times--
		}
		return f
	}
	return &plan{}
}

// wait holds an answer back for as long as the fault says.
func (f *plan) wait() {
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-f.released:
		}
	}
	if f.Hold != nil {
		select {
		case <-f.Hold:
		case <-f.released:
		}
	}
}
