package smtpserver_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"postrider/mta/smtpserver"
)

// No form of a line end but CRLF "." CRLF ends the content, so that nothing
// within it becomes a second message.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	ends := map[string]string{
		"LF.LF": "\n.\n", "LF.CRLF": "\n.\r\n", "CRLF.LF": "\r\n.\n", "LF.CR": "\n.\r", "CR.CR": "\r.\r",
		"CR.CRLF": "\r.\r\n", "CRLF.CR": "\r\n.\r", "CRLF.CRCRLF": "\r\n.\r\r\n", "CRLFNUL.CRLF": "\r\n\x00.\r\n", "CRCRLF.CRLF": "\r\r.\r\n",
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &recorder{}
			addr, _ := start(t, smtpserver.Options{Backend: r})
			c := dial(t, addr)
			c.says("EHLO client.test", "250")
			c.write("MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n")
			c.expect("250")
			c.expect("250")
			c.expect("354")
			c.write("one" + end + "MAIL FROM:<evil@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\ntwo\r\n.\r\nNOOP\r\n")
			c.expect("250 2.0.0 taken")
			c.expect("250 2.0.0 ok")
			all := r.all()
			if len(all) != 1 || !strings.Contains(all[0].content, "evil") {
				t.Errorf("split into %d messages: %+v", len(all), all)
			}
		})
	}
}

// The end of the content may come in any pieces.
func TestContentInPieces(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	addr, _ := start(t, smtpserver.Options{Backend: r})
	c := dial(t, addr)
	c.conn.(*net.TCPConn).SetNoDelay(true)
	c.says("EHLO client.test", "250")
	c.says("MAIL FROM:<a@b.test>", "250")
	c.says("RCPT TO:<c@d.test>", "250")
	c.says("DATA", "354")
	for _, b := range "x\r\n..y\r\n.z\r\n.\r\n" {
		c.write(string(b))
	}
	c.expect("250 2.0.0")
	if got := r.all()[0].content; got != "x\r\n.y\r\nz\r\n" {
		t.Errorf("content %q", got)
	}
}

func TestChunksAreNotRead(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	addr, _ := start(t, smtpserver.Options{Backend: r})
	c := dial(t, addr)
	c.says("EHLO client.test", "250")
	// A chunk with all that would end DATA, and a dot that must stay.
	body := "..x\r\n.\r\nMAIL FROM:<e@b.test>\n\x00\xff" + strings.Repeat("l", 5000)
	c.write("MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 8\r\nSubject:BDAT ")
	c.write(itoa(len(body)) + " LAST\r\n" + body + "NOOP\r\n")
	for _, want := range []string{"250 2.1.0", "250 2.1.5", "250 2.0.0 8 octets", "250 2.0.0 taken", "250 2.0.0 ok"} {
		c.expect(want)
	}
	if got := r.all()[0].content; got != "Subject:"+body {
		t.Errorf("content %q", got)
	}
}

func itoa(n int) string {
	s := ""
	for ; n > 0; n /= 10 {
		s = string(rune('0'+n%10)) + s
	}
	return s
}

// All recipients refused, and the client sends its chunk in the same write
// (RFC 2920): the chunk is no command, and the next transaction begins clean.
func TestRefusedRecipientThenChunk(t *testing.T) {
	t.Parallel()
	r := &recorder{onRcpt: func(to string) error {
		if to == "no@d.test" {
			return &smtpserver.Reply{Code: 550, Status: "5.1.1", Text: "nobody\r\n250 ok\x80"}
		}
		return nil
	}}
	addr, _ := start(t, smtpserver.Options{Backend: r})
	c := dial(t, addr)
	c.says("EHLO client.test", "250")
	c.write("MAIL FROM:<a@b.test>\r\nRCPT TO:<no@d.test>\r\nBDAT 6 LAST\r\nQUIT\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<yes@d.test>\r\nBDAT 2 LAST\r\nhi")
	for _, want := range []string{"250 2.1.0", "550 5.1.1 nobody??250 ok?", "503 5.5.1", "250 2.1.0", "250 2.1.5", "250 2.0.0"} {
		c.expect(want)
	}
	if all := r.all(); len(all) != 1 || all[0].content != "hi" {
		t.Errorf("%+v", all)
	}
}

func TestBackendErrors(t *testing.T) {
	t.Parallel()
	plain := errors.New("disk on fire")
	refusal := &smtpserver.Reply{Code: 554, Status: "5.6.0", Text: "no"}
	tests := map[string]struct {
		set  func(*recorder)
		want string // of the step that fails
		step int    // 0 MAIL, 1 RCPT, 2 DATA, 3 the content
	}{
		"mail plain":        {func(r *recorder) { r.onMail = func(string) error { return plain } }, "451 4.3.0", 0},
		"mail reply":        {func(r *recorder) { r.onMail = func(string) error { return refusal } }, "554 5.6.0 no", 0},
		"rcpt plain":        {func(r *recorder) { r.onRcpt = func(string) error { return plain } }, "451 4.3.0", 1},
		"content reply":     {func(r *recorder) { r.onContent = func() error { return refusal } }, "554 5.6.0", 2},
		"write plain":       {func(r *recorder) { r.onWrite = func([]byte) error { return plain } }, "451 4.3.0", 3},
		"write reply":       {func(r *recorder) { r.onWrite = func([]byte) error { return refusal } }, "554 5.6.0", 3},
		"commit plain":      {func(r *recorder) { r.onCommit = func(context.Context) error { return plain } }, "451 4.3.0", 3},
		"code out of range": {func(r *recorder) { r.onMail = func(string) error { return &smtpserver.Reply{Code: 250} } }, "451 4.0.0", 0},
		"status of no class": {func(r *recorder) {
			r.onMail = func(string) error { return &smtpserver.Reply{Code: 550, Status: "4.1.1"} }
		}, "550 5.0.0", 0},
		"text much too long": {func(r *recorder) {
			r.onMail = func(string) error { return &smtpserver.Reply{Code: 550, Text: strings.Repeat("x", 5000)} }
		}, "550 5.0.0 xxx", 0},
		"commit text is clean": {func(r *recorder) { r.text = "a\r\nb" }, "250 2.0.0 a??b", 3},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &recorder{}
			test.set(r)
			addr, _ := start(t, smtpserver.Options{Backend: r})
			c := dial(t, addr)
			c.says("EHLO client.test", "250")
			good := []string{"250 2.1.0", "250 2.1.5", "354", "250 2.0.0"}
			for i, line := range []string{"MAIL FROM:<a@b.test>", "RCPT TO:<c@d.test>", "DATA", "hello\r\n."} {
				want := good[i]
				if i == test.step {
					want = test.want
				}
				if got := c.says(line, want); len(got) > 510 {
					t.Errorf("reply of %d octets", len(got))
				}
				if i == test.step {
					break
				}
			}
			// The session is in a clean state: RSET and begin again.
			c.says("RSET", "250")
			c.says("NOOP", "250")
		})
	}
}

// A 421 of the backend ends the session; one at Connect stands for the greeting.
func TestBackendSaysGoodbye(t *testing.T) {
	t.Parallel()
	gone := &smtpserver.Reply{Code: 421, Status: "4.3.2", Text: "closed"}
	r := &recorder{onMail: func(string) error { return gone }}
	addr, _ := start(t, smtpserver.Options{Backend: r})
	c := dial(t, addr)
	c.says("EHLO client.test", "250")
	c.says("MAIL FROM:<a@b.test>", "421 4.3.2 closed")
	c.expectEnd()

	for err, want := range map[error]string{gone: "421 4.3.2 closed", errors.New("x"): "421 4.3.0"} {
		addr, _ := start(t, smtpserver.Options{Backend: &recorder{onConnect: func(*smtpserver.Conn) error { return err }}})
		c := dialRaw(t, addr)
		c.expect(want)
		c.expectEnd()
	}
}

// A reply that ends the session arrives although the client goes on sending.
func TestLastReplyArrives(t *testing.T) {
	t.Parallel()
	addr, server := start(t, smtpserver.Options{Backend: &recorder{}, MaxErrors: 3})
	c := dial(t, addr)
	c.write(strings.Repeat("XYZZY\r\n", 3) + strings.Repeat("NOOP\r\n", 3000))
	for range 3 {
		c.expect("500 5.5.2")
	}
	c.expect("421 4.7.0")
	c.expectEnd()
	if n := server.Stats().ProtocolErrors; n != 3 {
		t.Errorf("%d protocol errors", n)
	}
}

// Mistakes are counted from message to message: a session may be long.
func TestMessageForgivesErrors(t *testing.T) {
	t.Parallel()
	addr, _ := start(t, smtpserver.Options{Backend: &recorder{}, MaxErrors: 3})
	c := dial(t, addr)
	c.says("EHLO client.test", "250")
	for range 3 {
		c.says("XYZZY", "500")
		c.says("XYZZY", "500")
		c.says("MAIL FROM:<a@b.test>", "250")
		c.says("RCPT TO:<c@d.test>", "250")
		c.says("BDAT 2 LAST\r\n", "250")
	}
}

// Content that nobody wants is read to its end only so far.
func TestEndlessContent(t *testing.T) {
	t.Parallel()
	addr, _ := start(t, smtpserver.Options{Backend: &recorder{}})
	c := dial(t, addr)
	c.write("BDAT 999999999999 LAST\r\n")
	block := make([]byte, 1<<20)
	for range 200 {
		if _, err := c.conn.Write(block); err != nil {
			return
		}
	}
	t.Error("200 MiB were read")
}

func TestTooMuchJunk(t *testing.T) {
	t.Parallel()
	addr, _ := start(t, smtpserver.Options{Backend: &recorder{}})
	c := dial(t, addr)
	for range 999 {
		c.says("NOOP", "250")
	}
	c.says("RSET", "250")
	c.expect("421 4.7.0")
	c.expectEnd()
}

// A page in a browser can post to a port on loopback: no line of it is a command.
func TestHTTPIsTurnedAway(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	addr, _ := start(t, smtpserver.Options{Backend: r})
	for _, request := range []string{"POST / HTTP/1.1", "GET /", "FOO /x HTTP/1.1"} {
		c := dial(t, addr)
		c.write(request + "\r\nHost: x\r\n\r\nEHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nx\r\n.\r\n")
		c.expect("554 5.5.1")
		c.expectEnd()
	}
	if len(r.all()) > 0 {
		t.Error("a message got in")
	}
}

func TestTLSFromTheStart(t *testing.T) {
	t.Parallel()
	addr, _ := start(t, smtpserver.Options{Backend: &recorder{}})
	c := dial(t, addr)
	c.write("\x16\x03\x01\x02\x00\x01")
	c.expect("554 5.5.1")
	c.expectEnd()
}

// A client that ends its lines with LF hears so at once, and does not wait.
func TestBareLineFeedWaits(t *testing.T) {
	t.Parallel()
	addr, _ := start(t, smtpserver.Options{Backend: &recorder{}})
	c := dial(t, addr)
	c.write("EHLO client.test\n")
	c.expect("500 5.5.2")
	c.expectEnd()
}

// A chunk that ends in LF is no such line.
func TestChunkEndsInLineFeed(t *testing.T) {
	t.Parallel()
	addr, _ := start(t, smtpserver.Options{Backend: &recorder{}})
	c := dial(t, addr)
	c.says("EHLO client.test", "250")
	c.write("MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nBDAT 4\r\nabc\n")
	for range 3 {
		c.expect("250")
	}
	c.says("BDAT 0 LAST", "250 2.0.0")
	c.says("NOOP", "250")
}

func TestMalformedChunkEndsTheSession(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"", "x", "-1 LAST", "4 LASTLY", "4 LAST x", "99999999999999999999 LAST"} {
		addr, _ := start(t, smtpserver.Options{Backend: &recorder{}})
		c := dial(t, addr)
		c.write("BDAT " + args + "\r\nMAIL FROM:<a@b.test>\r\n")
		c.expect("501 5.5.4")
		c.expectEnd()
	}
}
