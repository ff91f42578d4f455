package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const (
	// maxFixed bounds the hosts of one destination.
	maxFixed = 20
	// fixedTTL is how long a route holds that needed no DNS.
	fixedTTL = 5 * time.Minute
)

// FixedRoute makes a route of hosts that the operator named, to be tried in
// their order: "name", "name:port", "192.0.2.1:2525", "[2001:db8::1]:25". Names
// need no dot, are looked for in the hosts file first, and MX records play no
// part. A malformed host is a permanent *Error.
func (r *Resolver) FixedRoute(ctx context.Context, hosts []string) (*Route, error) {
	written := strings.Join(hosts, ", ")
	if len(hosts) == 0 || len(hosts) > maxFixed {
		return nil, failure(Malformed, written, "", "", fmt.Errorf("1 to %d hosts are possible", maxFixed))
	}
	route := &Route{Domain: written, Fixed: true, Secure: true, order: r.options.Order}
	var names []int
	for i, s := range hosts {
		h, err := ParseHost(s)
		if err != nil {
			return nil, failure(Malformed, s, "", "", err)
		}
		h.Preference = uint16(i)
		if len(h.Addrs) == 0 {
			h.Addrs = fromHostsFile(r.options.HostsFile, h.Name)
		}
		if len(h.Addrs) == 0 {
			names = append(names, i)
		}
		h.expiresAt = r.now().Add(fixedTTL)
		route.Hosts = append(route.Hosts, h)
	}
	r.resolveSome(ctx, route.Hosts, names)
	route.Site = strings.ToLower(strings.Join(hosts, ","))
	if ctx.Err() != nil {
		return nil, fmt.Errorf("finding the addresses of %s: %w", written, context.Cause(ctx))
	}
	route.ExpiresAt = r.now().Add(literalTTL)
	for _, h := range route.Hosts {
		if h.expiresAt.Before(route.ExpiresAt) {
			route.ExpiresAt = h.expiresAt
		}
	}
	if !route.Usable() {
		// The operator chose these names: whatever is wrong with them can be
		// mended here, and mail waits for that.
		return nil, failure(ServerFailure, written, "", "", fmt.Errorf("no fixed host has an address: %w", route.Hosts[0].Err))
	}
	capAddrs(route.Hosts, max(maxAddrs, len(hosts)))
	return route, nil
}

// resolveSome looks up the hosts at the given places.
func (r *Resolver) resolveSome(ctx context.Context, hosts []Host, places []int) {
	some := make([]Host, len(places))
	for i, at := range places {
		some[i] = hosts[at]
	}
	for i, h := range r.resolveHosts(ctx, some, true) {
		hosts[places[i]] = h
	}
}

// ParseHost reads one fixed host. Its address is set where one is written,
// its name otherwise; the port is 0 where none is written.
func ParseHost(s string) (Host, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return Host{Addrs: []netip.Addr{addr.Unmap()}}, nil
	}
	name, port := s, 0
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		n, err := strconv.ParseUint(s[i+1:], 10, 16)
		if err != nil || n == 0 {
			return Host{}, fmt.Errorf("%s is no port from 1 to 65535", quoted(s[i+1:]))
		}
		name, port = s[:i], int(n)
	}
	if inside, ok := strings.CutPrefix(name, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inside, "]"))
		if err != nil || addr.Zone() != "" || !strings.HasSuffix(inside, "]") {
			return Host{}, errors.New("in brackets an IP address is expected, as in [2001:db8::1]:25")
		}
		return Host{Addrs: []netip.Addr{addr.Unmap()}, Port: port}, nil
	}
	if addr, err := netip.ParseAddr(name); err == nil && addr.Is4() {
		return Host{Addrs: []netip.Addr{addr}, Port: port}, nil
	}
	ascii, err := asciiDomain(name)
	if err != nil {
		return Host{}, fmt.Errorf("a host is written name, name:port, 192.0.2.1:25 or [2001:db8::1]:25: %w", err)
	}
	return Host{Name: ascii, Canonical: ascii, Port: port}, nil
}
