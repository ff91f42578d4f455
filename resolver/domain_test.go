package resolver

import (
	"strings"
	"testing"
)

func TestASCIIDomain(t *testing.T) {
	t.Parallel()
	l63 := strings.Repeat("a", 63)
	tests := []struct {
		in, want string // want empty: an error
	}{
		{"example.test", "example.test"},
		{"EXAMPLE.Test.", "example.test"},
		{"localhost", "localhost"},
		{"_mta-sts.example.test", "_mta-sts.example.test"},
		{"a_b.test", "a_b.test"},
		{"r3---sn-x.test", "r3---sn-x.test"},
		{"1.2.3.test", "1.2.3.test"},
		{"bücher.test", "xn--bcher-kva.test"},
		{"BÜCHER.test", "xn--bcher-kva.test"},
		{"bu\u0308cher.test", "xn--bcher-kva.test"},
		{"straße.test", "xn--strae-oqa.test"},
		{"例え。test", "xn--r8jz45g.test"},
		{"xn--bcher-kva.test", "xn--bcher-kva.test"},
		{"XN--BCHER-KVA.TEST", "xn--bcher-kva.test"},
		{"ｅｘａｍｐｌｅ.test", "example.test"},
		{l63 + ".test", l63 + ".test"},
		{strings.Repeat("abc.", 62) + "abcde", strings.Repeat("abc.", 62) + "abcde"}, // 253 octets

		{"", ""},
		{".", ""},
		{".test", ""},
		{"a..test", ""},
		{"a.test..", ""},
		{"a b.test", ""},
		{"a\tb.test", ""},
		{"a\x00b.test", ""},
		{"a\nb.test", ""},
		{"a/b.test", ""},
		{"a@b.test", ""},
		{"a\\b.test", ""},
		{"[192.0.2.1]", ""},
		{"192.0.2.1", ""},
		{"2001:db8::1", ""},
		{"１９２.0.2.1", ""},
		{"-a.test", ""},
		{"a-.test", ""},
		{l63 + "a.test", ""},
		{strings.Repeat("abc.", 62) + "abcdef", ""},
		{strings.Repeat("ü", 60) + ".test", ""}, // 64 octets and more in A-labels
		{"xn--a.test", ""},                      // decodes to nothing valid
		{"xn--.test", ""},
		{"a\u200db.test", ""}, // a joiner where none may be
		{"ü\uff0ftest", ""},   // maps to a slash
		{"\xff\xfe.test", ""},
		{"א1a.test", ""}, // right to left and left to right in one label
		{strings.Repeat("a", 5000), ""},
	}
	for _, tt := range tests {
		got, err := ASCIIDomain(tt.in)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q: %q, %v, want %q", tt.in, got, err, tt.want)
		}
		if err != nil {
			wantError(t, err, Malformed, "5.1.2", false, "")
			if strings.ContainsAny(err.Error(), "\r\n\x00") || len(err.Error()) > 1000 {
				t.Errorf("%q: the error is not fit for a log: %q", tt.in, err)
			}
		}
	}
}

func FuzzASCIIDomain(f *testing.F) {
	for _, s := range []string{"example.test", "bücher.test", "xn--bcher-kva.test.", "a..b", "192.0.2.1", "例え。test", "a\u200db", "-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ASCIIDomain(s)
		if err != nil {
			return
		}
		if err := checkHostName(got); err != nil || got != strings.ToLower(got) || !isASCII(got) {
			t.Fatalf("%q became %q: %v", s, got, err)
		}
		if again, err := ASCIIDomain(got); err != nil || again != got {
			t.Fatalf("%q became %q, and that %q, %v", s, got, again, err)
		}
	})
}

func FuzzLiteral(f *testing.F) {
	for _, s := range []string{"[192.0.2.1]", "[IPv6:2001:db8::1]", "[IPv6:::ffff:192.0.2.1]", "[", "[]", "[IPv6:fe80::1%a]", "[x:y]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		addr, err := parseLiteral(s)
		if err != nil {
			return
		}
		if !addr.IsValid() || addr.Is4In6() || addr.Zone() != "" {
			t.Fatalf("%q became %v", s, addr)
		}
	})
}
