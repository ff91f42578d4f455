package smtpclient

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

func FuzzParseEHLO(f *testing.F) {
	f.Add([]byte("mx.test\nSIZE 100\nAUTH PLAIN\nLIMITS RCPTMAX=3"))
	f.Add([]byte("\nauth=login\nsize -1\nlimits = =1 a="))
	f.Fuzz(func(t *testing.T, b []byte) {
		var lines []string
		for line := range bytes.SplitSeq(b, []byte("\n")) {
			lines = append(lines, string(line))
		}
		e := parseEHLO(lines)
		if e.Size < 0 || e.RcptMax < 0 || e.MailMax < 0 || e.Size > 0 && !e.SizeKnown {
			t.Errorf("%+v", e)
		}
	})
}

// deafConn is a server that does not listen and says what it was going to say.
type deafConn struct {
	net.Conn
	says io.Reader
}

func (c deafConn) Read(b []byte) (int, error)       { return c.says.Read(b) }
func (c deafConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c deafConn) Close() error                     { return nil }
func (c deafConn) SetDeadline(time.Time) error      { return nil }
func (c deafConn) SetReadDeadline(time.Time) error  { return nil }
func (c deafConn) SetWriteDeadline(time.Time) error { return nil }

// phrases are what a server of FuzzSession says, an octet of its input each.
var phrases = []string{
	"250 2.0.0 ok\r\n", "354 go ahead\r\n", "550 5.1.1 no\r\n", "451 4.3.0 later\r\n", "421 4.3.2 closing\r\n", "251 2.1.5 will forward\r\n",
	"250-a\r\n250 b\r\n", "250-a\r\n550 b\r\n", "250-unfinished\r\n", "221 bye\r\n", "334 more\r\n", "garbage\r\n", "250 half a line", "\r\n", "552-a\r\n552 b\r\n", "250 ok\n",
}

// Whatever a server says: each transaction is done once and in order (run sees
// to that), and none counts as delivered without an accepted sender, recipient
// and content.
func FuzzSession(f *testing.F) {
	for _, says := range []string{
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "\x00\x00\x01\x00\x00\x00\x01\x00", "\x00\x02\x01\x00\x00\x00\x02", "\x00\x00\x04\x00", "\x02\x02\x02\x00\x00\x00\x04\x00\x00\x00",
	} {
		f.Add([]byte(says), uint8(0))
		f.Add([]byte(says), uint8(1))
		f.Add([]byte(says), uint8(3))
		f.Add([]byte(says), uint8(0x43))
		f.Add([]byte(says), uint8(0x87))
	}
	f.Fuzz(func(t *testing.T, says []byte, manner uint8) {
		var b bytes.Buffer
		for _, c := range says {
			b.WriteString(phrases[int(c)%len(phrases)])
		}
		s := over(t, deafConn{says: &b}, Options{InFlight: int(manner >> 5)})
		s.ext = Extensions{Pipelining: manner&1 != 0, Chunking: manner&2 != 0}
		s.window = s.opts.InFlight
		txs := append(messages(3), message("a@a.test", "\r\n", "b@b.test", "c@b.test"))
		if manner&4 != 0 {
			txs[1] = message("a@a.test", large(), "b@b.test")
		}
		txs = append(txs, messages(3)...)
		results, err := run(t, s, txs...)
		for i, r := range results {
			if len(r.Rcpts) != len(txs[i].Rcpts) {
				t.Fatalf("%d replies for %d recipients", len(r.Rcpts), len(txs[i].Rcpts))
			}
			if r.Final.Code/100 == 2 && !r.Sent || r.Untried && (r.Err == nil || r.Final.Code != 0) || r.Err != nil && err == nil {
				t.Errorf("transaction %d: %+v, %v", i, r, err)
			}
			// That the recipients were accepted follows from DATA, but not with BDAT.
			if r.Data.Code == 354 && r.Sent {
				accepted := 0
				for _, rcpt := range r.Rcpts {
					if isSuccess(rcpt.Code) {
						accepted++
					}
				}
				if accepted == 0 || !isSuccess(r.Mail.Code) {
					t.Errorf("sent without a recipient: %+v", r)
				}
			}
			if r.Err == nil && r.Mail.Code == 0 {
				t.Errorf("neither reply nor error: %+v", r)
			}
		}
	})
}

func FuzzCheckPath(f *testing.F) {
	for _, s := range []string{"a@b.test", `"a b"@c.test`, `"\"@x`, "a>b", "\r\n", "ä@ö.test", `a"b c"d`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		if checkPath(address) != nil {
			return
		}
		isQuoted := false
		for i := 0; i < len(address); i++ {
			switch c := address[i]; {
			case c < ' ' || c == 0x7f:
				t.Fatalf("accepted %q", address)
			case isQuoted && c == '\\':
				i++
			case c == '"':
				isQuoted = !isQuoted
			case !isQuoted && (c == '>' || c == ' '):
				t.Fatalf("accepted %q", address)
			}
		}
	})
}
