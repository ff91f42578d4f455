package intake_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"path/filepath"
	"strings"
	"testing"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"postrider/dkim"
	"postrider/mta/intake"
	"postrider/queue"
)

// signing is a receiver with a key for a.test, and the record that shows it.
func signing(t *testing.T, q intake.Queue) (*intake.Receiver, string) {
	t.Helper()
	key, err := dkim.GenerateKey(dkim.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := dkim.WriteKeyFile(file, key); err != nil {
		t.Fatal(err)
	}
	keys, err := dkim.NewKeys(dkim.Options{Sources: []dkim.Source{{Domain: "a.test", Selector: "s", KeyFile: file}}})
	if err != nil {
		t.Fatal(err)
	}
	record, err := key.Record()
	if err != nil {
		t.Fatal(err)
	}
	return newReceiver(t, q, func(o *intake.Options) { o.Signer = intake.SignWith(keys.Signer) }), record.Text()
}

// verify checks that a message has exactly one signature, which is good.
func verify(t *testing.T, message, record string) {
	t.Helper()
	found, err := msgauth.VerifyWithOptions(strings.NewReader(message), &msgauth.VerifyOptions{
		LookupTXT: func(string) ([]string, error) { return []string{record}, nil },
	})
	if err != nil || len(found) != 1 || found[0].Err != nil || found[0].Domain != "a.test" {
		t.Errorf("signatures: %+v, %v", found, err)
	}
}

// opener gives what the shelf took last, in memory or as a file.
func opener(s *shelf, isFile bool) func() (*queue.Content, error) {
	head, body := s.last.prefix, s.last.body
	return func() (*queue.Content, error) {
		c := &queue.Content{Head: []byte(head), Size: int64(len(head) + len(body))}
		if isFile {
			c.File = strings.NewReader(body)
		} else {
			c.Data = []byte(body)
		}
		return c, nil
	}
}

func convert(t *testing.T, r *intake.Receiver, open func() (*queue.Content, error), toSevenBit bool) string {
	t.Helper()
	c, err := r.Convert(open, toSevenBit)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(c.Text)
	if err != nil {
		t.Fatal(err)
	}
	message := string(c.Head) + string(text)
	if int64(len(message)) != c.Size {
		t.Errorf("%d octets, announced were %d", len(message), c.Size)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	return message
}

func isSevenBit(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > '~' }) < 0
}

const (
	mimeHead = full + "MIME-Version: 1.0\r\n"
	twoParts = mimeHead + "Content-Type: multipart/%; boundary=b\r\n\r\n" +
		"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n" +
		"--b\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD\r\n--b--\r\n"
)

func TestConvertToSevenBits(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r, record := signing(t, s)
	for name, content := range map[string]string{
		"text":           mimeHead + "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n",
		"mixed":          strings.ReplaceAll(twoParts, "%", "mixed"),
		"without MIME":   full + "\r\nGrüße\r\n",
		"UTF-8 header":   full + "Subject: Grüße\r\n\r\nGrüße\r\n",
		"attached":       mimeHead + "Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nGrüße\r\n",
		"a large header": full + strings.Repeat("X-Long: "+strings.Repeat("x", 900)+"\r\n", 100) + "\r\nGrüße\r\n",
		"large":          full + "\r\n" + strings.Repeat("Grüße in einer großen Nachricht\r\n", 10_000),
	} {
		for _, isFile := range []bool{false, true} {
			mustTake(t, r, meta(), content)
			stored := s.last
			got := convert(t, r, opener(s, isFile), true)
			if !isSevenBit(got) {
				t.Errorf("%s: not seven bits:\n%.2000s", name, got)
			}
			verify(t, got, record)
			header, _ := split(got)
			if n := strings.Count(header, "Received:"); n != 1 || !strings.Contains(got, "<1@a.test>") {
				t.Errorf("%s: %d Received fields, or another Message-ID:\n%.2000s", name, n, header)
			}
			if want, got := texts(t, stored.prefix+stored.body), texts(t, got); got != want {
				t.Errorf("%s: a reader sees %.200q instead of %.200q", name, got, want)
			}
		}
	}
}

// texts is what a reader sees of a message: its subject, and its text parts.
func texts(t *testing.T, message string) string {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil {
		t.Fatal(err)
	}
	return subject + "|" + textOf(t, m.Header.Get("Content-Type"), m.Header.Get("Content-Transfer-Encoding"), m.Body)
}

func textOf(t *testing.T, contentType, encoding string, body io.Reader) string {
	t.Helper()
	kind, params, _ := mime.ParseMediaType(contentType)
	switch {
	case strings.HasPrefix(kind, "multipart/"):
		var all strings.Builder
		for parts := multipart.NewReader(body, params["boundary"]); ; {
			p, err := parts.NextRawPart()
			if err == io.EOF {
				return all.String()
			}
			if err != nil {
				t.Fatal(err)
			}
			all.WriteString(textOf(t, p.Header.Get("Content-Type"), p.Header.Get("Content-Transfer-Encoding"), p))
		}
	case kind == "message/rfc822":
		all, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		return texts(t, string(all))
	case encoding == "quoted-printable":
		body = quotedprintable.NewReader(body)
	}
	all, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

func TestConvertTheHeaderAlone(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r, record := signing(t, s)
	m := meta()
	m.Envelope.SMTPUTF8 = true
	mustTake(t, r, m, "From: Jürgen <ann@a.test>\r\nDate: Sat, 4 Jul 2026 09:29:59 +0200\r\nMessage-ID: <1@a.test>\r\nTo: x@bücher.test\r\nSubject: Grüße\r\n\r\nGrüße\r\n")
	if isSevenBit(s.last.body) {
		t.Fatal("the header was encoded before")
	}
	got := convert(t, r, opener(s, false), false)
	header, text := split(got)
	if !isSevenBit(header) || text != "Grüße\r\n" || !strings.Contains(header, "xn--bcher-kva.test") {
		t.Errorf("%s\n\n%s", header, text)
	}
	verify(t, got, record)
}

// A host with 8BITMIME and without SMTPUTF8 takes the octets of a text, and not
// those of a part's header.
func TestConvertTheHeadersOfParts(t *testing.T) {
	t.Parallel()
	multipart := func(kind, header, text string) string {
		return mimeHead + "Content-Type: multipart/" + kind + "; boundary=b\r\n\r\n--b\r\n" + header + "\r\n\r\n" + text + "\r\n--b--\r\n"
	}
	s := newShelf(t)
	r, record := signing(t, s)
	for name, tt := range map[string]struct {
		message string
		want    string // in what is sent
		status  string // where it cannot be
	}{
		"text":                {multipart("mixed", "Content-Description: Grüße\r\nContent-Transfer-Encoding: 8bit", "Grüße"), "\r\nContent-Description: =?utf-8?b?R3LDvMOfZQ==?=\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n", ""},
		"message in it":       {multipart("mixed", "Content-Type: message/rfc822", "Subject: Grüße\r\n\r\nGrüße"), "\r\nSubject: =?utf-8?b?R3LDvMOfZQ==?=\r\n\r\nGrüße\r\n", ""},
		"header of both":      {strings.Replace(multipart("mixed", "Content-Description: ü", "Grüße"), "MIME-Version", "Subject: ü\r\nMIME-Version", 1), "\r\nSubject: =?utf-8?b?w7w=?=\r\n", ""},
		"name of a file":      {multipart("mixed", `Content-Disposition: attachment; filename="Grüße"`, "x"), "", "5.6.7"},
		"below a signature":   {multipart("signed", "Content-Description: Grüße", "x"), "", "5.6.7"},
		"in the content only": {multipart("mixed", "Content-Transfer-Encoding: 8bit", "Grüße"), "", "fits"},
	} {
		m := meta()
		m.Envelope.SMTPUTF8 = true
		mustTake(t, r, m, tt.message)
		if tt.status == "" {
			got := convert(t, r, opener(s, false), false)
			verify(t, got, record)
			if !strings.Contains(got, tt.want) {
				t.Errorf("%s: sent:\n%s", name, got)
			}
			continue
		}
		_, err := r.Convert(opener(s, false), false)
		var unfit *intake.Unfit
		if errors.As(err, &unfit) && unfit.Status != tt.status || unfit == nil && (tt.status != "fits" || err != intake.ErrFits) {
			t.Errorf("%s: %v, want %s", name, err, tt.status)
		}
	}
}

func TestConversionThatWouldBreakTheMessage(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r, _ := signing(t, s)
	for name, tt := range map[string]struct{ content, status, reason string }{
		"signed":                       {strings.ReplaceAll(twoParts, "%", "signed"), "5.6.3", "signed"},
		"unknown encoding":             {mimeHead + "Content-Transfer-Encoding: x-own\r\n\r\nGrüße\r\n", "5.6.3", `encoding "x-own"`},
		"delivery report":              {mimeHead + "Content-Type: message/delivery-status\r\n\r\nX: Grüße\r\n", "5.6.3", "message/delivery-status"},
		"UTF-8 local part":             {full + "Reply-To: jürgen@a.test\r\n\r\nx\r\n", "5.6.7", "address"},
		"UTF-8 in a field's structure": {full + "References: <ü@a.test>\r\n\r\nx\r\n", "5.6.7", "structured field"},
	} {
		m := meta()
		m.Envelope.SMTPUTF8 = true
		mustTake(t, r, m, tt.content)
		_, err := r.Convert(opener(s, false), true)
		var unfit *intake.Unfit
		if !errors.As(err, &unfit) || unfit.Status != tt.status || !strings.Contains(unfit.Reason, tt.reason) {
			t.Errorf("%s: %+v", name, err)
		}
	}
}

// Trouble of our own must not bounce a message.
func TestConversionThatFails(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r, _ := signing(t, s)
	mustTake(t, r, meta(), full+"\r\nGrüße\r\n")
	whole := opener(s, true)
	broken := errors.New("checksum does not match")
	later := 0
	for name, open := range map[string]func() (*queue.Content, error){
		"cannot be opened": func() (*queue.Content, error) { return nil, broken },
		"no header":        func() (*queue.Content, error) { return &queue.Content{Data: []byte("Subject: x\r\n")}, nil },
		"no end of the header": func() (*queue.Content, error) {
			return &queue.Content{Data: bytes.Repeat([]byte("X: y\r\n"), 200_000)}, nil
		},
		"damaged": func() (*queue.Content, error) {
			c, err := whole()
			c.File = io.MultiReader(c.File, failing{broken})
			return c, err
		},
		"cannot be opened again": func() (*queue.Content, error) {
			if later++; later > 1 {
				return nil, broken
			}
			return whole()
		},
	} {
		_, err := r.Convert(open, true)
		var unfit *intake.Unfit
		if err == nil || errors.As(err, &unfit) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestConvertedIsNotStored(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q, err := queue.Open(queue.Options{Dir: dir, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	r := newReceiver(t, q, nil)
	before := files(t, dir)
	large := full + "\r\n" + strings.Repeat("Grüße\r\n", 50_000)
	c, err := r.Convert(func() (*queue.Content, error) { return &queue.Content{File: strings.NewReader(large)}, nil }, true)
	if err != nil {
		t.Fatal(err)
	}
	if files(t, dir) == before {
		t.Error("a large text is not in a file while it is sent")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if after := files(t, dir); after != before {
		t.Errorf("%d files are left of %d", after, before)
	}
}

func files(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
