package doctor

import (
	"context"
	"fmt"
	"time"

	"postrider/resolver"
)

// slowServer is an answer from a cache that took too long: each new
// destination asks for MX, A, AAAA and TLSA records one after the other.
const slowServer = 500 * time.Millisecond

// nameServers asks each name server, and whether DANE is in use.
func (d *Doctor) nameServers(ctx context.Context) []Finding {
	r := d.o.DNS.Resolver
	reports, err := r.Examine(ctx, d.o.DNS.Probe.Signed)
	if err != nil {
		return []Finding{{NameServers, "resolver.probe_signed", Failed, err.Error(), "name a signed domain, or none"}}
	}
	all := judgeNameServers(reports)
	if allFailed(reports) {
		return append(all, Finding{DANE, "DNSSEC", NotDone, "no name server can be used", ""})
	}
	return append(all, judgeDANE(r.Probe(ctx, d.o.DNS.Probe), d.o.DNS.TrustAD))
}

func allFailed(reports []resolver.ServerReport) bool {
	for _, r := range reports {
		if r.Err == nil {
			return false
		}
	}
	return true
}

func judgeNameServers(reports []resolver.ServerReport) []Finding {
	var all []Finding
	none := allFailed(reports)
	for _, r := range reports {
		f := Finding{NameServers, r.Addr.String(), OK, fmt.Sprintf("answers in %d ms", r.Took.Milliseconds()), ""}
		switch {
		case r.Err != nil && none:
			f.Verdict, f.Found = Failed, fmt.Sprintf("cannot be used, nor can any other: %v; all mail waits", r.Err)
			f.Advice = "start it, or name others (resolver.servers, /etc/resolv.conf)"
		case r.Err != nil:
			f.Verdict, f.Found = Warning, fmt.Sprintf("cannot be used: %v; the others stand in, more slowly", r.Err)
			f.Advice = "start it, or take it out of resolver.servers or /etc/resolv.conf"
		case r.Took > slowServer:
			f.Verdict, f.Advice = Warning, "a resolver on this host (such as unbound) answers from its cache at once"
		case !r.EDNS:
			f.Verdict, f.Found = Warning, f.Found+", and does not know EDNS (RFC 6891): large answers take two queries, and there is no DNSSEC"
			f.Advice = "use another resolver, or update it"
		}
		all = append(all, f)
	}
	return all
}

// judgeDANE says whether the AD bit is believed, and why.
func judgeDANE(p resolver.ProbeResult, trustAD string) Finding {
	f := Finding{DANE, fmt.Sprintf("trust_ad = %q", trustAD), OK, "on: the name servers validate DNSSEC and are trusted", ""}
	switch {
	case p.Trusted && p.Validating:
	case p.Trusted:
		f.Verdict, f.Found = Warning, fmt.Sprintf("on, since trust_ad says so, and the probe failed: %v", p.Reason)
		f.Advice = "use a resolver that validates, or trust_ad = \"auto\""
	case trustAD == "no":
		f.Found = "off, as configured: TLSA records are not looked at"
	default:
		f.Verdict, f.Found = Warning, fmt.Sprintf("off: %v", p.Reason)
		f.Advice = "mail goes out all the same; for DANE run a validating resolver on 127.0.0.1 (unbound) and name it in resolver.servers or /etc/resolv.conf"
	}
	return f
}
