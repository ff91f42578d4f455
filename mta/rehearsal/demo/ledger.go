package demo

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"postrider/mta/rehearsal"
)

// ledger holds what is expected of every copy of every message against what
// was seen at the receiving servers.
type ledger struct {
	mu       sync.Mutex
	copies   map[rehearsal.EnvelopeKey]*copyState
	rejected map[string]*rejection // by file name
	reports  map[rehearsal.EnvelopeKey]bool
	strays   []string
	verify   func(data []byte) (signatures int, err error)
	signed   int // signatures that verified
	mails    int // that carry one
	unsigned int
	invalid  []string
	last     time.Time
}

type copyState struct {
	source    string // what it was made from: a file's name, or "SMTP"
	fate      rehearsal.Fate
	arrivals  int
	postponed bool // the server told it to come back at least once
	tls       bool
}

type rejection struct {
	want string // part of the error's text
	got  string // the text beside the file; empty: not seen yet
}

func newLedger(verify func([]byte) (int, error)) *ledger {
	return &ledger{
		copies:   make(map[rehearsal.EnvelopeKey]*copyState),
		rejected: make(map[string]*rejection),
		reports:  make(map[rehearsal.EnvelopeKey]bool),
		verify:   verify,
	}
}

func (l *ledger) expect(source, sender, recipient string, fate rehearsal.Fate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := rehearsal.KeyOf(sender, recipient)
	l.copies[key] = &copyState{source: source, fate: fate}
	if fate == rehearsal.FateBounced && sender != "" {
		l.reports[key] = false
	}
}

func (l *ledger) expectRejection(file, want string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rejected[file] = &rejection{want: want}
}

func (l *ledger) postponed(sender, recipient string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c, ok := l.copies[rehearsal.KeyOf(sender, recipient)]; ok {
		c.postponed = true
	}
}

// took records a transaction that a receiving server has taken.
func (l *ledger) took(a arrival) {
	signatures, err := l.verify(a.data)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = a.at
	if a.from == "" && bytes.Contains(a.data, []byte("multipart/report")) {
		l.tookReport(a)
		return
	}
	switch {
	case err != nil:
		l.invalid = append(l.invalid, fmt.Sprintf("<%s> to %s: %v", a.from, strings.Join(a.to, ", "), err))
	case signatures == 0:
		l.unsigned++
	default:
		l.signed += signatures
		l.mails++
	}
	for _, to := range a.to {
		c, ok := l.copies[rehearsal.KeyOf(a.from, to)]
		if !ok {
			l.strays = append(l.strays, fmt.Sprintf("<%s> to <%s> at %s", a.from, to, a.server))
			continue
		}
		c.arrivals++
		c.tls = a.tls
	}
}

// tookReport marks the recipients that a delivery report names as failed.
func (l *ledger) tookReport(a arrival) {
	for _, to := range a.to {
		for key := range l.reports {
			if key.Sender != rehearsal.KeyOf("", to).Recipient {
				continue
			}
			if bytes.Contains(a.data, []byte("Final-Recipient: rfc822; "+key.Recipient)) ||
				bytes.Contains(a.data, []byte("Final-Recipient: rfc822;"+key.Recipient)) {
				l.reports[key] = true
			}
		}
	}
}

// account is the ledger's sum, for the progress line and the table.
type account struct {
	expected, delivered   int
	deferred, wasDeferred int
	bounced, reported     int
	rejected, refused     int
	overTLS               int
	signed, invalid       int      // signatures
	mails, unsigned       int      // messages with a signature and without
	faults                []string // in words; empty: everything met what was expected
	open                  int      // what may still come
}

func (l *ledger) account() account {
	l.mu.Lock()
	defer l.mu.Unlock()
	var a account
	a.signed, a.invalid, a.mails, a.unsigned = l.signed, len(l.invalid), l.mails, l.unsigned
	for key, c := range l.copies {
		l.addCopy(&a, key, c)
	}
	for key, seen := range l.reports {
		a.bounced++
		if seen {
			a.reported++
		} else {
			a.open++
			a.faults = append(a.faults, fmt.Sprintf("no report reached <%s> about <%s>", key.Sender, key.Recipient))
		}
	}
	for file, r := range l.rejected {
		a.rejected++
		switch {
		case r.got == "":
			a.open++
			a.faults = append(a.faults, fmt.Sprintf("%s was not put aside as bad", file))
		case !strings.Contains(r.got, r.want):
			a.faults = append(a.faults, fmt.Sprintf("%s was refused with %q, which does not say %q", file, r.got, r.want))
		default:
			a.refused++
		}
	}
	for _, s := range l.strays {
		a.faults = append(a.faults, "nobody expected "+s)
	}
	for _, s := range l.invalid {
		a.faults = append(a.faults, "DKIM does not verify: "+s)
	}
	slices.Sort(a.faults)
	return a
}

func (l *ledger) addCopy(a *account, key rehearsal.EnvelopeKey, c *copyState) {
	name := fmt.Sprintf("%s: <%s> to <%s>", c.source, key.Sender, key.Recipient)
	if c.fate == rehearsal.FateBounced {
		if c.arrivals > 0 {
			a.faults = append(a.faults, name+" arrived, though its server refuses it")
		}
		return
	}
	a.expected++
	switch {
	case c.arrivals == 0:
		a.open++
		a.faults = append(a.faults, name+" has not arrived")
		return
	case c.arrivals > 1:
		a.faults = append(a.faults, fmt.Sprintf("%s arrived %d times", name, c.arrivals))
	}
	if c.tls {
		a.overTLS++
	}
	if c.fate == rehearsal.FateDeferred {
		a.wasDeferred++
		if c.postponed {
			a.deferred++
		} else {
			a.faults = append(a.faults, name+" was never told to come back")
		}
		return
	}
	a.delivered++
}

// lastArrival is when the latest message came in.
func (l *ledger) lastArrival() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}
