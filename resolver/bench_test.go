package resolver

import (
	"fmt"
	"testing"

	"postrider/resolver/resolvertest"
)

func benchPair(b *testing.B) (*Resolver, *resolvertest.Zone) {
	b.Helper()
	zone := resolvertest.Start(b)
	r, err := New(Options{Servers: []string{zone.Addr()}})
	if err != nil {
		b.Fatal(err)
	}
	return r, zone
}

func BenchmarkLookupCached(b *testing.B) {
	r, zone := benchPair(b)
	zone.Add("d.test. 3600 IN MX 10 mx.d.test.", "d.test. 3600 IN MX 20 mx2.d.test.")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.MX(b.Context(), "d.test"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRouteCached(b *testing.B) {
	r, zone := benchPair(b)
	zone.Add("d.test. 3600 IN MX 10 mx.d.test.", "d.test. 3600 IN MX 20 mx2.d.test.",
		"mx.d.test. 3600 IN A 192.0.2.1", "mx.d.test. 3600 IN AAAA 2001:db8::1", "mx2.d.test. 3600 IN A 192.0.2.2")
	zone.NegativeTTL(3600)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Route(b.Context(), "d.test"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkShuffled(b *testing.B) {
	r, zone := benchPair(b)
	zone.Add("d.test. 3600 IN MX 10 mx.d.test.", "d.test. 3600 IN MX 20 mx2.d.test.",
		"mx.d.test. 3600 IN A 192.0.2.1", "mx.d.test. 3600 IN AAAA 2001:db8::1", "mx2.d.test. 3600 IN A 192.0.2.2")
	route, err := r.Route(b.Context(), "d.test")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		route.Shuffled()
	}
}

// Both ends are in this process.
func BenchmarkLookupOverUDP(b *testing.B) {
	r, zone := benchPair(b)
	zone.Add("*. 60 IN A 192.0.2.1")
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		if _, err := r.A(b.Context(), fmt.Sprintf("d%d.test", n)); err != nil {
			b.Fatal(err)
		}
	}
}
