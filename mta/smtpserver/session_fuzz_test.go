package smtpserver

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"postrider/mta/smtpwire"
)

// FuzzSession: whatever a client sends, each line of the answers is a line of a
// reply, the transaction's methods are called in order, and all that was begun
// is ended.
func FuzzSession(f *testing.F) {
	for _, dialog := range []string{
		"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n..\r\n.\r\nQUIT\r\n",
		"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\nabcBDAT 2 LAST\r\nxyNOOP\r\n",
		"EHLO x\r\nAUTH LOGIN\r\nYQ==\r\nYg==\r\nAUTH PLAIN =\r\n",
		"HELO x\r\nMAIL FROM:<a@b>\r\nRSET\r\nVRFY x\r\nHELP\r\nGET / HTTP/1.1\r\n",
		"EHLO x\nMAIL", "EHLO x\r\nSTARTTLS\r\n\x16\x03\x01", "\x16\x03", "BDAT 99999999 LAST\r\n",
	} {
		f.Add([]byte(dialog), uint8(7))
	}
	f.Fuzz(func(t *testing.T, dialog []byte, piece uint8) {
		checker := &orderChecker{t: t}
		server, err := New(Options{Hostname: "mx.sink.test", Backend: checker, Auth: checker, MaxMessageSize: 100, MaxRecipients: 3})
		if err != nil {
			t.Fatal(err)
		}
		conn := &tape{in: dialog, piece: int(piece) + 1}
		newConn(server, conn).serve(context.Background())
		for line := range bytes.Lines(conn.out.Bytes()) {
			text, ok := bytes.CutSuffix(line, []byte("\r\n"))
			if !ok || len(line) > 512 || bytes.ContainsAny(text, "\r\n") {
				t.Errorf("line %q", line)
			}
			if _, _, _, err := smtpwire.ParseReplyLine(text); err != nil {
				t.Errorf("reply %q: %v", line, err)
			}
		}
		if checker.mails != checker.ends {
			t.Errorf("%d transactions begun, %d ended", checker.mails, checker.ends)
		}
	})
}

// tape is a connection that plays what the client says, in pieces, and notes
// what it hears.
type tape struct {
	in    []byte
	piece int
	out   bytes.Buffer
}

func (c *tape) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.in[:min(len(c.in), c.piece)])
	c.in = c.in[n:]
	return n, nil
}

func (c *tape) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *tape) Close() error                     { return nil }
func (c *tape) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (c *tape) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (c *tape) SetDeadline(time.Time) error      { return nil }
func (c *tape) SetReadDeadline(time.Time) error  { return nil }
func (c *tape) SetWriteDeadline(time.Time) error { return nil }

// orderChecker is a backend that knows in which order it may be asked.
type orderChecker struct {
	t                         *testing.T
	mails, ends, rcpts        int
	open, content, isFinished bool
}

func (o *orderChecker) Connect(*Conn) (Session, error) { return o, nil }

func (o *orderChecker) Authenticate(_ context.Context, user, _ string) error {
	if user == "" {
		o.t.Error("AUTH without a user")
	}
	return nil
}

func (o *orderChecker) must(ok bool, what string) {
	if !ok {
		o.t.Errorf("%s out of order: %+v", what, o)
	}
}

func (o *orderChecker) Mail(context.Context, *Mail) (Transaction, error) {
	o.must(!o.open, "MAIL")
	o.open, o.content, o.isFinished, o.rcpts = true, false, false, 0
	o.mails++
	return o, nil
}

func (o *orderChecker) Rcpt(_ context.Context, r *Rcpt) error {
	o.must(o.open && !o.content && o.rcpts < 3 && len(r.Path) > 0, "RCPT")
	o.rcpts++
	return nil
}

func (o *orderChecker) Content(context.Context) (Content, error) {
	o.must(o.open && !o.content && o.rcpts > 0, "content")
	o.content = true
	return o, nil
}

func (o *orderChecker) Write(p []byte) (int, error) {
	o.must(o.open && o.content && !o.isFinished && len(p) > 0, "octets")
	return len(p), nil
}

func (o *orderChecker) Commit(_ context.Context, text []byte) ([]byte, error) {
	o.must(o.open && o.content && !o.isFinished, "commit")
	o.isFinished = true
	return append(text, "ok"...), nil
}

func (o *orderChecker) End() {
	o.must(o.open, "end")
	o.open = false
	o.ends++
}
