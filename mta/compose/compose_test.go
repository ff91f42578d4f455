package compose

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-message/mail"
)

func write(t *testing.T, m *Message) string {
	t.Helper()
	var b bytes.Buffer
	n, err := m.WriteTo(&b)
	if err != nil {
		t.Fatal(err)
	}
	if n != int64(b.Len()) {
		t.Errorf("WriteTo says %d octets, wrote %d", n, b.Len())
	}
	for line := range strings.Lines(b.String()) {
		if !strings.HasSuffix(line, "\r\n") || strings.Contains(strings.TrimSuffix(line, "\r\n"), "\r") {
			t.Fatalf("a line without CRLF: %q", line)
		}
		if len(line) > 1000 {
			t.Fatalf("a line of %d octets", len(line))
		}
	}
	return b.String()
}

func file(name, content string) Attachment {
	return Attachment{Name: name, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(content)), nil
	}}
}

// parts reads a message with another implementation.
func parts(t *testing.T, raw string) (header mail.Header, types, bodies, names []string) {
	t.Helper()
	r, err := mail.CreateReader(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	for {
		p, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return r.Header, types, bodies, names
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(p.Body)
		if err != nil {
			t.Fatal(err)
		}
		var kind, name string
		switch h := p.Header.(type) {
		case *mail.InlineHeader:
			kind, _, _ = h.ContentType()
		case *mail.AttachmentHeader:
			kind, _, _ = h.ContentType()
			name, _ = h.Filename()
		}
		types, bodies, names = append(types, kind), append(bodies, string(body)), append(names, name)
	}
}

func TestPlainMessage(t *testing.T) {
	t.Parallel()
	got := write(t, &Message{
		From: "ops@sender.test", To: []string{"Anna Weber <anna@shop.test>", `"Weber, Ben" <ben@shop.test>, carla@SHOP.test`},
		Cc: []string{"dora@bücher.test"}, ReplyTo: "help@sender.test", Subject: "backup done",
		Headers: []Field{{"X-Job", "nightly"}}, Text: "42 files\n.\nend",
	})
	want := strings.ReplaceAll(`From: ops@sender.test
Reply-To: help@sender.test
To: Anna Weber <anna@shop.test>, "Weber, Ben" <ben@shop.test>,
 carla@shop.test
Cc: dora@xn--bcher-kva.test
Subject: backup done
X-Job: nightly
MIME-Version: 1.0
Content-Type: text/plain; charset=us-ascii
Content-Transfer-Encoding: 7bit

42 files
.
end
`, "\n", "\r\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTransferEncodings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, encoding string }{
		"ascii":               {"hello\r\nworld\r\n", "7bit"},
		"a few umlauts":       {"Grüße aus Köln, wie verabredet am Donnerstag\r\n", "quoted-printable"},
		"another script":      {"Здравствуйте, Иван!\r\n", "base64"},
		"a line of 5,000":     {strings.Repeat("x", 5000) + "\r\n", "quoted-printable"},
		"a control character": {"page one\f page two\r\n", "quoted-printable"},
		"trailing blanks":     {"signature:  \r\n-- \r\nAnna\r\n", "7bit"},
		"nothing":             {"", "7bit"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := write(t, &Message{From: "a@sender.test", To: []string{"b@shop.test"}, Text: c.text})
			if !strings.Contains(raw, "Content-Transfer-Encoding: "+c.encoding+"\r\n") {
				t.Errorf("not %s:\n%s", c.encoding, raw)
			}
			if _, _, bodies, _ := parts(t, raw); bodies[0] != c.text {
				t.Errorf("read back %q, wrote %q", bodies[0], c.text)
			}
		})
	}
}

func TestLineEndsBecomeCRLF(t *testing.T) {
	t.Parallel()
	raw := write(t, &Message{From: "a@sender.test", To: []string{"b@shop.test"}, Text: "one\rtwo\nthree\r\nfour"})
	if !strings.HasSuffix(raw, "\r\n\r\none\r\ntwo\r\nthree\r\nfour\r\n") {
		t.Errorf("got %q", raw)
	}
}

func TestAlternativeRelatedMixed(t *testing.T) {
	t.Parallel()
	logo := file("logo.png", "\x89PNG\r\n\x1a\nxyz")
	logo.ContentID = "logo@sender.test"
	raw := write(t, &Message{
		From: "a@sender.test", To: []string{"b@shop.test"}, Text: "plain\r\n", HTML: "<p>é<img src=\"cid:logo@sender.test\"></p>\r\n",
		Attachments: []Attachment{file("scan.pdf", "%PDF-1.4 ..."), logo, file("unknown.qqq", "\x00\x01\x02")},
		Boundary:    "B",
	})
	_, types, bodies, names := parts(t, raw)
	if got := strings.Join(types, " "); got != "text/plain text/html image/png application/pdf application/octet-stream" {
		t.Errorf("parts are %s", got)
	}
	if bodies[1] != "<p>é<img src=\"cid:logo@sender.test\"></p>\r\n" || bodies[2] != "\x89PNG\r\n\x1a\nxyz" || bodies[4] != "\x00\x01\x02" {
		t.Errorf("bodies are %q", bodies)
	}
	if names[3] != "scan.pdf" || names[4] != "unknown.qqq" {
		t.Errorf("names are %q", names)
	}
	mixed, alternative, related := strings.Index(raw, "multipart/mixed"), strings.Index(raw, "multipart/alternative"), strings.Index(raw, "multipart/related")
	if mixed < 0 || alternative < mixed || related < alternative {
		t.Errorf("parts are not nested as mixed(alternative(plain, related(html, image)), files):\n%s", raw)
	}
	for _, want := range []string{"Content-Disposition: inline; filename=logo.png\r\n", "Content-ID: <logo@sender.test>\r\n", "Content-Disposition: attachment; filename=scan.pdf\r\n"} {
		if !strings.Contains(raw, want) {
			t.Errorf("%q is missing", want)
		}
	}
}

func TestNamesOutsideASCII(t *testing.T) {
	t.Parallel()
	subject := "Größentabellen für das nächste Jahr: Änderungen, Übersicht und Größen – bitte prüfen"
	raw := write(t, &Message{
		From: "Jörg Müller <joerg@sender.test>", To: []string{"田中花子 <hanako@travel.test>"}, Subject: subject, Text: "x",
		Headers:     []Field{{"X-Note", "naïve"}},
		Attachments: []Attachment{file("Größen KW 45.csv", "a;b\r\n")},
	})
	for line := range strings.Lines(raw[:strings.Index(raw, "\r\n\r\n")]) {
		if len(line) > 80 || !isASCII(line) {
			t.Errorf("header line %q", line)
		}
	}
	header, _, _, names := parts(t, raw)
	if got, _ := header.Subject(); got != subject {
		t.Errorf("subject is %q", got)
	}
	from, _ := header.AddressList("From")
	to, _ := header.AddressList("To")
	if from[0].Name != "Jörg Müller" || to[0].Name != "田中花子" {
		t.Errorf("names are %q and %q", from[0].Name, to[0].Name)
	}
	if names[1] != "Größen KW 45.csv" {
		t.Errorf("the file's name is %q", names[1])
	}
}

func TestTextThatLooksEncoded(t *testing.T) {
	t.Parallel()
	subject := "what does =?utf-8?B?aGk=?= mean, and why is it in every one of my subjects these days"
	header, _, _, _ := parts(t, write(t, &Message{From: `"=?x?=" <a@sender.test>`, Subject: subject}))
	if got, err := header.Subject(); got != subject {
		t.Errorf("subject is %q (%v)", got, err)
	}
	if from, err := header.AddressList("From"); err != nil || from[0].Name != "=?x?=" {
		t.Errorf("from is %v (%v)", from, err)
	}
}

func TestRefusedParts(t *testing.T) {
	t.Parallel()
	inline := file("x.png", "x")
	inline.ContentID = "x"
	broken := Attachment{Name: "gone.pdf", Open: func() (io.ReadCloser, error) { return nil, errors.New("no such file") }}
	half := Attachment{Name: "half.pdf", Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader(strings.Repeat("x", 9000)), failing{})), nil
	}}
	multipart := file("m", "x")
	multipart.Type = "multipart/mixed"
	for name, c := range map[string]struct {
		m    Message
		part string
	}{
		"no from":               {Message{}, "from"},
		"injected field":        {Message{From: "a@sender.test", Subject: "hi\r\nBcc: all@shop.test"}, "subject"},
		"injected recipient":    {Message{From: "a@sender.test", To: []string{"b@shop.test\nBcc: c@shop.test"}}, "to"},
		"no address":            {Message{From: "a@sender.test", Cc: []string{"b@@shop.test"}}, "cc"},
		"own field":             {Message{From: "a@sender.test", Headers: []Field{{"content-type", "text/html"}}}, "header content-type"},
		"a colon in the name":   {Message{From: "a@sender.test", Headers: []Field{{"X: y", "z"}}}, "header X: y"},
		"invalid UTF-8":         {Message{From: "a@sender.test", Text: "\xff"}, "text/plain"},
		"inline without HTML":   {Message{From: "a@sender.test", Attachments: []Attachment{inline}}, "attachment x.png"},
		"unreadable attachment": {Message{From: "a@sender.test", Attachments: []Attachment{broken}}, "attachment gone.pdf"},
		"half an attachment":    {Message{From: "a@sender.test", Attachments: []Attachment{half}}, "attachment half.pdf"},
		"attachment of parts":   {Message{From: "a@sender.test", Attachments: []Attachment{multipart}}, "attachment m"},
		"line end in a name":    {Message{From: "a@sender.test", Attachments: []Attachment{file("a\nb", "x")}}, "attachment a\nb"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := c.m.WriteTo(io.Discard)
			var e *Error
			if !errors.As(err, &e) || e.Part != c.part {
				t.Errorf("got %v, want an error about %q", err, c.part)
			}
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("input/output error") }

func TestWriterFailureIsNoFaultOfAPart(t *testing.T) {
	t.Parallel()
	m := Message{From: "a@sender.test", Attachments: []Attachment{file("a", strings.Repeat("x", 1<<20))}}
	_, err := m.WriteTo(brokenPipe{})
	var e *Error
	if err == nil || errors.As(err, &e) {
		t.Errorf("got %#v", err)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestZip(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	z := Zip("all.zip", []Attachment{file("Größe.txt", "one"), file("Größe.txt", "two"), file("../../etc/passwd", "three")}, at)
	_, types, bodies, names := parts(t, write(t, &Message{From: "a@sender.test", Text: "x", Attachments: []Attachment{z}}))
	if types[1] != "application/zip" || names[1] != "all.zip" {
		t.Errorf("%s %s", types[1], names[1])
	}
	archive, err := zip.NewReader(strings.NewReader(bodies[1]), int64(len(bodies[1])))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range archive.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, _ := io.ReadAll(r)
		got = append(got, f.Name+"="+string(content))
	}
	if want := "Größe.txt=one Größe (2).txt=two etc/passwd=three"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestZipOfMissingFile(t *testing.T) {
	t.Parallel()
	broken := Attachment{Name: "gone", Open: func() (io.ReadCloser, error) { return nil, errors.New("no such file") }}
	m := Message{From: "a@sender.test", Attachments: []Attachment{Zip("all.zip", []Attachment{broken}, time.Time{})}}
	if _, err := m.WriteTo(io.Discard); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}
