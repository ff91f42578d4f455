package smtpserver_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net/smtp"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"

	"postrider/mta/smtpserver"
)

// The client of go-smtp is another reading of the same RFCs.
func TestGoSMTPClient(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	addr, _ := start(t, smtpserver.Options{Backend: r, TLS: certificate(t), Auth: passwords{}})
	c, err := gosmtp.DialStartTLS(addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Auth(sasl.NewPlainClient("", "jürgen", "wrong")); err == nil {
		t.Error("a wrong password was taken")
	}
	if err := c.Auth(sasl.NewLoginClient("jürgen", "s3cret")); err != nil {
		t.Fatal(err)
	}
	options := &gosmtp.MailOptions{Size: 5, UTF8: true, RequireTLS: true, Return: gosmtp.DSNReturnFull, EnvelopeID: "id+=7"}
	if err := c.Mail("jürgen@client.test", options); err != nil {
		t.Fatal(err)
	}
	rcpt := &gosmtp.RcptOptions{Notify: []gosmtp.DSNNotify{gosmtp.DSNNotifyFailure}, OriginalRecipientType: gosmtp.DSNAddressTypeUTF8, OriginalRecipient: "sør=en@d.test"}
	if err := c.Rcpt("c@d.test", rcpt); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	body := "Subject: x\r\n\r\n" + strings.Repeat(".dots\r\n..\r\n\r\n", 500)
	if _, err := io.WriteString(w, body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Quit(); err != nil {
		t.Fatal(err)
	}
	m := r.all()[0]
	if m.content != body {
		t.Errorf("content of %d octets, want %d", len(m.content), len(body))
	}
	if m.mail.EnvID != "id+=7" || m.mail.Ret != smtpserver.RetFull || !m.mail.RequireTLS || !m.mail.SMTPUTF8 {
		t.Errorf("mail %+v", m.mail)
	}
	if p := m.rcptParams[0]; p.ORcpt != "utf-8;sør=en@d.test" || p.Notify != smtpserver.NotifyFailure {
		t.Errorf("rcpt %+v", p)
	}
}

// Refusals arrive with their codes at go-smtp's client.
func TestGoSMTPClientIsRefused(t *testing.T) {
	t.Parallel()
	r := &recorder{onRcpt: func(string) error { return &smtpserver.Reply{Code: 550, Status: "5.1.1", Text: "nobody"} }}
	addr, _ := start(t, smtpserver.Options{Backend: r, MaxMessageSize: 10})
	c, err := gosmtp.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wants := func(err error, code int, enhanced gosmtp.EnhancedCode) {
		t.Helper()
		se, ok := errors.AsType[*gosmtp.SMTPError](err)
		if !ok || se.Code != code || se.EnhancedCode != enhanced {
			t.Errorf("got %v, want %d %v", err, code, enhanced)
		}
	}
	wants(c.Mail("a@b.test", &gosmtp.MailOptions{Size: 11}), 552, gosmtp.EnhancedCode{5, 3, 4})
	if err := c.Mail("a@b.test", nil); err != nil {
		t.Fatal(err)
	}
	wants(c.Rcpt("c@d.test", nil), 550, gosmtp.EnhancedCode{5, 1, 1})
}

// The client of the standard library, as many programs in Go use it.
func TestStandardClient(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	addr, _ := start(t, smtpserver.Options{Backend: r})
	if err := smtp.SendMail(addr, nil, "a@b.test", []string{"c@d.test", "e@d.test"}, []byte("Subject: x\n\n.y\n")); err != nil {
		t.Fatal(err)
	}
	if m := r.all()[0]; len(m.rcpts) != 2 || m.content != "Subject: x\r\n\r\n.y\r\n" {
		t.Errorf("%+v", m)
	}
}
