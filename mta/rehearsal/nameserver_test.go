package rehearsal_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postrider/mta/rehearsal"
)

// newNameserver runs a nameserver on loopback until the test ends.
func newNameserver(t *testing.T, o rehearsal.NameserverOptions) string {
	t.Helper()
	n, err := rehearsal.NewNameserver(o)
	if err != nil {
		t.Fatal(err)
	}
	udp, tcp, err := rehearsal.ListenDNS("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx, udp, tcp) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("nameserver: %v", err)
		}
	})
	return udp.LocalAddr().String()
}

// ask gives the answers as text, sorted, or the response code.
func ask(t *testing.T, addr, network, name string, qtype uint16) (string, *dns.Msg) {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), qtype)
	c := dns.Client{Net: network, Timeout: 20 * time.Second}
	m, _, err := c.Exchange(q, addr)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if m.Rcode != dns.RcodeSuccess {
		return dns.RcodeToString[m.Rcode], m
	}
	var all []string
	for _, rr := range m.Answer {
		all = append(all, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(all)
	return strings.Join(all, ", "), m
}

func TestNameserver(t *testing.T) {
	t.Parallel()
	addrs := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("::1")}
	own := newNameserver(t, rehearsal.NameserverOptions{
		Addresses: addrs, TTL: time.Minute, Missing: []string{"gone.test"}, Failing: []string{"broken.test"}, Authentic: true,
		Records: []string{
			`own.test. 60 IN MX 5 Special.own.test.`, `sel._domainkey.own.test. IN TXT "v=DKIM1; p=x"`, `nomail.test. IN MX 0 .`,
			`www.own.test. IN CNAME target.test.`, `loop.test. IN CNAME loop.test.`,
		},
	})
	shared := newNameserver(t, rehearsal.NameserverOptions{Addresses: addrs[:2], MX: []string{"MX1.hub.test", "mx2.hub.test", "mx3.hub.test"}})
	apart := newNameserver(t, rehearsal.NameserverOptions{
		Addresses: addrs[:1], Elsewhere: map[string][]netip.Addr{"far.test": addrs[1:2]},
	})
	tests := []struct {
		addr, name string
		qtype      uint16
		want       string
	}{
		{own, "any.test", dns.TypeMX, "10 mx.any.test."},
		{own, "deep.sub.any.test", dns.TypeMX, "10 mx.deep.sub.any.test."},
		{own, "ANY.test", dns.TypeMX, "10 mx.any.test."},
		{own, "mx.any.test", dns.TypeA, "127.0.0.1, 127.0.0.2"},
		{own, "mx.any.test", dns.TypeAAAA, "::1"},
		{own, "any.test", dns.TypeTXT, ""},
		{own, "_dmarc.any.test", dns.TypeTXT, "NXDOMAIN"},
		{own, "_25._tcp.mx.any.test", dns.TypeTLSA, "NXDOMAIN"},
		{own, "a._domainkey.any.test", dns.TypeTXT, "NXDOMAIN"},
		{own, "own.test", dns.TypeMX, "5 Special.own.test."},
		{own, "own.test", dns.TypeA, ""},
		{own, "sel._domainkey.own.test", dns.TypeTXT, `"v=DKIM1; p=x"`},
		{own, "nomail.test", dns.TypeMX, "0 ."},
		{own, "www.own.test", dns.TypeMX, "10 mx.target.test., target.test."},
		{own, "loop.test", dns.TypeA, strings.TrimSuffix(strings.Repeat("loop.test., ", 8), ", ")},
		{own, "gone.test", dns.TypeMX, "NXDOMAIN"},
		{own, "below.gone.test", dns.TypeA, "NXDOMAIN"},
		{own, "notgone.test", dns.TypeMX, "10 mx.notgone.test."},
		{own, "broken.test", dns.TypeMX, "SERVFAIL"},
		{own, "1.2.0.192.in-addr.arpa", dns.TypePTR, "192-0-2-1.host.test."},
		{own, "192-0-2-1.host.test", dns.TypeA, "192.0.2.1"},
		{own, "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", dns.TypePTR, "v6-2001-0db8-0000-0000-0000-0000-0567-89ab.host.test."},
		{own, "v6-2001-0db8-0000-0000-0000-0000-0567-89ab.host.test", dns.TypeAAAA, "2001:db8::567:89ab"},
		{own, "1.in-addr.arpa", dns.TypePTR, "NXDOMAIN"},
		{own, "x.host.test", dns.TypeA, "NXDOMAIN"},
		{shared, "any.test", dns.TypeMX, "10 mx1.hub.test., 20 mx2.hub.test., 30 mx3.hub.test."},
		{shared, "mx1.hub.test", dns.TypeA, "127.0.0.1"},
		{shared, "mx2.hub.test", dns.TypeA, "127.0.0.2"},
		{shared, "mx3.hub.test", dns.TypeA, "127.0.0.1"},
		{apart, "d7.far.test", dns.TypeMX, "10 mx.d7.far.test."},
		{apart, "mx.d7.far.test", dns.TypeA, "127.0.0.2"},
		{apart, "mx.notfar.test", dns.TypeA, "127.0.0.1"},
	}
	for _, test := range tests {
		for _, network := range []string{"udp", "tcp"} {
			if got, _ := ask(t, test.addr, network, test.name, test.qtype); got != test.want {
				t.Errorf("%s %s over %s: %q, want %q", test.name, dns.TypeToString[test.qtype], network, got, test.want)
			}
		}
	}
	if _, m := ask(t, own, "udp", "any.test", dns.TypeTXT); !m.AuthenticatedData || len(m.Ns) != 1 || m.Ns[0].(*dns.SOA).Minttl != 60 {
		t.Errorf("no data: %v", m)
	}
	if _, m := ask(t, shared, "udp", "any.test", dns.TypeMX); m.AuthenticatedData || m.Answer[0].Header().Ttl != 300 {
		t.Errorf("%v", m)
	}
	if got, _ := ask(t, own, "udp", ".", dns.TypeSOA); !strings.HasPrefix(got, "ns.host.test.") {
		t.Errorf("root: %q", got)
	}
}

// What does not fit into a datagram comes over TCP.
func TestNameserverTruncates(t *testing.T) {
	t.Parallel()
	var mx []string
	for i := range 60 {
		mx = append(mx, strings.Repeat("x", 40)+string(rune('a'+i%26))+".hub"+string(rune('a'+i/26))+".test")
	}
	addr := newNameserver(t, rehearsal.NameserverOptions{Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, MX: mx})
	if _, m := ask(t, addr, "udp", "any.test", dns.TypeMX); !m.Truncated {
		t.Error("not truncated")
	}
	if _, m := ask(t, addr, "tcp", "any.test", dns.TypeMX); m.Truncated || len(m.Answer) != 60 {
		t.Errorf("%d answers over TCP", len(m.Answer))
	}
}

// A domain that is silent is a query without an answer; its neighbour has one.
func TestNameserverIsSilent(t *testing.T) {
	t.Parallel()
	addr := newNameserver(t, rehearsal.NameserverOptions{
		Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Silent: []string{"silent.test"},
	})
	conn, err := dns.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	asked := make([]uint16, 0, 2)
	for _, name := range []string{"d1.Silent.test.", "d1.loud.test."} {
		q := new(dns.Msg)
		q.SetQuestion(name, dns.TypeMX)
		asked = append(asked, q.Id)
		if err := conn.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := conn.ReadMsg(); err != nil || m.Id != asked[1] {
		t.Errorf("%v, %v: not the answer to the second question", m, err)
	}
	conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if m, err := conn.ReadMsg(); err == nil {
		t.Errorf("an answer more: %v", m)
	}
}

// Hosts that are spread have an address each, always the same, and all are used.
func TestNameserverSpreads(t *testing.T) {
	t.Parallel()
	addr := newNameserver(t, rehearsal.NameserverOptions{
		Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")}, Spread: true,
	})
	of := map[string]int{}
	for i := range 20 {
		host := fmt.Sprintf("mx.d%d.test", i)
		first, _ := ask(t, addr, "udp", host, dns.TypeA)
		again, _ := ask(t, addr, "udp", host, dns.TypeA)
		if first != again {
			t.Errorf("%s: %s, then %s", host, first, again)
		}
		of[first]++
	}
	if len(of) != 2 || of["127.0.0.1"] != of["127.0.0.2"] {
		t.Errorf("%v", of)
	}
}

func TestNameserverOptions(t *testing.T) {
	t.Parallel()
	addrs := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	for name, o := range map[string]rehearsal.NameserverOptions{
		"no addresses": {}, "bad record": {Addresses: addrs, Records: []string{"x.test. IN MX ten mail.x.test."}}, "empty record": {Addresses: addrs, Records: []string{"; comment"}},
	} {
		if _, err := rehearsal.NewNameserver(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
