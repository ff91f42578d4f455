package resolver

import (
	"testing"

	"github.com/miekg/dns"

	"postrider/resolver/resolvertest"
)

func TestHostTLSA(t *testing.T) {
	t.Parallel()
	const (
		mx     = "d.test. IN MX 10 mx.test."
		addr   = "mx.test. IN A 192.0.2.1"
		alias  = "mx.test. IN CNAME real.test."
		target = "real.test. IN A 192.0.2.1"
		atMX   = "_25._tcp.mx.test. IN TLSA 3 1 1 aa"
		atReal = "_25._tcp.real.test. IN TLSA 3 1 1 bb"
	)
	servfail := resolvertest.Fault{Rcode: dns.RcodeServerFailure}
	tests := []struct {
		name     string
		records  []string
		insecure []string // everything else is validated
		fail     map[string]resolvertest.Fault
		base     string
		data     byte
		failed   bool
		queries  int // of TLSA records, about
	}{
		{name: "plain", records: []string{mx, addr, atMX}, base: "mx.test", data: 0xaa, queries: 1},
		{name: "none", records: []string{mx, addr}, queries: 1},
		{name: "addresses not validated", records: []string{mx, addr, atMX}, insecure: []string{"mx.test"}},
		{name: "records not validated", records: []string{mx, addr, atMX}, insecure: []string{"_25._tcp.mx.test"}, queries: 1},
		{name: "lookup fails", records: []string{mx, addr, atMX}, fail: map[string]resolvertest.Fault{"_25._tcp.mx.test": servfail}, failed: true, queries: 1},
		{name: "records are bogus", records: []string{mx, addr, atMX}, fail: map[string]resolvertest.Fault{"_25._tcp.mx.test": resolvertest.Bogus()}, failed: true, queries: 1},
		{name: "one family's lookup fails", records: []string{mx, addr, atMX}, fail: map[string]resolvertest.Fault{"mx.test": {Type: dns.TypeAAAA, Rcode: dns.RcodeServerFailure}}, base: "mx.test", data: 0xaa, queries: 1},
		{name: "one family is not validated", records: []string{mx, addr, "mx.test. IN AAAA 2001:db8::1", atMX}, fail: map[string]resolvertest.Fault{"mx.test": {Type: dns.TypeA, Clear: true}}, base: "mx.test", data: 0xaa, queries: 1},
		{name: "alias, records at its end", records: []string{mx, alias, target, atMX, atReal}, base: "real.test", data: 0xbb, queries: 1},
		{name: "alias, records at its start", records: []string{mx, alias, target, atMX}, base: "mx.test", data: 0xaa, queries: 2},
		{name: "alias into a zone that is not signed", records: []string{mx, alias, target, atMX, atReal}, insecure: []string{"real.test"}, base: "mx.test", data: 0xaa, queries: 1},
		{name: "alias out of a zone that is not signed", records: []string{mx, alias, target, atMX, atReal}, insecure: []string{"mx.test"}},
		{name: "alias, lookup at its end fails", records: []string{mx, alias, target, atMX}, fail: map[string]resolvertest.Fault{"_25._tcp.real.test": servfail}, failed: true, queries: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, zone := newPair(t, Options{TrustAD: true})
			zone.Add(tt.records...)
			zone.Secure(".")
			for _, n := range tt.insecure {
				zone.Insecure(n)
			}
			for n, f := range tt.fail {
				zone.Fail(n, f)
			}
			route, err := r.Route(t.Context(), "d.test")
			if err != nil || !route.Secure {
				t.Fatal(route, err)
			}
			got, err := r.HostTLSA(t.Context(), route.Hosts[0], 25)
			if (err != nil) != tt.failed {
				t.Fatalf("%+v, %v", got, err)
			}
			if got.Base != tt.base || tt.base != "" && got.Records[0].Data[0] != tt.data {
				t.Errorf("%+v, want %x at %q", got, tt.data, tt.base)
			}
			if n := zone.Queries("_25._tcp.mx.test", dns.TypeTLSA) + zone.Queries("_25._tcp.real.test", dns.TypeTLSA); n != tt.queries {
				t.Errorf("%d queries, want %d", n, tt.queries)
			}
		})
	}
}

func TestHostTLSAOfLiteral(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{TrustAD: true})
	route, err := r.Route(t.Context(), "[192.0.2.1]")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.HostTLSA(t.Context(), route.Hosts[0], 25); err != nil || got.Records != nil || zone.Total() != 0 {
		t.Errorf("%+v, %v, %d queries", got, err, zone.Total())
	}
}

// What is not validated to begin with costs no further questions.
func TestAliasOfAnInsecureHostIsNotAskedFor(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{TrustAD: true})
	zone.Add("d.test. IN MX 10 mx.test.", "mx.test. IN CNAME real.test.", "real.test. IN A 192.0.2.1")
	if _, err := r.Route(t.Context(), "d.test"); err != nil {
		t.Fatal(err)
	}
	if n := zone.Queries("mx.test", dns.TypeCNAME); n != 0 {
		t.Errorf("%d questions for the alias", n)
	}
}
