package resolver

import (
	"strings"
	"time"
)

// Kind of an Error.
type Kind uint8

const (
	KindNone      Kind = iota
	NoSuchDomain       // NXDOMAIN: a fact
	NoData             // the name exists, the type does not: a fact
	ServerFailure      // SERVFAIL, REFUSED, lame: temporary
	Timeout            // no server answered in time: temporary
	Bogus              // DNSSEC validation failed (RFC 8914 codes where given): temporary
	Malformed          // an answer that cannot be read or is to another question (temporary), or a name that cannot be asked for (a fact: Server is empty)
	NullMX             // RFC 7505: the domain takes no mail: a fact
	Unroutable         // a name that cannot be mailed to: no dot, all MX are ourselves, no address: a fact
)

var kindWords = [...]string{
	KindNone:      "no error",
	NoSuchDomain:  "no such domain",
	NoData:        "no such record",
	ServerFailure: "server failure",
	Timeout:       "no answer in time",
	Bogus:         "DNSSEC validation failed",
	Malformed:     "malformed",
	NullMX:        "the domain takes no mail (null MX)",
	Unroutable:    "no route",
}

// String names the kind in words.
func (k Kind) String() string {
	if int(k) < len(kindWords) {
		return kindWords[k]
	}
	return "unknown kind"
}

// Enhanced status codes of failures to find a way (RFC 3463, section 3.5;
// RFC 7505, section 4.2).
const (
	statusNoDomain  = "5.1.2"
	statusNullMX    = "5.1.10"
	statusNoRoute   = "5.4.4"
	statusLoop      = "5.4.6"
	statusTemporary = "4.4.3"
)

// Error says what was asked of whom and what came back.
type Error struct {
	Kind   Kind
	Name   string // without final dot
	Type   string // "MX"; empty where no single record type is to blame
	Server string // the last one asked; empty where none was
	Status string // enhanced status for a report: 5.1.2, 5.1.10, 5.4.6, 4.4.3 ...
	Secure bool   // with NoSuchDomain and NoData: the denial is DNSSEC-validated
	Err    error  // what lies beneath or says more; may be nil

	expiresAt time.Time // until when the cache holds it; zero: not known
}

// Error reads like "looking up MX of example.test at 127.0.0.1:53: server
// failure: SERVFAIL".
func (e *Error) Error() string {
	var b strings.Builder
	if e.Type != "" {
		b.WriteString("looking up ")
		b.WriteString(e.Type)
		b.WriteString(" of ")
	}
	b.WriteString(quoteName(e.Name))
	if e.Server != "" {
		b.WriteString(" at ")
		b.WriteString(e.Server)
	}
	b.WriteString(": ")
	b.WriteString(e.Kind.String())
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap gives what lies beneath.
func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether trying again may help: everything but
// NoSuchDomain, NoData, NullMX, a malformed name and Unroutable.
func (e *Error) Temporary() bool {
	switch e.Kind {
	case NoSuchDomain, NoData, NullMX, Unroutable:
		return false
	case Malformed:
		return e.Server != ""
	default:
		return true
	}
}

func defaultStatus(e *Error) string {
	switch {
	case e.Temporary():
		return statusTemporary
	case e.Kind == NullMX:
		return statusNullMX
	case e.Kind == NoData:
		return statusNoRoute
	default:
		return statusNoDomain
	}
}

// failure makes an Error with the status that its kind has in general.
func failure(kind Kind, name, rrtype, server string, err error) *Error {
	e := &Error{Kind: kind, Name: name, Type: rrtype, Server: server, Err: err}
	e.Status = defaultStatus(e)
	return e
}

// quoteName makes a name from outside safe and short enough for a log line.
func quoteName(name string) string {
	const longest = 255
	if len(name) > longest {
		name = name[:longest] + "..."
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == '"' {
			return quoted(name)
		}
	}
	if name == "" {
		return "the root"
	}
	return name
}
