package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/miekg/dns"

	"postrider/dkim"
	"postrider/resolver/resolvertest"
)

// newKey writes a key for example.test, and gives the record to publish.
func newKey(t *testing.T, selector string) (s dkim.Source, record string) {
	t.Helper()
	key, err := dkim.GenerateKey(dkim.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	s = dkim.Source{Domain: "example.test", Selector: selector, KeyFile: filepath.Join(t.TempDir(), selector+".pem")}
	if err := dkim.WriteKeyFile(s.KeyFile, key); err != nil {
		t.Fatal(err)
	}
	published, err := key.Record()
	if err != nil {
		t.Fatal(err)
	}
	return s, spfRecord(dkim.RecordName(s.Domain, s.Selector), published.Text())
}

func TestDKIM(t *testing.T) {
	t.Parallel()
	source, record := newKey(t, "s")
	_, otherRecord := newKey(t, "s")
	broken := dkim.Source{Domain: "example.test", Selector: "s", KeyFile: filepath.Join(t.TempDir(), "none.pem")}
	open, _ := newKey(t, "s")
	if err := os.Chmod(open.KeyFile, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		source dkim.Source
		record string
		fault  int
		want   string
	}{
		"published":             {source, record, 0, "dkim ok s._domainkey.example.test"},
		"not published":         {source, "", 0, "dkim failed postrider dkim record --domain example.test --selector s"},
		"another key":           {source, otherRecord, 0, "dkim failed another key is published"},
		"a test":                {source, record[:len(record)-1] + `; t=y"`, 0, "dkim warning t=y"},
		"DNS fails":             {source, record, dns.RcodeServerFailure, "dkim warning SERVFAIL"},
		"no key in the file":    {broken, record, 0, "dkim failed does not start with this key"},
		"a key that others see": {open, record, 0, "dkim failed does not start with this key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var records []string
			if c.record != "" {
				records = append(records, c.record)
			}
			d, zone := newDoctor(t, records, nil)
			if c.fault != 0 {
				zone.Fail("s._domainkey.example.test", resolvertest.Fault{Rcode: c.fault})
			}
			expect(t, d.key(t.Context(), c.source), c.want)
		})
	}
}

func TestSenderPolicy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		record string
		from   []string
		want   string
	}{
		"covers it":          {"v=spf1 ip4:192.0.2.1 -all", []string{"192.0.2.1"}, "spf ok 192.0.2.1: pass"},
		"covers one of both": {"v=spf1 ip4:192.0.2.1 -all", []string{"192.0.2.1", "2001:db8::1"}, "spf failed put ip6:2001:db8::1 into it"},
		"covers the other":   {"v=spf1 ip4:192.0.2.1 -all", []string{"2001:db8::1", "192.0.2.1"}, "spf failed put ip6:2001:db8::1 into it"},
		"refuses":            {"v=spf1 -all", []string{"192.0.2.1"}, "spf failed put ip4:192.0.2.1 into it"},
		"softly":             {"v=spf1 ~all", []string{"192.0.2.1"}, "spf warning put ip4:192.0.2.1 into the record"},
		"there is none":      {"", []string{"192.0.2.1"}, `spf warning "v=spf1 ip4:192.0.2.1 ~all"`},
		"broken":             {"v=spf1 what", []string{"192.0.2.1"}, "spf failed mend it"},
		"not judged":         {"v=spf1 ptr -all", []string{"192.0.2.1"}, "spf warning before that term"},
		"no address known":   {"v=spf1 -all", nil, "spf not done public_addresses"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var records []string
			if c.record != "" {
				records = append(records, spfRecord("example.test", c.record))
			}
			d, _ := newDoctor(t, records, nil)
			expect(t, []Finding{d.senderPolicy(t.Context(), "example.test", addrs(c.from...), nil)}, c.want)
		})
	}
}

func TestDMARC(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		records []string
		want    string
	}{
		"none":              {nil, "dmarc warning publish a TXT record at _dmarc.news.example.test"},
		"of the domain":     {[]string{spfRecord("_dmarc.news.example.test", "v=DMARC1; p=reject")}, "dmarc ok _dmarc.news.example.test: p=reject"},
		"of the one above":  {[]string{spfRecord("_dmarc.example.test", "v=DMARC1;p=None; rua=mailto:a@example.test")}, "dmarc ok _dmarc.example.test: p=none"},
		"of the top domain": {[]string{spfRecord("_dmarc.test", "v=DMARC1; p=none")}, "dmarc warning no domain above it"},
		"two":               {[]string{spfRecord("_dmarc.example.test", "v=DMARC1; p=none"), spfRecord("_dmarc.example.test", "v=DMARC1; p=reject")}, "dmarc warning 2 DMARC records"},
		"no policy":         {[]string{spfRecord("_dmarc.example.test", "v=DMARC1; rua=mailto:a@example.test")}, "dmarc warning begin it with"},
		"another policy":    {[]string{spfRecord("_dmarc.example.test", "v=DMARC1; p=maybe")}, "dmarc warning (p=maybe)"},
		"of the subdomains": {[]string{spfRecord("_dmarc.example.test", "v=DMARC1; sp=none")}, "dmarc warning "},
		"something else":    {[]string{spfRecord("_dmarc.example.test", "v=DMARC2; p=none")}, "dmarc warning has no DMARC record"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, _ := newDoctor(t, c.records, nil)
			expect(t, []Finding{d.dmarc(t.Context(), "news.example.test")}, c.want)
		})
	}
	d, zone := newDoctor(t, nil, nil)
	zone.Fail("_dmarc.example.test", resolvertest.Fault{Rcode: dns.RcodeServerFailure})
	expect(t, []Finding{d.dmarc(t.Context(), "example.test")}, "dmarc warning SERVFAIL")
}

// TestSenders: one finding a key, one of each kind a domain, and one for the
// HELO name where that has a record of its own.
func TestSenders(t *testing.T) {
	t.Parallel()
	one, record := newKey(t, "s")
	two, otherRecord := newKey(t, "t")
	records := []string{record, otherRecord, spfRecord("example.test", "v=spf1 ip4:192.0.2.1 -all"), spfRecord("_dmarc.example.test", "v=DMARC1; p=none"), ptr4, name4}
	withKeys := func(o *Options) { o.Senders.Keys = []dkim.Source{one, two} }
	d, _ := newDoctor(t, records, withKeys)
	expect(t, d.senders(t.Context()), "dkim ok s._domainkey", "dkim ok t._domainkey", "spf ok example.test", "dmarc ok example.test")
	d, _ = newDoctor(t, append(records, spfRecord("mail.test", "v=spf1 -all")), withKeys)
	expect(t, d.senders(t.Context()), "dkim ok ", "dkim ok ", "spf ok ", "dmarc ok ", "spf failed the HELO name")

	d, _ = newDoctor(t, nil, nil)
	expect(t, d.senders(t.Context()), "dkim warning keygen", "spf not done ", "dmarc not done ")
	denied := func(o *Options) { o.Senders.KeysError = errors.New("permission denied") }
	d, _ = newDoctor(t, nil, denied)
	expect(t, d.senders(t.Context()), "dkim not done permission denied", "spf not done ", "dmarc not done ")
	d, _ = newDoctor(t, records, func(o *Options) { denied(o); withKeys(o) }) // those of the configuration
	expect(t, d.senders(t.Context()), "dkim ok ", "dkim ok ", "spf ok ", "dmarc ok ", "dkim not done permission denied")
}
