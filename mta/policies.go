package mta

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"postrider/mta/dane"
	"postrider/mta/delivery"
	"postrider/mta/mtasts"
	"postrider/mta/tlspolicy"
	"postrider/resolver"
)

// publishedPolicies finds what a recipient's side demands of TLS: TLSA records
// of its hosts (RFC 7672), and the MTA-STS policy of its domain (RFC 8461).
// Which of them counts is for tlspolicy to say.
type publishedPolicies struct {
	resolver *resolver.Resolver
	sts      *mtasts.Policies
}

// Facts implements delivery.Policies. The hosts are asked about at once.
func (p *publishedPolicies) Facts(ctx context.Context, route *resolver.Route, port int) ([]tlspolicy.Facts, time.Time, error) {
	facts := make([]tlspolicy.Facts, len(route.Hosts))
	untils := make([]time.Time, len(route.Hosts))
	var wg sync.WaitGroup
	for i := range route.Hosts {
		if !route.Secure {
			break // section 2.2.1 of RFC 7672: without a validated MX there is no DANE
		}
		wg.Go(func() { untils[i] = p.danes(ctx, route.Hosts[i], port, &facts[i]) })
	}
	policy, _, err := p.sts.Lookup(ctx, route.Domain)
	wg.Wait()
	if ctx.Err() != nil {
		return nil, time.Time{}, fmt.Errorf("asking for the MTA-STS policy: %w", err)
	}
	var mode tlspolicy.STSMode
	switch policy.Mode {
	case mtasts.Enforce:
		mode = tlspolicy.STSEnforce
	case mtasts.Testing:
		mode = tlspolicy.STSTesting
	}
	var until time.Time
	for i := range facts {
		facts[i].STS = mode
		facts[i].STSMatch = mode != tlspolicy.STSNone && policy.Match(route.Hosts[i].Name)
		if u := untils[i]; !u.IsZero() && (until.IsZero() || u.Before(until)) {
			until = u
		}
	}
	return facts, until, nil
}

// danes fills in what TLSA records say about one host.
func (p *publishedPolicies) danes(ctx context.Context, host resolver.Host, port int, f *tlspolicy.Facts) (until time.Time) {
	found, err := p.resolver.HostTLSA(ctx, host, port)
	if err != nil {
		f.DANE = tlspolicy.DANEFailed // section 2.1.2: this host is skipped
		return time.Time{}
	}
	if len(found.Records) == 0 {
		return time.Time{}
	}
	records := make([]dane.Record, len(found.Records))
	for i, r := range found.Records {
		records[i] = dane.Record(r)
	}
	usable := dane.Usable(records)
	f.DANE = tlspolicy.DANEUnusable
	if len(usable) > 0 {
		f.DANE = tlspolicy.DANEUsable
	}
	for _, r := range usable {
		f.TLSA = append(f.TLSA, tlspolicy.TLSA(r))
	}
	f.TLSABase = found.Base
	return found.ExpiresAt
}

// verifyDANE holds a connection against TLSA records.
func verifyDANE(state tls.ConnectionState, records []tlspolicy.TLSA, names []string) error {
	all := make([]dane.Record, len(records))
	for i, r := range records {
		all[i] = dane.Record(r)
	}
	_, err := dane.Verify(&state, all, names, time.Now())
	return err
}

// policyTXT is the resolver as mtasts asks it.
type policyTXT struct{ *resolver.Resolver }

// LookupTXT implements mtasts.TXT: that there is no record is no error.
func (t policyTXT) LookupTXT(ctx context.Context, name string) ([]string, time.Duration, error) {
	a, err := t.TXT(ctx, name)
	var e *resolver.Error
	if errors.As(err, &e) && (e.Kind == resolver.NoSuchDomain || e.Kind == resolver.NoData) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	return a.Records, time.Until(a.ExpiresAt), nil
}

// guardedDialer makes connections to web servers that a stranger's DNS names,
// under the same rules as mail hosts.
type guardedDialer struct {
	resolver *resolver.Resolver
	guard    *delivery.Guard
}

// dial asks our own resolver, so that what is dialled is what was checked.
func (d guardedDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: 30 * time.Second, Control: d.guard.Control}
	if _, err := netip.ParseAddr(host); err == nil {
		return dialer.DialContext(ctx, network, address)
	}
	found, err := d.resolver.Addrs(ctx, host)
	if err != nil {
		return nil, err
	}
	var failures []error
	for _, a := range found.Records {
		conn, err := dialer.DialContext(ctx, network, net.JoinHostPort(a.String(), port))
		if err == nil {
			return conn, nil
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}
