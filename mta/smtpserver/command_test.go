package smtpserver

import (
	"bytes"
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, path, rest string }{
		{"<>", "", ""},
		{"<a@b.test>", "a@b.test", ""},
		{" <a@b.test> SIZE=1", "a@b.test", " SIZE=1"},
		{`<"a>b"@c.test> X`, `"a>b"@c.test`, " X"},
		{`<"a\">b"@c.test>`, `"a\">b"@c.test`, ""},
		{"<@r.test,@s.test:a@b.test>", "a@b.test", ""},
		{"<postmaster>", "postmaster", ""},
		{"<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]", ""},
	}
	for _, test := range tests {
		path, rest, ok := parsePath([]byte(test.in))
		if !ok || string(path) != test.path || string(rest) != test.rest {
			t.Errorf("%q: %q, %q, %v", test.in, path, rest, ok)
		}
	}
	for _, in := range []string{"", "<", ">", "a@b.test", "<a@b.test", `<"a>`, "<a@b.test>>", "<a@b.test>SIZE=1", "<<a@b.test>>", "<@r.test:>", "<@r.test>", `<"a\`} {
		if path, rest, ok := parsePath([]byte(in)); ok {
			t.Errorf("%q: taken as %q, %q", in, path, rest)
		}
	}
}

func TestParseORcpt(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want string }{
		{"rfc822;a@b.test", "rfc822;a@b.test"},
		{"RFC822;a+2Bb+3Dc@b.test", "rfc822;a+b=c@b.test"},
		{`utf-8;s\x{F8}ren@b.test`, "utf-8;søren@b.test"},
		{`UTF-8;a\x{2B}b\x{1F600}@b.test`, "utf-8;a+b😀@b.test"},
		{"utf-8;søren@b.test", "utf-8;søren@b.test"},
		{"x-local;root", "x-local;root"},
	}
	for _, test := range tests {
		if got, ok := parseORcpt([]byte(test.in)); !ok || got != test.want {
			t.Errorf("%q: %q, %v", test.in, got, ok)
		}
	}
	for _, in := range []string{
		"", ";", "rfc822", "rfc822;", ";a", "rfc822;a+0D+0Ab", "rfc822;a+2", "rfc822;a+2b", "rfc822;søren@b.test",
		`utf-8;\x{D800}`, `utf-8;\x{0A}`, `utf-8;\x{f8}`, `utf-8;\x{110000}`, `utf-8;\x{F8`, `utf-8;\y`, `utf-8;a+b`, `utf-8;a+b\x{41}`, `utf-8;\x{}`, "rf c822;a",
	} {
		if got, ok := parseORcpt([]byte(in)); ok {
			t.Errorf("%q: taken as %q", in, got)
		}
	}
}

func TestParseNumber(t *testing.T) {
	t.Parallel()
	if n, ok := parseNumber([]byte("999999999999999999")); !ok || n != 999999999999999999 {
		t.Errorf("%d, %v", n, ok)
	}
	for _, in := range []string{"", "-1", "+1", "1x", "1000000000000000000"} {
		if n, ok := parseNumber([]byte(in)); ok {
			t.Errorf("%q: taken as %d", in, n)
		}
	}
}

// FuzzCommand: whatever a line holds, what comes out of it can be written
// again without ending a line or an address.
func FuzzCommand(f *testing.F) {
	for _, line := range []string{
		"MAIL FROM:<a@b.test> SIZE=1 BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=a+2B", "MAIL FROM:<>", "RCPT TO:<\"a > b\"@c.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2B@c.test",
		`RCPT TO:<@x,@y:a@b> ORCPT=utf-8;\x{F8}`, "BDAT 10 LAST", "EHLO x", "", "\xff", "MAIL FROM:<\"\\",
	} {
		f.Add([]byte(line))
	}
	server, err := New(Options{Hostname: "mx.sink.test", Backend: nowhere{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.ContainsAny(line, "\r\n\x00") || hasControl(line) {
			return
		}
		var buf [verbLength]byte
		verb, args := splitVerb(line, &buf)
		c := &Conn{server: server, tx: transaction{smtpUTF8: true}}
		switch string(verb) {
		case "MAIL":
			if c.parseMail(args) == nil {
				checkFuzzed(t, string(c.mail.Path), c.mail.EnvID)
				if c.mail.Size < 0 {
					t.Errorf("size %d", c.mail.Size)
				}
			}
		case "RCPT":
			if c.parseRcpt(args) == nil {
				checkFuzzed(t, string(c.rcpt.Path), c.rcpt.ORcpt)
			}
		case "BDAT":
			if size, _, ok := parseChunk(args); ok && size < 0 {
				t.Errorf("size %d", size)
			}
		}
	})
}

func checkFuzzed(t *testing.T, path, decoded string) {
	if strings.ContainsFunc(decoded, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Errorf("control character in %q", decoded)
	}
	if end := closingBracket([]byte("<" + path + ">")); path != "" && end != len(path)+1 {
		t.Errorf("path %q ends at %d", path, end)
	}
}

type nowhere struct{}

func (nowhere) Connect(*Conn) (Session, error) { return nil, replyNotNow }
