package resolver

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postrider/resolver/resolvertest"
)

// newPair gives a resolver and the fake zone that it asks.
func newPair(t *testing.T, o Options) (*Resolver, *resolvertest.Zone) {
	t.Helper()
	zone := resolvertest.Start(t)
	o.Servers = []string{zone.Addr()}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.HostsFile == "" {
		o.HostsFile = "/nonexistent"
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r, zone
}

// words gives the hosts of a route as "preference name address ...".
func words(hosts []Host) []string {
	var all []string
	for _, h := range hosts {
		s := fmt.Sprintf("%d %s", h.Preference, h.Name)
		if h.Port != 0 {
			s += fmt.Sprintf(":%d", h.Port)
		}
		for _, a := range h.Addrs {
			s += " " + a.String()
		}
		all = append(all, s)
	}
	return all
}

func TestRoute(t *testing.T) {
	t.Parallel()
	own := Options{OwnNames: []string{"Me.test"}, OwnAddrs: []netip.Addr{netip.MustParseAddr("192.0.2.99")}}
	tests := []struct {
		name    string
		records string // separated by ";"
		fail    map[string]resolvertest.Fault
		domain  string
		options Options
		want    []string // hosts
		skipped []string
		check   func(*Route) error

		kind   Kind // of the error
		status string
		temp   bool
		text   string // in the error
	}{
		{
			name:    "preference",
			records: "d.test. IN MX 20 b.test.;d.test. IN MX 10 a.test.;a.test. IN A 192.0.2.1;b.test. IN A 192.0.2.2",
			domain:  "d.test",
			want:    []string{"10 a.test 192.0.2.1", "20 b.test 192.0.2.2"},
			check: func(r *Route) error {
				if r.Implicit || r.Site != "a.test,b.test" || r.Canonical != "d.test" || r.Secure {
					return fmt.Errorf("%+v", r)
				}
				return nil
			},
		},
		{
			name:    "upper case and final dot",
			records: "D.Test. IN MX 10 A.TEST.;a.test. IN A 192.0.2.1",
			domain:  "D.TEST.",
			want:    []string{"10 a.test 192.0.2.1"},
		},
		{
			name:    "internationalised domain",
			records: "xn--bcher-kva.test. IN MX 10 a.test.;a.test. IN A 192.0.2.1",
			domain:  "bücher.test",
			want:    []string{"10 a.test 192.0.2.1"},
		},
		{
			name:    "both families in turn",
			records: "d.test. IN MX 10 a.test.;a.test. IN A 192.0.2.1;a.test. IN AAAA 2001:db8::1",
			domain:  "d.test",
			want:    []string{"10 a.test 2001:db8::1 192.0.2.1"},
		},
		{
			name:    "IPv4 first",
			records: "d.test. IN MX 10 a.test.;a.test. IN A 192.0.2.1;a.test. IN AAAA 2001:db8::1",
			domain:  "d.test",
			options: Options{Order: IPv4First},
			want:    []string{"10 a.test 192.0.2.1 2001:db8::1"},
		},
		{
			name:    "IPv4 only",
			records: "d.test. IN MX 10 a.test.;a.test. IN A 192.0.2.1;a.test. IN AAAA 2001:db8::1",
			domain:  "d.test",
			options: Options{Order: OnlyIPv4},
			want:    []string{"10 a.test 192.0.2.1"},
		},
		{
			name:    "IPv6 only",
			records: "d.test. IN MX 10 a.test.;a.test. IN A 192.0.2.1;a.test. IN AAAA 2001:db8::1",
			domain:  "d.test",
			options: Options{Order: OnlyIPv6},
			want:    []string{"10 a.test 2001:db8::1"},
		},
		{
			name:    "implicit MX",
			records: "d.test. IN A 192.0.2.1",
			domain:  "d.test",
			want:    []string{"0 d.test 192.0.2.1"},
			check: func(r *Route) error {
				if !r.Implicit || r.Site != "d.test" {
					return fmt.Errorf("%+v", r)
				}
				return nil
			},
		},
		{
			name:    "implicit MX of a domain that is an alias",
			records: "d.test. IN CNAME web.test.;web.test. IN A 192.0.2.1",
			domain:  "d.test",
			want:    []string{"0 d.test 192.0.2.1"},
		},
		{
			name:    "domain is an alias",
			records: "d.test. IN CNAME e.test.;e.test. IN MX 10 a.test.;a.test. IN A 192.0.2.1",
			domain:  "d.test",
			want:    []string{"10 a.test 192.0.2.1"},
			check: func(r *Route) error {
				if r.Canonical != "e.test" || r.Domain != "d.test" {
					return fmt.Errorf("%+v", r)
				}
				return nil
			},
		},
		{
			name:    "MX is an alias",
			records: "d.test. IN MX 10 a.test.;a.test. IN CNAME b.test.;b.test. IN A 192.0.2.1",
			domain:  "d.test",
			want:    []string{"10 a.test 192.0.2.1"},
			check: func(r *Route) error {
				if h := r.Hosts[0]; h.Canonical != "b.test" || h.AliasSecure {
					return fmt.Errorf("%+v", h)
				}
				return nil
			},
		},
		{
			name:    "null MX",
			records: "d.test. IN MX 0 .;d.test. IN A 192.0.2.1",
			domain:  "d.test",
			kind:    NullMX, status: "5.1.10",
		},
		{
			name:    "null MX beside another",
			records: "d.test. IN MX 0 .;d.test. IN MX 10 a.test.;a.test. IN A 192.0.2.1",
			domain:  "d.test",
			want:    []string{"10 a.test 192.0.2.1"},
			skipped: []string{"0 : a null MX beside others (RFC 7505, section 3)"},
		},
		{
			name:   "no such domain",
			domain: "d.test",
			kind:   NoSuchDomain, status: "5.1.2",
		},
		{
			name:    "no such domain at the end of an alias",
			records: "d.test. IN CNAME gone.test.",
			domain:  "d.test",
			kind:    NoSuchDomain, status: "5.1.2", text: "alias of gone.test",
		},
		{
			name:    "neither MX nor address",
			records: "d.test. IN TXT hello",
			domain:  "d.test",
			kind:    Unroutable, status: "5.4.4",
		},
		{
			name:    "MX lookup fails where there is an address",
			records: "d.test. IN A 192.0.2.1",
			fail:    map[string]resolvertest.Fault{"d.test": {Type: dns.TypeMX, Rcode: dns.RcodeServerFailure}},
			domain:  "d.test",
			kind:    ServerFailure, status: "4.4.3", temp: true,
		},
		{
			name:    "MX refused where there is an address",
			records: "d.test. IN A 192.0.2.1",
			fail:    map[string]resolvertest.Fault{"d.test": {Type: dns.TypeMX, Rcode: dns.RcodeRefused}},
			domain:  "d.test",
			kind:    ServerFailure, status: "4.4.3", temp: true, text: "REFUSED",
		},
		{
			name:    "MX lookup times out where there is an address",
			records: "d.test. IN A 192.0.2.1",
			fail:    map[string]resolvertest.Fault{"d.test": {Type: dns.TypeMX, Drop: true}},
			options: Options{Timeout: 20 * time.Millisecond},
			domain:  "d.test",
			kind:    Timeout, status: "4.4.3", temp: true,
		},
		{
			name:    "MX is bogus where there is an address",
			records: "d.test. IN A 192.0.2.1",
			fail:    map[string]resolvertest.Fault{"d.test": resolvertest.Bogus()},
			domain:  "d.test",
			kind:    Bogus, status: "4.4.3", temp: true, text: "no valid signature",
		},
		{
			name:    "lame delegation",
			records: "d.test. IN A 192.0.2.1",
			fail:    map[string]resolvertest.Fault{"d.test": {Lame: true}},
			domain:  "d.test",
			kind:    ServerFailure, status: "4.4.3", temp: true, text: "referral",
		},
		{
			name:    "address lookup of an implicit MX fails",
			records: "d.test. IN TXT hello",
			fail:    map[string]resolvertest.Fault{"d.test": {Type: dns.TypeA, Rcode: dns.RcodeServerFailure}},
			domain:  "d.test",
			kind:    ServerFailure, status: "4.4.3", temp: true,
		},
		{
			name:    "the name exists by its MX and not by its addresses",
			records: "d.test. IN TXT hello",
			fail:    map[string]resolvertest.Fault{"d.test": {Type: dns.TypeMX}, "d.test.": {Rcode: dns.RcodeNameError}},
			domain:  "d.test",
			kind:    ServerFailure, status: "4.4.3", temp: true,
		},
		{
			name:    "MX without an address beside one with",
			records: "d.test. IN MX 10 a.test.;d.test. IN MX 20 b.test.;b.test. IN A 192.0.2.2",
			domain:  "d.test",
			want:    []string{"10 a.test", "20 b.test 192.0.2.2"},
			check: func(r *Route) error {
				var e *Error
				if !errors.As(r.Hosts[0].Err, &e) || e.Kind != NoSuchDomain {
					return fmt.Errorf("the first host's error is %v", r.Hosts[0].Err)
				}
				return nil
			},
		},
		{
			name:    "no MX has an address",
			records: "d.test. IN MX 10 a.test.;d.test. IN MX 20 b.test.;d.test. IN A 192.0.2.1",
			domain:  "d.test",
			kind:    Unroutable, status: "5.4.4", text: "a.test",
		},
		{
			name:    "no MX has an address, one is not known",
			records: "d.test. IN MX 10 a.test.;d.test. IN MX 20 b.test.",
			fail:    map[string]resolvertest.Fault{"b.test": {Rcode: dns.RcodeServerFailure}},
			domain:  "d.test",
			kind:    ServerFailure, status: "4.4.3", temp: true, text: "b.test",
		},
		{
			name:    "one family fails",
			records: "d.test. IN MX 10 a.test.;a.test. IN A 192.0.2.1",
			fail:    map[string]resolvertest.Fault{"a.test": {Type: dns.TypeAAAA, Rcode: dns.RcodeServerFailure}},
			domain:  "d.test",
			want:    []string{"10 a.test 192.0.2.1"},
		},
		{
			name:    "one family fails, the other is absent",
			records: "d.test. IN MX 10 a.test.;a.test. IN TXT hello",
			fail:    map[string]resolvertest.Fault{"a.test": {Type: dns.TypeAAAA, Rcode: dns.RcodeServerFailure}},
			domain:  "d.test",
			kind:    ServerFailure, status: "4.4.3", temp: true,
		},
		{
			name:    "MX names an address",
			records: "d.test. IN MX 10 192.0.2.1.;d.test. IN MX 20 b.test.;b.test. IN A 192.0.2.2",
			domain:  "d.test",
			want:    []string{"20 b.test 192.0.2.2"},
			skipped: []string{"10 192.0.2.1: an MX record names a host, not the address 192.0.2.1 (RFC 5321, section 5.1)"},
		},
		{
			name:    "MX names only impossible hosts",
			records: `d.test. IN MX 10 192.0.2.1.;d.test. IN MX 20 a\032b.test.;d.test. IN A 192.0.2.1`,
			domain:  "d.test",
			kind:    Unroutable, status: "5.4.4",
		},
		{
			name:    "own name cuts",
			records: "d.test. IN MX 10 a.test.;d.test. IN MX 20 ME.test.;d.test. IN MX 20 c.test.;d.test. IN MX 30 b.test.;a.test. IN A 192.0.2.1;b.test. IN A 192.0.2.2;c.test. IN A 192.0.2.3",
			options: own,
			domain:  "d.test",
			want:    []string{"10 a.test 192.0.2.1"},
			skipped: []string{
				"20 c.test: it is not preferred to ourselves, and mail sent to it would come back (RFC 5321, section 5.1)",
				"20 me.test: this is ourselves (RFC 5321, section 5.1)",
				"30 b.test: it is not preferred to ourselves, and mail sent to it would come back (RFC 5321, section 5.1)",
			},
		},
		{
			name:    "own address cuts",
			records: "d.test. IN MX 10 a.test.;d.test. IN MX 20 x.test.;d.test. IN MX 30 b.test.;a.test. IN A 192.0.2.1;x.test. IN A 192.0.2.99;b.test. IN A 192.0.2.2",
			options: own,
			domain:  "d.test",
			want:    []string{"10 a.test 192.0.2.1"},
			skipped: []string{
				"20 x.test: this is ourselves (RFC 5321, section 5.1)",
				"30 b.test: it is not preferred to ourselves, and mail sent to it would come back (RFC 5321, section 5.1)",
			},
		},
		{
			name:    "own name is the best",
			records: "d.test. IN MX 10 me.test.;d.test. IN MX 30 b.test.;b.test. IN A 192.0.2.2",
			options: own,
			domain:  "d.test",
			kind:    Unroutable, status: "5.4.6",
		},
		{
			name:    "implicit MX is our own address",
			records: "d.test. IN A 192.0.2.99",
			options: own,
			domain:  "d.test",
			kind:    Unroutable, status: "5.4.6",
		},
		{
			name:    "implicit MX is our own name",
			records: "me.test. IN A 192.0.2.50",
			options: own,
			domain:  "me.test",
			kind:    Unroutable, status: "5.4.6",
		},
		{
			name:   "no dot",
			domain: "localhost",
			kind:   Unroutable, status: "5.1.2",
		},
		{
			name:   "literal",
			domain: "[192.0.2.7]",
			want:   []string{"0  192.0.2.7"},
			check: func(r *Route) error {
				if !r.Literal || r.Site != "[192.0.2.7]" || r.ExpiresAt.IsZero() {
					return fmt.Errorf("%+v", r)
				}
				return nil
			},
		},
		{
			name:   "IPv6 literal",
			domain: "[ipv6:2001:DB8::7]",
			want:   []string{"0  2001:db8::7"},
		},
		{
			name:    "own literal",
			options: own,
			domain:  "[192.0.2.99]",
			kind:    Unroutable, status: "5.4.6",
		},
		{
			name:    "own literal in IPv6 clothes",
			options: own,
			domain:  "[IPv6:::ffff:192.0.2.99]",
			kind:    Unroutable, status: "5.4.6",
		},
		{name: "IPv6 literal without tag", domain: "[2001:db8::7]", kind: Malformed, status: "5.1.2"},
		{name: "IPv4 literal with tag", domain: "[IPv6:192.0.2.1]", kind: Malformed, status: "5.1.2"},
		{name: "literal with zone", domain: "[IPv6:fe80::1%eth0]", kind: Malformed, status: "5.1.2"},
		{name: "literal without end", domain: "[192.0.2.7", kind: Malformed, status: "5.1.2"},
		{name: "empty literal", domain: "[]", kind: Malformed, status: "5.1.2"},
		{name: "general literal", domain: "[x400:c=de]", kind: Malformed, status: "5.1.2"},
		{name: "address without brackets", domain: "192.0.2.7", kind: Malformed, status: "5.1.2", text: "brackets"},
		{name: "two dots", domain: "a..test", kind: Malformed, status: "5.1.2"},
		{name: "control character", domain: "a\r\n.test", kind: Malformed, status: "5.1.2"},
		{name: "blank", domain: "a b.test", kind: Malformed, status: "5.1.2"},
		{name: "label of 64", domain: strings.Repeat("a", 64) + ".test", kind: Malformed, status: "5.1.2"},
		{name: "empty", domain: "", kind: Malformed, status: "5.1.2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, zone := newPair(t, tt.options)
			for rr := range strings.SplitSeq(tt.records, ";") {
				if rr != "" {
					zone.Add(rr)
				}
			}
			for _, name := range slices.Sorted(mapKeys(tt.fail)) {
				zone.Fail(name, tt.fail[name])
			}
			route, err := r.Route(t.Context(), tt.domain)
			if tt.kind != KindNone {
				wantError(t, err, tt.kind, tt.status, tt.temp, tt.text)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := words(route.Hosts); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("hosts %q, want %q", got, tt.want)
			}
			if tt.skipped != nil {
				var got []string
				for _, h := range route.Skipped {
					got = append(got, fmt.Sprintf("%d %s: %v", h.Preference, h.Name, h.Err))
				}
				slices.Sort(got)
				if !reflect.DeepEqual(got, tt.skipped) {
					t.Errorf("skipped %q, want %q", got, tt.skipped)
				}
			}
			if tt.check != nil {
				if err := tt.check(route); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func wantError(t *testing.T, err error, kind Kind, status string, temporary bool, text string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want one of kind %v", err, kind)
	}
	if e.Kind != kind || e.Status != status || e.Temporary() != temporary {
		t.Errorf("%v: kind %v, status %s, temporary %v; want %v, %s, %v", err, e.Kind, e.Status, e.Temporary(), kind, status, temporary)
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("%q does not say %q", err, text)
	}
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
