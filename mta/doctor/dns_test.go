package doctor

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postrider/resolver"
	"postrider/resolver/resolvertest"
)

func TestNameServers(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddrPort("192.0.2.53:53")
	good := resolver.ServerReport{Addr: addr, Took: 2 * time.Millisecond, EDNS: true}
	bad := resolver.ServerReport{Addr: addr, Err: errors.New("no answer")}
	for name, c := range map[string]struct {
		reports []resolver.ServerReport
		want    []string
	}{
		"well":         {[]resolver.ServerReport{good}, []string{"name_servers ok 192.0.2.53:53: answers in 2 ms"}},
		"one of two":   {[]resolver.ServerReport{good, bad}, []string{"name_servers ok ", "name_servers warning the others stand in"}},
		"none":         {[]resolver.ServerReport{bad, bad}, []string{"name_servers failed all mail waits", "name_servers failed no answer"}},
		"slow":         {[]resolver.ServerReport{{Addr: addr, Took: time.Second, EDNS: true}}, []string{"name_servers warning answers in 1000 ms"}},
		"without EDNS": {[]resolver.ServerReport{{Addr: addr}}, []string{"name_servers warning RFC 6891"}},
	} {
		t.Run(name, func(t *testing.T) { expect(t, judgeNameServers(c.reports), c.want...) })
	}
}

func TestDANE(t *testing.T) {
	t.Parallel()
	why := errors.New("it does not validate")
	for name, c := range map[string]struct {
		p     resolver.ProbeResult
		trust string
		want  string
	}{
		"on":                    {resolver.ProbeResult{Trusted: true, Validating: true}, "auto", "dane ok on: "},
		"on against the probe":  {resolver.ProbeResult{Trusted: true, Reason: why}, "yes", "dane warning it does not validate"},
		"off":                   {resolver.ProbeResult{Reason: why}, "auto", "dane warning off: it does not validate"},
		"off as it was ordered": {resolver.ProbeResult{Reason: why}, "no", "dane ok off, as configured"},
	} {
		t.Run(name, func(t *testing.T) { expect(t, []Finding{judgeDANE(c.p, c.trust)}, c.want) })
	}
}

// TestNameServersAsked asks a real one, validating or not.
func TestNameServersAsked(t *testing.T) {
	t.Parallel()
	d, zone := newDoctor(t, []string{"signed.test. IN SOA ns.signed.test. a.signed.test. 1 2 3 4 5"}, func(o *Options) {
		r, err := resolver.New(resolver.Options{Servers: o.servers(), AutoTrustAD: true})
		if err != nil {
			t.Fatal(err)
		}
		o.DNS.Resolver, o.DNS.Probe.Signed = r, "signed.test"
	})
	expect(t, d.nameServers(t.Context()), "name_servers ok ", "dane warning comes without the AD bit")
	zone.Secure("signed.test")
	expect(t, d.nameServers(t.Context()), "name_servers ok ", "dane ok on: ")
	zone.Fail("signed.test", resolvertest.Fault{Rcode: dns.RcodeServerFailure})
	expect(t, d.nameServers(t.Context()), "name_servers failed SERVFAIL", "dane not done ")
	zone.Mend("signed.test")
	zone.WithoutEDNS()
	expect(t, d.nameServers(t.Context()), "name_servers warning EDNS", "dane ok ")
}

// servers are those of the resolver that newDoctor made.
func (o *Options) servers() (all []string) {
	for _, s := range o.DNS.Resolver.Servers() {
		all = append(all, s.String())
	}
	return all
}

const (
	ptr4  = "1.2.0.192.in-addr.arpa. IN PTR mail.test."
	name4 = "mail.test. IN A 192.0.2.1"
	ptr6  = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. IN PTR mail.test."
	name6 = "mail.test. IN AAAA 2001:db8::1"
)

func addrs(words ...string) (all []netip.Addr) {
	for _, w := range words {
		all = append(all, netip.MustParseAddr(w))
	}
	return all
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		records []string
		helo    resolver.HELOOptions
		want    []string
	}{
		"confirmed": {[]string{ptr4, name4}, resolver.HELOOptions{Sources: addrs("192.0.2.1")},
			[]string{"helo ok mail.test, from 192.0.2.1", "reverse_dns ok called mail.test"}},
		"configured and confirmed": {[]string{ptr4, name4}, resolver.HELOOptions{Hostname: "mail.test", Sources: addrs("192.0.2.1")},
			[]string{"helo ok (configured)", "reverse_dns ok "}},
		"both families": {[]string{ptr4, name4, ptr6, name6}, resolver.HELOOptions{Sources: addrs("192.0.2.1", "2001:db8::1")},
			[]string{"helo ok ", "helo ok ", "reverse_dns ok ", "reverse_dns ok 2001:db8::1"}},
		"IPv6 without a name": {[]string{ptr4, name4}, resolver.HELOOptions{Hostname: "mail.test", Sources: addrs("192.0.2.1", "2001:db8::1")},
			[]string{"helo ok ", "helo warning not confirmed", "reverse_dns ok ", "reverse_dns warning delivery.source_addresses"}},
		"no name": {nil, resolver.HELOOptions{Hostname: "mail.test", Sources: addrs("192.0.2.1")},
			[]string{"helo warning not confirmed", "helo warning leads to no address", "reverse_dns failed no name in reverse DNS"}},
		"a name that leads elsewhere": {[]string{ptr4, "mail.test. IN A 192.0.2.9"}, resolver.HELOOptions{Sources: addrs("192.0.2.1")},
			[]string{"helo warning add an address record", "reverse_dns failed does not lead back"}},
		"another name than the configured one": {[]string{ptr4, name4, "other.test. IN A 192.0.2.1"}, resolver.HELOOptions{Hostname: "other.test", Sources: addrs("192.0.2.1")},
			[]string{"helo warning does not say other.test", "reverse_dns ok called mail.test"}},
		"behind NAT": {[]string{name4}, resolver.HELOOptions{Hostname: "mail.test", Sources: addrs("10.0.0.5")},
			[]string{"helo warning public_addresses"}},
		"behind NAT, with the address that is seen": {[]string{ptr4, name4}, resolver.HELOOptions{Sources: addrs("10.0.0.5"), Public: addrs("192.0.2.1")},
			[]string{"helo ok 10.0.0.5 (seen as 192.0.2.1)", "reverse_dns ok 192.0.2.1: "}},
		"a name that everybody has": {nil, resolver.HELOOptions{Hostname: "localhost.localdomain", Sources: addrs("192.0.2.1")},
			[]string{"helo failed every host is called so", "reverse_dns failed "}},
		"no host name": {nil, resolver.HELOOptions{Hostname: "web1", Sources: addrs("192.0.2.1")}, []string{"helo failed a full name with a dot"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, _ := newDoctor(t, c.records, func(o *Options) { o.DNS.HELO = c.helo })
			expect(t, d.identity(t.Context()), c.want...)
		})
	}
}

func TestIdentityWhileDNSFails(t *testing.T) {
	t.Parallel()
	d, zone := newDoctor(t, []string{name4}, func(o *Options) { o.DNS.HELO.Hostname = "mail.test" })
	zone.Fail("1.2.0.192.in-addr.arpa", resolvertest.Fault{Rcode: dns.RcodeServerFailure})
	expect(t, d.identity(t.Context()), "helo warning could not be asked", "reverse_dns warning SERVFAIL")
}

func TestLocalMail(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		to      string
		records []string
		hosts   []string
		fault   int
		want    string
	}{
		"empty":              {want: "local_mail failed set local_mail_to"},
		"well":               {to: "ops@other.test", records: []string{"other.test. IN MX 10 mx.other.test.", "mx.other.test. IN A 192.0.2.7"}, want: "local_mail ok ops@other.test"},
		"no such domain":     {to: "ops@other.test", want: "local_mail failed bounces at once"},
		"takes no mail":      {to: "ops@other.test", records: []string{"other.test. IN MX 0 ."}, want: "local_mail failed bounces at once"},
		"DNS fails":          {to: "ops@other.test", fault: dns.RcodeServerFailure, want: "local_mail warning is not known"},
		"to hosts of ours":   {to: "ops@other.test", hosts: []string{"mail.internal"}, want: "local_mail ok "},
		"implicit mail host": {to: "ops@other.test", records: []string{"other.test. IN A 192.0.2.7"}, want: "local_mail ok "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, zone := newDoctor(t, c.records, func(o *Options) {
				o.Senders.LocalMailTo, o.Senders.LocalMailDomain = c.to, "other.test"
				o.Way.Hosts = func(string) []string { return c.hosts }
			})
			if c.fault != 0 {
				zone.Fail("other.test", resolvertest.Fault{Rcode: c.fault})
			}
			expect(t, d.localMail(t.Context()), c.want)
		})
	}
}
