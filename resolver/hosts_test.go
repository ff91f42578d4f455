package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postrider/resolver/resolvertest"
)

func TestShuffled(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{})
	zone.Add("d.test. IN MX 10 a.test.", "d.test. IN MX 10 b.test.", "d.test. IN MX 10 c.test.", "d.test. IN MX 5 first.test.", "d.test. IN MX 20 last.test.")
	for i, n := range []string{"a", "b", "c", "first", "last"} {
		for k := range 2 {
			zone.Add(fmt.Sprintf("%s.test. IN A 192.0.2.%d", n, 10*i+k), fmt.Sprintf("%s.test. IN AAAA 2001:db8::%d", n, 10*i+k))
		}
	}
	route, err := r.Route(t.Context(), "d.test")
	if err != nil {
		t.Fatal(err)
	}
	before := words(route.Hosts)
	orders, addrs := map[string]int{}, map[netip.Addr]int{}
	const runs = 3000
	for range runs {
		s := route.Shuffled()
		var names []string
		for _, h := range s.Hosts {
			names = append(names, h.Name)
		}
		if names[0] != "first.test" || names[4] != "last.test" {
			t.Fatalf("preference is not kept: %q", names)
		}
		orders[strings.Join(names[1:4], " ")]++
		h := s.Hosts[0]
		for i, a := range h.Addrs {
			if a.Is6() != (i%2 == 0) {
				t.Fatalf("families are not in turn: %v", h.Addrs)
			}
		}
		addrs[h.Addrs[0]]++
	}
	// Each of the 6 orders is due 500 times, each of the 2 addresses 1,500
	// times; these bounds are more than 9 standard deviations away.
	if len(orders) != 6 || len(addrs) != 2 {
		t.Fatalf("%d orders of 6, %d first addresses of 2", len(orders), len(addrs))
	}
	for o, n := range orders {
		if n < 300 || n > 700 {
			t.Errorf("%s: %d of %d", o, n, runs)
		}
	}
	for a, n := range addrs {
		if n < 1250 || n > 1750 {
			t.Errorf("%s first: %d of %d", a, n, runs)
		}
	}
	if after := words(route.Hosts); !reflect.DeepEqual(before, after) {
		t.Errorf("the route itself changed from %q to %q", before, after)
	}
}

// Which of many equals are tried at all must not hang on their names.
func TestEqualsAreCutAtRandom(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{})
	for i := range 2 * maxHosts {
		zone.Add(fmt.Sprintf("d.test. IN MX 10 h%d.test.", i), fmt.Sprintf("h%d.test. IN A 192.0.2.%d", i, i))
	}
	seen, sites := map[string]bool{}, map[string]bool{}
	for range 100 { // the chance that one of 20 is left out each time is 2^-100
		route, err := r.Route(t.Context(), "d.test")
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range route.Hosts {
			seen[h.Name] = true
		}
		sites[route.Site] = true
	}
	if len(seen) != 2*maxHosts || len(sites) != 1 {
		t.Errorf("%d hosts of %d were ever tried, %d sites", len(seen), 2*maxHosts, len(sites))
	}
}

// The addresses of one family are enough: a name server that fails for the
// other must not keep mail back.
func TestOneFamilyIsEnough(t *testing.T) {
	t.Parallel()
	for qtype, want := range map[uint16]string{dns.TypeA: "2001:db8::1", dns.TypeAAAA: "192.0.2.1"} {
		r, zone := newPair(t, Options{})
		zone.Add("d.test. IN MX 10 a.test.", "a.test. IN A 192.0.2.1", "a.test. IN AAAA 2001:db8::1")
		zone.Fail("a.test", resolvertest.Fault{Type: qtype, Rcode: dns.RcodeServerFailure})
		route, err := r.Route(t.Context(), "d.test")
		if err != nil {
			t.Fatalf("without %s: %v", dns.TypeToString[qtype], err)
		}
		if h := route.Hosts[0]; len(h.Addrs) != 1 || h.Addrs[0].String() != want || h.Err != nil {
			t.Errorf("without %s: %+v", dns.TypeToString[qtype], h)
		}
	}
}

func TestHostsAndAddressesAreCapped(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{})
	for i := range 30 {
		zone.Add(fmt.Sprintf("d.test. IN MX %d h%d.test.", i, i))
		for k := range 1 + 30*(i%2) {
			zone.Add(fmt.Sprintf("h%d.test. IN A 192.0.%d.%d", i, i, k))
		}
	}
	route, err := r.Route(t.Context(), "d.test")
	if err != nil {
		t.Fatal(err)
	}
	if len(route.Hosts) != maxHosts || len(route.Skipped) != 20 || route.Hosts[9].Name != "h9.test" {
		t.Errorf("%d hosts, %d skipped", len(route.Hosts), len(route.Skipped))
	}
	for _, h := range route.Skipped {
		if h.Err == nil || h.Err.Error() != "at most 10 hosts are tried, and those are preferred" {
			t.Errorf("%s is skipped: %v", h.Name, h.Err)
		}
	}
	total := 0
	for i, h := range route.Hosts {
		if want := 1 + 2*(i%2); len(h.Addrs) != want {
			t.Errorf("%s has %d addresses, want %d", h.Name, len(h.Addrs), want)
		}
		total += len(h.Addrs)
	}
	if total != maxAddrs {
		t.Errorf("%d addresses, want %d", total, maxAddrs)
	}
}

func TestSetOwn(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{OwnNames: []string{"old.test"}})
	zone.Add("d.test. IN MX 10 me.test.", "me.test. IN A 192.0.2.1", "e.test. IN MX 10 old.test.", "old.test. IN A 192.0.2.2", "f.test. IN A 192.0.2.3")
	route := func(domain string, own bool) {
		t.Helper()
		_, err := r.Route(t.Context(), domain)
		if own {
			wantError(t, err, Unroutable, "5.4.6", false, "loop")
		} else if err != nil {
			t.Error(err)
		}
	}
	route("d.test", false)
	route("e.test", true)
	if err := r.SetOwn([]string{"Me.test"}, []netip.Addr{netip.MustParseAddr("192.0.2.3")}); err != nil {
		t.Fatal(err)
	}
	route("d.test", true)
	route("e.test", false)
	route("f.test", true)
	if err := r.SetOwn([]string{"a b"}, nil); err == nil {
		t.Error("a bad name is taken")
	}
	route("d.test", true)
}

func TestSite(t *testing.T) {
	t.Parallel()
	hosts := func(names ...string) (all []Host) {
		for _, n := range names {
			all = append(all, Host{Name: n})
		}
		return all
	}
	if got := siteOf(hosts("b.test", "a.test", "b.test")); got != "a.test,b.test" {
		t.Error(got)
	}
	var long []string
	for i := range maxRecords {
		long = append(long, strings.Repeat("x", 60)+fmt.Sprint(i)+".test")
	}
	a := siteOf(hosts(long...))
	slices.Reverse(long)
	b := siteOf(hosts(long...))
	c := siteOf(hosts(long[1:]...))
	if a != b || a == c || len(a) > maxSite {
		t.Errorf("%s\n%s\n%s", a, b, c)
	}
}

func TestRouteExpiresAt(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		records string
		fail    map[string]resolvertest.Fault
		want    time.Duration
	}{
		{"one family, the absence of the other is no part of it", "d.test. 100 IN MX 10 a.test.;a.test. 200 IN A 192.0.2.1", nil, 100 * time.Second},
		{"MX first", "d.test. 100 IN MX 10 a.test.;a.test. 200 IN A 192.0.2.1;a.test. 300 IN AAAA 2001:db8::1", nil, 100 * time.Second},
		{"IPv6 first", "d.test. 300 IN MX 10 a.test.;a.test. 200 IN A 192.0.2.1;a.test. 100 IN AAAA 2001:db8::1", nil, 100 * time.Second},
		{"IPv4 first", "d.test. 300 IN MX 10 a.test.;a.test. 100 IN A 192.0.2.1;a.test. 200 IN AAAA 2001:db8::1", nil, 100 * time.Second},
		{"a host fails", "d.test. 300 IN MX 10 a.test.;d.test. 300 IN MX 20 b.test.;a.test. 100 IN A 192.0.2.1", map[string]resolvertest.Fault{"b.test": {Rcode: dns.RcodeServerFailure}}, 5 * time.Second},
		{"a family fails", "d.test. 300 IN MX 10 a.test.;a.test. 100 IN A 192.0.2.1", map[string]resolvertest.Fault{"a.test": {Type: dns.TypeAAAA, Rcode: dns.RcodeServerFailure}}, 30 * time.Second},
		{"implicit: the absence of MX", "d.test. 5000 IN A 192.0.2.1;d.test. 5000 IN AAAA 2001:db8::1", nil, 60 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, zone := newPair(t, Options{})
			newClock(r)
			zone.Add(strings.Split(tt.records, ";")...)
			for n, f := range tt.fail {
				zone.Fail(n, f)
			}
			route, err := r.Route(t.Context(), "d.test")
			if err != nil {
				t.Fatal(err)
			}
			if got := route.ExpiresAt.Sub(r.now()); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestFixedRoute(t *testing.T) {
	t.Parallel()
	hostsFile := filepath.Join(t.TempDir(), "hosts")
	text := "# a comment\n192.0.2.77 Filed.internal filed # another\n2001:db8::77\tfiled.internal\nnonsense filed.internal\n"
	if err := os.WriteFile(hostsFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		hosts string
		want  []string
		kind  Kind
		text  string
	}{
		{name: "address", hosts: "192.0.2.1", want: []string{"0  192.0.2.1"}},
		{name: "address and port", hosts: "192.0.2.1:2525", want: []string{"0 :2525 192.0.2.1"}},
		{name: "IPv6", hosts: "2001:db8::1", want: []string{"0  2001:db8::1"}},
		{name: "IPv6 in brackets", hosts: "[2001:db8::1]", want: []string{"0  2001:db8::1"}},
		{name: "IPv6 and port", hosts: "[2001:db8::1]:25", want: []string{"0 :25 2001:db8::1"}},
		{name: "name", hosts: "a.test", want: []string{"0 a.test 2001:db8::1 192.0.2.1"}},
		{name: "name and port", hosts: "A.test:2525", want: []string{"0 a.test:2525 2001:db8::1 192.0.2.1"}},
		{name: "name without dot", hosts: "relay", want: []string{"0 relay 192.0.2.2"}},
		{name: "name of the hosts file", hosts: "filed.internal:26", want: []string{"0 filed.internal:26 192.0.2.77 2001:db8::77"}},
		{name: "localhost", hosts: "localhost:2525", want: []string{"0 localhost:2525 127.0.0.1 ::1"}},
		{name: "no MX of a name", hosts: "withmx.test", want: []string{"0 withmx.test 192.0.2.3"}},
		{name: "in the order written", hosts: "relay a.test:1 192.0.2.9", want: []string{"0 relay 192.0.2.2", "1 a.test:1 2001:db8::1 192.0.2.1", "2  192.0.2.9"}},
		{name: "one that fails", hosts: "gone.test a.test", want: []string{"0 gone.test", "1 a.test 2001:db8::1 192.0.2.1"}},
		{name: "our own address", hosts: "192.0.2.99:26", want: []string{"0 :26 192.0.2.99"}},
		{name: "none has an address", hosts: "gone.test", kind: ServerFailure, text: "gone.test"},
		{name: "none given", kind: Malformed, text: "1 to 20"},
		{name: "too many", hosts: strings.Repeat("a.test ", 21), kind: Malformed, text: "1 to 20"},
		{name: "port 0", hosts: "a.test:0", kind: Malformed, text: "port"},
		{name: "port 65536", hosts: "a.test:65536", kind: Malformed, text: "port"},
		{name: "port in words", hosts: "a.test:smtp", kind: Malformed, text: "port"},
		{name: "a name in brackets", hosts: "[a.test]:25", kind: Malformed, text: "in brackets"},
		{name: "no end of brackets", hosts: "[2001:db8::1:25", kind: Malformed, text: "in brackets"},
		{name: "a bad name", hosts: "a..test", kind: Malformed, text: "a host is written"},
		{name: "an empty one", hosts: ":25", kind: Malformed, text: "a host is written"},
		{name: "a URL", hosts: "smtp://a.test", kind: Malformed, text: "port"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, zone := newPair(t, Options{HostsFile: hostsFile, OwnAddrs: []netip.Addr{netip.MustParseAddr("192.0.2.99")}})
			zone.Add("a.test. IN A 192.0.2.1", "a.test. IN AAAA 2001:db8::1", "relay. IN A 192.0.2.2",
				"withmx.test. IN A 192.0.2.3", "withmx.test. IN MX 0 a.test.")
			route, err := r.FixedRoute(t.Context(), strings.Fields(tt.hosts))
			if tt.kind != KindNone {
				wantError(t, err, tt.kind, map[bool]string{true: "4.4.3", false: "5.1.2"}[tt.kind == ServerFailure], tt.kind == ServerFailure, tt.text)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := words(route.Hosts); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if !route.Fixed || !route.Secure || route.ExpiresAt.IsZero() || route.Site != strings.ToLower(strings.Join(strings.Fields(tt.hosts), ",")) {
				t.Errorf("%+v", route)
			}
			if !reflect.DeepEqual(words(route.Shuffled().Hosts)[0], tt.want[0]) && len(route.Hosts[0].Addrs) < 2 {
				t.Errorf("shuffled: %q", words(route.Shuffled().Hosts))
			}
		})
	}
}

func TestRouteEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{Timeout: time.Hour})
	zone.Add("d.test. IN MX 10 a.test.")
	zone.Fail("a.test", resolvertest.Fault{Drop: true})
	for i, find := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := r.Route(ctx, "d.test"); return err },
		func(ctx context.Context) error { _, err := r.FixedRoute(ctx, []string{"a.test"}); return err },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			zone.Wait("a.test", dns.TypeA, i+1)
			cancel()
		})
		err := find(ctx)
		wg.Wait()
		if e := new(Error); !errors.Is(err, context.Canceled) || errors.As(err, &e) {
			t.Errorf("%v: the caller's end is told as an answer of DNS", err)
		}
	}
}
