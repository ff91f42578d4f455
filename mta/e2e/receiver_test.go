//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
)

// receiver is a private mail server of another make that puts mail for a
// domain into one Maildir.
type receiver struct {
	t    *testing.T
	mail string // holds the Maildir
	port int
	log  string
}

// maildir takes the mail of all mailboxes.
const maildir = "everybody"

// messages reads what has arrived.
func (r *receiver) messages() [][]byte {
	files, _ := filepath.Glob(filepath.Join(r.mail, maildir, "new", "*"))
	var all [][]byte
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, data)
	}
	return all
}

// first waits for a message.
func (r *receiver) first() []byte {
	r.t.Helper()
	waitFor(r.t, "mail", func() bool { return len(r.messages()) > 0 })
	return r.messages()[0]
}

// find waits for the one message with the text; a subject is looked for in the
// header only, as reports return that of the message that they are about.
func (r *receiver) find(text string) []byte {
	r.t.Helper()
	var found []byte
	waitFor(r.t, fmt.Sprintf("a message with %q", text), func() bool {
		for _, m := range r.messages() {
			where := m
			if strings.HasPrefix(text, "Subject:") {
				where, _, _ = bytes.Cut(m, []byte("\n\n"))
			}
			if bytes.Contains(append(where[:len(where):len(where)], '\n'), []byte(text)) {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

func (r *receiver) readLog() string {
	text, err := os.ReadFile(r.log)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// showLog shows the end of the server's log where the test failed.
func (r *receiver) showLog() {
	if !r.t.Failed() {
		return
	}
	text, _ := os.ReadFile(r.log)
	r.t.Logf("%s:\n%s", r.log, text[max(0, len(text)-8000):])
}

// selfSigned makes cert.pem and key.pem in dir.
func selfSigned(t *testing.T, dir, name string) {
	t.Helper()
	out, err := exec.Command("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
		"-subj", "/CN="+name, "-keyout", filepath.Join(dir, "key.pem"), "-out", filepath.Join(dir, "cert.pem")).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl: %v: %s", err, out)
	}
}

// letter is a message with what its envelope asks for.
type letter struct {
	from, to, and, subject, body, envID string
	isUTF8                              bool
	notify                              smtp.DSNNotify // for the first recipient
}

// submit hands a message in with a client that is not ours.
func submit(t *testing.T, p *postrider, l letter) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c, err := smtp.Dial(p.submit)
	check(err)
	defer c.Close()
	rcpt := &smtp.RcptOptions{}
	if l.notify != "" {
		rcpt = &smtp.RcptOptions{Notify: []smtp.DSNNotify{l.notify}, OriginalRecipientType: smtp.DSNAddressTypeRFC822, OriginalRecipient: "first+name@elsewhere.test"}
	}
	check(c.Hello("app.sender.test"))
	check(c.Mail(l.from, &smtp.MailOptions{UTF8: l.isUTF8, EnvelopeID: l.envID}))
	check(c.Rcpt(l.to, rcpt))
	if l.and != "" {
		check(c.Rcpt(l.and, nil))
	}
	w, err := c.Data()
	check(err)
	_, err = fmt.Fprintf(w, "From: <app@sender.test>\r\nTo: <ops@elsewhere.test>\r\nSubject: %s\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n"+
		"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n%s", l.subject, l.body)
	check(err)
	check(w.Close())
	check(c.Quit())
}
