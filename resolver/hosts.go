package resolver

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
)

// FamilyOrder is the order in which the addresses of one host are tried.
type FamilyOrder uint8

const (
	IPv6First FamilyOrder = iota // IPv6 and IPv4 in turn, IPv6 first
	IPv4First                    // IPv4 and IPv6 in turn, IPv4 first
	OnlyIPv4                     // AAAA is not asked for
	OnlyIPv6                     // A is not asked for
)

// ownHost is what we know to be ourselves.
type ownHost struct {
	names map[string]bool
	addrs map[netip.Addr]bool
}

func newOwnHost(names []string, addrs []netip.Addr) (*ownHost, error) {
	own := &ownHost{make(map[string]bool), make(map[netip.Addr]bool)}
	for _, n := range names {
		name, err := ASCIIDomain(n)
		if err != nil {
			return nil, err
		}
		own.names[name] = true
	}
	for _, a := range addrs {
		own.addrs[a.Unmap()] = true
	}
	return own, nil
}

func (o *ownHost) hasName(h Host) bool       { return o.names[h.Name] }
func (o *ownHost) hasAddr(a netip.Addr) bool { return o.addrs[a.Unmap()] }

// resolveHosts looks up the addresses of all hosts at the same time. What it
// costs is bounded by the number of hosts and by the resolver's queries in
// flight. Secure says that the names themselves come from a validated answer.
func (r *Resolver) resolveHosts(ctx context.Context, hosts []Host, secure bool) []Host {
	var wg sync.WaitGroup
	for i := range hosts {
		wg.Go(func() { r.resolveHost(ctx, &hosts[i], secure) })
	}
	wg.Wait()
	return hosts
}

func (r *Resolver) resolveHost(ctx context.Context, h *Host, secure bool) {
	found, err := r.Addrs(ctx, h.Name)
	h.Canonical = h.Name
	if err != nil {
		h.Err, h.expiresAt = err, r.now().Add(minFailureTTL)
		var e *Error
		if errors.As(err, &e) && !e.expiresAt.IsZero() {
			h.expiresAt = e.expiresAt
		}
		return
	}
	h.Addrs, h.Secure, h.Canonical = r.options.Order.shuffled(found.Records), found.Secure, found.Canonical
	h.expiresAt = found.ExpiresAt
	if secure && h.Canonical != h.Name && !h.Secure {
		// The alias itself may be validated where its target is not.
		alias, err := r.CNAME(ctx, h.Name)
		h.AliasSecure = err == nil && alias.Secure
	}
}

// Addrs looks up the addresses of a name, of both families at the same time,
// in the order of the options. One family is enough: its addresses are given
// also where the other could not be looked up. Secure means that those of at
// least one family are validated: that is all it takes for TLSA records to
// bind the host, and to ask for more would let whoever can make the other
// lookup fail undo that.
func (r *Resolver) Addrs(ctx context.Context, name string) (Answer[netip.Addr], error) {
	var v4, v6 Answer[netip.Addr]
	var err4, err6 error
	switch r.options.Order {
	case OnlyIPv4:
		return r.A(ctx, name)
	case OnlyIPv6:
		return r.AAAA(ctx, name)
	}
	var wg sync.WaitGroup
	wg.Go(func() { v6, err6 = r.AAAA(ctx, name) })
	v4, err4 = r.A(ctx, name)
	wg.Wait()
	return r.bothFamilies(v4, v6, err4, err6)
}

func (r *Resolver) bothFamilies(v4, v6 Answer[netip.Addr], err4, err6 error) (Answer[netip.Addr], error) {
	switch {
	case err4 != nil && err6 != nil:
		return Answer[netip.Addr]{}, moreTemporary(err4, err6)
	case err4 != nil:
		return r.oneFamily(v6, err4), nil
	case err6 != nil:
		return r.oneFamily(v4, err6), nil
	}
	both := v4
	both.Records = interleave(v4.Records, v6.Records, r.options.Order)
	if v6.Secure {
		both.Secure, both.Canonical = true, v6.Canonical
	}
	both.Stale = v4.Stale || v6.Stale
	if v6.ExpiresAt.Before(v4.ExpiresAt) {
		both.ExpiresAt = v6.ExpiresAt
	}
	return both, nil
}

// oneFamily is an answer for both that is asked again soon where the other
// family is missing for want of an answer.
func (r *Resolver) oneFamily(a Answer[netip.Addr], missing error) Answer[netip.Addr] {
	var e *Error
	if errors.As(missing, &e) && !e.Temporary() {
		return a
	}
	if soon := r.now().Add(maxFailureTTL); soon.Before(a.ExpiresAt) {
		a.ExpiresAt = soon
	}
	return a
}

// moreTemporary picks the error that leaves more hope: with one family unknown
// it is not known that there is no address.
func moreTemporary(a, b error) error {
	var e *Error
	if errors.As(a, &e) && !e.Temporary() {
		return b
	}
	return a
}

// interleave takes addresses of the families in turn.
func interleave(v4, v6 []netip.Addr, order FamilyOrder) []netip.Addr {
	first, second := v6, v4
	if order == IPv4First || order == OnlyIPv4 {
		first, second = v4, v6
	}
	all := make([]netip.Addr, 0, len(first)+len(second))
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			all = append(all, first[i])
		}
		if i < len(second) {
			all = append(all, second[i])
		}
	}
	return all
}

// Shuffled gives a copy with hosts of equal preference in a new random order
// (RFC 5321, section 5.1), and the addresses of each host likewise within
// their family: as name servers turn them around, which a cache would hide.
func (r *Route) Shuffled() *Route {
	c := *r
	c.Hosts = slices.Clone(r.Hosts)
	if !r.Fixed {
		shuffleEquals(c.Hosts)
	}
	for i := range c.Hosts {
		c.Hosts[i].Addrs = r.order.shuffled(c.Hosts[i].Addrs)
	}
	return &c
}

func (o FamilyOrder) shuffled(addrs []netip.Addr) []netip.Addr {
	n4 := 0
	for _, a := range addrs {
		if a.Is4() {
			n4++
		}
	}
	n6 := len(addrs) - n4
	if n4 < 2 && n6 < 2 {
		return addrs // most hosts: there is nothing to shuffle
	}
	v4 := make([]netip.Addr, 0, n4)
	v6 := make([]netip.Addr, 0, n6)
	for _, a := range addrs {
		if a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	for _, family := range [][]netip.Addr{v4, v6} {
		rand.Shuffle(len(family), func(i, j int) { family[i], family[j] = family[j], family[i] })
	}
	return interleave(v4, v6, o)
}

// shuffleEquals puts hosts in the order of their preference, equals at random.
func shuffleEquals(hosts []Host) {
	rand.Shuffle(len(hosts), func(i, j int) { hosts[i], hosts[j] = hosts[j], hosts[i] })
	slices.SortStableFunc(hosts, func(a, b Host) int { return int(a.Preference) - int(b.Preference) })
}

// capAddrs keeps at most n addresses in all, taking from each host in turn so
// that one with very many does not leave the others without.
func capAddrs(hosts []Host, n int) {
	keep := make([]int, len(hosts))
	for round, left := 1, n; left > 0; round++ {
		grown := false
		for i := range hosts {
			if len(hosts[i].Addrs) >= round && left > 0 {
				keep[i]++
				left--
				grown = true
			}
		}
		if !grown {
			break
		}
	}
	for i := range hosts {
		hosts[i].Addrs = slices.Clip(hosts[i].Addrs[:keep[i]])
	}
}
