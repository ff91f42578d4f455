package intake_test

import (
	"strings"
	"testing"
	"time"

	"postrider/mta/intake"
	"postrider/queue"
)

func TestText(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"CRLF", "\r\na\r\nb\r\n", "a\r\nb\r\n"},
		{"LF", "\na\nb\n", "a\r\nb\r\n"},
		{"CR", "\ra\rb\r", "a\r\nb\r\n"},
		{"no last line end", "\r\na\r\nb", "a\r\nb\r\n"},
		{"dots", "\r\n.\r\n..\r\n.a\r\n", ".\r\n..\r\n.a\r\n"},
		{"blank lines at the end", "\r\na\r\n\r\n\r\n", "a\r\n\r\n\r\n"},
		{"empty", "\r\n", ""},
		{"nothing", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newShelf(t)
			r := newReceiver(t, s, nil)
			for _, size := range []int{0, 1, 3} {
				if err := take(r, meta(), full+tt.in, size); err != nil {
					t.Fatal(err)
				}
				if s.last.body != full+"\r\n"+tt.want {
					t.Errorf("in pieces of %d: %q; want %q", size, s.last.body, full+"\r\n"+tt.want)
				}
			}
		})
	}
}

// TestMereTextIsAMessage: sendmail(8) and many scripts hand over text without a header.
func TestMereTextIsAMessage(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r := newReceiver(t, s, nil)
	for in, want := range map[string]string{
		"the disk is full\nreally\n":           "\r\nthe disk is full\r\nreally\r\n",
		"From here on, no header\n":            "\r\nFrom here on, no header\r\n",
		"From here on,\nno header\nx: y\n":     "\r\nFrom here on,\r\nno header\r\nx: y\r\n",
		" indented\n":                          "\r\n indented\r\n",
		"\nSubject: this is text already\n\nx": "\r\nSubject: this is text already\r\n\r\nx\r\n",
	} {
		for _, size := range []int{0, 1} {
			if err := take(r, meta(), in, size); err != nil {
				t.Errorf("%q: %v", in, err)
			} else if s.last.body != want {
				t.Errorf("%q in pieces of %d became %q; want %q", in, size, s.last.body, want)
			}
		}
	}
}

func TestBadContent(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in string
		want     string
		change   func(*intake.Meta)
	}{
		{name: "no field in the header", in: full + "this is no field\r\nTo: x\r\n\r\n", want: `554 5.6.0 line 4: "this is no field" is no header field`},
		{name: "behind an mbox separator", in: "From x Sat\r\n" + full + "oops\r\n\r\n", want: `554 5.6.0 line 5: "oops"`},
		{name: "numbered from elsewhere", in: full + "oops\r\n\r\n", want: `554 5.6.0 line 14: "oops"`, change: func(m *intake.Meta) { m.FirstLine = 11 }},
		{name: "name with a blank", in: full + "My Field: x\r\n\r\n", want: "554 5.6.0 line 4: "},
		{name: "name beyond ASCII", in: full + "Größe: x\r\n\r\n", want: "554 5.6.0 line 4: "},
		{name: "bad From", in: "Subject: x\r\nFrom: Ann Lee\r\n\r\n", want: `554 5.6.0 line 2: From: address "Ann Lee": words`},
		{name: "From without address", in: "From: team:;\r\n\r\n", want: "554 5.6.0 line 1: From: no address"},
		{name: "two From fields", in: full + "From: eve@e.test\r\n\r\n", want: "554 5.6.0 line 4: From: a second From field"},
		{name: "NUL in the header", in: full + "Subject: \x00\r\n\r\n", want: "554 5.6.0 line 4: a NUL octet"},
		{name: "NUL in the text", in: full + "\r\na\r\nb\x00\r\n", want: "554 5.6.0 line 6: a NUL octet"},
		{name: "51 Received fields", in: strings.Repeat("Received: from x by y\r\n", 51) + full + "\r\n", want: "554 5.4.6 a mail loop"},
		{name: "header too large", in: full + strings.Repeat("X: "+strings.Repeat("x", 500)+"\r\n", 530) + "\r\n", want: "552 5.3.4 the header is larger than 262144 octets"},
		{name: "header without end", in: strings.Repeat("x", 300<<10), want: "552 5.3.4 the header"},
		{name: "header line that cannot be folded", in: full + "X: " + strings.Repeat("x", 2000) + "\r\n\r\n", want: "554 5.6.0 line 4: a header line longer than 998"},
		{name: "line in a signed part", in: full + "Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n" + strings.Repeat("x", 2000) + "\r\n", want: "554 5.6.0 line 8: a line that is longer than 998 octets in a part that is signed"},
		{name: "Latin-1 in a structured field", in: full + "References: <\xfc@a.test>\r\n\r\n", want: "554 5.6.0 the header has octets that are not UTF-8"},
		{name: "bare LF where strict", in: full + "\r\na\nb\r\n", want: "554 5.6.0 line 5: a LF that stands alone", change: func(m *intake.Meta) { m.StrictLineEnds = true }},
		{name: "bare CR at the end where strict", in: full + "\r\na\r\nb\r", want: "554 5.6.0 line 6: a CR that stands alone", change: func(m *intake.Meta) { m.StrictLineEnds = true }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newShelf(t)
			counts := &counter{}
			r := newReceiver(t, s, func(o *intake.Options) { o.Observer = counts })
			for i, size := range []int{0, 1, 1000} {
				m := meta()
				if tt.change != nil {
					tt.change(&m)
				}
				err := take(r, m, tt.in, size)
				if e := refusal(t, err); !strings.HasPrefix(e.Error(), tt.want) || e.Temporary() {
					t.Errorf("in pieces of %d: %v; want %q", size, err, tt.want)
				}
				if counts.refused != i+1 || counts.accepted != 0 {
					t.Errorf("the observer was told of %d refusals, %d messages", counts.refused, counts.accepted)
				}
			}
		})
	}
}

type counter struct{ accepted, refused int }

func (c *counter) Accepted(*queue.Envelope, time.Duration) { c.accepted++ }
func (c *counter) Refused(string, *intake.Error)           { c.refused++ }

// TestSmuggling sends what hides a second message from one server and shows it
// to the next: all of it stays one message's text, in lines that end in CRLF.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r := newReceiver(t, s, nil)
	for _, form := range []string{"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r.\n", "\n.\r", "\r\r\n.\r\r\n"} {
		content := full + "\r\ntext" + form + "MAIL FROM:<eve@e.test>\r\nRCPT TO:<bob@b.test>\r\nDATA\r\nFrom: eve@e.test\r\n\r\nx\r\n"
		for size := range 12 {
			if err := take(r, meta(), content, size); err != nil {
				t.Fatal(err)
			}
			if strings.ContainsAny(strings.ReplaceAll(s.last.body, "\r\n", ""), "\r\n") {
				t.Errorf("%q in pieces of %d: a stray line end in %q", form, size, s.last.body)
			}
			if !strings.Contains(s.last.body, "\r\n.\r\n") {
				t.Errorf("%q in pieces of %d: the dot's line is gone: %q", form, size, s.last.body)
			}
		}
	}
}

func TestEightBitAndUTF8(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in string
		asked    bool
		body     queue.BodyType
		utf8     bool
	}{
		{name: "ASCII", in: full + "\r\nx\r\n"},
		{name: "ASCII, but 8BITMIME and SMTPUTF8 were asked for", in: full + "\r\nx\r\n", asked: true, utf8: true},
		{name: "text", in: full + "\r\nGrüße\r\n", body: queue.Body8BitMIME},
		{name: "text that is not UTF-8", in: full + "\r\nGr\xfc\xdfe\r\n", body: queue.Body8BitMIME},
		{name: "header that can be encoded", in: full + "Subject: Grüße\r\n\r\nx\r\n"},
		{name: "header that can be encoded, and text", in: full + "Subject: Grüße\r\n\r\nGrüße\r\n", body: queue.Body8BitMIME},
		{name: "header that cannot", in: full + "Cc: grüße@b.test\r\n\r\nx\r\n", body: queue.Body8BitMIME, utf8: true},
		{name: "header as it is, since SMTPUTF8 was asked for", in: full + "Subject: Grüße\r\n\r\nx\r\n", asked: true, body: queue.Body8BitMIME, utf8: true},
		{name: "header that is not UTF-8, though SMTPUTF8 was asked for", in: full + "Subject: Gr\xfc\xdfe\r\n\r\nx\r\n", asked: true, utf8: true},
		{name: "header that can be encoded, and text far behind it", in: full + "Subject: Grüße\r\n\r\n" + strings.Repeat("a line\r\n", 3000) + "Grüße\r\n", body: queue.Body8BitMIME},
		{name: "long line becomes ASCII", in: full + "\r\nGrüße " + strings.Repeat("x", 1000) + "\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newShelf(t)
			r := newReceiver(t, s, nil)
			for _, size := range []int{0, 1, 100} {
				m := meta()
				m.Envelope.SMTPUTF8 = tt.asked
				if tt.asked {
					m.Envelope.Body = queue.Body8BitMIME
				}
				if err := take(r, m, tt.in, size); err != nil {
					t.Fatal(err)
				}
				if s.last.env.Body != tt.body || s.last.env.SMTPUTF8 != tt.utf8 {
					t.Errorf("in pieces of %d: Body %d, SMTPUTF8 %t", size, s.last.env.Body, s.last.env.SMTPUTF8)
				}
			}
		})
	}
}

// TestSenderBecomesAuthor: the field that is added is not ASCII either.
func TestSenderBecomesAuthor(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r := newReceiver(t, s, nil)
	m := meta()
	m.Envelope.Sender = "jürgen@a.test"
	mustTake(t, r, m, "Subject: x\n\ntext\n")
	if s.last.env.Body != queue.Body8BitMIME || !s.last.env.SMTPUTF8 || !strings.Contains(s.last.prefix, "From: jürgen@a.test\r\n") {
		t.Errorf("Body %d, SMTPUTF8 %t, prefix %q", s.last.env.Body, s.last.env.SMTPUTF8, s.last.prefix)
	}
}

func TestLongLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("word and ", 300)
	for _, size := range []int{0, 1, 4096} {
		for _, filler := range []int{0, 200_000} { // the second one is in a file by then
			s := newShelf(t)
			signer := &fakeSigner{}
			r := newReceiver(t, s, func(o *intake.Options) { o.Signer = signer })
			text := strings.Repeat("0123456789012345678901234567890123456789\r\n", filler/42) + long + "\r\nend\r\n"
			if err := take(r, meta(), full+"Content-Type: text/html; charset=utf-8\r\n\r\n"+text, max(size, filler/100)); err != nil {
				t.Fatal(err)
			}
			header, body := split(s.last.body)
			for _, l := range strings.Split(s.last.body, "\r\n") {
				if len(l) > 998 {
					t.Fatalf("a line of %d octets", len(l))
				}
			}
			if !strings.Contains(header, "Content-Transfer-Encoding: quoted-printable\r\n") || !strings.HasSuffix(body, "\r\nend\r\n") {
				t.Errorf("header %q", header)
			}
			if decoded := strings.NewReplacer("=\r\n", "", "=20\r\n", " \r\n").Replace(body); decoded != text {
				t.Errorf("the text is another one: %.200q", decoded)
			}
			checkSigned(t, s, signer)
		}
	}
}

// A line of nothing but blanks, longer than a line may be, is no blank line: what
// follows it stays in the header.
func TestLongLineOfBlanksDoesNotEndTheHeader(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r := newReceiver(t, s, nil)
	if err := take(r, meta(), full+"Subject: x\r\n"+strings.Repeat(" ", 2000)+"\r\nTo: <b@b.test>\r\n\r\ntext\r\n", 0); err != nil {
		t.Fatal(err)
	}
	header, body := split(s.last.body)
	if !strings.Contains(header, "Subject: x\r\nTo: <b@b.test>\r\n") || body != "text\r\n" {
		t.Errorf("header %q, body %q", header, body)
	}
}
