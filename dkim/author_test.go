package dkim

import (
	"io"
	"mime"
	"net/mail"
	"slices"
	"strings"
	"testing"
)

func TestAuthorDomains(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		" a@x.test":                                 "x.test",
		" Ann <a@x.test>\r\n":                       "x.test",
		"a@X.Test":                                  "X.Test",
		`"a@evil.test" <a@x.test>`:                  "x.test",
		`"a\"@evil.test" <a@x.test>`:                "x.test",
		`"Doe, John" <a@x.test>, b@y.test`:          "x.test y.test",
		"(b@evil.test) a@x.test (c@(evil\\).test))": "x.test",
		"a@x.test (comment) , b@y.test":             "x.test y.test",
		"b@evil.test <a@x.test>":                    "x.test",
		"<a@x.test> b@evil.test":                    "x.test",
		"=?utf-8?q?J=C3=BCrgen?= <a@x.test>":        "x.test",
		"J\xfcrgen <a@x.test>":                      "x.test",
		"team: a@x.test, b@y.test;":                 "x.test y.test",
		"undisclosed:;":                             "",
		"<@relay.test,@other.test:a@x.test>":        "x.test",
		`"a@b"@x.test`:                              "x.test",
		"a@[192.0.2.1]":                             "[192.0.2.1]",
		"a@[IPv6:2001:db8::1]":                      "[IPv6:2001:db8::1]",
		"Ann\r\n\t<a@x\r\n .test>":                  "x.test",
		"a@b@x.test":                                "x.test",
		"root":                                      "",
		"":                                          "",
		"<>":                                        "",
		`"`:                                         "",
		"((((":                                      "",
		"a@":                                        "",
		"ann@bücher.test":                           "bücher.test",
		"a@x.test,,b@x.test":                        "x.test x.test",
	} {
		if got := strings.Join(authorDomains(value), " "); got != want {
			t.Errorf("%q: %q, not %q", value, got, want)
		}
	}
}

// FuzzAuthorDomains compares with the standard library, where that can read
// the field at all.
func FuzzAuthorDomains(f *testing.F) {
	f.Add(`"Doe, John" <a@x.test>, (c) b@y.test`)
	f.Add("team: a@x.test, b@y.test;")
	f.Add(`"a\"b"@x.test`)
	parser := mail.AddressParser{WordDecoder: &mime.WordDecoder{CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil }}}
	f.Fuzz(func(t *testing.T, value string) {
		got := authorDomains(value)
		list, err := parser.ParseList(value)
		if err != nil {
			return
		}
		var want []string
		for _, a := range list {
			want = append(want, a.Address[strings.LastIndexByte(a.Address, '@')+1:])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, the standard library says %q", value, got, want)
		}
	})
}
