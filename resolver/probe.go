package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// ProbeOptions name what to probe the servers with. Both may be empty.
type ProbeOptions struct {
	Signed string // a name with a SOA or A record in a signed zone; empty: the root
	Bogus  string // a name whose signatures are broken on purpose; empty: not tried
}

// ProbeResult is what the servers showed.
type ProbeResult struct {
	// Validating: every server in use set the AD bit for the signed name, and
	// did not give the bogus one, where such is set.
	Validating bool
	// Trusted: the AD bit is believed from now on. After a probe without an
	// answer that is what the one before it found.
	Trusted bool
	Servers []netip.AddrPort
	// Reason says in words why AD is not believed, or why the probe failed, and
	// what to do; nil where all is well.
	Reason error
}

// probeHolds is how long the result of a probe stands: a server may be set up
// anew behind the same address.
const probeHolds = time.Hour

// Probe asks each server in use, past the cache, whether it validates DNSSEC.
// With AutoTrustAD its result decides whether the AD bit is believed; it is to
// be called at start, and whenever NeedsProbe says so. It does not wait for a
// server that is down longer than one try.
func (r *Resolver) Probe(ctx context.Context, o ProbeOptions) ProbeResult {
	list := r.servers.current(r.now())
	var result ProbeResult
	local, answered := true, true
	for _, s := range list {
		result.Servers = append(result.Servers, s.addr)
		local = local && onThisHost(s.addr.Addr())
		if result.Reason == nil {
			answered, result.Reason = r.probeServer(ctx, s, o)
		}
	}
	result.Validating = result.Reason == nil
	if before := r.servers.validating(); answered {
		r.servers.setProbed(list, result.Validating && local, r.now())
		if r.options.AutoTrustAD && r.servers.validating() != before {
			// What is cached has the verdict of the time when it was asked for.
			r.cache.clear()
		}
	}
	switch {
	case r.options.TrustAD:
		result.Trusted = true
	case !r.options.AutoTrustAD:
		result.Reason = errors.Join(result.Reason, errors.New("the configuration says not to believe the AD bit (trust_ad)"))
	case result.Validating && !local:
		result.Reason = errors.New("a name server is not on this host, so that anyone on the way could set the AD bit: run a validating resolver (such as unbound) on 127.0.0.1, or trust this one (trust_ad = \"yes\") when the network between is yours")
	default:
		result.Trusted = r.servers.validating()
	}
	return result
}

// NeedsProbe reports, with AutoTrustAD, that the servers have changed since the
// last Probe, gave it no answer, or that it was over an hour ago.
func (r *Resolver) NeedsProbe() bool {
	now := r.now()
	list := r.servers.current(now)
	return r.options.AutoTrustAD && len(list) > 0 && now.Sub(r.servers.lastProbe()) >= probeHolds
}

// probeServer says whether a server answered at all, and why it is not to be
// believed.
func (r *Resolver) probeServer(ctx context.Context, s *server, o ProbeOptions) (answered bool, reason error) {
	q := question{qtype: dns.TypeSOA}
	if o.Signed != "" {
		name, err := asciiDomain(o.Signed)
		if err != nil {
			return true, fmt.Errorf("the signed name of the probe: %w", err)
		}
		q.name = name
	}
	m, failed := query(ctx, s.addr, q, r.options.Timeout)
	switch {
	case failed != nil:
		return false, fmt.Errorf("the probe of name server %s: %w", s.addr, failed)
	case m.Rcode != dns.RcodeSuccess:
		return false, fmt.Errorf("the probe of name server %s: it answers %s for %s", s.addr, rcodeName(m.Rcode), quoteName(q.name))
	case !m.AuthenticatedData:
		return true, fmt.Errorf("name server %s does not validate DNSSEC: %s, which is signed, comes without the AD bit", s.addr, quoteName(q.name))
	}
	return r.probeBogus(ctx, s, o.Bogus)
}

func (r *Resolver) probeBogus(ctx context.Context, s *server, bogus string) (answered bool, reason error) {
	if bogus == "" {
		return true, nil
	}
	name, err := asciiDomain(bogus)
	if err != nil {
		return true, fmt.Errorf("the bogus name of the probe: %w", err)
	}
	m, failed := query(ctx, s.addr, question{name, dns.TypeA}, r.options.Timeout)
	switch {
	case failed != nil:
		return false, fmt.Errorf("the probe of name server %s with %s: %w", s.addr, name, failed)
	case m.Rcode != dns.RcodeServerFailure:
		return true, fmt.Errorf("name server %s does not validate DNSSEC: it answers %s for %s, whose signatures are broken", s.addr, rcodeName(m.Rcode), name)
	}
	return true, nil
}
