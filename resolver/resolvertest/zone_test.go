package resolvertest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"postrider/resolver/resolvertest"
)

// ask puts one question and describes the answer: code, flags, then records.
func ask(t *testing.T, z *resolvertest.Zone, network, name string, qtype uint16) string {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), qtype)
	q.AuthenticatedData = true
	q.SetEdns0(1232, false)
	m, _, err := (&dns.Client{Net: network}).Exchange(q, z.Addr())
	if err != nil {
		t.Fatalf("%s %s: %v", name, dns.TypeToString[qtype], err)
	}
	words := []string{dns.RcodeToString[m.Rcode]}
	for flag, set := range map[string]bool{"ad": m.AuthenticatedData, "tc": m.Truncated, "ra": m.RecursionAvailable} {
		if set {
			words = append(words, flag)
		}
	}
	slices.Sort(words[1:])
	for _, rr := range append(m.Answer, m.Ns...) {
		words = append(words, strings.Join(strings.Fields(rr.String())[:5], " "))
	}
	return strings.Join(words, "|")
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	z := resolvertest.Start(t)
	z.Add(
		"d.test. 300 IN MX 10 mx.d.test.",
		"mx.d.test. 300 IN A 192.0.2.1",
		"alias.test. 300 IN CNAME mx.d.test.",
		"out.d.test. 300 IN CNAME elsewhere.test.",
		"elsewhere.test. 300 IN A 192.0.2.2",
		"below.empty.test. 300 IN A 192.0.2.3",
		"*.wild.test. 300 IN A 192.0.2.4",
		"set.wild.test. 300 IN TXT here",
		"zone.test. 600 IN SOA ns.zone.test. host.zone.test. 1 1 1 1 77",
		"big.test. 300 IN TXT "+strings.Repeat(strings.Repeat("x", 200)+" ", 10),
	)
	z.Secure("d.test")
	z.Insecure("plain.d.test")
	const denied = ". 60 IN SOA ns.invalid."
	for _, tt := range []struct {
		network, name string
		qtype         uint16
		want          string
	}{
		{"udp", "d.test", dns.TypeMX, "NOERROR|ad|ra|d.test. 300 IN MX 10"},
		{"tcp", "D.TEST", dns.TypeMX, "NOERROR|ad|ra|d.test. 300 IN MX 10"},
		{"udp", "d.test", dns.TypeA, "NOERROR|ad|ra|" + denied},
		{"udp", "gone.d.test", dns.TypeA, "NXDOMAIN|ad|ra|" + denied},
		{"udp", "plain.d.test", dns.TypeA, "NXDOMAIN|ra|" + denied},
		{"udp", "alias.test", dns.TypeA, "NOERROR|ra|alias.test. 300 IN CNAME mx.d.test.|mx.d.test. 300 IN A 192.0.2.1"},
		{"udp", "out.d.test", dns.TypeA, "NOERROR|ra|out.d.test. 300 IN CNAME elsewhere.test.|elsewhere.test. 300 IN A 192.0.2.2"},
		{"udp", "alias.test", dns.TypeCNAME, "NOERROR|ra|alias.test. 300 IN CNAME mx.d.test."},
		{"udp", "empty.test", dns.TypeA, "NOERROR|ra|" + denied},
		{"udp", "gone.test", dns.TypeA, "NXDOMAIN|ra|" + denied},
		{"udp", "any.wild.test", dns.TypeA, "NOERROR|ra|any.wild.test. 300 IN A 192.0.2.4"},
		{"udp", "a.b.wild.test", dns.TypeA, "NOERROR|ra|a.b.wild.test. 300 IN A 192.0.2.4"},
		{"udp", "set.wild.test", dns.TypeA, "NOERROR|ra|" + denied},
		{"udp", "x.set.wild.test", dns.TypeA, "NXDOMAIN|ra|" + denied},
		{"udp", "a.zone.test", dns.TypeA, "NXDOMAIN|ra|zone.test. 600 IN SOA ns.zone.test."},
		{"udp", "big.test", dns.TypeTXT, "NOERROR|ra|tc"},
		{"tcp", "big.test", dns.TypeTXT, "NOERROR|ra|big.test. 300 IN TXT \"" + strings.Repeat("x", 200) + "\""},
	} {
		if got := ask(t, z, tt.network, tt.name, tt.qtype); got != tt.want {
			t.Errorf("%s %s %s:\n%s, want\n%s", tt.network, tt.name, dns.TypeToString[tt.qtype], got, tt.want)
		}
	}
	if n := z.Queries("d.test", dns.TypeMX); n != 2 || z.Total() != 17 {
		t.Errorf("%d and %d queries are counted", n, z.Total())
	}
}

func TestWildcardForEverything(t *testing.T) {
	t.Parallel()
	z := resolvertest.Start(t)
	z.Add("*. 60 IN MX 0 mx.sink.test.", "mx.sink.test. 60 IN A 127.0.0.1")
	if got := ask(t, z, "udp", "whatever.example", dns.TypeMX); got != "NOERROR|ra|whatever.example. 60 IN MX 0" {
		t.Error(got)
	}
	if got := ask(t, z, "udp", "mx.sink.test", dns.TypeA); got != "NOERROR|ra|mx.sink.test. 60 IN A 127.0.0.1" {
		t.Error(got)
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	z := resolvertest.Start(t)
	z.Add("a.d.test. 60 IN A 192.0.2.1", "a.d.test. 60 IN TXT x")
	z.Remove("a.d.test", dns.TypeTXT)
	z.Remove("never.test")
	if got := ask(t, z, "udp", "a.d.test", dns.TypeA); !strings.HasPrefix(got, "NOERROR|ra|a.d.test.") {
		t.Error(got)
	}
	if got := ask(t, z, "udp", "d.test", dns.TypeA); !strings.HasPrefix(got, "NOERROR|ra|. ") {
		t.Error(got)
	}
	z.Remove("a.d.test")
	for _, name := range []string{"a.d.test", "d.test"} {
		if got := ask(t, z, "udp", name, dns.TypeA); !strings.HasPrefix(got, "NXDOMAIN") {
			t.Error(name, got)
		}
	}
}

func TestFaultIsUsedUp(t *testing.T) {
	t.Parallel()
	z := resolvertest.Start(t)
	z.Add("d.test. 60 IN A 192.0.2.1")
	z.Fail("d.test", resolvertest.Fault{Type: dns.TypeA, Times: 2, Rcode: dns.RcodeServerFailure})
	z.Fail("d.test", resolvertest.Fault{Type: dns.TypeA, Times: 1, Rcode: dns.RcodeRefused})
	var got []string
	for range 4 {
		got = append(got, strings.SplitN(ask(t, z, "udp", "d.test", dns.TypeA), "|", 2)[0])
	}
	if fmt.Sprint(got) != "[SERVFAIL SERVFAIL REFUSED NOERROR]" {
		t.Error(got)
	}
}

func TestBadRecord(t *testing.T) {
	t.Parallel()
	z := resolvertest.New()
	for _, bad := range []string{"", "d.test. IN A nonsense", "; a comment"} {
		if err := z.AddRecord(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestCloseLetsGoOfHeldQueries(t *testing.T) {
	t.Parallel()
	z := resolvertest.New()
	if err := z.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	z.Add("d.test. 60 IN A 192.0.2.1")
	z.Fail("d.test", resolvertest.Fault{Hold: make(chan struct{})})
	done := make(chan struct{})
	go func() {
		defer close(done)
		q := new(dns.Msg)
		q.SetQuestion("d.test.", dns.TypeA)
		new(dns.Client).Exchange(q, z.Addr())
	}()
	z.Wait("d.test", dns.TypeA, 1)
	z.Close()
	<-done
}
