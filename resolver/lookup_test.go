package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postrider/resolver/resolvertest"
)

func TestLookupOfEachType(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{})
	zone.Add(
		"d.test. IN MX 20 B.test.", "d.test. IN MX 10 a.test.", "d.test. IN MX 10 a.test.",
		"a.test. IN A 192.0.2.2", "a.test. IN A 192.0.2.1",
		"a.test. IN AAAA 2001:db8::1", "a.test. IN AAAA ::ffff:192.0.2.3",
		`d.test. IN TXT "v=x " "y\"\\\007z"`, "d.test. IN TXT second",
		"alias.test. IN CNAME Target.test.",
		"d.test. IN SOA ns.d.test. host.d.test. 7 1 1 1 1",
		"1.2.0.192.in-addr.arpa. IN PTR A.test.",
		"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. IN PTR six.test.",
		"_25._tcp.a.test. IN TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
	)
	ctx := t.Context()
	addr := netip.MustParseAddr
	check := func(what string, got, want any, err error) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v, want %v", what, got, err, want)
		}
	}
	mx, err := r.MX(ctx, "D.test.")
	check("MX", mx.Records, []MX{{10, "a.test"}, {20, "b.test"}}, err)
	a, err := r.A(ctx, "a.test")
	check("A", a.Records, []netip.Addr{addr("192.0.2.1"), addr("192.0.2.2")}, err)
	aaaa, err := r.AAAA(ctx, "a.test")
	check("AAAA", aaaa.Records, []netip.Addr{addr("192.0.2.3"), addr("2001:db8::1")}, err)
	txt, err := r.TXT(ctx, "d.test")
	check("TXT", txt.Records, []string{"v=x y\"\\\007z", "second"}, err)
	cname, err := r.CNAME(ctx, "alias.test")
	check("CNAME", cname.Records, []string{"target.test"}, err)
	soa, err := r.SOA(ctx, "d.test")
	check("SOA", soa.Records, []SOA{{"ns.d.test", "host.d.test", 7}}, err)
	ptr, err := r.PTR(ctx, addr("::ffff:192.0.2.1"))
	check("PTR", ptr.Records, []string{"a.test"}, err)
	ptr6, err := r.PTR(ctx, addr("2001:db8::1"))
	check("PTR of IPv6", ptr6.Records, []string{"six.test"}, err)
	tlsa, err := r.TLSA(ctx, "_25._tcp.a.test")
	digest := []byte("\x01\x23\x45\x67\x89\xab\xcd\xef")
	digest = append(digest, digest...)
	digest = append(digest, digest...)
	check("TLSA", tlsa.Records, []TLSA{{3, 1, 1, digest}}, err)
}

func TestAnswerIsTheCallersOwn(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{})
	zone.Add("d.test. IN MX 10 a.test.")
	first, err := r.MX(t.Context(), "d.test")
	if err != nil {
		t.Fatal(err)
	}
	first.Records[0].Host = "changed"
	if second, err := r.MX(t.Context(), "d.test"); err != nil || second.Records[0].Host != "a.test" {
		t.Errorf("%v, %v: one caller's change reached another", second, err)
	}
}

// Each fault is of every answer about broken.test.
func TestFaults(t *testing.T) {
	t.Parallel()
	const short, patient = 20 * time.Millisecond, 150 * time.Millisecond
	tests := []struct {
		name    string
		records []string
		fault   resolvertest.Fault
		timeout time.Duration
		want    string // records
		kind    Kind
		temp    bool
		text    string
		queries int
	}{
		{name: "none", records: []string{"broken.test. IN TXT a"}, want: "[a]", queries: 1},
		{name: "SERVFAIL", fault: resolvertest.Fault{Rcode: dns.RcodeServerFailure}, kind: ServerFailure, temp: true, text: "SERVFAIL", queries: 1},
		{name: "REFUSED", fault: resolvertest.Fault{Rcode: dns.RcodeRefused}, kind: ServerFailure, temp: true, text: "REFUSED", queries: 1},
		{name: "unknown code", fault: resolvertest.Fault{Rcode: 3841}, kind: ServerFailure, temp: true, text: "3841", queries: 1},
		{name: "extended error", fault: resolvertest.Fault{Rcode: dns.RcodeServerFailure, Extended: &dns.EDNS0_EDE{InfoCode: 22, ExtraText: "at 192.0.2.1\r\n"}},
			kind: ServerFailure, temp: true, text: `extended error 22 (No Reachable Authority): "at 192.0.2.1\r\n"`, queries: 1},
		{name: "bogus", fault: resolvertest.Bogus(), kind: Bogus, temp: true, text: "no valid signature", queries: 1},
		{name: "expired signature", fault: resolvertest.Fault{Rcode: dns.RcodeServerFailure, Extended: &dns.EDNS0_EDE{InfoCode: 7}}, kind: Bogus, temp: true, queries: 1},
		{name: "silence", fault: resolvertest.Fault{Drop: true}, timeout: short, kind: Timeout, temp: true, queries: 3},
		{name: "silence once", records: []string{"broken.test. IN TXT a"}, fault: resolvertest.Fault{Drop: true, Times: 1}, timeout: 2 * patient, want: "[a]", queries: 2},
		{name: "lame", fault: resolvertest.Fault{Lame: true}, kind: ServerFailure, temp: true, text: "referral", queries: 1},
		{name: "no recursion", fault: resolvertest.Fault{Silent: true}, kind: ServerFailure, temp: true, text: "does not look names up", queries: 1},
		{name: "truncated", records: []string{"broken.test. IN TXT a"}, fault: resolvertest.Fault{Truncate: true}, want: "[a]", queries: 2},
		{name: "truncated, and no TCP", records: []string{"broken.test. IN TXT a"}, fault: resolvertest.Fault{Truncate: true, Hangup: true}, kind: ServerFailure, temp: true, text: "closed the connection", queries: 6},
		{name: "truncated over TCP too", fault: resolvertest.Fault{TruncateTCP: true}, kind: Malformed, temp: true, text: "even over TCP", queries: 6},
		{name: "another's ID", fault: resolvertest.Fault{WrongID: true}, timeout: patient, kind: Malformed, temp: true, text: "no answer to ours", queries: 3},
		{name: "another question", fault: resolvertest.Fault{WrongQuestion: true}, timeout: patient, kind: Malformed, temp: true, text: "another question", queries: 3},
		{name: "no question", fault: resolvertest.Fault{NoQuestion: true}, timeout: patient, kind: Malformed, temp: true, text: "another question", queries: 3},
		{name: "another question over TCP", fault: resolvertest.Fault{Truncate: true, WrongQuestion: true}, timeout: patient, kind: Malformed, temp: true, text: "another question", queries: 3},
		{name: "garbage", fault: resolvertest.Fault{Garbage: true}, timeout: patient, kind: Malformed, temp: true, text: "cannot be read", queries: 3},
		{name: "another's records", records: []string{"broken.test. IN TXT a"}, fault: resolvertest.Fault{Unrelated: true}, kind: Malformed, temp: true, text: "other names", queries: 1},
		{name: "NXDOMAIN of a filter", fault: resolvertest.Fault{Rcode: dns.RcodeNameError, Extended: &dns.EDNS0_EDE{InfoCode: 15}}, kind: ServerFailure, temp: true, text: "Blocked", queries: 1},
		{name: "stale NXDOMAIN", fault: resolvertest.Fault{Rcode: dns.RcodeNameError, Extended: &dns.EDNS0_EDE{InfoCode: 19}}, kind: ServerFailure, temp: true, text: "Stale", queries: 1},
		{name: "no such name", kind: NoSuchDomain, queries: 1},
		{name: "no such name, without SOA", fault: resolvertest.Fault{NoSOA: true}, kind: NoSuchDomain, queries: 1},
		{name: "no such type", records: []string{"broken.test. IN A 192.0.2.1"}, kind: NoData, queries: 1},
		{name: "no such type, without SOA", records: []string{"broken.test. IN A 192.0.2.1"}, fault: resolvertest.Fault{NoSOA: true}, kind: NoData, queries: 1},
		{name: "empty non-terminal", records: []string{"below.broken.test. IN A 192.0.2.1"}, kind: NoData, queries: 1},
		{name: "alias followed by us", records: []string{"broken.test. IN CNAME b.test.", "b.test. IN CNAME c.test.", "c.test. IN TXT c"}, fault: resolvertest.Fault{Partial: true}, want: "[c]", queries: 1},
		{name: "alias to itself", records: []string{"broken.test. IN CNAME broken.test."}, kind: Malformed, temp: true, text: "alias of itself", queries: 1},
		{name: "aliases in a circle", records: []string{"broken.test. IN CNAME b.test.", "b.test. IN CNAME broken.test."}, kind: Malformed, temp: true, text: "alias of itself", queries: 1},
		{name: "aliases in a circle, step by step", records: []string{"broken.test. IN CNAME b.test.", "b.test. IN CNAME broken.test."}, fault: resolvertest.Fault{Partial: true}, kind: Malformed, temp: true, text: "alias of itself", queries: 1},
		{name: "alias to nothing", records: []string{"broken.test. IN CNAME b.test."}, kind: NoSuchDomain, text: "alias of b.test", queries: 1},
		{name: "alias to nothing of the type", records: []string{"broken.test. IN CNAME b.test.", "b.test. IN A 192.0.2.1"}, kind: NoData, text: "alias of b.test", queries: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, zone := newPair(t, Options{Timeout: tt.timeout})
			zone.Add(tt.records...)
			zone.Fail("broken.test", tt.fault)
			got, err := r.TXT(t.Context(), "broken.test")
			if n := zone.Queries("broken.test", dns.TypeTXT); n != tt.queries {
				t.Errorf("%d queries, want %d", n, tt.queries)
			}
			if tt.kind == KindNone {
				if err != nil || fmt.Sprint(got.Records) != tt.want {
					t.Errorf("%v, %v, want %s", got.Records, err, tt.want)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%v, %v, want an error of kind %v", got, err, tt.kind)
			}
			if e.Kind != tt.kind || e.Temporary() != tt.temp || e.Name != "broken.test" || e.Type != "TXT" || e.Server != zone.Addr() {
				t.Errorf("%#v", e)
			}
			if !strings.Contains(e.Error(), tt.text) {
				t.Errorf("%q does not say %q", e, tt.text)
			}
		})
	}
}

func TestChainOfAliases(t *testing.T) {
	t.Parallel()
	for _, length := range []int{1, maxChain, maxChain + 1} {
		for _, partial := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d partial=%v", length, partial), func(t *testing.T) {
				t.Parallel()
				r, zone := newPair(t, Options{})
				for i := range length {
					zone.Add(fmt.Sprintf("n%d.test. IN CNAME n%d.test.", i, i+1))
					if partial {
						zone.Fail(fmt.Sprintf("n%d.test", i), resolvertest.Fault{Partial: true})
					}
				}
				zone.Add(fmt.Sprintf("n%d.test. IN TXT end", length))
				got, err := r.TXT(t.Context(), "n0.test")
				if length > maxChain {
					wantError(t, err, Malformed, "4.4.3", true, "aliases in a row")
					return
				}
				if err != nil || got.Canonical != fmt.Sprintf("n%d.test", length) {
					t.Errorf("%+v, %v", got, err)
				}
			})
		}
	}
}

func TestLargeAnswerOverTCP(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{})
	long := strings.Repeat("x", 250)
	for i := range 40 {
		zone.Add(fmt.Sprintf("d.test. IN TXT %d%s", i, long))
	}
	got, err := r.TXT(t.Context(), "d.test")
	if err != nil || len(got.Records) != 40 {
		t.Errorf("%d records, %v", len(got.Records), err)
	}
	if n := zone.Queries("d.test", dns.TypeTXT); n != 2 {
		t.Errorf("%d queries, want one over UDP and one over TCP", n)
	}
}

func TestRecordsAreCapped(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{})
	for i := range 3 * maxRecords {
		zone.Add(fmt.Sprintf("d.test. IN MX %d h%d.test.", 3*maxRecords-i, i))
	}
	got, err := r.MX(t.Context(), "d.test")
	if err != nil || len(got.Records) != maxRecords || got.Records[maxRecords-1].Preference != maxRecords {
		t.Errorf("%d records, the last %v, %v; want the %d best", len(got.Records), got.Records[len(got.Records)-1], err, maxRecords)
	}
}

func TestServerWithoutEDNS(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{})
	zone.WithoutEDNS()
	zone.Add("d.test. IN TXT a")
	if got, err := r.TXT(t.Context(), "d.test"); err != nil || got.Records[0] != "a" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestBadNamesCostNoQuery(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{})
	for _, name := range []string{"", ".", "..", "a..test", "a b.test", "a\x00.test", strings.Repeat("a.", 130) + "test", "192.0.2.1", "-a.test", "ü\u200d.test"} {
		_, err := r.A(t.Context(), name)
		wantError(t, err, Malformed, "5.1.2", false, "")
	}
	if zone.Total() != 0 {
		t.Errorf("%d queries", zone.Total())
	}
}

// twoServers gives a resolver of two zones, the first of which is asked first.
func twoServers(t *testing.T, o Options) (r *Resolver, first, second *resolvertest.Zone) {
	t.Helper()
	first, second = resolvertest.Start(t), resolvertest.Start(t)
	o.Servers = []string{first.Addr(), second.Addr()}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r, first, second
}

func TestFailOver(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name          string
		first, second resolvertest.Fault
		want          string
		kind          Kind
		n1, n2        int
	}{
		{name: "first well", want: "first", n1: 1},
		{name: "first down", first: resolvertest.Fault{Drop: true}, want: "second", n1: 1, n2: 1},
		{name: "first fails", first: resolvertest.Fault{Rcode: dns.RcodeServerFailure}, want: "second", n1: 1, n2: 1},
		{name: "first refuses", first: resolvertest.Fault{Rcode: dns.RcodeRefused}, want: "second", n1: 1, n2: 1},
		{name: "first talks garbage", first: resolvertest.Fault{Garbage: true}, want: "second", n1: 1, n2: 1},
		{name: "first says bogus", first: resolvertest.Bogus(), kind: Bogus, n1: 1, n2: 0},
		{name: "both down", first: resolvertest.Fault{Drop: true}, second: resolvertest.Fault{Drop: true}, kind: Timeout, n1: 2, n2: 2},
		{name: "both fail", first: resolvertest.Fault{Rcode: dns.RcodeServerFailure}, second: resolvertest.Fault{Rcode: dns.RcodeServerFailure}, kind: ServerFailure, n1: 1, n2: 1},
		{name: "one down, one fails", first: resolvertest.Fault{Drop: true}, second: resolvertest.Fault{Rcode: dns.RcodeServerFailure}, kind: ServerFailure, n1: 2, n2: 1},
		{name: "NXDOMAIN is an answer", first: resolvertest.Fault{Rcode: dns.RcodeNameError}, kind: NoSuchDomain, n1: 1, n2: 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, first, second := twoServers(t, Options{Timeout: 400 * time.Millisecond})
			first.Add("d.test. IN TXT first")
			second.Add("d.test. IN TXT second")
			first.Fail("d.test", tt.first)
			second.Fail("d.test", tt.second)
			got, err := r.TXT(t.Context(), "d.test")
			if tt.kind == KindNone {
				if err != nil || got.Records[0] != tt.want {
					t.Errorf("%v, %v, want %s", got, err, tt.want)
				}
			} else if e := new(Error); !errors.As(err, &e) || e.Kind != tt.kind {
				t.Errorf("%v, want kind %v", err, tt.kind)
			}
			if n1, n2 := first.Queries("d.test", dns.TypeTXT), second.Queries("d.test", dns.TypeTXT); n1 != tt.n1 || n2 != tt.n2 {
				t.Errorf("%d and %d queries, want %d and %d", n1, n2, tt.n1, tt.n2)
			}
		})
	}
}

func TestDeadServerIsAskedLast(t *testing.T) {
	t.Parallel()
	r, first, second := twoServers(t, Options{Timeout: 400 * time.Millisecond})
	clock := newClock(r)
	for i := range 20 {
		name := fmt.Sprintf("d%d.test", i)
		first.Fail(name, resolvertest.Fault{Drop: true})
		second.Add(name + ". IN TXT second")
		if _, err := r.TXT(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if n := first.Total(); n != 1 {
		t.Errorf("the dead server was asked %d times, want once", n)
	}
	if got := r.Servers(); got[0].String() != second.Addr() {
		t.Errorf("the order is %v", got)
	}
	clock.advance(minPenalty + rttHalfLife)
	first.Add("d.test. IN TXT first")
	second.Add("d.test. IN TXT second")
	second.Fail("d.test", resolvertest.Fault{Rcode: dns.RcodeServerFailure})
	if got, err := r.TXT(t.Context(), "d.test"); err != nil || got.Records[0] != "first" {
		t.Errorf("%v, %v: the mended server was not asked again", got, err)
	}
}

func TestServerThatRefusesIsAskedLast(t *testing.T) {
	t.Parallel()
	r, first, second := twoServers(t, Options{})
	newClock(r)
	for i := range 5 {
		name := fmt.Sprintf("d%d.test", i)
		first.Fail(name, resolvertest.Fault{Rcode: dns.RcodeRefused})
		second.Add(name + ". IN TXT second")
		if _, err := r.TXT(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if n := first.Total(); n != 1 {
		t.Errorf("the server was asked %d times, want once", n)
	}
}

func TestRankOfServers(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_000_000, 0)
	addr := func(i int) *server {
		return &server{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(i)}), 53)}
	}
	fast, slow, unknown, failing := addr(1), addr(2), addr(3), addr(4)
	fast.answered(time.Millisecond, start)
	slow.answered(100*time.Millisecond, start)
	failing.answered(time.Microsecond, start)
	failing.failed(start)
	l := &serverList{list: []*server{failing, slow, fast, unknown}}
	if got := l.ordered(start); !reflect.DeepEqual(got, []*server{unknown, fast, slow, failing}) {
		t.Errorf("order %v", got)
	}
	// What was measured long ago fades, so that it is measured again.
	fast.answered(time.Millisecond, start.Add(10*time.Minute))
	unknown.answered(time.Second, start.Add(10*time.Minute))
	if got := l.ordered(start.Add(10 * time.Minute)); !reflect.DeepEqual(got, []*server{failing, slow, fast, unknown}) {
		t.Errorf("order %v", got)
	}
	slow.answered(100*time.Millisecond, start.Add(10*time.Minute))
	if got := l.ordered(start.Add(10 * time.Minute)); !reflect.DeepEqual(got, []*server{failing, fast, slow, unknown}) {
		t.Errorf("order %v", got)
	}
	for range 10 {
		failing.failed(start)
	}
	if till := failing.lastTill.Sub(start); till != maxPenalty {
		t.Errorf("the penalty is %v, want %v", till, maxPenalty)
	}
}

func TestAuthenticatedData(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		trust    bool
		secure   []string
		insecure []string
		clear    bool
		partial  bool
		want     bool
	}{
		{name: "validated and trusted", trust: true, secure: []string{"."}, want: true},
		{name: "validated, not trusted", secure: []string{"."}},
		{name: "not validated", trust: true},
		{name: "alias into a zone that is not signed", trust: true, secure: []string{"."}, insecure: []string{"b.test"}},
		{name: "alias from a zone that is not signed", trust: true, secure: []string{"."}, insecure: []string{"a.test"}},
		{name: "alias step by step, all validated", trust: true, secure: []string{"."}, partial: true, want: true},
		{name: "alias step by step, first not validated", trust: true, secure: []string{"."}, insecure: []string{"a.test"}, partial: true},
		{name: "alias step by step, last not validated", trust: true, secure: []string{"."}, insecure: []string{"b.test"}, partial: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, zone := newPair(t, Options{TrustAD: tt.trust})
			zone.Add("a.test. IN CNAME b.test.", "b.test. IN A 192.0.2.1")
			zone.Fail("a.test", resolvertest.Fault{Partial: tt.partial})
			for _, n := range tt.secure {
				zone.Secure(n)
			}
			for _, n := range tt.insecure {
				zone.Insecure(n)
			}
			got, err := r.A(t.Context(), "a.test")
			if err != nil || got.Secure != tt.want {
				t.Errorf("%+v, %v", got, err)
			}
			_, err = r.TXT(t.Context(), "a.test")
			var e *Error
			if !errors.As(err, &e) || e.Kind != NoData || e.Secure != tt.want {
				t.Errorf("the denial is %+v", e)
			}
		})
	}
}

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

func TestCallersJoin(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{})
	hold := make(chan struct{})
	zone.Add("d.test. IN TXT a")
	zone.Fail("d.test", resolvertest.Fault{Hold: hold})

	impatient, cancel := context.WithCancelCause(t.Context())
	gone := make(chan error)
	go func() {
		_, err := r.TXT(impatient, "d.test")
		gone <- err
	}()
	zone.Wait("d.test", dns.TypeTXT, 1)
	const callers = 50
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			if got, err := r.TXT(t.Context(), "d.test"); err != nil || got.Records[0] != "a" {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	waitFor(t, func() bool {
		r.flights.mu.Lock()
		defer r.flights.mu.Unlock()
		f := r.flights.running[question{"d.test", dns.TypeTXT}]
		return f != nil && f.waiters == callers+1
	})
	reason := errors.New("the caller has had enough")
	cancel(reason)
	if err := <-gone; !errors.Is(err, reason) {
		t.Errorf("%v, want the cause of the caller's end", err)
	} else if e := new(Error); errors.As(err, &e) {
		t.Errorf("%v is told as an answer of DNS", err)
	}
	close(hold)
	wg.Wait()
	if n := zone.Queries("d.test", dns.TypeTXT); n != 1 {
		t.Errorf("%d queries, want 1", n)
	}
}

func TestLookupEndsWithItsLastCaller(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{Timeout: time.Hour})
	zone.Fail("d.test", resolvertest.Fault{Drop: true, Times: 1})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := r.TXT(ctx, "d.test"); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	zone.Wait("d.test", dns.TypeTXT, 1)
	cancel()
	wg.Wait()
	if len(r.inFlight) != 0 || len(r.flights.running) != 0 {
		t.Errorf("%d queries and %d lookups still run", len(r.inFlight), len(r.flights.running))
	}
	if s := r.servers.list[0]; s.failures != 0 {
		t.Error("the server is blamed for what its caller did")
	}
	// Nothing was learnt, so nothing is remembered.
	zone.Add("d.test. IN TXT a")
	if got, err := r.TXT(t.Context(), "d.test"); err != nil || got.Records[0] != "a" {
		t.Errorf("%v, %v", got, err)
	}
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for range 10_000 {
		if cond() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("it did not come to pass")
}

func TestDeadlineOfTheCaller(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{Timeout: time.Hour})
	zone.Fail("d.test", resolvertest.Fault{Drop: true})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Route(ctx, "d.test"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestQueriesInFlightAreBounded(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{})
	r.inFlight = make(chan struct{}, 2)
	hold := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 10 {
		name := fmt.Sprintf("d%d.test", i)
		zone.Add(name + ". IN TXT a")
		zone.Fail(name, resolvertest.Fault{Hold: hold})
		wg.Go(func() {
			if _, err := r.TXT(t.Context(), name); err != nil {
				t.Error(err)
			}
		})
	}
	waitFor(t, func() bool { return zone.Total() == 2 && len(r.flights.snapshot()) == 10 })
	close(hold)
	wg.Wait()
	if zone.Total() != 10 {
		t.Errorf("%d queries", zone.Total())
	}
}

func (s *flights) snapshot() []question {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []question
	for q := range s.running {
		all = append(all, q)
	}
	return all
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

func TestResolvConf(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string, at time.Time) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	l := &serverList{conf: path}
	show := func(now time.Time) string {
		var all []string
		for _, s := range l.current(now) {
			all = append(all, s.addr.String())
		}
		return strings.Join(all, " ")
	}
	if got := show(start); got != "127.0.0.1:53 [::1]:53" {
		t.Errorf("without the file: %s", got)
	}
	write("search example.test\nnameserver 192.0.2.1\nnameserver 2001:db8::1 # comment\noptions ndots:2\nnameserver nonsense\n", start)
	now := start.Add(confCheck)
	if got := show(now); got != "192.0.2.1:53 [2001:db8::1]:53" {
		t.Errorf("with the file: %s", got)
	}
	before := l.current(now)
	before[0].answered(time.Second, now)
	l.setProbed(before, true)
	write("nameserver 192.0.2.1\nnameserver 2001:db8::1\n", start.Add(time.Second))
	now = now.Add(confCheck)
	if after := l.current(now); after[0] != before[0] || !l.validating() {
		t.Error("what was known of the servers is lost, though they are the same")
	}
	write("nameserver 192.0.2.2\n", start.Add(2*time.Second))
	if got := show(now); got != "192.0.2.1:53 [2001:db8::1]:53" {
		t.Errorf("looked at too early: %s", got)
	}
	now = now.Add(confCheck)
	if got := show(now); got != "192.0.2.2:53" || l.validating() {
		t.Errorf("with other servers: %s, validating %v", got, l.validating())
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	now = now.Add(confCheck)
	if got := show(now); got != "192.0.2.2:53" {
		t.Errorf("with the file gone for a moment: %s", got)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		options Options
		want    string // the servers, or the error
	}{
		{"addresses and ports", Options{Servers: []string{"192.0.2.1", "192.0.2.1:5353", "[2001:db8::1]:5353", "2001:db8::2", "[2001:db8::3]", "fe80::1%eth0"}},
			"[192.0.2.1:53 192.0.2.1:5353 [2001:db8::1]:5353 [2001:db8::2]:53 [2001:db8::3]:53 [fe80::1%eth0]:53]"},
		{"a name", Options{Servers: []string{"dns.test"}}, `resolver: name server "dns.test": an address is needed, as in 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53`},
		{"port 0", Options{Servers: []string{"192.0.2.1:0"}}, `resolver: name server "192.0.2.1:0": an address is needed, as in 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53`},
		{"too many", Options{Servers: strings.Split(strings.Repeat("192.0.2.1 ", 8)+"192.0.2.1", " ")}, "resolver: 9 name servers are given, at most 8 are used"},
		{"negative time", Options{Timeout: -1}, "resolver: times and sizes cannot be negative"},
		{"crossed bounds", Options{MinTTL: time.Hour, MaxTTL: time.Minute}, "resolver: the longest life in the cache (1m0s) is shorter than the shortest (1h0m0s)"},
		{"own name", Options{OwnNames: []string{"a b"}}, `resolver: own names: "a b": malformed: label "a b" has a character that host names cannot have`},
		{"order", Options{Order: 9}, "resolver: unknown order of address families 9"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, err := New(tt.options)
			got := fmt.Sprint(err)
			if err == nil {
				got = fmt.Sprint(r.Servers())
			}
			if got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}
