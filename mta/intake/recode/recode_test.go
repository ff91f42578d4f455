package recode_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/emersion/go-message"

	"postrider/mta/intake/recode"
)

// rewrite makes a message fit, as intake does.
func rewrite(msg string, fit recode.Fit) (string, error) {
	header, body := split(msg)
	if fit&recode.SevenBit != 0 {
		header = string(recode.EncodeWords([]byte(header)))
	}
	h, err := recode.Fold([]byte(header), 1)
	if err != nil {
		return "", err
	}
	plan, err := recode.New(h, strings.NewReader(body), strings.Count(header, "\n")+1, fit)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	out.Write(plan.Header())
	if err := plan.Write(&out, h, strings.NewReader(body)); err != nil {
		return "", err
	}
	if !plan.Changes() && out.String() != string(h)+body {
		return "", fmt.Errorf("nothing is to change, but something did: %q", out.String())
	}
	return out.String(), nil
}

func split(msg string) (header, body string) {
	if strings.HasPrefix(msg, "\r\n") {
		return msg[:2], msg[2:]
	}
	i := strings.Index(msg, "\r\n\r\n") + 4
	return msg[:i], msg[i:]
}

func lines(s ...string) string { return strings.Join(s, "\r\n") + "\r\n" }

var long = strings.Repeat("0123456789", 120)

func TestRewrite(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in string
		fit      recode.Fit
		contains []string
		lacks    []string
		fails    string
	}{
		{
			name: "nothing to do", fit: recode.ShortLines,
			in:       lines("Subject: x", "", "text", long[:998]),
			contains: []string{long[:998]}, lacks: []string{"quoted-printable"},
		},
		{
			name: "plain without MIME", fit: recode.ShortLines,
			in:       lines("Subject: x", "", long),
			contains: []string{"MIME-Version: 1.0\r\n", "Content-Transfer-Encoding: quoted-printable\r\n\r\n"}, lacks: []string{"charset"},
		},
		{
			name: "plain without MIME, UTF-8", fit: recode.ShortLines,
			in:       lines("Subject: x", "", "grüße "+long),
			contains: []string{"Content-Type: text/plain; charset=utf-8\r\n", "gr=C3=BC=C3=9Fe 0123"},
		},
		{
			name: "8bit HTML", fit: recode.ShortLines,
			in:       lines("MIME-Version: 1.0", "Content-Type: text/html; charset=iso-8859-1", "Content-Transfer-Encoding: 8bit", "", "<p class=\"a\">\xfc"+long),
			contains: []string{"class=3D\"a\"", "=FC", "iso-8859-1"}, lacks: []string{"8bit"},
		},
		{
			name: "one of two parts", fit: recode.ShortLines,
			in: lines("MIME-Version: 1.0", "Content-Type: multipart/alternative; boundary=\"b 1\"", "", "preamble", "--b 1", "Content-Type: text/plain", "", "short",
				"--b 1", "Content-Type: text/html", "", long, "--b 1--", "epilogue"),
			contains: []string{"Content-Type: text/plain\r\n\r\nshort\r\n--b 1", "Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n0123", "preamble", "epilogue"},
		},
		{
			name: "part without header", fit: recode.ShortLines,
			in:       lines("Content-Type: multipart/mixed; boundary=b", "", "--b", "", long, "--b--"),
			contains: []string{"--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n0123"},
		},
		{
			name: "base64 in one line", fit: recode.ShortLines,
			in:       lines("Content-Type: application/pdf", "Content-Transfer-Encoding: base64", "", strings.Repeat("QUJD", 500)),
			contains: []string{"\r\n" + strings.Repeat("QUJD", 19) + "\r\n"},
		},
		{
			name: "quoted-printable in one line", fit: recode.ShortLines,
			in:       lines("Content-Transfer-Encoding: quoted-printable", "", strings.Repeat("=3D", 500)),
			contains: []string{strings.Repeat("=3D", 332) + "=\r\n"},
		},
		{
			name: "not text", fit: recode.ShortLines,
			in:       lines("Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: application/json", "", `{"a":"`+long+`"}`, "--b--"),
			contains: []string{"Content-Transfer-Encoding: base64\r\n\r\n"},
		},
		{
			name: "in an attached message", fit: recode.ShortLines,
			in: lines("Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: message/rfc822", "", "Subject: inner", "Content-Type: text/html", "", long,
				"--b", "", "after", "--b--"),
			contains: []string{"Subject: inner\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n"},
		},
		{
			name: "long line in the header of a part", fit: recode.ShortLines,
			in:       lines("Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Description: "+strings.Repeat("word ", 300), "", "x", "--b--"),
			contains: []string{"word\r\n word"},
		},
		{
			name: "signed", fit: recode.ShortLines, fails: "line 5: a line that is longer than 998 octets in a part that is signed",
			in: lines("Content-Type: multipart/signed; boundary=b", "", "--b", "", long, "--b--"),
		},
		{
			name: "signed, unharmed", fit: recode.ShortLines,
			in:       lines("Content-Type: multipart/mixed; boundary=o", "", "--o", "Content-Type: multipart/signed; boundary=b", "", "--b", "", "signed", "--b--", "--o", "", long, "--o--"),
			contains: []string{"--b\r\n\r\nsigned\r\n--b--"},
		},
		{
			name: "unknown encoding", fit: recode.ShortLines, fails: `line 3: a line that is longer than 998 octets in a part of type text/plain, encoding "x-uuencode"`,
			in: lines("Content-Transfer-Encoding: x-uuencode", "", long),
		},
		{
			name: "message/global, to seven bits", fit: recode.SevenBit,
			in:       lines("Content-Type: message/global", "", "Subject: Grüße", "", "x"),
			contains: []string{"message/global\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nSubject: Gr=C3=BC=C3=9Fe\r\n\r\nx"},
		},
		{
			name: "delivery status with UTF-8 addresses, to seven bits", fit: recode.SevenBit,
			in: lines("Content-Type: multipart/report; boundary=b", "", "--b", "Content-Type: message/global-delivery-status", "Content-Transfer-Encoding: 8bit", "",
				"Final-Recipient: utf-8; jürg@a.test", "--b--"),
			contains: []string{"message/global-delivery-status\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nFinal-Recipient: utf-8; j=C3=BCrg@a.test\r\n--b--"},
		},
		{
			name: "delivery status", fit: recode.ShortLines, fails: "message/delivery-status",
			in: lines("Content-Type: message/delivery-status", "", long),
		},
		{
			name: "multipart without boundary", fit: recode.ShortLines, fails: "multipart/mixed",
			in: lines("Content-Type: multipart/mixed", "", long),
		},
		{
			name: "preamble", fit: recode.ShortLines, fails: "line 3: a line longer than 998 octets outside",
			in: lines("Content-Type: multipart/mixed; boundary=b", "", long, "--b", "", "x", "--b--"),
		},
		{
			name: "longer than any buffer", fit: recode.ShortLines,
			in:       lines("Content-Type: text/plain", "", strings.Repeat(long, 100), "next"),
			contains: []string{"\r\nnext\r\n"},
		},
		{
			name: "not ASCII", fit: recode.SevenBit,
			in:       lines("Subject: Grüße", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit", "", "Grüße", long),
			contains: []string{"Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n", "Gr=C3=BC=C3=9Fe\r\n"},
		},
		{
			name: "header of a part not ASCII", fit: recode.SevenBit,
			in:       lines("Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Description: Grüße", "", "x", "--b--"),
			contains: []string{"Content-Description: =?utf-8?b?R3LDvMOfZQ==?=\r\n\r\nx"},
		},
		{
			name: "raw octets in quoted-printable", fit: recode.SevenBit,
			in:       lines("Content-Transfer-Encoding: quoted-printable", "", "gr\xfc=DF", "."),
			contains: []string{"gr=FC=DF\r\n.\r\n"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := rewrite(tt.in, tt.fit)
			if tt.fails != "" {
				var e *recode.Error
				if !errors.As(err, &e) || !strings.Contains(err.Error(), tt.fails) {
					t.Fatalf("got %v; want an *Error with %q", err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range tt.contains {
				if !strings.Contains(got, s) {
					t.Errorf("%q is not in\n%s", s, got)
				}
			}
			for _, s := range tt.lacks {
				if strings.Contains(got, s) {
					t.Errorf("%q is in\n%s", s, got)
				}
			}
			check(t, tt.in, got, tt.fit)
		})
	}
}

// check holds that the rewritten message fits and says the same.
func check(t *testing.T, before, after string, fit recode.Fit) {
	t.Helper()
	for i, l := range strings.Split(after, "\r\n") {
		if fit&recode.ShortLines != 0 && len(l) > recode.MaxLine {
			t.Errorf("line %d has %d octets", i+1, len(l))
		}
		if fit&recode.SevenBit != 0 && strings.ContainsFunc(l, func(r rune) bool { return r >= utf8.RuneSelf }) {
			t.Errorf("line %d is not ASCII: %q", i+1, l)
		}
		if strings.ContainsAny(l, "\r\n") {
			t.Errorf("line %d has a stray line end", i+1)
		}
	}
	was, is := leaves(before), leaves(after)
	if len(was) != len(is) {
		t.Fatalf("%d parts became %d\n%s", len(was), len(is), after)
	}
	for i := range was {
		if was[i] != is[i] {
			t.Errorf("part %d: %q became %q", i, was[i], is[i])
		}
	}
}

// leaves answers the decoded contents of a message's parts, as an independent
// reader sees them; blank lines at the end do not count.
func leaves(msg string) []string {
	e, err := message.Read(strings.NewReader(msg))
	if e == nil || (err != nil && !message.IsUnknownCharset(err)) {
		return []string{fmt.Sprint(err)}
	}
	var all []string
	collect(e, &all)
	return all
}

func collect(e *message.Entity, all *[]string) {
	if mr := e.MultipartReader(); mr != nil {
		for {
			p, err := mr.NextPart()
			if p == nil {
				return
			}
			if err != nil && !message.IsUnknownCharset(err) {
				return
			}
			collect(p, all)
		}
	}
	mediaType, _, _ := e.Header.ContentType()
	if mediaType == "message/rfc822" {
		if inner, err := message.Read(e.Body); err == nil {
			collect(inner, all)
			return
		}
	}
	b, _ := io.ReadAll(e.Body)
	*all = append(*all, strings.TrimRight(string(b), "\r\n"))
}

func TestFold(t *testing.T) {
	t.Parallel()
	addresses := strings.TrimSuffix(strings.Repeat("someone@example.test, ", 100), ", ")
	tests := []struct{ name, in, want, fails string }{
		{name: "short", in: "To: a@b.test\r\n\r\n", want: "To: a@b.test\r\n\r\n"},
		{name: "exactly 998", in: "X: " + long[:995] + "\r\n\r\n", want: "X: " + long[:995] + "\r\n\r\n"},
		{name: "addresses", in: "To: " + addresses + "\r\nX: y\r\n\r\n"},
		{name: "no blank", in: "A: b\r\nX: " + long + "\r\n\r\n", fails: "line 4: "},
		{name: "late blank", in: "X: " + long[:500] + " " + long[:700] + "\r\n\r\n", want: "X: " + long[:500] + "\r\n " + long[:700] + "\r\n\r\n"},
		{name: "a line of blanks", in: "Subject: x\r\n" + strings.Repeat(" ", 2000) + "\r\nX: y\r\n\r\n", want: "Subject: x\r\nX: y\r\n\r\n"},
		{name: "tabs", in: "Subject: x\r\n" + strings.Repeat("\t", 999) + "\r\nX: y\r\n\r\n", want: "Subject: x\r\nX: y\r\n\r\n"},
		{name: "blanks before text", in: "Subject: x\r\n" + strings.Repeat(" ", 2000) + "y\r\n\r\n", want: "Subject: x\r\n" + strings.Repeat(" ", 2000-78*13) + "y\r\n\r\n"},
		{name: "blanks at the end", in: "X: " + long[:900] + strings.Repeat(" ", 200) + "\r\n\r\n", want: "X: " + long[:900] + "\r\n\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := recode.Fold([]byte(tt.in), 3)
			if tt.fails != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tt.fails) {
					t.Errorf("got %v; want %q", err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tt.want != "" && string(got) != tt.want {
				t.Errorf("got %q; want %q", got, tt.want)
			}
			if a, b := strings.ReplaceAll(string(got), "\r\n ", " "), tt.in; tt.want == "" && a != b {
				t.Errorf("unfolded it is %q; want %q", a, b)
			}
			for _, l := range strings.Split(string(got), "\r\n") {
				if len(l) > recode.MaxLine || (l != "" && strings.TrimSpace(l) == "") {
					t.Errorf("bad line %q", l)
				}
			}
		})
	}
}

func TestEncodeWords(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"ASCII", "Subject: x\r\n\r\n", "Subject: x\r\n\r\n"},
		{"subject", "Subject: Hello J\u00fcrgen and you\r\nX: y\r\n\r\n", "Subject: Hello =?utf-8?b?SsO8cmdlbg==?= and you\r\nX: y\r\n\r\n"},
		{"two words and what is between", "Subject:\u00fc a \u00fc\r\n", "Subject: =?utf-8?b?w7wgYSDDvA==?=\r\n"},
		{"folded", "Subject: a\r\n \u00fc\r\n", "Subject: a =?utf-8?b?w7w=?=\r\n"},
		{"name", "From: J\u00fcrgen M <j@a.test>\r\n", "From: =?utf-8?b?SsO8cmdlbiBN?= <j@a.test>\r\n"},
		{"quoted name", "To: \"M, J\\\"\u00fcrgen\" <j@a.test>, b@b.test\r\n", "To: =?utf-8?b?TSwgSiLDvHJnZW4=?= <j@a.test>, b@b.test\r\n"},
		{"domain", "To: j@b\u00fccher.test\r\n", "To: j@xn--bcher-kva.test\r\n"},
		{"local part stays", "To: j\u00fc@b\u00fccher.test\r\n", "To: j\u00fc@b\u00fccher.test\r\n"},
		{"broken list stays", "To: J\u00fc <j@a.test\r\n", "To: J\u00fc <j@a.test\r\n"},
		{"structured stays", "Message-ID: <\u00fc@a.test>\r\n", "Message-ID: <\u00fc@a.test>\r\n"},
		{"Latin-1 by charset", "Subject: gr\xfc\xdfe\r\nContent-Type: text/plain; charset=ISO-8859-1\r\n", "Subject: =?ISO-8859-1?b?Z3L832U=?=\r\nContent-Type: text/plain; charset=ISO-8859-1\r\n"},
		{"charset unknown", "Subject: gr\xfc\xdfe\r\n", "Subject: =?unknown-8bit?b?Z3L832U=?=\r\n"},
		{"charset that cannot be written", "Subject: \xfc\r\nContent-Type: text/plain; charset=\"a?b\"\r\n", "Subject: =?unknown-8bit?b?/A==?=\r\nContent-Type: text/plain; charset=\"a?b\"\r\n"},
	}
	for _, tt := range tests {
		if got := recode.EncodeWords([]byte(tt.in)); string(got) != tt.want {
			t.Errorf("%s: got %q; want %q", tt.name, got, tt.want)
		}
	}
}

func TestEncodedWordsAreShort(t *testing.T) {
	t.Parallel()
	for _, in := range []string{strings.Repeat("\u00fc", 500), strings.Repeat("\xfc ", 500)} {
		got := string(recode.EncodeWords([]byte("Subject: " + in + "\r\n")))
		for _, l := range strings.Split(got, "\r\n") {
			if word := strings.TrimPrefix(l, "Subject:"); len(strings.TrimSpace(word)) > 75 {
				t.Errorf("an encoded word of %d octets: %q", len(word), word)
			}
		}
	}
}

func TestNestingIsBounded(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("Content-Type: message/rfc822\r\n\r\n")
	for range 100 {
		b.WriteString("Content-Type: message/rfc822\r\n\r\n")
	}
	if _, err := rewrite(b.String()+"x\r\n", recode.ShortLines); err == nil {
		t.Error("100 messages within each other were taken")
	}
	parts := "Content-Type: multipart/mixed; boundary=b\r\n\r\n" + strings.Repeat("--b\r\n\r\n", 20000)
	if _, err := rewrite(parts, recode.ShortLines); err == nil {
		t.Error("20,000 parts were taken")
	}
}

func TestAttachedMessagesInARowAreNoNesting(t *testing.T) {
	t.Parallel()
	digest := "Content-Type: multipart/digest; boundary=b\r\n\r\n" + strings.Repeat("--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\ntext\r\n", 100) + "--b--\r\n"
	if _, err := rewrite(digest, recode.ShortLines); err != nil {
		t.Error(err)
	}
}

func FuzzRewrite(f *testing.F) {
	f.Add(lines("Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: text/html", "", "=.\xfc \t", "--b", "Content-Transfer-Encoding: base64", "", "QUJD", "--b--", "e"), "x")
	f.Add(lines("Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: message/rfc822", "", "Subject: x", "", "t", "--b--"), " ")
	f.Add(lines("Content-Type: multipart/signed; boundary=b", "", "--b", "", "x"), "y")
	f.Add(lines("Subject: x", "", ". From", "=3D"), "=")
	f.Fuzz(func(t *testing.T, msg, filler string) {
		// A long line of the filler at the end of each line that asks for it.
		if filler == "" || len(filler) > 100 {
			return
		}
		msg = strings.ReplaceAll(msg, "\xfe", strings.Repeat(filler, 2000/len(filler)))
		msg = strings.NewReplacer("\r\n", "\r\n", "\n", "\r\n", "\r", "\r\n").Replace(msg)
		if !strings.HasSuffix(msg, "\r\n") {
			msg += "\r\n"
		}
		if !strings.HasPrefix(msg, "\r\n") && !strings.Contains(msg, "\r\n\r\n") {
			return
		}
		for _, fit := range []recode.Fit{recode.ShortLines, recode.SevenBit, recode.ShortLines | recode.SevenBit} {
			got, err := rewrite(msg, fit)
			var e *recode.Error
			if err != nil && !errors.As(err, &e) {
				t.Fatal(err)
			}
			if err != nil {
				continue
			}
			_, body := split(got)
			for _, l := range strings.Split(body, "\r\n") {
				if fit&recode.ShortLines != 0 && len(l) > recode.MaxLine {
					t.Fatalf("%q: a line of %d octets", msg, len(l))
				}
				if strings.ContainsAny(l, "\r\n") {
					t.Fatalf("%q: a stray line end", msg)
				}
			}
			again, err := rewrite(got, fit)
			if err != nil || again != got {
				t.Fatalf("%q: what fits was changed again (%v):\n%q\n%q", msg, err, got, again)
			}
		}
	})
}
