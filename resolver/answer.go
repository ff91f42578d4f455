package resolver

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Answer is what is known of one name and type.
type Answer[R any] struct {
	Records   []R       // at least one, at most 100; the caller's own
	Canonical string    // the name that has the records, after aliases; lower case, no final dot
	ExpiresAt time.Time // until when this may be used without asking again
	Secure    bool      // DNSSEC-validated, all aliases included, by a resolver that is trusted
	Stale     bool      // the servers failed: this is what they said last; never Secure
}

// MX is a mail exchanger (RFC 1035, section 3.3.9). Host is lower case without
// final dot; empty in a null MX.
type MX struct {
	Preference uint16
	Host       string
}

// TLSA associates a certificate with a name (RFC 6698, section 2.1).
type TLSA struct {
	Usage, Selector, MatchingType uint8
	Data                          []byte
}

// SOA is the start of a zone, as far as it is of use here.
type SOA struct {
	Primary, Mailbox string
	Serial           uint32
}

// MX looks up the mail exchangers of a name, the most preferred first.
func (r *Resolver) MX(ctx context.Context, name string) (Answer[MX], error) {
	return lookup[MX](ctx, r, name, dns.TypeMX)
}

// A looks up the IPv4 addresses of a name.
func (r *Resolver) A(ctx context.Context, name string) (Answer[netip.Addr], error) {
	return lookup[netip.Addr](ctx, r, name, dns.TypeA)
}

// AAAA looks up the IPv6 addresses of a name.
func (r *Resolver) AAAA(ctx context.Context, name string) (Answer[netip.Addr], error) {
	return lookup[netip.Addr](ctx, r, name, dns.TypeAAAA)
}

// TXT looks up the texts of a name; the strings of a record are joined
// (RFC 7208, section 3.3).
func (r *Resolver) TXT(ctx context.Context, name string) (Answer[string], error) {
	return lookup[string](ctx, r, name, dns.TypeTXT)
}

// CNAME looks up what a name is an alias of, one step, without following it.
func (r *Resolver) CNAME(ctx context.Context, name string) (Answer[string], error) {
	return lookup[string](ctx, r, name, dns.TypeCNAME)
}

// SOA looks up the start of the zone that has this very name.
func (r *Resolver) SOA(ctx context.Context, name string) (Answer[SOA], error) {
	return lookup[SOA](ctx, r, name, dns.TypeSOA)
}

// PTR looks up the names of an address.
func (r *Resolver) PTR(ctx context.Context, addr netip.Addr) (Answer[string], error) {
	return lookup[string](ctx, r, reverseName(addr), dns.TypePTR)
}

// TLSA looks up the certificate associations of a name such as
// _25._tcp.mx.example.test. It never gives a stale answer: where the servers
// fail, that is the answer (RFC 7672, section 2.1.2).
func (r *Resolver) TLSA(ctx context.Context, name string) (Answer[TLSA], error) {
	return lookup[TLSA](ctx, r, name, dns.TypeTLSA)
}

// reverseName is where the names of an address are kept (RFC 1035, section
// 3.5; RFC 3596, section 2.5).
func reverseName(addr netip.Addr) string {
	addr = addr.Unmap()
	name, err := dns.ReverseAddr(addr.WithZone("").String())
	if err != nil {
		return ""
	}
	return bareName(name)
}

// decode turns records of one type into their Go form, at most maxRecords of
// them. The size is about that of the records on the wire.
func decode(qtype uint16, rrs []dns.RR) (records any, size int) {
	for _, rr := range rrs[:min(len(rrs), maxRecords)] {
		size += dns.Len(rr)
	}
	switch qtype {
	case dns.TypeMX:
		// Sorted before the cut, so that what is cut is what is worst.
		all := convert(rrs, func(rr *dns.MX) MX { return MX{rr.Preference, bareName(rr.Mx)} })
		slices.SortFunc(all, func(a, b MX) int {
			return cmp.Or(cmp.Compare(a.Preference, b.Preference), strings.Compare(a.Host, b.Host))
		})
		return capped(slices.Compact(all)), size
	case dns.TypeA:
		return capped(addresses(convert(rrs, func(rr *dns.A) net.IP { return rr.A }))), size
	case dns.TypeAAAA:
		return capped(addresses(convert(rrs, func(rr *dns.AAAA) net.IP { return rr.AAAA }))), size
	case dns.TypeTXT:
		return capped(convert(rrs, func(rr *dns.TXT) string { return unescape(strings.Join(rr.Txt, "")) })), size
	case dns.TypeCNAME:
		return capped(convert(rrs, func(rr *dns.CNAME) string { return bareName(rr.Target) })), size
	case dns.TypePTR:
		return capped(convert(rrs, func(rr *dns.PTR) string { return bareName(rr.Ptr) })), size
	case dns.TypeTLSA:
		return capped(convert(rrs, decodeTLSA)), size
	case dns.TypeSOA:
		return capped(convert(rrs, func(rr *dns.SOA) SOA { return SOA{bareName(rr.Ns), bareName(rr.Mbox), rr.Serial} })), size
	}
	return nil, 0
}

func decodeTLSA(rr *dns.TLSA) TLSA {
	// The library keeps the data in hexadecimal that it wrote itself.
	data, err := hex.DecodeString(rr.Certificate)
	if err != nil {
		data = nil
	}
	return TLSA{rr.Usage, rr.Selector, rr.MatchingType, data}
}

func convert[T dns.RR, R any](rrs []dns.RR, f func(T) R) []R {
	all := make([]R, 0, len(rrs))
	for _, rr := range rrs {
		if t, ok := rr.(T); ok {
			all = append(all, f(t))
		}
	}
	return all
}

// capped bounds a slice, and gives nil for an empty one.
func capped[R any](all []R) any {
	if len(all) == 0 {
		return nil
	}
	return slices.Clone(all[:min(len(all), maxRecords)])
}

// addresses gives the distinct addresses. A record may come without any
// (RFC 2136 has such); an IPv4 address in IPv6 clothes is an IPv4 address.
func addresses(ips []net.IP) []netip.Addr {
	all := make([]netip.Addr, 0, len(ips))
	for _, ip := range ips {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			all = append(all, addr.Unmap())
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// unescape turns the presentation form that the library gives of a text (\"
// and \DDD) back into the octets of the wire.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b bytes.Buffer
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		if i+3 < len(s) && isDigit(s[i+1]) && isDigit(s[i+2]) && isDigit(s[i+3]) {
			b.WriteByte((s[i+1]-'0')*100 + (s[i+2]-'0')*10 + s[i+3] - '0')
			i += 3
			continue
		}
		b.WriteByte(s[i+1])
		i++
	}
	return b.String()
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
