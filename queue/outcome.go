package queue

import (
	"net/netip"
	"time"
)

// Verdict is what an attempt came to for one recipient.
type Verdict uint8

const (
	// Untried: our own doing (a limit, a shutdown, an envelope taken back
	// before its content was sent). Costs no attempt; due again at once.
	Untried Verdict = iota
	// Delivered: the remote host has taken responsibility.
	Delivered
	// Deferred: try again later. Whatever is unknown is deferred.
	Deferred
	// Failed: an explicit 5xx, or a proven local fact, or expiry.
	Failed
)

// Scope says what an outcome is about, and so what else it touches.
type Scope uint8

const (
	ScopeRecipient Scope = iota // this recipient only
	ScopeMessage                // this message
	ScopeHost                   // one host of the site; the next one may do
	ScopeSite                   // every host of the site, or the domain's DNS
	ScopeLocal                  // our own host
)

// Stage is the step of an attempt at which its outcome was decided.
type Stage uint8

const (
	StageNone Stage = iota
	StageDNS
	StagePolicy
	StageConnect
	StageGreeting
	StageEHLO
	StageSTARTTLS
	StageMAIL
	StageRCPT
	StageDATA
	StageBody
	StageFinal // the reply to the final dot, or to BDAT LAST
	StageQueue // decided in the queue: expiry, an operator
)

// Remote is the host that an attempt spoke to and what was agreed with it.
// One value is shared by the outcomes of an attempt; it is not changed after
// it was handed over.
type Remote struct {
	Host   string     // the MX's name
	IP     netip.Addr // zero: none was reached
	TLS    string     // e.g. "TLS1.3 TLS_AES_128_GCM_SHA256 verified", or "unverified", "dane"; empty: in clear
	Demand string     // e.g. "enable", "verify (MTA-STS)"; and why it is met with less than TLS at its best
	HELO   string     // the name we greeted with
}

// Outcome is what an attempt came to for one recipient, with the reasons a
// person needs. Text is one line of at most 1,000 octets of valid UTF-8.
type Outcome struct {
	Verdict Verdict
	Scope   Scope
	Stage   Stage
	Code    int    // the SMTP reply's code; 0 where no reply decided
	Status  string // enhanced status (RFC 3463), always set but for Untried
	Text    string // the remote's words where Code is set, else ours
	Remote  *Remote
	// RetryAfter is a hint of the remote (a greylister's); 0: the schedule decides.
	RetryAfter time.Duration
	// InDoubt: the connection was lost after the whole content was sent and
	// before the reply came; the remote may have the message.
	InDoubt bool
	// Passed: the remote took over the duty to report success (it supports
	// DSN), so no "relayed" report is owed by us (RFC 3461, section 5.2.2).
	Passed bool
	Class  Class
}

// Timing is how the time of an attempt was spent, for the log and the
// history: before the queue and in it is known to the queue itself.
type Timing struct {
	Connect  time.Duration // dialling, greeting and TLS; 0 on a reused connection
	Transfer time.Duration // MAIL to the final reply
}
