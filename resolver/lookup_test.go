package resolver

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
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
	// Short is for what never comes, patient for what comes and is no answer: a
	// busy machine must not turn that into silence.
	const short, patient = 20 * time.Millisecond, time.Second
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
		{name: "silence once", records: []string{"broken.test. IN TXT a"}, fault: resolvertest.Fault{Drop: true, Times: 1}, timeout: patient, want: "[a]", queries: 2},
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
			zone.Wait("broken.test", dns.TypeTXT, tt.queries) // the last one may still be on its way
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
