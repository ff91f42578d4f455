package smtpserver_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"

	"postrider/mta/smtpserver"
)

// discard takes everything and keeps nothing.
type discard struct{}

func (discard) Connect(*smtpserver.Conn) (smtpserver.Session, error) { return discard{}, nil }
func (discard) Mail(context.Context, *smtpserver.Mail) (smtpserver.Transaction, error) {
	return discard{}, nil
}
func (discard) Rcpt(context.Context, *smtpserver.Rcpt) error        { return nil }
func (discard) Content(context.Context) (smtpserver.Content, error) { return discard{}, nil }
func (discard) Write(p []byte) (int, error)                         { return len(p), nil }
func (discard) Commit(_ context.Context, text []byte) ([]byte, error) {
	return append(text, "ok"...), nil
}
func (discard) End() {}

// exchange is a group of commands, written at once, and how many lines answer it.
type exchange struct {
	out   []byte
	lines int
}

// run carries exchanges out; it allocates nothing.
func run(tb testing.TB, conn net.Conn, buf []byte, exchanges []exchange) {
	for _, x := range exchanges {
		if _, err := conn.Write(x.out); err != nil {
			tb.Fatal(err)
		}
		for lines := x.lines; lines > 0; {
			n, err := conn.Read(buf)
			if err != nil {
				tb.Fatal(err)
			}
			lines -= bytes.Count(buf[:n], newline)
		}
	}
}

var newline = []byte{'\n'}

// messageOf4KB is one message, in the ways that clients send it.
func messageOf4KB() map[string][]exchange {
	body := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 78)+"\r\n", 50)
	mail, rcpt := "MAIL FROM:<a@b.test> SIZE=4096\r\n", "RCPT TO:<c@d.test>\r\n"
	return map[string][]exchange{
		"DATA":       {{[]byte(mail + rcpt + "DATA\r\n"), 3}, {[]byte(body + ".\r\n"), 1}},
		"BDAT":       {{[]byte(mail + rcpt + "BDAT " + itoa(len(body)) + " LAST\r\n" + body), 3}},
		"sequential": {{[]byte(mail), 1}, {[]byte(rcpt), 1}, {[]byte("DATA\r\n"), 1}, {[]byte(body + ".\r\n"), 1}},
	}
}

// BenchmarkMessage is one message of 4 KB over loopback, client and server in
// one process.
func BenchmarkMessage(b *testing.B) {
	for name, exchanges := range messageOf4KB() {
		b.Run(name, func(b *testing.B) {
			addr, _ := start(b, smtpserver.Options{Backend: discard{}})
			c := dial(b, addr)
			c.says("EHLO client.test", "250")
			buf := make([]byte, 4096)
			b.ReportAllocs()
			for b.Loop() {
				run(b, c.conn, buf, exchanges)
			}
		})
	}
}

// In the steady state a message costs no allocation. Not parallel: the count
// is the whole process's.
func TestNoAllocationsPerMessage(t *testing.T) {
	for name, exchanges := range messageOf4KB() {
		addr, _ := start(t, smtpserver.Options{Backend: discard{}})
		c := dial(t, addr)
		c.says("EHLO client.test", "250")
		buf := make([]byte, 4096)
		run(t, c.conn, buf, exchanges)
		if n := testing.AllocsPerRun(1000, func() { run(t, c.conn, buf, exchanges) }); n >= 1 {
			t.Errorf("%s: %v allocations a message", name, n)
		}
	}
}
