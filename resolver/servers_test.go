package resolver

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postrider/resolver/resolvertest"
)

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
	l.setProbed(before, true, now)
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
