package doctor

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"postrider/resolver/resolvertest"
)

func spfRecord(name, text string) string { return fmt.Sprintf("%s. IN TXT %q", name, text) }

// TestSPF asks for mail from 192.0.2.1, or the address in the case, with a
// sender at example.test. Numbers are of sections of RFC 7208.
func TestSPF(t *testing.T) {
	t.Parallel()
	chain := []string{}
	for i := range 11 {
		chain = append(chain, spfRecord(fmt.Sprintf("i%d.test", i), fmt.Sprintf("v=spf1 include:i%d.test -all", i+1)))
	}
	chain = append(chain, spfRecord("i11.test", "v=spf1 +all"))
	hosts := []string{}
	for i := range 11 {
		hosts = append(hosts, fmt.Sprintf("example.test. IN MX 10 m%d.test.", i), fmt.Sprintf("m%d.test. IN A 192.0.2.%d", i, 100+i))
	}
	for name, c := range map[string]struct {
		record  string // of example.test; empty: none
		records []string
		ip      string
		want    spfResult
		why     string
	}{
		"no record":                     {"", nil, "", spfNone, "has no record"},
		"another TXT record, 4.5":       {"", []string{spfRecord("example.test", "v=spf10 +all")}, "", spfNone, ""},
		"two records, 4.5":              {"v=spf1 -all", []string{spfRecord("example.test", "v=spf1 +all")}, "", spfPermError, "2 records"},
		"nothing in it, 4.7":            {"v=spf1", nil, "", spfNeutral, "no term"},
		"ip4":                           {"v=spf1 ip4:192.0.2.1 -all", nil, "", spfPass, `"ip4:192.0.2.1" of example.test`},
		"ip4, a network":                {"v=spf1 ip4:192.0.2.0/24 -all", nil, "", spfPass, ""},
		"ip4, another network":          {"v=spf1 ip4:192.0.3.0/24 -all", nil, "", spfFail, `"-all"`},
		"ip4 for IPv6":                  {"v=spf1 ip4:0.0.0.0/0 -all", nil, "2001:db8::1", spfFail, ""},
		"ip6":                           {"v=spf1 ip6:2001:db8::/32 -all", nil, "2001:db8::1", spfPass, ""},
		"ip6 for IPv4":                  {"v=spf1 ip6:::/0 -all", nil, "", spfFail, ""},
		"upper case, 4.6.1":             {"V=SPF1 IP4:192.0.2.1 -ALL", nil, "", spfPass, ""},
		"softfail":                      {"v=spf1 ~all", nil, "", spfSoftFail, ""},
		"neutral":                       {"v=spf1 ?all", nil, "", spfNeutral, ""},
		"a plus":                        {"v=spf1 +ip4:192.0.2.1 -all", nil, "", spfPass, ""},
		"a minus before":                {"v=spf1 -ip4:192.0.2.1 +all", nil, "", spfFail, ""},
		"what follows all, 5.1":         {"v=spf1 -all ip4:192.0.2.1", nil, "", spfFail, ""},
		"a":                             {"v=spf1 a -all", []string{"example.test. IN A 192.0.2.1"}, "", spfPass, ""},
		"a of a name":                   {"v=spf1 a:web.test -all", []string{"web.test. IN A 192.0.2.1"}, "", spfPass, ""},
		"a, a network":                  {"v=spf1 a:web.test/24 -all", []string{"web.test. IN A 192.0.2.77"}, "", spfPass, ""},
		"a, both networks":              {"v=spf1 a:web.test/32//64 -all", []string{"web.test. IN AAAA 2001:db8::99"}, "2001:db8::1", spfPass, ""},
		"a, a network of IPv6":          {"v=spf1 a//64 -all", []string{"example.test. IN AAAA 2001:db8::99"}, "2001:db8::1", spfPass, ""},
		"a, another address":            {"v=spf1 a -all", []string{"example.test. IN A 192.0.2.2"}, "", spfFail, ""},
		"mx":                            {"v=spf1 mx -all", []string{"example.test. IN MX 10 m.test.", "m.test. IN A 192.0.2.1"}, "", spfPass, ""},
		"mx of a name, a network":       {"v=spf1 mx:other.test/28 -all", []string{"other.test. IN MX 10 m.test.", "m.test. IN A 192.0.2.9"}, "", spfPass, ""},
		"mx, no implicit one, 5.4":      {"v=spf1 mx -all", []string{"example.test. IN A 192.0.2.1"}, "", spfFail, ""},
		"mx, too many hosts, 4.6.4":     {"v=spf1 mx -all", hosts, "", spfPermError, "more than 10 mail hosts"},
		"include, 5.2":                  {"v=spf1 include:o.test -all", []string{spfRecord("o.test", "v=spf1 ip4:192.0.2.1 -all")}, "", spfPass, `"include:o.test"`},
		"include that does not match":   {"v=spf1 include:o.test ~all", []string{spfRecord("o.test", "v=spf1 -all")}, "", spfSoftFail, ""},
		"include that does so softly":   {"v=spf1 include:o.test -all", []string{spfRecord("o.test", "v=spf1 ~all")}, "", spfFail, ""},
		"include that does not say":     {"v=spf1 include:o.test -all", []string{spfRecord("o.test", "v=spf1 ?all")}, "", spfFail, ""},
		"include of none, 5.2":          {"v=spf1 include:o.test -all", nil, "", spfPermError, "included and has no record"},
		"include of a broken one":       {"v=spf1 include:o.test +all", []string{spfRecord("o.test", "v=spf1 ip4")}, "", spfPermError, "of o.test"},
		"redirect, 6.1":                 {"v=spf1 redirect=o.test", []string{spfRecord("o.test", "v=spf1 ip4:192.0.2.1 -all")}, "", spfPass, ""},
		"redirect beside all":           {"v=spf1 redirect=o.test ~all", []string{spfRecord("o.test", "v=spf1 +all")}, "", spfSoftFail, ""},
		"redirect to none":              {"v=spf1 redirect=o.test", nil, "", spfPermError, "redirected to o.test"},
		"redirect twice":                {"v=spf1 redirect=o.test redirect=o.test", nil, "", spfPermError, ""},
		"redirect in a circle":          {"v=spf1 redirect=example.test", nil, "", spfPermError, "more than 10"},
		"include in a circle":           {"v=spf1 include:example.test -all", nil, "", spfPermError, "more than 10"},
		"ten lookups, 4.6.4":            {"v=spf1 include:i2.test -all", chain, "", spfPass, ""},
		"eleven lookups, 4.6.4":         {"v=spf1 include:i1.test -all", chain, "", spfPermError, "more than 10"},
		"two find nothing, 4.6.4":       {"v=spf1 a:n1.test a:n2.test ~all", nil, "", spfSoftFail, ""},
		"three find nothing, 4.6.4":     {"v=spf1 a:n1.test mx:n2.test a:n3.test +all", nil, "", spfPermError, "find nothing"},
		"unknown modifier, 6":           {"v=spf1 what=ever exp=e.test ip4:192.0.2.1 -all", nil, "", spfPass, ""},
		"unknown mechanism, 4.6":        {"v=spf1 ip4:192.0.2.1 what -all", nil, "", spfPermError, `"what"`},
		"a wrong address":               {"v=spf1 ip4:192.0.2.256 +all", nil, "", spfPermError, ""},
		"a wrong length":                {"v=spf1 ip4:192.0.2.0/33 +all", nil, "", spfPermError, ""},
		"a wrong length of a":           {"v=spf1 a/33 +all", nil, "", spfPermError, ""},
		"an empty length":               {"v=spf1 a/ +all", nil, "", spfPermError, `"a/"`},
		"a length with a zero":          {"v=spf1 a/032 +all", nil, "", spfPermError, ""},
		"IPv6 as ip4":                   {"v=spf1 ip4:2001:db8::1 +all", nil, "", spfPermError, ""},
		"an argument of all":            {"v=spf1 all:x", nil, "", spfPermError, ""},
		"no argument of include":        {"v=spf1 include: +all", nil, "", spfPermError, ""},
		"a colon without a name":        {"v=spf1 a: +all", nil, "", spfPermError, ""},
		"only a sign":                   {"v=spf1 - +all", nil, "", spfPermError, ""},
		"exists":                        {"v=spf1 exists:%{i}.l.test -all", nil, "", spfNotJudged, "exists:"},
		"ptr":                           {"v=spf1 ptr -all", nil, "", spfNotJudged, `"ptr"`},
		"a macro":                       {"v=spf1 include:%{d}.o.test -all", nil, "", spfNotJudged, ""},
		"a macro in redirect":           {"v=spf1 redirect=%{d}.o.test", nil, "", spfNotJudged, ""},
		"what is not judged comes late": {"v=spf1 ip4:192.0.2.1 exists:%{i}.l.test -all", nil, "", spfPass, ""},
		"not judged within an include":  {"v=spf1 include:o.test -all", []string{spfRecord("o.test", "v=spf1 ptr -all")}, "", spfNotJudged, ""},
		"a final dot":                   {"v=spf1 include:o.test. -all", []string{spfRecord("o.test", "v=spf1 +all")}, "", spfPass, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.record != "" {
				c.records = append([]string{spfRecord("example.test", c.record)}, c.records...)
			}
			d, _ := newDoctor(t, c.records, nil)
			ip := "192.0.2.1"
			if c.ip != "" {
				ip = c.ip
			}
			got := checkSPF(t.Context(), d.o.DNS.Resolver, netip.MustParseAddr(ip), "example.test")
			if got.result != c.want || !strings.Contains(got.why, c.why) {
				t.Errorf("%s, want %s (%s)", got, c.want, c.why)
			}
		})
	}
}

// TestSPFWhileDNSFails: what cannot be asked is temporary, wherever it stands.
func TestSPFWhileDNSFails(t *testing.T) {
	t.Parallel()
	for name, record := range map[string]string{
		"broken.test":  "",
		"example.test": "v=spf1 a:broken.test -all",
		"mx.test":      "v=spf1 mx:broken.test -all",
		"include.test": "v=spf1 include:broken.test -all",
	} {
		d, zone := newDoctor(t, []string{spfRecord(name, record)}, nil)
		zone.Fail("broken.test", resolvertest.Fault{Rcode: dns.RcodeServerFailure})
		if got := checkSPF(t.Context(), d.o.DNS.Resolver, netip.MustParseAddr("192.0.2.1"), name); got.result != spfTempError {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func FuzzParseSPF(f *testing.F) {
	for _, s := range []string{
		"", " ip4:192.0.2.0/24 -all", " a/24//64 mx:x.test//1 ~all", " redirect=x.test exp=y", " include:%{d}.x ?ptr:a.b",
		" a:/ - + a:// ip6:::/0 exists: =", " all=x all:x a//", " mx/1/2//3",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, record string) {
		terms, _, v := parseSPF(record)
		for _, term := range terms {
			if term.cut4 < 0 || term.cut4 > 32 || term.cut6 < 0 || term.cut6 > 128 || term.result == "" || term.name == "" {
				t.Errorf("%q: %+v", record, term)
			}
			if (term.name == "ip4" || term.name == "ip6") != term.network.IsValid() {
				t.Errorf("%q: %+v", record, term)
			}
		}
		if v != nil && (v.result != spfPermError || terms != nil) {
			t.Errorf("%q: %v %v", record, v, terms)
		}
	})
}
