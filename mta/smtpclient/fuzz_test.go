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

// Whatever a server says: each transaction is done once and in order (run sees
// to that), and none counts as delivered without an accepted sender, recipient
// and content.
func FuzzSession(f *testing.F) {
	for _, says := range []string{
		"220 a\r\n250-b\r\n250-PIPELINING\r\n250 CHUNKING\r\n250 m\r\n250 r\r\n550 r\r\n250 f\r\n250 s\r\n421 m\r\n",
		"220 a\r\n250-b\r\n250 PIPELINING\r\n250 m\r\n550 r\r\n550 r\r\n354 d\r\n250 f\r\n250 m\r\n250 r\r\n554 d\r\n250 rset\r\n",
		"220 a\r\n502 b\r\n250 c\r\n250 m\r\n250 r\r\n450 r\r\n354 d\r\n250 f\r\n",
		"220-a\r\n221 b\r\n", "220 a\r\n250 b\r\n250 m\r\n250 r\r\n250 r\r\n250 d\r\n",
		"220 a\r\n250-b\r\n250-PIPELINING\r\n250 CHUNKING\r\n250 m\r\n250 r\r\n250 r\r\n421 f\r\n421 s\r\n250 m\r\n250 r\r\n250 f\r\n",
	} {
		f.Add([]byte(says), uint8(1), false)
		f.Add([]byte(says), uint8(4), true)
	}
	f.Fuzz(func(t *testing.T, says []byte, inFlight uint8, isLarge bool) {
		s := over(t, deafConn{says: bytes.NewReader(says)}, Options{InFlight: int(inFlight % 5)})
		if s.Greet(t.Context()) != nil {
			return
		}
		txs := messages(4)
		txs = append(txs, message("a@a.test", "\r\n", "b@b.test", "c@b.test"))
		if isLarge {
			txs = append([]*Transaction{message("a@a.test", large(), "b@b.test")}, txs...)
		}
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
