package resolver

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postrider/resolver/resolvertest"
)

// clock is a time that moves only by hand.
type clock struct{ at atomic.Int64 }

func newClock(r *Resolver) *clock {
	c := &clock{}
	c.at.Store(time.Now().UnixNano())
	r.now = func() time.Time { return time.Unix(0, c.at.Load()) }
	return c
}

func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

func TestLifeInTheCache(t *testing.T) {
	t.Parallel()
	ok := resolvertest.Fault{}
	tests := []struct {
		name  string
		add   string
		fault resolvertest.Fault
		want  time.Duration
	}{
		{"its TTL", "d.test. 300 IN TXT a", ok, 300 * time.Second},
		{"the shortest TTL of several", "d.test. 300 IN TXT a;d.test. 200 IN TXT b", ok, 200 * time.Second},
		{"the shortest TTL of a chain", "d.test. 100 IN CNAME e.test.;e.test. 200 IN TXT a", ok, 100 * time.Second},
		{"the shortest TTL of a chain step by step", "d.test. 100 IN CNAME e.test.;e.test. 200 IN TXT a", resolvertest.Fault{Partial: true}, 100 * time.Second},
		{"at least five seconds", "d.test. 0 IN TXT a", ok, 5 * time.Second},
		{"at most a day", "d.test. 1000000 IN TXT a", ok, 24 * time.Hour},
		{"a TTL with its top bit set is none", "d.test. 4294967295 IN TXT a", ok, 5 * time.Second},
		{"no such domain: the SOA's minimum", "test. 600 IN SOA n. m. 1 1 1 1 77;x.test. IN A 192.0.2.1", ok, 77 * time.Second},
		{"no such domain: the SOA's TTL", "test. 60 IN SOA n. m. 1 1 1 1 77;x.test. IN A 192.0.2.1", ok, 60 * time.Second},
		{"no such record: the SOA's minimum", "test. 600 IN SOA n. m. 1 1 1 1 77;d.test. IN A 192.0.2.1", ok, 77 * time.Second},
		{"an absence: at most an hour", "test. 999999 IN SOA n. m. 1 1 1 1 999999", ok, time.Hour},
		{"an absence without SOA: the least", "", resolvertest.Fault{NoSOA: true}, 5 * time.Second},
		{"a failure", "", resolvertest.Fault{Rcode: dns.RcodeServerFailure}, 5 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, zone := newPair(t, Options{})
			clock := newClock(r)
			for rr := range strings.SplitSeq(tt.add, ";") {
				if rr != "" {
					zone.Add(rr)
				}
			}
			zone.Fail("d.test", tt.fault)
			ask := func(want int) {
				t.Helper()
				r.TXT(t.Context(), "d.test")
				if n := zone.Queries("d.test", dns.TypeTXT); n != want {
					t.Fatalf("%d queries, want %d", n, want)
				}
			}
			ask(1)
			ask(1)
			clock.advance(tt.want - time.Millisecond)
			ask(1)
			clock.advance(time.Millisecond)
			ask(2)
		})
	}
}

func TestExpiresAt(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{})
	clock := newClock(r)
	zone.Add("d.test. 300 IN TXT a")
	start := r.now()
	for range 2 {
		if got, err := r.TXT(t.Context(), "d.test"); err != nil || !got.ExpiresAt.Equal(start.Add(300*time.Second)) {
			t.Errorf("%+v, %v", got, err)
		}
		clock.advance(100 * time.Second)
	}
}

func TestFailuresAreAskedForLessAndLess(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{})
	clock := newClock(r)
	zone.Fail("d.test", resolvertest.Fault{Rcode: dns.RcodeServerFailure})
	for i, pause := range []time.Duration{5, 10, 20, 30, 30} {
		_, err := r.TXT(t.Context(), "d.test")
		wantError(t, err, ServerFailure, "4.4.3", true, "")
		clock.advance(pause*time.Second - time.Millisecond)
		_, err = r.TXT(t.Context(), "d.test")
		wantError(t, err, ServerFailure, "4.4.3", true, "")
		if n := zone.Queries("d.test", dns.TypeTXT); n != i+1 {
			t.Fatalf("%d queries, want %d", n, i+1)
		}
		clock.advance(time.Millisecond)
	}
	zone.Mend("d.test")
	zone.Add("d.test. IN TXT well")
	if got, err := r.TXT(t.Context(), "d.test"); err != nil || got.Records[0] != "well" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestStaleAnswers(t *testing.T) {
	t.Parallel()
	servfail := resolvertest.Fault{Rcode: dns.RcodeServerFailure}
	tests := []struct {
		name    string
		records []string
		secure  bool
		fault   resolvertest.Fault
		age     time.Duration
		qtype   uint16
		want    bool
	}{
		{"stands in", []string{"d.test. 60 IN TXT a"}, false, servfail, time.Hour, dns.TypeTXT, true},
		{"nearly a day", []string{"d.test. 60 IN TXT a"}, false, servfail, 24*time.Hour + 59*time.Second, dns.TypeTXT, true},
		{"older than a day", []string{"d.test. 60 IN TXT a"}, false, servfail, 24*time.Hour + 60*time.Second, dns.TypeTXT, false},
		{"while nobody answers", []string{"d.test. 60 IN TXT a"}, false, resolvertest.Fault{Drop: true}, time.Hour, dns.TypeTXT, true},
		{"not when validation fails", []string{"d.test. 60 IN TXT a"}, false, resolvertest.Bogus(), time.Hour, dns.TypeTXT, false},
		{"not when it was secure", []string{"d.test. 60 IN TXT a"}, true, servfail, time.Hour, dns.TypeTXT, false},
		{"not when it was an absence", nil, false, servfail, time.Hour, dns.TypeTXT, false},
		{"not TLSA", []string{"d.test. 60 IN TLSA 3 1 1 00"}, false, servfail, time.Hour, dns.TypeTLSA, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, zone := newPair(t, Options{TrustAD: true, Timeout: 200 * time.Millisecond})
			clock := newClock(r)
			zone.Add(tt.records...)
			if tt.secure {
				zone.Secure(".")
			}
			look := func() (secure, stale bool, err error) {
				if tt.qtype == dns.TypeTLSA {
					a, err := r.TLSA(t.Context(), "d.test")
					return a.Secure, a.Stale, err
				}
				a, err := r.TXT(t.Context(), "d.test")
				if life := a.ExpiresAt.Sub(r.now()); a.Stale && life != staleTTL {
					t.Errorf("a stale answer is given for %v", life)
				}
				return a.Secure, a.Stale, err
			}
			if secure, stale, err := look(); (err == nil) != (len(tt.records) > 0) || secure != tt.secure || stale {
				t.Fatal(secure, stale, err)
			}
			zone.Fail("d.test", tt.fault)
			clock.advance(tt.age)
			for range 2 { // asked, and from the cache
				secure, stale, err := look()
				if tt.want && (err != nil || secure || !stale) {
					t.Errorf("secure %v, stale %v, %v", secure, stale, err)
				}
				if e := new(Error); !tt.want && (!errors.As(err, &e) || !e.Temporary()) {
					t.Errorf("%v, want a temporary error", err)
				}
			}
			zone.Mend("d.test")
			clock.advance(maxFailureTTL)
			if _, stale, err := look(); (err == nil) != (len(tt.records) > 0) || stale {
				t.Errorf("after the mend: stale %v, %v", stale, err)
			}
		})
	}
}

func TestStaleNullMXIsNoFact(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{})
	clock := newClock(r)
	zone.Add("d.test. 60 IN MX 0 .")
	_, err := r.Route(t.Context(), "d.test")
	wantError(t, err, NullMX, "5.1.10", false, "")
	zone.Fail("d.test", resolvertest.Fault{Rcode: dns.RcodeServerFailure})
	clock.advance(time.Hour)
	_, err = r.Route(t.Context(), "d.test")
	wantError(t, err, ServerFailure, "4.4.3", true, "null MX")
}

func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	c, err := newCache(100, time.Second, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for i := range 10_000 {
		c.store(question{fmt.Sprintf("d%d.test", i), dns.TypeTXT}, finding{size: 100}, nil, now)
	}
	if n := c.entries.EstimatedSize(); n > 100 {
		t.Errorf("%d entries, want at most 100", n)
	}
	for i := range 100 {
		c.store(question{fmt.Sprintf("e%d.test", i), dns.TypeTXT}, finding{size: 10 * weightUnit}, nil, now)
	}
	if w := c.entries.WeightedSize(); w > 100 {
		t.Errorf("a weight of %d, want at most 100", w)
	}
}
