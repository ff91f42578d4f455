package tlsrpt

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	maxPolicies = 20  // in the tally of one domain
	maxDetails  = 100 // of one policy
	maxText     = 200 // octets of a text from outside
	maxLines    = 200 // of a policy
)

// PolicyType is what a session was held to (section 4.4).
type PolicyType string

const (
	STS      PolicyType = "sts"             // MTA-STS
	TLSA     PolicyType = "tlsa"            // DANE
	NoPolicy PolicyType = "no-policy-found" // neither
)

// Policy is what a session was held to, in the form in which it was found.
type Policy struct {
	Type    PolicyType `json:"type"`
	Domain  string     `json:"domain"`             // that the policy is for: with TLSA the name that has the records
	Lines   []string   `json:"lines,omitempty"`    // of the MTA-STS policy, or the TLSA records
	MXHosts []string   `json:"mx_hosts,omitempty"` // the patterns of the MTA-STS policy
}

// Result types of failures (section 4.3).
const (
	STARTTLSNotSupported    = "starttls-not-supported"
	CertificateHostMismatch = "certificate-host-mismatch"
	CertificateExpired      = "certificate-expired"
	CertificateNotTrusted   = "certificate-not-trusted"
	ValidationFailure       = "validation-failure"
	TLSAInvalid             = "tlsa-invalid"
	DNSSECInvalid           = "dnssec-invalid"
	DANERequired            = "dane-required"
	STSPolicyFetchError     = "sts-policy-fetch-error"
	STSPolicyInvalid        = "sts-policy-invalid"
	STSWebPKIInvalid        = "sts-webpki-invalid"
)

var resultTypes = []string{
	STARTTLSNotSupported, CertificateHostMismatch, CertificateExpired, CertificateNotTrusted, ValidationFailure,
	TLSAInvalid, DNSSECInvalid, DANERequired, STSPolicyFetchError, STSPolicyInvalid, STSWebPKIInvalid,
}

// Failure is how a session failed. What is not known stays empty.
type Failure struct {
	Result      string     `json:"result"` // one of the result types; any other is a ValidationFailure
	SendingIP   netip.Addr `json:"sending_ip"`
	ReceivingMX string     `json:"receiving_mx,omitempty"` // its name in DNS
	HELO        string     `json:"helo,omitempty"`         // what it calls itself
	ReceivingIP netip.Addr `json:"receiving_ip"`
	Reason      string     `json:"reason,omitempty"` // in words, for who reads the report
}

// Tally is what became of the sessions with one domain in one interval.
type Tally struct {
	Domain   string // that is asked for its wish, and gets the report
	Start    time.Time
	Interval time.Duration
	Policies []PolicyTally
}

// PolicyTally counts the sessions held to one policy.
type PolicyTally struct {
	Policy    Policy
	Successes int64
	Failures  int64 // in all; the details may leave some out
	Details   []Detail
}

// Detail counts failures of one kind.
type Detail struct {
	Failure
	Count int64
}

// tally is a Tally under way.
type tally struct {
	Version  int            `json:"version"`
	Domain   string         `json:"domain"`
	Start    time.Time      `json:"start"`
	Interval time.Duration  `json:"interval"`
	Policies []*policyTally `json:"policies"`

	byPolicy  map[string]*policyTally
	size      int       // in memory, about
	changed   bool      // since it was saved
	notBefore time.Time // when it is to be reported, or that is to be tried again
}

type policyTally struct {
	Policy    Policy       `json:"policy"`
	Successes int64        `json:"successes"`
	Failures  int64        `json:"failures"`
	Details   []*failTally `json:"details,omitempty"`
	byFailure map[Failure]*failTally
}

type failTally struct {
	Failure
	Count int64 `json:"count"`
}

const tallyVersion = 1

func newTally(domain string, start time.Time, interval time.Duration) *tally {
	return &tally{
		Version: tallyVersion, Domain: domain, Start: start, Interval: interval,
		byPolicy: make(map[string]*policyTally), size: tallySize + len(domain),
	}
}

// add counts one session, and reports whether it could: beyond the bounds, of
// which room (in octets) is one, it only adds to sums that are there.
func (t *tally) add(p Policy, f *Failure, room int) bool {
	limit := t.size + room
	pt := t.policy(p, limit)
	if pt == nil {
		return false
	}
	t.changed = true
	if f == nil {
		pt.Successes++
		return true
	}
	pt.Failures++
	clean := f.cleaned()
	ft := pt.byFailure[clean]
	if ft == nil {
		if len(pt.Details) >= maxDetails || t.size+clean.size() > limit {
			return true
		}
		ft = &failTally{Failure: clean}
		pt.Details = append(pt.Details, ft)
		pt.byFailure[clean] = ft
		t.size += clean.size()
	}
	ft.Count++
	return true
}

func (t *tally) policy(p Policy, limit int) *policyTally {
	key := p.key()
	pt := t.byPolicy[key]
	if pt == nil && len(t.Policies) < maxPolicies {
		clean := p.cleaned()
		if t.size+clean.size() > limit {
			return nil
		}
		pt = &policyTally{Policy: clean, byFailure: make(map[Failure]*failTally)}
		t.Policies = append(t.Policies, pt)
		t.byPolicy[key] = pt
		t.size += clean.size()
	}
	return pt
}

// What parts of a tally take in memory beside their texts, about.
const (
	tallySize   = 300
	policySize  = 300
	failureSize = 400
)

func (p Policy) size() int {
	n := policySize + len(p.Domain)
	for _, l := range slices.Concat(p.Lines, p.MXHosts) {
		n += 2 * (len(l) + 16) // the key has them too
	}
	return n
}

func (f Failure) size() int {
	return failureSize + len(f.ReceivingMX) + len(f.HELO) + len(f.Reason)
}

func (p Policy) key() string {
	if len(p.Lines) == 0 {
		return string(p.Type) + " " + p.Domain
	}
	return string(p.Type) + " " + p.Domain + " " + strings.Join(p.Lines, "\n")
}

func (p Policy) cleaned() Policy {
	if p.Type != STS && p.Type != TLSA {
		p.Type = NoPolicy
	}
	p.Domain = cleanText(p.Domain)
	p.Lines, p.MXHosts = cleanLines(p.Lines), cleanLines(p.MXHosts)
	return p
}

func (f Failure) cleaned() Failure {
	if !slices.Contains(resultTypes, f.Result) {
		f.Result = ValidationFailure
	}
	f.ReceivingMX, f.HELO, f.Reason = cleanText(f.ReceivingMX), cleanText(f.HELO), cleanText(f.Reason)
	return f
}

func cleanLines(lines []string) []string {
	var all []string
	for _, l := range lines[:min(len(lines), maxLines)] {
		all = append(all, cleanText(l))
	}
	return all
}

// cleanText bounds a text and takes from it what is not printable.
func cleanText(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}

// dueAt is some time into the next interval, each domain's at another, so that
// not all senders report at once: within a sixth of the interval, which is 4
// hours of a day (section 4.1).
func (t *tally) dueAt() time.Time {
	const share, parts = 6, 1000
	h := fnv.New32a()
	h.Write([]byte(t.Domain))
	spread := t.Interval / share
	return t.Start.Add(t.Interval + spread*time.Duration(h.Sum32()%parts)/parts)
}

// key names the tally in the store: by time, then by domain.
func (t *tally) key() string { return tallyKey(t.Start, t.Domain) }

func tallyKey(start time.Time, domain string) string {
	return start.UTC().Format("20060102T150405Z") + "." + domain
}

// export copies a tally for its report.
func (t *tally) export() Tally {
	out := Tally{Domain: t.Domain, Start: t.Start, Interval: t.Interval}
	for _, pt := range t.Policies {
		p := PolicyTally{Policy: pt.Policy, Successes: pt.Successes, Failures: pt.Failures}
		for _, ft := range pt.Details {
			p.Details = append(p.Details, Detail{ft.Failure, ft.Count})
		}
		out.Policies = append(out.Policies, p)
	}
	return out
}

func (t *tally) encode() ([]byte, error) { return json.Marshal(t) }

// decodeTally reads what the store has under key. Whatever does not hold
// together is an error, so that a damaged record spoils no report.
func decodeTally(key string, data []byte) (*tally, error) {
	t := newTally("", time.Time{}, 0)
	if err := json.Unmarshal(data, t); err != nil {
		return nil, err
	}
	switch {
	case t.Version != tallyVersion:
		return nil, fmt.Errorf("version %d of the tally is not known", t.Version)
	case t.Interval <= 0 || !isPlain(t.Domain) || t.key() != key:
		return nil, fmt.Errorf("the tally is that of %q", t.key())
	case len(t.Policies) > maxPolicies:
		return nil, fmt.Errorf("the tally has %d policies", len(t.Policies))
	}
	for i, pt := range t.Policies {
		if pt == nil || pt.Successes < 0 || pt.Failures < 0 || len(pt.Details) > maxDetails {
			return nil, fmt.Errorf("policy %d of the tally is out of bounds", i)
		}
		pt.Policy = pt.Policy.cleaned()
		pt.byFailure = make(map[Failure]*failTally, len(pt.Details))
		for _, ft := range pt.Details {
			if ft == nil || ft.Count < 0 {
				return nil, fmt.Errorf("policy %d of the tally is out of bounds", i)
			}
			ft.Failure = ft.Failure.cleaned()
			pt.byFailure[ft.Failure] = ft
			t.size += ft.size()
		}
		t.byPolicy[pt.Policy.key()] = pt
		t.size += pt.Policy.size()
	}
	t.size += len(t.Domain)
	t.notBefore = t.dueAt()
	return t, nil
}
