package mailaddr_test

import (
	"strings"
	"testing"

	"postrider/mta/mailaddr"
)

func TestList(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in string
		want     string // addresses, joined by a blank
		names    string // display names as written, joined by |
		reason   string
	}{
		{name: "one", in: "ann@a.test", want: "ann@a.test"},
		{name: "two", in: "ann@a.test, bob@b.test", want: "ann@a.test bob@b.test"},
		{name: "name", in: "Ann Lee <ann@a.test>", want: "ann@a.test", names: "Ann Lee"},
		{name: "quoted name with comma", in: `"Lee, Ann" <ann@a.test>, bob@b.test`, want: "ann@a.test bob@b.test", names: `"Lee, Ann"|`},
		{name: "name with dots", in: "J. R. Lee <ann@a.test>", want: "ann@a.test", names: "J. R. Lee"},
		{name: "name with at", in: "ann@home <ann@a.test>", want: "ann@a.test", names: "ann@home"},
		{name: "encoded name", in: "=?utf-8?q?J=C3=BCrgen?= <ann@a.test>", want: "ann@a.test", names: "=?utf-8?q?J=C3=BCrgen?="},
		{name: "raw UTF-8 name", in: "Jürgen <ann@a.test>", want: "ann@a.test", names: "Jürgen"},
		{name: "raw Latin-1 name", in: "J\xfcrgen <ann@a.test>", want: "ann@a.test", names: "J\xfcrgen"},
		{name: "cron", in: "root (Cron Daemon)", want: "root"},
		{name: "comment with comma and brackets", in: "ann@a.test (a, b <c> (d) \\) e)", want: "ann@a.test"},
		{name: "folded", in: "ann@a.test,\r\n\tbob@b.test", want: "ann@a.test bob@b.test"},
		{name: "blanks around at", in: "ann @ a.test", want: "ann@a.test"},
		{name: "blanks and comments within", in: "<ann (x) . lee @ a . test>", want: "ann.lee@a.test"},
		{name: "quoted local part", in: `"a b"@a.test`, want: `"a b"@a.test`},
		{name: "quoted local part in brackets", in: `X <"a>b"@a.test>`, want: `"a>b"@a.test`, names: "X"},
		{name: "literal with colons", in: "ann@[IPv6:2001:db8::1], b@[192.0.2.1]", want: "ann@[IPv6:2001:db8::1] b@[192.0.2.1]"},
		{name: "group", in: "Team: ann@a.test, Bob <bob@b.test>;", want: "ann@a.test bob@b.test", names: "|Bob"},
		{name: "group and more", in: "Team: ann@a.test;, bob@b.test", want: "ann@a.test bob@b.test"},
		{name: "empty group", in: "undisclosed-recipients:;", want: ""},
		{name: "empty", in: "", want: ""},
		{name: "empty elements", in: ", ,ann@a.test,,", want: "ann@a.test"},
		{name: "semicolons", in: "ann@a.test; bob@b.test", want: "ann@a.test bob@b.test"},
		{name: "route", in: "<@x.test,@y.test:ann@a.test>", want: "ann@a.test"},
		{name: "bare names", in: "root, www-data", want: "root www-data"},

		{name: "words only", in: "Ann Lee", reason: "angle brackets"},
		{name: "name without brackets", in: "Ann ann@a.test", reason: "angle brackets"},
		{name: "quoted name without brackets", in: `"Ann" ann@a.test`, reason: "angle brackets"},
		{name: "missing closing bracket", in: "Ann <ann@a.test", reason: "bracket is missing"},
		{name: "missing closing bracket, more behind", in: "Ann <ann@a.test, bob@b.test>", reason: "bracket is missing"},
		{name: "missing opening bracket", in: "ann@a.test>", reason: "without an opening"},
		{name: "text behind bracket", in: "<ann@a.test> x", reason: "behind the closing"},
		{name: "two brackets", in: "<ann@a.test><b@a.test>", reason: "behind the closing"},
		{name: "empty brackets", in: "Ann <>", reason: "empty"},
		{name: "open quote", in: `"Ann <ann@a.test>`, reason: `closing "`},
		{name: "open comment", in: `ann@a.test (x`, reason: "comment"},
		{name: "open literal", in: `ann@[192.0.2.1`, reason: "closing ]"},
		{name: "bad address", in: "ann@a..test", reason: "empty label"},
		{name: "second is bad", in: "ann@a.test, bob@", reason: "nothing after"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got, names []string
			var failed error
			for m, err := range mailaddr.List(tt.in) {
				if failed != nil {
					t.Fatal("the list goes on behind an error")
				}
				if err != nil {
					failed = err
					continue
				}
				got = append(got, m.Address.String())
				names = append(names, tt.in[m.NameStart:m.NameEnd])
				if m.Start >= m.End || m.End > len(tt.in) || m.NameEnd > m.Start {
					t.Errorf("%+v: places out of order", m)
				}
			}
			if tt.reason != "" {
				if failed == nil || !strings.Contains(failed.Error(), tt.reason) {
					t.Errorf("got %q, %v; want an error with %q", got, failed, tt.reason)
				}
				return
			}
			if failed != nil {
				t.Fatal(failed)
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got %q; want %q", s, tt.want)
			}
			if s := strings.Join(names, "|"); tt.names != "" && s != tt.names {
				t.Errorf("names %q; want %q", s, tt.names)
			}
		})
	}
}

// TestListIsLinear holds that a value of many torn pieces is not copied over
// and over: 128 KiB would take minutes.
func TestListIsLinear(t *testing.T) {
	t.Parallel()
	for _, piece := range []string{"a .", ". ", "\"\"", "@ ", "(", "x ", "<@,"} {
		for range mailaddr.List(strings.Repeat(piece, 128<<10/len(piece))) {
		}
	}
}

func FuzzList(f *testing.F) {
	for _, s := range []string{
		`"Lee, Ann" <ann@a.test>, bob@b.test`, "Team: ann@a.test, Bob <bob@b.test>;", "root (Cron Daemon)",
		"<ann (x) . lee @ a . test>", "<@x.test,@y.test:ann@a.test>", "ann@[IPv6:2001:db8::1]", `"a\"b"@c.test`, "a(\\", `"\`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		end := 0
		for m, err := range mailaddr.List(s) {
			if err != nil {
				return
			}
			if m.Start < end || m.End <= m.Start || m.End > len(s) || m.NameStart > m.NameEnd || m.NameEnd > m.Start {
				t.Fatalf("%q: %+v behind %d", s, m, end)
			}
			end = m.End
			if a, err := mailaddr.ParseUnqualified(m.Address.String()); err != nil || a != m.Address {
				t.Fatalf("%q: %q does not come back: %q, %v", s, m.Address, a, err)
			}
		}
	})
}

func BenchmarkList(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range mailaddr.List(`"Lee, Ann" <ann@a.test>, bob@b.test`) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}
