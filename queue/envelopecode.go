package queue

import (
	"errors"
	"fmt"
)

// maxRecipients bounds the recipients of one message, whatever the ways in
// allow.
const maxRecipients = 1 << 20

const (
	envelope8Bit = 1 << iota
	envelopeSMTPUTF8
	envelopeRequireTLS
	envelopeTLSIgnored
	envelopeHeld
	envelopeOriginTLS
	envelopeLarge // the body is a file
)

const (
	recipientNotify    = 0x0f
	recipientORcpt     = 0x10
	recipientLocalPart = 0x20 // the address ends with "@" and the domain
)

// encode appends the record of an envelope. What the schedule needs at start
// comes first, see digest.
func (e *Envelope) encode(w *recordWriter) {
	var flags byte
	for _, f := range []struct {
		set bool
		bit byte
	}{
		{e.Body == Body8BitMIME, envelope8Bit},
		{e.SMTPUTF8, envelopeSMTPUTF8},
		{e.RequireTLS, envelopeRequireTLS},
		{e.TLSIgnored, envelopeTLSIgnored},
		{e.Held, envelopeHeld},
		{e.Origin.TLS, envelopeOriginTLS},
		{e.large, envelopeLarge},
	} {
		if f.set {
			flags |= f.bit
		}
	}
	w.byte(flags)
	w.byte(byte(e.Priority))
	w.int(nanos(e.ArrivedAt))
	w.int(nanos(e.NotBefore))
	w.int(nanos(e.DeliverBy))
	w.string(e.Sender)
	w.string(e.Tag)
	w.uint(uint64(max(e.Size, 0)))
	domains := e.encodeDomains(w)
	w.byte(byte(e.Ret))
	w.string(e.EnvID)
	w.string(e.MessageID)
	w.string(e.Origin.Via)
	w.addr(e.Origin.Client)
	w.string(e.Origin.HELO)
	w.string(e.Origin.User)
	w.uint(uint64(len(e.Recipients)))
	for i := range e.Recipients {
		e.Recipients[i].encode(w, domains)
	}
}

// domainTable numbers the domains of an envelope in order of their first use.
type domainTable struct {
	names  []string
	counts []int
	byName map[string]int // where there are many
	few    [4]string
	fewN   [4]int
}

func (t *domainTable) index(name string) int {
	if t.byName != nil {
		if i, ok := t.byName[name]; ok {
			return i
		}
		return -1
	}
	for i, n := range t.names {
		if n == name {
			return i
		}
	}
	return -1
}

func (t *domainTable) add(name string) int {
	i := t.index(name)
	if i >= 0 {
		t.counts[i]++
		return i
	}
	i = len(t.names)
	t.names = append(t.names, name)
	t.counts = append(t.counts, 1)
	if t.byName != nil {
		t.byName[name] = i
	} else if len(t.names) > 16 {
		t.byName = make(map[string]int)
		for i, n := range t.names {
			t.byName[n] = i
		}
	}
	return i
}

func (e *Envelope) domains(t *domainTable) {
	t.names, t.counts = t.few[:0], t.fewN[:0]
	for i := range e.Recipients {
		t.add(e.Recipients[i].Domain)
	}
}

func (e *Envelope) encodeDomains(w *recordWriter) *domainTable {
	t := &w.domains
	*t = domainTable{}
	e.domains(t)
	w.uint(uint64(len(t.names)))
	for i, name := range t.names {
		w.string(name)
		w.uint(uint64(t.counts[i]))
	}
	return t
}

func (r *Recipient) encode(w *recordWriter, domains *domainTable) {
	w.uint(uint64(domains.index(r.Domain)))
	flags := byte(r.Notify) & recipientNotify
	address := r.Address
	if n := len(address) - len(r.Domain) - 1; n >= 0 && address[n] == '@' && address[n+1:] == r.Domain {
		flags |= recipientLocalPart
		address = address[:n]
	}
	if r.ORcpt != "" {
		flags |= recipientORcpt
	}
	w.byte(flags)
	w.string(address)
	if r.ORcpt != "" {
		w.string(r.ORcpt)
	}
}

// digest is the part of an envelope that the schedule is made of.
type digest struct {
	flags                           byte
	priority                        Priority
	arrivedAt, notBefore, deliverBy int64
	sender, tag                     string
	size                            int64
	domains                         []string
	counts                          []int
}

// readDigest reads the first part of an envelope record, reusing d's memory.
func (r *recordReader) readDigest(d *digest) {
	d.flags = r.byte()
	d.priority = Priority(r.byte())
	d.arrivedAt = r.int()
	d.notBefore = r.int()
	d.deliverBy = r.int()
	d.sender = r.string()
	d.tag = r.string()
	d.size = int64(r.uint())
	n := r.count(2)
	d.domains, d.counts = d.domains[:0], d.counts[:0]
	for range n {
		d.domains = append(d.domains, r.string())
		count := r.uint()
		if count == 0 || count > maxRecipients {
			r.fail()
			return
		}
		d.counts = append(d.counts, int(count))
	}
	if d.priority > PriorityUrgent || n == 0 || d.size < 0 {
		r.fail()
	}
}

// firstDue is where the age of a message begins.
func (d *digest) firstDue() int64 { return max(d.arrivedAt, d.notBefore) }

// decodeEnvelope reads what encode wrote.
func decodeEnvelope(id ID, record []byte) (*Envelope, error) {
	r, err := openRecord(record)
	if err != nil {
		return nil, fmt.Errorf("read the envelope of %s: %w", id, err)
	}
	e := r.envelope(id)
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("read the envelope of %s: %w", id, err)
	}
	return e, nil
}

func (r *recordReader) envelope(id ID) *Envelope {
	var d digest
	r.readDigest(&d)
	e := &Envelope{
		ID:         id,
		Sender:     d.sender,
		SMTPUTF8:   d.flags&envelopeSMTPUTF8 != 0,
		RequireTLS: d.flags&envelopeRequireTLS != 0,
		TLSIgnored: d.flags&envelopeTLSIgnored != 0,
		Held:       d.flags&envelopeHeld != 0,
		Priority:   d.priority,
		Tag:        d.tag,
		ArrivedAt:  timeOf(d.arrivedAt),
		NotBefore:  timeOf(d.notBefore),
		DeliverBy:  timeOf(d.deliverBy),
		Size:       d.size,
		large:      d.flags&envelopeLarge != 0,
	}
	if d.flags&envelope8Bit != 0 {
		e.Body = Body8BitMIME
	}
	e.Ret = Ret(r.byte())
	e.EnvID = r.string()
	e.MessageID = r.string()
	e.Origin = Origin{Via: r.string(), Client: r.addr(), HELO: r.string(), User: r.string(),
		TLS: d.flags&envelopeOriginTLS != 0}
	n := r.count(3)
	if n == 0 || n > maxRecipients || e.Ret > RetHeaders {
		r.fail()
		return e
	}
	e.Recipients = make([]Recipient, n)
	for i := range e.Recipients {
		r.recipient(&e.Recipients[i], &d)
	}
	return e
}

func (r *recordReader) recipient(to *Recipient, d *digest) {
	domain := r.uint()
	flags := r.byte()
	address := r.string()
	if domain >= uint64(len(d.domains)) {
		r.fail()
		return
	}
	to.Domain = d.domains[domain]
	to.Address = address
	to.Notify = Notify(flags & recipientNotify)
	if flags&recipientLocalPart != 0 {
		to.Address = address + "@" + to.Domain
	}
	if flags&recipientORcpt != 0 {
		to.ORcpt = r.string()
	}
}

// scheduled reports whether a person chose a later time for the first attempt.
func (e *Envelope) scheduled() bool { return e.NotBefore.After(e.ArrivedAt) }

// check tells why an envelope cannot be taken.
func (e *Envelope) check() error {
	switch {
	case e == nil:
		return errors.New("queue: submit without an envelope")
	case e.ID == ID{}:
		return errors.New("queue: submit an envelope without an ID")
	case e.ArrivedAt.IsZero():
		return fmt.Errorf("queue: submit %s without the time of its arrival", e.ID)
	case len(e.Recipients) == 0:
		return fmt.Errorf("queue: submit %s without a recipient", e.ID)
	case len(e.Recipients) > maxRecipients:
		return fmt.Errorf("queue: submit %s with %d recipients: at most %d", e.ID, len(e.Recipients), maxRecipients)
	case e.Priority > PriorityUrgent || e.Ret > RetHeaders || e.Body > Body8BitMIME:
		return fmt.Errorf("queue: submit %s with an unknown priority, RET or BODY", e.ID)
	}
	for i := range e.Recipients {
		if e.Recipients[i].Domain == "" {
			return fmt.Errorf("queue: submit %s: recipient %.80q has no domain", e.ID, e.Recipients[i].Address)
		}
	}
	return nil
}
