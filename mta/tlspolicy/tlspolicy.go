// Package tlspolicy joins all that has a say about the security of one
// connection into one demand: the operator's word for the destination, the
// recipient domain's MTA-STS policy (RFC 8461), the host's TLSA records (RFC
// 7672), and what the message itself asks for (REQUIRETLS and TLS-Required, RFC
// 8689).
//
// It is pure: facts go in, a Requirement comes out. Finding the facts (DNS,
// HTTPS, the configuration) and meeting the demand (STARTTLS, certificates) are
// left to others on purpose, so that every cell of the table can be tested.
//
// The rules, in the order in which they are applied:
//
//  1. "TLS-Required: No" sets aside what the recipient's side published (MTA-STS
//     and DANE), but not the operator's word.
//  2. "none" is an operator's exception: nothing raises it.
//  3. Usable TLSA records: the certificate must match one. DANE wins over
//     MTA-STS. Unusable ones: TLS without authentication. A failed lookup: the
//     host is not used.
//  4. MTA-STS in mode enforce: the host must be in the policy, its certificate
//     valid. In mode testing the same is only watched.
//  5. REQUIRETLS: a verified host, learnt from a source that can be trusted, that
//     offers REQUIRETLS itself.
package tlspolicy

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// Level is what a connection must reach.
type Level uint8

const (
	None    Level = iota // no STARTTLS
	Enable               // STARTTLS where it works, without judging the certificate
	Require              // never in clear; the certificate is not judged
	Verify               // never in clear, with a certificate valid for the host's name
	DANE                 // never in clear, with a certificate that matches a TLSA record
)

var levelWords = [...]string{"none", "enable", "require", "verify", "dane"}

func (l Level) String() string {
	if int(l) < len(levelWords) {
		return levelWords[l]
	}
	return fmt.Sprintf("level %d", uint8(l))
}

// ParseLevel reads a word of the configuration: none, enable, require, verify.
func ParseLevel(word string) (Level, error) {
	for l := None; l <= Verify; l++ {
		if word == levelWords[l] {
			return l, nil
		}
	}
	return None, fmt.Errorf("tls %q is unknown: use none, enable, require or verify", word)
}

// Source is what decided the level.
type Source uint8

const (
	FromConfig Source = iota
	FromSTS
	FromDANE
	FromMessage // REQUIRETLS, or "TLS-Required: No"
)

var sourceWords = [...]string{"configuration", "MTA-STS", "DANE", "message"}

func (s Source) String() string { return sourceWords[s] }

// TLSA is one record (RFC 6698, section 2.1).
type TLSA struct {
	Usage, Selector, MatchingType uint8
	Data                          []byte
}

// STSMode is the mode of the recipient domain's MTA-STS policy.
type STSMode uint8

const (
	STSNone STSMode = iota // no policy, or mode none
	STSTesting
	STSEnforce
)

// DANEState is what is known of a host's TLSA records.
type DANEState uint8

const (
	DANENone     DANEState = iota // none, or the way there is not DNSSEC-validated
	DANEUsable                    // at least one that can be matched
	DANEUnusable                  // secure records, but none that can be matched
	DANEFailed                    // the lookup failed: nobody knows
)

// Message is what the message asks for.
type Message uint8

const (
	MessageDefault    Message = iota
	MessageRequireTLS         // RFC 8689, section 2
	MessageTLSIgnored         // RFC 8689, section 3: "TLS-Required: No"
)

// Facts are all that has a say about one host for one recipient domain.
type Facts struct {
	Configured Level // none to verify
	// HostTrusted: the host's name did not come from DNS that anybody may
	// have forged: the MX answer is DNSSEC-validated, or the operator wrote it.
	HostTrusted bool
	STS         STSMode
	STSMatch    bool // the host is one of the policy's
	DANE        DANEState
	TLSA        []TLSA // with DANEUsable
	TLSABase    string // with DANEUsable: the name that has the records
	Message     Message
}

// Requirement is the demand on one connection.
type Requirement struct {
	Level  Level
	Source Source
	TLSA   []TLSA // with level DANE
	// TLSABase, with level DANE, is the name that has the records: SNI (RFC
	// 7672, section 8.1), and a name that the certificate may bear.
	TLSABase string
	// TLSAUnusable: the host has TLSA records, and none of them can be matched.
	TLSAUnusable bool
	// RequireTLS: the host must offer REQUIRETLS, and the message carries it.
	RequireTLS bool
	// STS is the mode of the MTA-STS policy that the connection is held to
	// (enforce), or only watched for and reported about (testing); STSNone also
	// where DANE decides in its place. STSMatch: the host is one of its.
	STS      STSMode
	STSMatch bool
	// Refused says why the host must not be used at all; nil where it may.
	Refused *Refusal
}

// Refusal is why a host may not be used.
type Refusal struct {
	Status string // enhanced status; its class says whether trying later may help
	Text   string
}

// Permanent reports whether trying again is of no use.
func (r *Refusal) Permanent() bool { return strings.HasPrefix(r.Status, "5") }

// Join makes one demand of the facts.
func Join(f Facts) Requirement {
	switch f.Message {
	case MessageTLSIgnored:
		return Requirement{Level: f.Configured, Source: FromMessage}
	case MessageRequireTLS:
		return joinRequireTLS(f)
	default:
		return joinRecipient(f)
	}
}

// joinRecipient joins what the operator and the recipient's side say.
func joinRecipient(f Facts) Requirement {
	r := Requirement{Level: f.Configured, Source: FromConfig}
	if f.Configured == None {
		return r
	}
	switch f.DANE {
	case DANEFailed:
		// RFC 7672, section 2.1: without an answer a downgrade cannot be told
		// from a domain that has no records.
		return r.refuse(FromDANE, "4.4.3", "looking up its TLSA records failed, so nobody knows whether it must be authenticated")
	case DANEUsable:
		return Requirement{Level: DANE, Source: FromDANE, TLSA: f.TLSA, TLSABase: f.TLSABase}
	case DANEUnusable:
		// RFC 7672, section 2.2: encryption is promised, authentication is not.
		r.TLSAUnusable = true
		r.raise(Require, FromDANE)
	}
	r.STS, r.STSMatch = f.STS, f.STSMatch
	switch {
	case f.STS == STSEnforce && !f.STSMatch:
		return r.refuse(FromSTS, "4.7.0", "it is not a mail host that the domain's MTA-STS policy names")
	case f.STS == STSEnforce:
		r.raise(Verify, FromSTS)
	}
	return r
}

// joinRequireTLS adds the conditions of RFC 8689, section 4.2.1.
func joinRequireTLS(f Facts) Requirement {
	if f.Configured == None {
		return Requirement{}.refuse(FromMessage, "5.7.30", "the message demands TLS (REQUIRETLS), and the configuration forbids TLS to this destination (tls = none)")
	}
	r := joinRecipient(f)
	if r.Refused != nil {
		return r
	}
	r.RequireTLS = true
	if r.Level == DANE {
		return r
	}
	if !f.HostTrusted && !(f.STS != STSNone && f.STSMatch) {
		return r.refuse(FromMessage, "5.7.30", "the message demands TLS to an authenticated host (REQUIRETLS), and neither DNSSEC nor MTA-STS authenticates this one")
	}
	r.raise(Verify, FromMessage)
	return r
}

func (r *Requirement) raise(to Level, from Source) {
	if r.Level < to {
		r.Level, r.Source = to, from
	}
}

func (r Requirement) refuse(from Source, status, text string) Requirement {
	return Requirement{
		Level: r.Level, Source: from, STS: r.STS, STSMatch: r.STSMatch, TLSAUnusable: r.TLSAUnusable,
		Refused: &Refusal{Status: status, Text: text},
	}
}

// Key tells demands apart that must not share a connection. The host's name is
// not in it.
func (r Requirement) Key() string {
	if r.Level != DANE && !r.RequireTLS {
		return r.Level.String()
	}
	var b strings.Builder
	b.WriteString(r.Level.String())
	for _, t := range r.TLSA {
		fmt.Fprintf(&b, ",%d %d %d %s", t.Usage, t.Selector, t.MatchingType, hex.EncodeToString(t.Data))
	}
	if r.RequireTLS {
		b.WriteString("+requiretls")
	}
	return b.String()
}

// String says the demand in words: "enable", "verify (MTA-STS)", "enable
// (MTA-STS only testing)".
func (r Requirement) String() string {
	s := r.Level.String()
	if r.Source != FromConfig {
		s += " (" + r.Source.String() + ")"
	}
	if r.STS == STSTesting {
		s += " (MTA-STS only testing)"
	}
	return s
}
