package mailaddr_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"postrider/mta/mailaddr"
)

func TestParse(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 64)
	tests := []struct {
		name, in              string
		local, domain, ascii  string
		utf8                  bool
		reason                string // part of the refusal; empty: accepted
		unqualifiedIsAccepted bool   // ParseUnqualified takes it though Parse refuses it
	}{
		{name: "plain", in: "ann@example.test", local: "ann", domain: "example.test", ascii: "example.test"},
		{name: "dots and signs", in: "a.b+c_d-e=f@Example.TEST", local: "a.b+c_d-e=f", domain: "Example.TEST", ascii: "example.test"},
		{name: "every atext", in: "!#$%&'*+-/=?^_`{|}~@example.test", local: "!#$%&'*+-/=?^_`{|}~", domain: "example.test", ascii: "example.test"},
		{name: "host without dot", in: "root@localhost", local: "root", domain: "localhost", ascii: "localhost"},
		{name: "underscore in domain", in: "a@b_c.test", local: "a", domain: "b_c.test", ascii: "b_c.test"},
		{name: "final dot", in: "a@example.test.", local: "a", domain: "example.test", ascii: "example.test"},
		{name: "quoted blank", in: `"a b"@example.test`, local: `"a b"`, domain: "example.test", ascii: "example.test"},
		{name: "quoted needlessly", in: `"a.b"@example.test`, local: "a.b", domain: "example.test", ascii: "example.test"},
		{name: "quoted pairs needlessly", in: `"\a\b"@example.test`, local: "ab", domain: "example.test", ascii: "example.test"},
		{name: "quoted quote and backslash", in: `"a\"\\b"@example.test`, local: `"a\"\\b"`, domain: "example.test", ascii: "example.test"},
		{name: "quoted at", in: `"a@b"@example.test`, local: `"a@b"`, domain: "example.test", ascii: "example.test"},
		{name: "quoted dots in a row", in: `"a..b"@example.test`, local: `"a..b"`, domain: "example.test", ascii: "example.test"},
		{name: "quoted empty", in: `""@example.test`, local: `""`, domain: "example.test", ascii: "example.test"},
		{name: "UTF-8 local part", in: "grüße@example.test", local: "grüße", domain: "example.test", ascii: "example.test", utf8: true},
		{name: "quoted UTF-8", in: `"grü ße"@example.test`, local: `"grü ße"`, domain: "example.test", ascii: "example.test", utf8: true},
		{name: "UTF-8 domain", in: "a@Bücher.test", local: "a", domain: "Bücher.test", ascii: "xn--bcher-kva.test", utf8: true},
		{name: "UTF-8 domain not transitional", in: "a@faß.test", local: "a", domain: "faß.test", ascii: "xn--fa-hia.test", utf8: true},
		{name: "A-label", in: "a@xn--bcher-kva.test", local: "a", domain: "xn--bcher-kva.test", ascii: "xn--bcher-kva.test"},
		{name: "IPv4 literal", in: "a@[192.0.2.1]", local: "a", domain: "[192.0.2.1]", ascii: "[192.0.2.1]"},
		{name: "IPv6 literal", in: "a@[ipv6:2001:DB8:0::1]", local: "a", domain: "[ipv6:2001:DB8:0::1]", ascii: "[IPv6:2001:db8::1]"},
		{name: "local part over 64", in: strings.Repeat("v", 100) + "@example.test", local: strings.Repeat("v", 100), domain: "example.test", ascii: "example.test"},

		{name: "empty", in: "", reason: "empty"},
		{name: "no domain", in: "root", reason: "no domain", unqualifiedIsAccepted: true},
		{name: "quoted, no domain", in: `"a b"`, reason: "no domain", unqualifiedIsAccepted: true},
		{name: "nothing before at", in: "@example.test", reason: "nothing before"},
		{name: "nothing after at", in: "a@", reason: "nothing after"},
		{name: "dot only domain", in: "a@.", reason: "empty label"},
		{name: "leading dot", in: ".a@example.test", reason: "begins"},
		{name: "trailing dot", in: "a.@example.test", reason: "ends"},
		{name: "dots in a row", in: "a..b@example.test", reason: "two dots"},
		{name: "two ats", in: "a@b@example.test", reason: `"@" in the domain`},
		{name: "blank in local part", in: "a b@example.test", reason: "blank in the local part"},
		{name: "blank before", in: " a@example.test", reason: "blank at its start"},
		{name: "blank after", in: "a@example.test ", reason: "blank in the domain"},
		{name: "angle brackets", in: "<a@example.test>", reason: `"<"`},
		{name: "closing angle bracket", in: "a@example.test>", reason: `">" in the domain`},
		{name: "CR LF in local part", in: "a\r\nRCPT TO:<b@c.test>@example.test", reason: "control character"},
		{name: "LF in domain", in: "a@example.test\nb", reason: "control character"},
		{name: "NUL", in: "a\x00b@example.test", reason: "control character"},
		{name: "CR in quotes", in: "\"a\rb\"@example.test", reason: "control character"},
		{name: "NUL in quoted pair", in: "\"a\\\x00b\"@example.test", reason: "backslash"},
		{name: "DEL in quotes", in: "\"a\x7fb\"@example.test", reason: "control character"},
		{name: "quote not closed", in: `"a@example.test`, reason: "closing quote"},
		{name: "quote in the middle", in: `a"b"@example.test`, reason: `unquoted "\""`},
		{name: "text after quotes", in: `"a"b@example.test`, reason: "local part"},
		{name: "not UTF-8", in: "a\xff@example.test", reason: "not UTF-8"},
		{name: "not UTF-8 in quotes", in: "\"a\xff\"@example.test", reason: "not UTF-8"},
		{name: "not UTF-8 in domain", in: "a@ex\xffample.test", reason: "not UTF-8"},
		{name: "C1 control", in: "a\u0085b@example.test", reason: "U+0085"},
		{name: "line separator", in: "a\u2028b@example.test", reason: "U+2028"},
		{name: "no-break blank", in: "a\u00a0b@example.test", reason: "U+00A0"},
		{name: "line separator in domain", in: "a@b\u2028c.test", reason: "U+2028"},
		{name: "bad domain characters", in: "a@-%$", reason: "in the domain"},
		{name: "fullwidth at in domain", in: "a@b＠c.test", reason: "in the domain"},
		{name: "hyphen first", in: "a@-b.test", reason: "hyphen"},
		{name: "hyphen last", in: "a@b-.test", reason: "hyphen"},
		{name: "empty label", in: "a@b..test", reason: "empty label"},
		{name: "label over 63", in: "a@" + long + ".test", reason: "label"},
		{name: "domain over 253", in: "a@" + strings.Repeat("x.", 125) + "test", reason: "domain is longer"},
		{name: "local part over 255", in: strings.Repeat("x", 256) + "@b.test", reason: "local part is longer"},
		{name: "all over 320", in: strings.Repeat("x", 300) + "@" + long[:20] + ".test", reason: "320"},
		{name: "bare IPv4", in: "a@192.0.2.1", reason: "brackets"},
		{name: "literal not closed", in: "a@[192.0.2.1", reason: "literal"},
		{name: "literal with a name", in: "a@[example.test]", reason: "literal"},
		{name: "IPv6 literal without tag", in: "a@[2001:db8::1]", reason: "literal"},
		{name: "IPv6 literal with zone", in: "a@[IPv6:fe80::1%eth0]", reason: "literal"},
		{name: "IPv4 in IPv6 literal", in: "a@[IPv6:192.0.2.1]", reason: "literal"},
		{name: "bad UTF-8 domain", in: "a@\u0301b.test", reason: "no form in ASCII"},
		{name: "UTF-8 label over 63", in: "a@" + strings.Repeat("ü", 70) + ".test", reason: "no form in ASCII"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, err := mailaddr.Parse(tt.in)
			if tt.reason != "" {
				var e *mailaddr.Error
				if !errors.As(err, &e) || !strings.Contains(e.Reason, tt.reason) {
					t.Fatalf("Parse(%q) = %+v, %v; want an *Error with %q", tt.in, a, err, tt.reason)
				}
				if a != (mailaddr.Address{}) {
					t.Errorf("Parse(%q) = %+v beside an error", tt.in, a)
				}
				if _, err := mailaddr.ParseUnqualified(tt.in); (err == nil) != tt.unqualifiedIsAccepted {
					t.Errorf("ParseUnqualified(%q): %v", tt.in, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if a.Local != tt.local || a.Domain != tt.domain {
				t.Errorf("Parse(%q) = %q, %q; want %q, %q", tt.in, a.Local, a.Domain, tt.local, tt.domain)
			}
			if got := a.ASCIIDomain(); got != tt.ascii {
				t.Errorf("ASCIIDomain of %q = %q; want %q", tt.in, got, tt.ascii)
			}
			if a.NeedsUTF8() != tt.utf8 {
				t.Errorf("NeedsUTF8 of %q = %t", tt.in, a.NeedsUTF8())
			}
		})
	}
}

func TestParseUnqualified(t *testing.T) {
	t.Parallel()
	a, err := mailaddr.ParseUnqualified("postmaster")
	if err != nil || a.String() != "postmaster" || a.ASCIIDomain() != "" {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestSame(t *testing.T) {
	t.Parallel()
	tests := []struct {
		a, b string
		want bool
	}{
		{"a@example.test", "a@EXAMPLE.test", true},
		{"a@bücher.test", "a@xn--bcher-kva.test", true},
		{`"a"@example.test`, "a@example.test", true},
		{"A@example.test", "a@example.test", false},
		{"a@example.test", "a@example.invalid", false},
		{"a@[IPv6:2001:db8::1]", "a@[IPv6:2001:db8:0::1]", true},
	}
	for _, tt := range tests {
		a, errA := mailaddr.Parse(tt.a)
		b, errB := mailaddr.Parse(tt.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a.Same(b) != tt.want || b.Same(a) != tt.want {
			t.Errorf("%s and %s: Same is not %t", tt.a, tt.b, tt.want)
		}
	}
}

func TestErrorIsBounded(t *testing.T) {
	t.Parallel()
	_, err := mailaddr.Parse(strings.Repeat("a", 1<<20))
	if err == nil || len(err.Error()) > 300 {
		t.Errorf("an error of %d octets", len(err.Error()))
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"ann@example.test", `"a b\"c"@b_c.test`, "grüße@bücher.test", "a@[IPv6:2001:db8::1]", "root",
		"a\r\nb@c.test", "a@b。test", "a@b.test.", `""@x`, "a@ß.test", "a@\u200db.test", "a@xn--a.test",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := mailaddr.Parse(s)
		if err != nil {
			return
		}
		wire := a.String()
		for i := range len(wire) {
			if wire[i] < ' ' || wire[i] == 0x7f {
				t.Fatalf("%q was read as %q: not safe to write", s, wire)
			}
		}
		if !utf8.ValidString(wire) || len(wire) > mailaddr.MaxLength {
			t.Fatalf("%q was read as %q", s, wire)
		}
		if wire[0] != '"' && strings.ContainsAny(wire, " <>,;:\"\\") && !strings.Contains(wire, "@[") {
			t.Fatalf("%q was read as %q: a delimiter outside quotes", s, wire)
		}
		again, err := mailaddr.Parse(wire)
		if err != nil || again != a {
			t.Fatalf("%q was read as %q, and that as %q, %v", s, wire, again, err)
		}
		ascii := a.ASCIIDomain()
		if ascii == "" || (ascii != strings.ToLower(ascii) && ascii[0] != '[') {
			t.Fatalf("%q: domain %q", s, ascii)
		}
		if b, err := mailaddr.Parse(a.Local + "@" + ascii); err != nil || b.ASCIIDomain() != ascii {
			if len(a.Local)+1+len(ascii) <= mailaddr.MaxLength {
				t.Fatalf("%q: domain %q does not come back: %+v, %v", s, ascii, b, err)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		a, err := mailaddr.Parse("first.last+tag@mail.example.test")
		if err != nil || a.ASCIIDomain() != "mail.example.test" {
			b.Fatal(err)
		}
	}
}
