package queue

import (
	"net/netip"
	"time"
)

// Envelope is everything about a message that is not its content. It is
// written once, by Submit, and never changed afterwards. Addresses are in wire
// form, without angle brackets, and were validated by whoever built the
// envelope.
type Envelope struct {
	ID         ID
	Sender     string // empty: the null reverse-path (RFC 5321, section 4.5.5)
	Recipients []Recipient
	Body       BodyType
	SMTPUTF8   bool // RFC 6531: an address or a header needs it
	RequireTLS bool // RFC 8689, section 2: the REQUIRETLS parameter
	TLSIgnored bool // RFC 8689, section 3: the header "TLS-Required: No"
	Ret        Ret
	EnvID      string // RFC 3461, section 4.4, decoded from xtext
	Priority   Priority
	Tag        string    // the sender's own label, for selecting and counting
	ArrivedAt  time.Time // when the message was accepted
	NotBefore  time.Time // zero: deliver at once
	DeliverBy  time.Time // zero: only the schedule's ExpireAfter counts
	Held       bool      // accepted, but waiting for a release
	Size       int64     // octets as they go on the wire (prefix and body), dots not stuffed
	MessageID  string    // of the header, with its angle brackets, for people
	Origin     Origin

	large bool // the body is a file of its own; set by Submit
}

// Origin says where a message came from.
type Origin struct {
	Via    string     // smtp, pickup, http, sendmail, bounce, tlsrpt
	Client netip.Addr // zero where there is none
	HELO   string
	User   string // the authenticated user
	TLS    bool
}

// Recipient is one recipient of a message.
type Recipient struct {
	Address string
	Domain  string // A-labels, lower case, without a final dot; or "[192.0.2.1]", "[IPv6:2001:db8::1]"
	Notify  Notify
	ORcpt   string // RFC 3461, section 4.2: "rfc822;a@b.test", decoded from xtext; empty: none given
}

// BodyType is the BODY parameter of RFC 6152.
type BodyType uint8

const (
	Body7Bit BodyType = iota
	Body8BitMIME
)

// Ret is the RET parameter of RFC 3461, section 4.3.
type Ret uint8

const (
	RetDefault Ret = iota
	RetFull
	RetHeaders
)

// Notify is the NOTIFY parameter of RFC 3461, section 4.1. The zero value
// means that none was given: failures and delays are reported.
type Notify uint8

const (
	NotifyNever Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// Wants reports whether the recipient's sender wants a report of this kind
// (one of the Notify bits).
func (n Notify) Wants(kind Notify) bool {
	if n == 0 {
		n = NotifyFailure | NotifyDelay
	}
	return n&NotifyNever == 0 && n&kind != 0
}

// Priority orders the messages of one destination; it never lets one
// destination go before another.
type Priority uint8

const (
	PriorityNormal Priority = iota
	PriorityBulk
	PriorityUrgent
)
