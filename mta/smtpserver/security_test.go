package smtpserver_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"postrider/mta/smtpserver"
)

func TestSTARTTLS(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	addr, server := start(t, smtpserver.Options{Backend: r, TLS: certificate(t)})
	c := dial(t, addr)
	if got := c.says("EHLO client.test", "250"); !strings.Contains(got, "STARTTLS") || strings.Contains(got, "REQUIRETLS") {
		t.Errorf("EHLO %q", got)
	}
	c.says("STARTTLS now", "501")
	c.says("MAIL FROM:<a@b.test>", "250")
	c.startTLS()
	// RFC 3207, section 4.2: all is forgotten, the name and the transaction.
	c.says("RCPT TO:<c@d.test>", "503")
	c.says("MAIL FROM:<a@b.test>", "503 5.5.1 say EHLO")
	if got := c.says("EHLO client.test", "250"); strings.Contains(got, "STARTTLS") || !strings.Contains(got, "REQUIRETLS") {
		t.Errorf("EHLO %q", got)
	}
	c.says("STARTTLS", "503 5.5.1")
	c.says("MAIL FROM:<a@b.test> REQUIRETLS", "250")
	c.says("RCPT TO:<c@d.test>", "250")
	c.says("DATA", "354")
	c.says("x\r\n.", "250 2.0.0")
	c.says("QUIT", "221")
	c.expectEnd()
	if all := r.all(); len(all) != 1 || !all[0].mail.RequireTLS {
		t.Errorf("%+v", all)
	}
	if s := server.Stats(); s.TLS != 1 || s.TLSFailed != 0 {
		t.Errorf("%+v", s)
	}
}

// What somebody put in behind STARTTLS is not carried out, neither in clear
// nor inside TLS, and the session ends.
func TestSTARTTLSInjection(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	addr, _ := start(t, smtpserver.Options{Backend: r, TLS: certificate(t)})
	c := dial(t, addr)
	c.says("EHLO client.test", "250")
	c.write("STARTTLS\r\nRSET\r\n")
	c.expect("554 5.7.0")
	c.expectEnd()
}

// After a handshake that failed the session does not go on in clear.
func TestHandshakeFails(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	addr, server := start(t, smtpserver.Options{Backend: r, TLS: certificate(t)})
	c := dial(t, addr)
	c.says("EHLO client.test", "250")
	c.says("STARTTLS", "220 2.0.0")
	c.write("NOOP\r\n")
	waitFor(t, func() bool { return server.Stats().TLSFailed == 1 })
	io.WriteString(c.conn, "NOOP\r\n")
	if got, err := c.tryReply(); err == nil {
		t.Errorf("went on with %q", got)
	}
}

// passwords has one user.
type passwords struct{ err error }

func (p passwords) Authenticate(_ context.Context, user, password string) error {
	switch {
	case p.err != nil:
		return p.err
	case user == "jürgen" && password == "s3cret":
		return nil
	}
	return smtpserver.ErrCredentials
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func TestAUTH(t *testing.T) {
	t.Parallel()
	type step struct{ line, want string }
	good := b64("\x00jürgen\x00s3cret")
	tests := map[string][]step{
		"PLAIN in one":            {{"AUTH PLAIN " + good, "235 2.7.0"}, {"AUTH PLAIN " + good, "503"}, {"MAIL FROM:<a@b.test> AUTH=<>", "250"}},
		"PLAIN in two":            {{"auth plain", "334 "}, {good, "235"}},
		"PLAIN as oneself":        {{"AUTH PLAIN " + b64("jürgen\x00jürgen\x00s3cret"), "235"}},
		"PLAIN as another":        {{"AUTH PLAIN " + b64("root\x00jürgen\x00s3cret"), "501 5.5.2"}},
		"LOGIN":                   {{"AUTH LOGIN", "334 VXNlcm5hbWU6"}, {b64("jürgen"), "334 UGFzc3dvcmQ6"}, {b64("s3cret"), "235"}},
		"LOGIN with a name":       {{"AUTH LOGIN " + b64("jürgen"), "334 UGFzc3dvcmQ6"}, {b64("s3cret"), "235"}},
		"wrong password":          {{"AUTH PLAIN " + b64("\x00jürgen\x00guess"), "535 5.7.8"}, {"AUTH PLAIN " + good, "235"}},
		"no user":                 {{"AUTH PLAIN " + b64("\x00\x00x"), "501"}},
		"empty response":          {{"AUTH PLAIN =", "501"}},
		"no base64":               {{"AUTH PLAIN ***", "501 5.5.2"}, {"AUTH LOGIN", "334"}, {"x", "501 5.5.2"}},
		"control in the name":     {{"AUTH PLAIN " + b64("\x00a\nb\x00x"), "501"}},
		"given up":                {{"AUTH LOGIN", "334"}, {"*", "501 5.7.0"}, {"NOOP", "250"}},
		"another mechanism":       {{"AUTH CRAM-MD5", "504 5.5.4"}, {"AUTH", "504"}},
		"within a transaction":    {{"MAIL FROM:<a@b.test>", "250"}, {"AUTH PLAIN " + good, "503"}},
		"before EHLO":             {{"HELO x", "250"}, {"AUTH PLAIN " + good, "503"}},
		"guessing":                {{"AUTH PLAIN " + b64("\x00a\x00b"), "535"}, {"AUTH PLAIN " + b64("\x00a\x00c"), "535"}, {"AUTH PLAIN " + b64("\x00a\x00d"), "535"}},
		"a line that is too long": {{"AUTH PLAIN", "334"}, {strings.Repeat("A", 5000), "500 5.5.2"}, {"NOOP", "250"}},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, _ := start(t, smtpserver.Options{Backend: &recorder{}, Auth: passwords{}})
			c := dial(t, addr)
			if got := c.says("EHLO client.test", "250"); !strings.Contains(got, "AUTH PLAIN LOGIN") {
				t.Errorf("EHLO %q", got)
			}
			for _, s := range steps {
				c.says(s.line, s.want)
			}
			if name == "guessing" {
				c.expect("421 4.7.0")
				c.expectEnd()
			}
		})
	}
}

// The log may have the dialog, but neither passwords nor content.
func TestDialogInTheLog(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	addr, _, stop := startStoppable(t, smtpserver.Options{Backend: &recorder{}, Auth: passwords{}, Logger: logger})
	c := dial(t, addr)
	secret := b64("s3cret")
	c.says("EHLO client.test", "250")
	c.says("auth  plain "+b64("\x00jürgen\x00guess"), "535")
	c.says("AUTH\tPLAIN "+secret, "500")
	c.says("AUTH LOGIN", "334")
	c.says("***", "501")
	c.says(secret, "500") // the client had sent it already
	c.says("AUTH LOGIN", "334")
	c.says(b64("jürgen"), "334")
	c.says(secret, "235")
	c.says("MAIL FROM:<a@b.test>", "250")
	c.says("RCPT TO:<c@d.test>", "250")
	c.says("DATA", "354")
	c.says("content\r\n.", "250")
	c.says("QUIT", "221")
	c.expectEnd()
	stop()
	got := log.String()
	for _, want := range []string{`line="EHLO client.test"`, `line="AUTH ..."`, `line="MAIL FROM:<a@b.test>"`, "235 2.7.0", "354 end"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	for _, never := range []string{secret, b64("\x00jürgen\x00guess"), "line=content"} {
		if strings.Contains(got, never) {
			t.Errorf("%q in %s", never, got)
		}
	}
}

func TestAUTHCannotTell(t *testing.T) {
	t.Parallel()
	addr, server := start(t, smtpserver.Options{Backend: &recorder{}, Auth: passwords{errors.New("no file")}})
	c := dial(t, addr)
	c.says("EHLO client.test", "250")
	c.says("AUTH PLAIN "+b64("\x00a\x00b"), "454 4.7.0")
	if s := server.Stats(); s.AuthFailed != 0 || s.Authenticated != 0 {
		t.Errorf("%+v", s)
	}
}

// From a network, passwords are taken inside TLS only.
func TestAUTHInClear(t *testing.T) {
	t.Parallel()
	l := newPipeListener()
	startOn(t, smtpserver.Options{Backend: &recorder{}, Auth: passwords{}, TLS: certificate(t)}, l)
	c := l.dial(t, "192.0.2.1")
	c.expect("220")
	if got := c.says("EHLO client.test", "250"); strings.Contains(got, "AUTH") {
		t.Errorf("EHLO %q", got)
	}
	c.says("AUTH PLAIN "+b64("\x00jürgen\x00s3cret"), "538 5.7.11")
	c.startTLS()
	if got := c.says("EHLO client.test", "250"); !strings.Contains(got, "AUTH PLAIN LOGIN") {
		t.Errorf("EHLO %q", got)
	}
	c.says("AUTH PLAIN "+b64("\x00jürgen\x00s3cret"), "235")
}

// What is not offered is not taken.
func TestWithoutExtensions(t *testing.T) {
	t.Parallel()
	const most = smtpserver.ExtPipelining | smtpserver.ExtChunking | smtpserver.ExtSize | smtpserver.Ext8BitMIME |
		smtpserver.ExtSMTPUTF8 | smtpserver.ExtDSN | smtpserver.ExtEnhancedStatus | smtpserver.ExtLimits
	addr, _ := start(t, smtpserver.Options{Backend: &recorder{}, Without: most, MaxErrors: 100})
	c := dial(t, addr)
	if got := c.says("EHLO client.test", "250"); got != "250-mx.sink.test\n250 HELP" {
		t.Errorf("EHLO %q", got)
	}
	for _, p := range []string{"SIZE=1", "BODY=7BIT", "SMTPUTF8", "RET=HDRS", "ENVID=x"} {
		c.says("MAIL FROM:<a@b.test> "+p, "555 5.5.4")
	}
	c.says("MAIL FROM:<a@b.test>", "250")
	c.says("RCPT TO:<c@d.test> NOTIFY=NEVER", "555 5.5.4")
	c.says("RCPT TO:<c@d.test>", "250")
	c.says("BDAT 6 LAST\r\nQUIT", "500 5.5.2")

	addr, _ = start(t, smtpserver.Options{Backend: &recorder{}, Without: smtpserver.ExtESMTP, TLS: certificate(t)})
	c = dial(t, addr)
	c.says("EHLO client.test", "500 5.5.2")
	c.says("STARTTLS", "502")
	c.says("HELO client.test", "250 mx.sink.test")
	c.says("MAIL FROM:<a@b.test> SIZE=1", "555")
	c.says("MAIL FROM:<a@b.test>", "250")
}

func TestParseExtension(t *testing.T) {
	t.Parallel()
	if ext, err := smtpserver.ParseExtension("Chunking"); ext != smtpserver.ExtChunking || err != nil {
		t.Errorf("%v, %v", ext, err)
	}
	if ext, err := smtpserver.ParseExtension("XYZZY"); err == nil || !strings.Contains(err.Error(), "8BITMIME, CHUNKING") {
		t.Errorf("%v, %v", ext, err)
	}
}

// A listener may speak TLS from the start (RFC 8314).
func TestImplicitTLS(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := certificate(t)
	addr, _, _ := startOn(t, smtpserver.Options{Backend: &recorder{}, TLS: cfg}, tls.NewListener(l, cfg))
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	c := wrap(t, conn)
	c.expect("220")
	if got := c.says("EHLO client.test", "250"); strings.Contains(got, "STARTTLS") || !strings.Contains(got, "REQUIRETLS") {
		t.Errorf("EHLO %q", got)
	}
	c.says("QUIT", "221")
	c.expectEnd()
}
