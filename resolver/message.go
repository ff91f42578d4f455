package resolver

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxChain is how many CNAMEs are followed. Recursive resolvers stop
	// between 8 and 16; longer chains are faults.
	maxChain = 8
	// maxRecords bounds what is kept of one answer. The largest sets of MX in
	// the wild have some 20 members; a hostile one could have thousands.
	maxRecords = 100
)

type question struct {
	name  string // lower case, presentation form, without final dot; "" is the root
	qtype uint16
}

func (q question) typeName() string { return dns.TypeToString[q.qtype] }

// finding is what one or more messages say about a question: records, or the
// kind of their absence.
type finding struct {
	kind      Kind
	records   any // a slice by type: []MX, []netip.Addr, []string, []TLSA, []SOA
	server    string
	size      int // octets of the records on the wire, about
	canonical string
	ttl       time.Duration // as the zone says, not clamped; negative answers: RFC 2308
	secure    bool          // the AD bit, not yet weighed
	detail    error
	// next is set where the message ends in an alias and says nothing about
	// its target: that has to be asked for.
	next  string
	chain []string // the names passed, the one asked for first
}

// interpret reads a reply to q. seen are the names that led to q.name: aliases
// followed in earlier messages. It trusts nothing: records of other names and
// types are ignored, and an answer with only such records is malformed.
func interpret(q question, seen []string, m *dns.Msg) finding {
	f := finding{canonical: q.name, secure: m.AuthenticatedData, chain: append(slices.Clip(seen), q.name)}
	code, detail := extendedError(m)
	switch m.Rcode {
	case dns.RcodeSuccess:
	case dns.RcodeNameError:
		if code == dns.ExtendedErrorCodeStaleNXDOMAINAnswer || isCensored(code) {
			// The resolver's word, not the zone's: no proof.
			return f.failed(ServerFailure, fmt.Errorf("NXDOMAIN, but %w", detail))
		}
		// RFC 6604: the code is about the end of the alias chain.
		if err := f.walk(q, m.Answer); err != nil {
			return f.failed(Malformed, err)
		}
		f.records, f.next = nil, ""
		f.kind = NoSuchDomain
		f.ttl = negativeTTL(m)
		return f
	case dns.RcodeServerFailure:
		if isBogus(code) {
			return f.failed(Bogus, detail)
		}
		return f.failed(ServerFailure, join("SERVFAIL", detail))
	default:
		return f.failed(ServerFailure, join(rcodeName(m.Rcode), detail))
	}

	if err := f.walk(q, m.Answer); err != nil {
		return f.failed(Malformed, err)
	}
	if f.records != nil {
		return f
	}
	return f.absent(q, m)
}

// walk follows the aliases of an answer from q.name and gathers the records at
// their end.
func (f *finding) walk(q question, answer []dns.RR) error {
	f.ttl = -1
	for {
		owner := fqdn(f.canonical)
		if f.gather(q.qtype, owner, answer) || q.qtype == dns.TypeCNAME {
			return nil
		}
		alias := aliasOf(owner, answer)
		if alias == nil {
			return nil
		}
		target := bareName(alias.Target)
		if slices.Contains(f.chain, target) {
			return fmt.Errorf("%s is an alias of itself", quoteName(target))
		}
		if len(f.chain) > maxChain {
			return fmt.Errorf("more than %d aliases in a row", maxChain)
		}
		f.lowerTTL(alias.Hdr.Ttl)
		f.canonical, f.next = target, target
		f.chain = append(f.chain, target)
	}
}

// gather takes the records of one type at owner, and reports whether there are any.
func (f *finding) gather(qtype uint16, owner string, answer []dns.RR) bool {
	var own []dns.RR
	for _, rr := range answer {
		h := rr.Header()
		if h.Rrtype == qtype && h.Class == dns.ClassINET && strings.EqualFold(h.Name, owner) {
			own = append(own, rr)
		}
	}
	if len(own) == 0 {
		return false
	}
	for _, rr := range own {
		f.lowerTTL(rr.Header().Ttl)
	}
	f.records, f.size = decode(qtype, own)
	f.next = ""
	return true
}

func (f *finding) lowerTTL(seconds uint32) {
	const most = 1<<31 - 1 // RFC 2181, section 8: a TTL with its top bit set is zero
	if seconds > most {
		seconds = 0
	}
	if ttl := time.Duration(seconds) * time.Second; f.ttl < 0 || ttl < f.ttl {
		f.ttl = ttl
	}
}

// absent says what a successful message without the records means.
func (f *finding) absent(q question, m *dns.Msg) finding {
	soa := authoritySOA(m)
	switch {
	case soa == nil && f.next != "":
		// An alias whose target the server has not looked up.
		return *f
	case soa == nil && len(f.chain) == 1 && len(m.Answer) > 0 && !hasType(m.Answer, dns.TypeRRSIG):
		return f.failed(Malformed, errors.New("the answer holds only records of other names or types"))
	case soa == nil && !m.Authoritative && hasType(m.Ns, dns.TypeNS):
		return f.failed(ServerFailure, errors.New("a referral instead of an answer: the server does not look names up for us"))
	case soa == nil && !m.Authoritative && !m.RecursionAvailable:
		return f.failed(ServerFailure, errors.New("an empty answer from a server that does not look names up for us"))
	}
	f.next = ""
	f.kind = NoData
	f.ttl = negativeTTL(m)
	return *f
}

func (f *finding) failed(kind Kind, detail error) finding {
	return finding{kind: kind, canonical: f.canonical, chain: f.chain, detail: detail}
}

func aliasOf(owner string, answer []dns.RR) *dns.CNAME {
	for _, rr := range answer {
		if c, ok := rr.(*dns.CNAME); ok && c.Hdr.Class == dns.ClassINET && strings.EqualFold(c.Hdr.Name, owner) {
			return c
		}
	}
	return nil
}

func authoritySOA(m *dns.Msg) *dns.SOA {
	for _, rr := range m.Ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return soa
		}
	}
	return nil
}

// negativeTTL is how long an absence may be believed (RFC 2308, section 5);
// zero where the answer does not say.
func negativeTTL(m *dns.Msg) time.Duration {
	soa := authoritySOA(m)
	if soa == nil {
		return 0
	}
	return time.Duration(min(soa.Hdr.Ttl, soa.Minttl)) * time.Second
}

func hasType(rrs []dns.RR, rrtype uint16) bool {
	return slices.ContainsFunc(rrs, func(rr dns.RR) bool { return rr.Header().Rrtype == rrtype })
}

// extendedError gives the first extended error of a reply (RFC 8914).
func extendedError(m *dns.Msg) (code uint16, detail error) {
	const none = 0xffff
	opt := m.IsEdns0()
	if opt == nil {
		return none, nil
	}
	for _, o := range opt.Option {
		ede, ok := o.(*dns.EDNS0_EDE)
		if !ok {
			continue
		}
		words := dns.ExtendedErrorCodeToString[ede.InfoCode]
		if words == "" {
			words = "unknown code"
		}
		text := fmt.Sprintf("extended error %d (%s)", ede.InfoCode, words)
		if ede.ExtraText != "" {
			text += ": " + quoted(ede.ExtraText[:min(len(ede.ExtraText), 200)])
		}
		return ede.InfoCode, errors.New(text)
	}
	return none, nil
}

func isBogus(code uint16) bool {
	switch code {
	case dns.ExtendedErrorCodeDNSBogus,
		dns.ExtendedErrorCodeSignatureExpired,
		dns.ExtendedErrorCodeSignatureNotYetValid,
		dns.ExtendedErrorCodeDNSKEYMissing,
		dns.ExtendedErrorCodeRRSIGsMissing,
		dns.ExtendedErrorCodeNoZoneKeyBitSet,
		dns.ExtendedErrorCodeNSECMissing,
		dns.ExtendedErrorCodeSignatureExpiredBeforeValid:
		return true
	}
	return false
}

func isCensored(code uint16) bool {
	switch code {
	case dns.ExtendedErrorCodeForgedAnswer,
		dns.ExtendedErrorCodeBlocked,
		dns.ExtendedErrorCodeCensored,
		dns.ExtendedErrorCodeFiltered,
		dns.ExtendedErrorCodeProhibited:
		return true
	}
	return false
}

func rcodeName(rcode int) string {
	if s, ok := dns.RcodeToString[rcode]; ok {
		return s
	}
	return fmt.Sprintf("response code %d", rcode)
}

func join(what string, detail error) error {
	if detail == nil {
		return errors.New(what)
	}
	return fmt.Errorf("%s: %w", what, detail)
}

// bareName is a name from the wire as we keep it: lower case, no final dot.
func bareName(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

func fqdn(name string) string { return name + "." }
