package resolver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	// maxHosts and maxAddrs bound what one delivery may try. RFC 5321, section
	// 5.1, allows a limit and asks for at least two addresses.
	maxHosts = 10
	maxAddrs = 20
	// literalTTL is how long the route of an address literal holds.
	literalTTL = 24 * time.Hour
	maxSite    = 512
)

// Host is one mail host of a route.
type Host struct {
	Name       string // A-label, lower case, no final dot; empty for an address literal
	Preference uint16
	Addrs      []netip.Addr // in the order to try; empty where Err says why
	Secure     bool         // the addresses, with their CNAME chain, are DNSSEC-validated
	// AliasSecure: the name is an alias whose CNAME record is DNSSEC-validated,
	// though the addresses it leads to are not (RFC 7672, section 2.2.2).
	AliasSecure bool
	Canonical   string // the name after CNAMEs (RFC 7672, section 2.2.2)
	Port        int    // 0: the default
	Err         error  // why there are no addresses

	expiresAt time.Time
}

// Route is where mail for a domain goes: RFC 5321, section 5.1. It may be
// shared and is not to be changed.
type Route struct {
	Domain    string
	Canonical string // the name that has the MX records, after CNAMEs
	Hosts     []Host // in the order of one delivery; equals are shuffled anew by Shuffled
	Skipped   []Host // MX hosts that are never tried, with the reason in Err
	Secure    bool   // the MX answer, or its absence, is DNSSEC-validated; true of Fixed hosts
	Implicit  bool   // no MX record: the domain itself is the host
	Literal   bool   // the domain is an address literal
	Fixed     bool   // the hosts were given, not looked up (FixedRoute)
	Site      string // a key for the set of hosts: its sorted names joined
	ExpiresAt time.Time
	order     FamilyOrder
}

// Usable reports whether any host has an address.
func (r *Route) Usable() bool {
	return slices.ContainsFunc(r.Hosts, func(h Host) bool { return len(h.Addrs) > 0 })
}

// Route finds the hosts of a domain (A-labels, or an address literal in
// brackets) and their addresses. A DNS failure is a temporary *Error and
// never becomes "use the A record". A route has at least one host with an
// address. Own names and addresses cut the list at their preference (section
// 5.1). Where ctx ended, the error is its cause and no *Error.
func (r *Resolver) Route(ctx context.Context, domain string) (*Route, error) {
	if strings.HasPrefix(domain, "[") {
		return r.literalRoute(domain)
	}
	name, err := asciiDomain(domain)
	if err != nil {
		return nil, failure(Malformed, domain, "MX", "", err)
	}
	if !strings.Contains(name, ".") {
		return nil, failure(Unroutable, name, "", "", errors.New("a domain without a dot is not looked up; give it hosts of its own to route it"))
	}
	route := &Route{Domain: name, order: r.options.Order}
	mx, err := r.MX(ctx, name)
	var dnsErr *Error
	switch {
	case err == nil:
		err = r.fromMX(ctx, route, mx)
	case errors.As(err, &dnsErr) && dnsErr.Kind == NoData:
		err = nil
		route.Canonical, route.Implicit, route.Secure = name, true, dnsErr.Secure
		mx.ExpiresAt = dnsErr.expiresAt
		route.Hosts = r.resolveHosts(ctx, []Host{{Name: name}}, route.Secure)
		route.Site = name
	}
	if err != nil {
		return nil, err
	}
	if err := r.finish(ctx, route, mx.ExpiresAt); err != nil {
		return nil, err
	}
	return route, nil
}

// fromMX fills a route with the hosts of its MX records.
func (r *Resolver) fromMX(ctx context.Context, route *Route, mx Answer[MX]) error {
	route.Canonical, route.Secure = mx.Canonical, mx.Secure
	if !slices.ContainsFunc(mx.Records, func(m MX) bool { return m.Host != "" }) {
		if mx.Stale {
			return failure(ServerFailure, route.Domain, "MX", "", errors.New("the servers fail, and the null MX that they gave last may be out of date"))
		}
		return failure(NullMX, route.Domain, "MX", "", nil)
	}
	hosts := make([]Host, 0, len(mx.Records))
	for _, m := range mx.Records {
		h := Host{Name: m.Host, Preference: m.Preference}
		if h.Err = checkMXTarget(m.Host); h.Err != nil {
			route.Skipped = append(route.Skipped, h)
			continue
		}
		hosts = append(hosts, h)
	}
	if len(hosts) == 0 {
		return failure(Unroutable, route.Domain, "MX", "", fmt.Errorf("no MX record names a host: %w", route.Skipped[0].Err)).withStatus(statusNoRoute)
	}
	route.Site = siteOf(hosts)
	if hosts = route.cut(hosts, r.own.Load().hasName); len(hosts) == 0 {
		return loopsBack(route.Domain)
	}
	shuffleEquals(hosts)
	for len(hosts) > maxHosts {
		last := hosts[len(hosts)-1]
		last.Err = fmt.Errorf("at most %d hosts are tried, and those are preferred", maxHosts)
		if last.Preference == hosts[maxHosts-1].Preference {
			last.Err = fmt.Errorf("at most %d hosts are tried, and among equals each lookup draws others", maxHosts)
		}
		route.Skipped = append(route.Skipped, last)
		hosts = hosts[:len(hosts)-1]
	}
	route.Hosts = r.resolveHosts(ctx, hosts, mx.Secure)
	return nil
}

// finish applies what can only be judged with the addresses at hand, and sets
// the time for which the route holds, which ends no later than expiresAt.
func (r *Resolver) finish(ctx context.Context, route *Route, expiresAt time.Time) error {
	if ctx.Err() != nil {
		return fmt.Errorf("finding the hosts of %s: %w", route.Domain, context.Cause(ctx))
	}
	route.ExpiresAt = expiresAt
	for _, h := range route.Hosts {
		if h.expiresAt.Before(route.ExpiresAt) {
			route.ExpiresAt = h.expiresAt
		}
	}
	own := r.own.Load()
	route.Hosts = route.cut(route.Hosts, func(h Host) bool {
		return own.hasName(h) || slices.ContainsFunc(h.Addrs, own.hasAddr)
	})
	if len(route.Hosts) == 0 {
		return loopsBack(route.Domain)
	}
	if !route.Usable() {
		return noAddress(route)
	}
	capAddrs(route.Hosts, maxAddrs)
	return nil
}

// cut removes our own host and what is not preferred to it (RFC 5321, section
// 5.1): mail sent there would come back to us.
func (r *Route) cut(hosts []Host, own func(Host) bool) []Host {
	limit := -1
	for _, h := range hosts {
		if own(h) && (limit < 0 || int(h.Preference) < limit) {
			limit = int(h.Preference)
		}
	}
	if limit < 0 {
		return hosts
	}
	kept := make([]Host, 0, len(hosts))
	for _, h := range hosts {
		if int(h.Preference) < limit {
			kept = append(kept, h)
			continue
		}
		h.Err = errors.New("this is ourselves (RFC 5321, section 5.1)")
		if !own(h) {
			h.Err = errors.New("it is not preferred to ourselves, and mail sent to it would come back (RFC 5321, section 5.1)")
		}
		h.Addrs = nil
		r.Skipped = append(r.Skipped, h)
	}
	return kept
}

func loopsBack(domain string) *Error {
	return failure(Unroutable, domain, "MX", "", errors.New("its mail host is this one: mail for it would loop back to us")).withStatus(statusLoop)
}

// noAddress is a fact only where it is one for every host.
func noAddress(route *Route) *Error {
	for _, h := range route.Hosts {
		var e *Error
		if errors.As(h.Err, &e) && e.Temporary() {
			return failure(e.Kind, route.Domain, "MX", e.Server, fmt.Errorf("no mail host has an address now: %w", e))
		}
		if route.Implicit && errors.As(h.Err, &e) && e.Kind == NoSuchDomain {
			return failure(ServerFailure, route.Domain, "", e.Server, errors.New("by its MX the name exists, by its A and AAAA it does not"))
		}
	}
	return failure(Unroutable, route.Domain, "MX", "", fmt.Errorf("no mail host has an address: %w", route.Hosts[0].Err)).withStatus(statusNoRoute)
}

func (e *Error) withStatus(status string) *Error {
	e.Status = status
	return e
}

// literalRoute is the route of an address literal (RFC 5321, section 4.1.3).
func (r *Resolver) literalRoute(literal string) (*Route, error) {
	addr, err := parseLiteral(literal)
	if err != nil {
		return nil, failure(Malformed, literal, "", "", err)
	}
	if r.own.Load().hasAddr(addr) {
		return nil, loopsBack(literal)
	}
	domain := strings.ToLower(literal)
	return &Route{
		Domain:    domain,
		Hosts:     []Host{{Addrs: []netip.Addr{addr}}},
		Literal:   true,
		Site:      "[" + addr.String() + "]",
		ExpiresAt: r.now().Add(literalTTL),
	}, nil
}

// checkMXTarget says why the name in an MX record cannot be a host.
func checkMXTarget(name string) error {
	if name == "" {
		return errors.New("a null MX beside others (RFC 7505, section 3)")
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return fmt.Errorf("an MX record names a host, not the address %s (RFC 5321, section 5.1)", name)
	}
	if err := checkHostName(name); err != nil {
		return fmt.Errorf("not a host name: %w", err)
	}
	return nil
}

// siteOf is the key of a set of hosts. Very long sets keep their first name
// and a digest of all.
func siteOf(hosts []Host) string {
	names := make([]string, 0, len(hosts))
	for _, h := range hosts {
		names = append(names, h.Name)
	}
	slices.Sort(names)
	site := strings.Join(slices.Compact(names), ",")
	if len(site) <= maxSite {
		return site
	}
	sum := sha256.Sum256([]byte(site))
	return names[0] + ",+" + hex.EncodeToString(sum[:16])
}
