package config

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func mustParse(t *testing.T, text string, environ ...string) *Config {
	t.Helper()
	c, err := Parse("postrider.toml", []byte(text), environ)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	c := Default()
	want := []any{
		c.Mode, ModeLive, c.StateDir, "/var/lib/postrider", c.BodyMemory, int64(32_000_000), c.History, 7 * day, c.HistorySize, int64(giga),
		c.Submission.Listen[0], "127.0.0.1:2525", c.Submission.Auth, AuthOptional, c.Submission.MaxMessageSize, int64(50_000_000), c.Submission.MaxRecipients, 10000,
		c.Submission.TrustedNetworks[1], netip.MustParsePrefix("::1/128"), c.HTTP.Listen, "127.0.0.1:8025", c.Resolver.TrustAD, TrustADAuto,
		c.Delivery.Port, 25, c.Delivery.TLS, TLSEnable, c.Delivery.TLSMinVersion, uint16(tls.VersionTLS12), len(c.Delivery.Retry), 7, c.Delivery.Retry[6], 4 * hour,
		c.Delivery.ExpireAfter, 5 * day, c.Delivery.DelayNoticeAfter, 4 * hour, c.Delivery.HoldFor, time.Duration(0), c.Delivery.MaxConnections, 1000,
		c.Delivery.MaxConnectionsPerSite, 20, c.Delivery.MaxMessagesPerConnection, 100, c.Delivery.MaxRecipientsPerTransaction, 100, c.Delivery.MaxMessagesPerMinute, 0,
		c.Delivery.Timeouts, Timeouts{Connect: 30 * second, Greeting: 5 * minute, Command: 5 * minute, TLS: minute, Data: 2 * minute, Block: 3 * minute, Final: 10 * minute},
		c.TLSRPT.Enabled, true, c.TLSRPT.Interval, day, c.ShutdownGrace, 30 * second,
	}
	for i := 0; i < len(want); i += 2 {
		if !reflect.DeepEqual(want[i], want[i+1]) {
			t.Errorf("default %d is %v, not %v", i/2, want[i], want[i+1])
		}
	}
	if len(c.Warnings) != 0 {
		t.Errorf("the defaults warn: %q", c.Warnings)
	}
}

func TestEveryFormOfTable(t *testing.T) {
	t.Parallel()
	forms := map[string]string{
		"headers":       "[delivery]\ntls = 'require'\n[delivery.timeouts]\nfinal = '1m'\n[[dkim]]\ndomain='a.test'\nselector='s'\nkey_file='k'\n",
		"dotted keys":   "delivery.tls = 'require'\ndelivery.timeouts.final = '1m'\ndkim = [{domain='a.test', selector='s', key_file='k'}]\n",
		"inline tables": "delivery = {tls = 'require', timeouts = {final = '1m'}}\ndkim = [{domain='a.test', selector='s', key_file='k'}]\n",
		"quoted keys":   "[\"delivery\"]\n'tls' = \"require\"\ntimeouts.\"final\" = '1m'\n[[ 'dkim' ]]\ndomain='A.test.'\nselector='s'\nkey_file='./k'\n",
	}
	for name, text := range forms {
		c := mustParse(t, text)
		if c.Delivery.TLS != TLSRequire || c.Delivery.Timeouts.Final != minute || !slices.Equal(c.DKIM, []DKIMKey{{"a.test", "s", "k"}}) {
			t.Errorf("%s: %v %v %v", name, c.Delivery.TLS, c.Delivery.Timeouts.Final, c.DKIM)
		}
	}
}

func TestElementsInheritWhateverTheOrder(t *testing.T) {
	t.Parallel()
	c := mustParse(t, `
[[submission.listener]]
listen = ["127.0.0.1:2626"]
max_recipients = 7
[[destination]]
domain = "strict.test"
tls = "verify"
[submission]
max_message_size = "1MB"
[delivery]
port = 26
`, "POSTRIDER_DELIVERY_EXPIRE_AFTER=2d")
	l := c.Submission.Listeners()[1]
	if l.MaxMessageSize != mega || l.MaxRecipients != 7 || l.Auth != AuthOptional || l.Listen[0] != "127.0.0.1:2626" || c.Submission.MaxRecipients != 10000 {
		t.Errorf("listener %+v", l)
	}
	d := c.DestinationFor("strict.test")
	if d.TLS != TLSVerify || d.Port != 26 || d.ExpireAfter != 2*day || c.Delivery.TLS != TLSEnable || !d.Chunking || !d.Pipelining {
		t.Errorf("destination %+v", d)
	}
}

func TestNoMainListener(t *testing.T) {
	t.Parallel()
	c := mustParse(t, "[submission]\nlisten = []\n[[submission.listener]]\nlisten = ['[::1]:25']\n")
	if all := c.Submission.Listeners(); len(all) != 1 || all[0].Listen[0] != "[::1]:25" {
		t.Errorf("listeners %+v", all)
	}
}

func TestDestinationFor(t *testing.T) {
	t.Parallel()
	c := mustParse(t, `
[[destination]]
domain = "example.test"
port = 1
[[destination]]
domain = "*.example.test"
port = 2
[[destination]]
domain = "*.deep.example.test"
port = 3
[[destination]]
domain = "Bücher.test"
port = 4
`)
	for domain, want := range map[string]int{
		"example.test": 1, "a.example.test": 2, "a.b.example.test": 2, "deep.example.test": 2, "x.deep.example.test": 3, "y.x.DEEP.example.test": 3,
		"xn--bcher-kva.test": 4, "test": 25, "other.test": 25, "notexample.test": 25, "": 25, "[192.0.2.1]": 25,
	} {
		if got := c.DestinationFor(domain).Port; got != want {
			t.Errorf("%q goes by port %d, not %d", domain, got, want)
		}
	}
}

// Each is one bad file; the complaints are compared whole, with their places.
func TestComplaints(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		want       []string
	}{
		{"syntax", "hostname = \n", []string{"f:1:12: unexpected character U+000A at start of value"}},
		{"twice", "mode = 'live'\nmode = 'silent'\n", []string{"f:2:1: mode: key mode is already defined"}},
		{"unknown key", "\n[delivery]\ntls_minimum_version = '1.2'\n", []string{"f:3:1: delivery.tls_minimum_version: there is no such key"}},
		{"unknown table", "[delivrey]\ntls = 'x'\nport = 'y'\n", []string{"f:1:2: delivrey: there is no such table"}},
		{"unknown list", "[[destinations]]\ndomain = 'a.test'\n", []string{"f:1:3: destinations: there is no such table"}},
		{"table for a list", "[dkim]\ndomain = 'a.test'\n", []string{"f:1:2: dkim: is a list of tables: write [[dkim]]"}},
		{"list for a table", "[[delivery]]\nport = 25\n", []string{"f:1:3: delivery: is no list of tables: write [delivery]"}},
		{"table for a key", "[delivery.tls]\nx = 1\n", []string{"f:1:11: delivery.tls: is a single setting, not a table"}},
		{"key for a table", "delivery = 5\n", []string{"f:1:1: delivery: is a table: write [delivery]"}},
		{"key for a list", "dkim = 'x'\n", []string{"f:1:1: dkim: is a list of tables: write [[dkim]]"}},
		{"list of no tables", "user = ['x']\n", []string{"f:1:9: user: is a list of tables: write [[user]]"}},
		{"below a list", "destination.tls = 'none'\n", []string{"f:1:1: destination: is a list of tables: write [[destination]]"}},
		{"several at once", "hostnam = 'x'\n[delivery]\nport = 0\ntls = 'always'\n[resolver]\nservers = ['127.0.0.1', 'ns1']\n", []string{
			"f:1:1: hostnam: there is no such key",
			"f:3:8: delivery.port: 0, where a whole number from 1 to 65535 is needed",
			`f:4:7: delivery.tls: "always" is not "none", "enable", "require" or "verify"`,
			`f:6:25: resolver.servers: "ns1" is not the address of a DNS server, like "127.0.0.1" or "[::1]:5353"`,
		}},
		{"no unit", "history = 7\n", []string{"f:1:11: history: a whole number, where a duration from 1h to 3650d is needed"}},
		{"no list", "[submission]\nlisten = '127.0.0.1:25'\n", []string{"f:2:10: submission.listen: a string, where a list is needed: put it in [ ]"}},
		{"number as text", "[delivery]\nport = '25'\n", []string{"f:2:8: delivery.port: a string, where a whole number from 1 to 65535 is needed"}},
		{"date", "hostname = 1979-05-27\n", []string{"f:1:12: hostname: something else, where a full host name, or empty is needed"}},
		{"retry empty", "[delivery]\nretry = []\n", []string{"f:2:1: delivery.retry: a list of 0, where a list of at least one duration, each from 100ms to 7d is needed"}},
		{"required missing", "[[dkim]]\ndomain = 'a.test'\n", []string{`f:1:3: dkim: "selector" is missing`, `f:1:3: dkim: "key_file" is missing`}},
		{"element without keys", "[[destination]]\n", []string{`f:1:3: destination: "domain" is missing`}},
		{"host name", "hostname = 'localhost'\n", []string{`f:1:12: hostname: "localhost" is not a full host name: other servers refuse mail from a host that greets with it`}},
		{"address as host name", "hostname = '192.0.2.1'\n", []string{`f:1:12: hostname: "192.0.2.1" is an address, where the name of this host is needed`}},
		{"network", "[delivery]\nallow_networks = ['10.1.0.0/8']\n", []string{`f:2:19: delivery.allow_networks: "10.1.0.0/8" has bits set behind its length: is "10.0.0.0/8" meant?`}},
		{"listen by name", "[http]\nlisten = 'mail.test:80'\n", []string{`f:2:10: http.listen: "mail.test:80": "mail.test" is not an IP address`}},
		{"mail address", "postmaster = 'ops'\n", []string{`f:1:14: postmaster: "ops" is not a mail address, like "ops@example.com"`}},
		{"injection", "postmaster = \"a\\r\\nb@c.test\"\n", []string{`f:1:14: postmaster: "a\r\nb@c.test" is not a mail address: '\r' cannot stand before the @`}},
		{"destination twice", "[[destination]]\ndomain = 'a.test'\n[[destination]]\ndomain = 'A.test'\n", []string{`f:4:1: destination.domain: "a.test" stands already at f:2`}},
		{"sender twice", "[[sender]]\naddress = '@a.test'\n[[sender]]\naddress = '@A.test'\n", []string{`f:4:1: sender.address: "@a.test" stands already at f:2`}},
		{"sender without @", "[[sender]]\naddress = 'a.test'\n", []string{`f:2:11: sender.address: "a.test" is not a mail address, like "ops@example.com"`}},
		{"key twice", strings.Repeat("[[dkim]]\ndomain = 'a.test'\nselector = 's'\nkey_file = 'k'\n", 2), []string{`f:7:1: dkim.selector: "s._domainkey.a.test" stands already at f:3`}},
		{"late notice", "[delivery]\nexpire_after = '1h'\ndelay_notice_after = '2h'\n", []string{"f:3:1: delivery.delay_notice_after: 2h is not before expire_after = 1h"}},
		{"late notice of one", "[[destination]]\ndomain='a.test'\ndelay_notice_after = '6d'\n", []string{"f:3:1: destination.delay_notice_after: 6d is not before expire_after = 5d"}},
		{"site above all", "[delivery]\nmax_connections = 5\nmax_connections_per_site = 6\n", []string{"f:3:1: delivery.max_connections_per_site: 6 is more than max_connections = 5"}},
		{"password", "[[user]]\nname = 'a'\npassword_hash = 'secret'\n", []string{"f:3:17: user.password_hash: neither bcrypt ($2b$...) nor argon2id ($argon2id$...); a password itself does not belong here"}},
		{"wildcard", "[[destination]]\ndomain = 'a.*.test'\n", []string{`f:2:10: destination.domain: "a.*.test" is neither a domain nor "*." and a domain`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			expectComplaints(t, tt.text, nil, tt.want)
		})
	}
}

func expectComplaints(t *testing.T, text string, environ, want []string) {
	t.Helper()
	_, err := Parse("f", []byte(text), environ)
	if err == nil {
		t.Fatalf("accepted; want %q", want)
	}
	if got := err.Error(); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func TestComplaintsAreBounded(t *testing.T) {
	t.Parallel()
	_, err := Parse("f", []byte(strings.Repeat("[[destination]]\nx = 1\n", 500)), nil)
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != maxErrors {
		t.Errorf("%d complaints", len(errs))
	}
	if _, err := Parse("f", make([]byte, maxFile+1), nil); err == nil || err.Error() != "f: larger than 4MiB" {
		t.Errorf("a huge file: %v", err)
	}
}

func TestSuggestions(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"[delivery]\ntls_min_versoin = '1.2'": "did you mean delivery.tls_min_version?",
		"max_messages_per_connection = 5":     "did you mean delivery.max_messages_per_connection?",
		"hostnam = 'a.test'":                  "did you mean hostname?",
		"[delivrey]\nport=25":                 "did you mean delivery?",
		"[[destinations]]\ndomain='a.test'":   "did you mean destination?",
		"completely_different_thing = true":   "",
		strings.Repeat("x", 500) + " = true":  "",
	} {
		_, err := Parse("f", []byte(text), nil)
		var e *Error
		if !errors.As(err, &e) || e.Hint != want {
			t.Errorf("%.40q: %v, hint %q; want %q", text, err, e.Hint, want)
		}
	}
}
