package smtpclient

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"postrider/mta/smtptest"
)

// idleServer takes one message after EHLO and then, when idle is closed, does
// what last does.
func idleServer(t *testing.T, conn net.Conn, last func(net.Conn)) (idle chan<- struct{}, done <-chan struct{}) {
	start, end := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(end)
		io.WriteString(conn, "220 mx.test\r\n")
		b := make([]byte, 4096)
		conn.Read(b)
		io.WriteString(conn, "250-mx.test\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
		conn.Read(b)
		io.WriteString(conn, "250 a\r\n250 b\r\n250 c\r\n")
		<-start
		last(conn)
	}()
	t.Cleanup(func() { conn.Close(); <-end })
	return start, end
}

func tcpPair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func TestIdleSession(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		last func(net.Conn)
		kind Kind // 0: still of use
	}{
		{"quiet", func(net.Conn) {}, 0},
		{"closed", func(c net.Conn) { c.Close() }, KindClosed},
		{"421", func(c net.Conn) { io.WriteString(c, "421 4.4.2 idle for too long\r\n") }, KindReply},
		{"421 and closed", func(c net.Conn) { io.WriteString(c, "421 4.4.2 idle for too long\r\n"); c.Close() }, KindReply},
		{"speaks", func(c net.Conn) { io.WriteString(c, "250 2.0.0 taken\r\n") }, KindProtocol},
		{"garbage", func(c net.Conn) { io.WriteString(c, "garbage\r\n") }, KindProtocol},
		{"half a line", func(c net.Conn) { io.WriteString(c, "42") }, KindTimeout},
	}
	for name, pair := range map[string]func() (net.Conn, net.Conn){
		"TCP":  func() (net.Conn, net.Conn) { return tcpPair(t) },
		"pipe": net.Pipe,
	} {
		for _, tt := range tests {
			t.Run(name+"/"+tt.name, func(t *testing.T) {
				t.Parallel()
				client, server := pair()
				idle, done := idleServer(t, server, tt.last)
				s := over(t, client, Options{})
				if err := s.Greet(t.Context()); err != nil {
					t.Fatal(err)
				}
				mustDeliver(t, s, messages(1)...)
				close(idle)
				if name == "TCP" {
					<-done
				}
				err := s.CheckIdle()
				if tt.kind == 0 {
					if err != nil {
						t.Fatal(err)
					}
					return
				}
				for err == nil { // what was written is on its way
					err = s.CheckIdle()
				}
				wantError(t, err, StageIdle, tt.kind, nil)

				// No transaction is asked for.
				if err := s.Run(t.Context(), nil, nil); err == nil {
					t.Error("a dead session runs")
				}
			})
		}
	}
}

// Run looks by itself before it asks for a transaction.
func TestRunOnASessionThatWasClosedWhileIdle(t *testing.T) {
	t.Parallel()
	client, server := tcpPair(t)
	idle, done := idleServer(t, server, func(c net.Conn) { c.Close() })
	s := over(t, client, Options{})
	if err := s.Greet(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustDeliver(t, s, messages(1)...)
	close(idle)
	<-done
	for isQuiet(client) {
		time.Sleep(time.Millisecond)
	}
	err := s.Run(t.Context(), func() (*Transaction, bool) { t.Error("a transaction was asked for"); return nil, false }, nil)
	wantError(t, err, StageIdle, KindClosed, nil)
}

// The server hangs up at the moment at which the session is used again: the
// look before it saw nothing.
func TestQuietCloseWhileTheEnvelopeIsOnItsWay(t *testing.T) {
	t.Parallel()
	for _, then := range []smtptest.Then{smtptest.Close, smtptest.Reset} {
		server := start(t, smtptest.Script{Extensions: pipelining(), On: map[string][]smtptest.Step{"MAIL FROM:<late@": {{Then: then}}}})
		s := greeted(t, server, Options{})
		mustDeliver(t, s, messages(1)...)
		results, err := run(t, s, message("late@a.test", "\r\n", "b@b.test"))
		wantError(t, err, StageMail, KindClosed, nil)
		if r := results[0]; !r.Untried || r.Sent || r.Err == nil {
			t.Errorf("%+v", r)
		}
	}
	t.Run("but a fresh session's is an attempt", func(t *testing.T) {
		t.Parallel()
		server := start(t, smtptest.Script{Extensions: pipelining(), On: map[string][]smtptest.Step{"MAIL": {{Then: smtptest.Close}}}})
		results, err := run(t, greeted(t, server, Options{}), messages(1)...)
		wantError(t, err, StageMail, KindClosed, nil)
		if results[0].Untried {
			t.Error("untried")
		}
	})
	t.Run("and so is one that heard something", func(t *testing.T) {
		t.Parallel()
		server := start(t, smtptest.Script{Extensions: pipelining(), On: map[string][]smtptest.Step{"MAIL FROM:<late@": {{Reply: "250 ok", Then: smtptest.Close}}}})
		s := greeted(t, server, Options{})
		mustDeliver(t, s, messages(1)...)
		results, err := run(t, s, message("late@a.test", "\r\n", "b@b.test"))
		wantError(t, err, StageRcpt, KindClosed, nil)
		if results[0].Untried {
			t.Error("untried")
		}
	})
}

func TestIdleSessionUnderTLS(t *testing.T) {
	t.Parallel()
	ca := testCA(t)
	server := start(t, smtptest.Script{Extensions: append([]string{"STARTTLS"}, chunking...), TLS: serverTLS(t, ca)})
	s := greeted(t, server, Options{})
	if err := s.StartTLS(t.Context(), &tls.Config{ServerName: "mx.test", RootCAs: ca.Pool()}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		mustDeliver(t, s, messages(1)...)
		if err := s.CheckIdle(); err != nil {
			t.Fatal(err)
		}
	}
	server.Close()
	err := s.CheckIdle()
	for err == nil {
		err = s.CheckIdle()
	}
	wantError(t, err, StageIdle, KindClosed, nil)
}

// An old deadline, passed while the session was idle, harms nobody.
func TestIdleForLongerThanTheLastDeadline(t *testing.T) {
	t.Parallel()
	server := start(t, smtptest.Script{Extensions: chunking})
	o := Options{Timeouts: long}
	o.Timeouts.Command, o.Timeouts.Final = 300*time.Millisecond, 300*time.Millisecond
	s := greeted(t, server, o)
	mustDeliver(t, s, messages(1)...)
	time.Sleep(400 * time.Millisecond)
	if err := s.CheckIdle(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(400 * time.Millisecond)
	mustDeliver(t, s, messages(1)...)
}

func TestQuit(t *testing.T) {
	t.Parallel()
	ca := testCA(t)
	for _, isTLS := range []bool{false, true} {
		server := start(t, smtptest.Script{Extensions: []string{"STARTTLS"}, TLS: serverTLS(t, ca)})
		s := greeted(t, server, Options{})
		if isTLS {
			if err := s.StartTLS(t.Context(), &tls.Config{ServerName: "mx.test", RootCAs: ca.Pool()}); err != nil {
				t.Fatal(err)
			}
		}
		s.Quit()
		if !server.WaitCommand("QUIT", time.Minute) {
			t.Errorf("TLS %v: no QUIT", isTLS)
		}
	}
}

// What came in a record of its own behind the last reply lies in TLS, and not
// in the socket any more.
func TestUnsolicitedReplyWithinTLS(t *testing.T) {
	t.Parallel()
	ca := testCA(t)
	client, server := tcpPair(t)
	coalesced := &coalescer{Conn: server}
	held := tls.Server(coalesced, serverTLS(t, ca))
	var wg sync.WaitGroup
	wg.Go(func() {
		defer held.Close()
		b := make([]byte, 4096)
		io.WriteString(server, "220 mx.test\r\n")
		server.Read(b)
		io.WriteString(server, "250-mx.test\r\n250 STARTTLS\r\n")
		server.Read(b)
		io.WriteString(server, "220 go\r\n")
		if held.Handshake() != nil {
			return
		}
		held.Read(b)
		io.WriteString(held, "250-mx.test\r\n250-PIPELINING\r\n250 CHUNKING\r\n")
		held.Read(b)
		coalesced.isHolding = true
		io.WriteString(held, "250 a\r\n250 b\r\n250 c\r\n")
		io.WriteString(held, "250 not asked for\r\n")
		server.Write(coalesced.held)
		held.Read(b)
	})
	defer wg.Wait()
	s := over(t, client, Options{})
	defer s.Close()
	if err := s.Greet(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.StartTLS(t.Context(), &tls.Config{ServerName: "mx.test", RootCAs: ca.Pool()}); err != nil {
		t.Fatal(err)
	}
	mustDeliver(t, s, messages(1)...)
	wantError(t, s.CheckIdle(), StageIdle, KindProtocol, ErrUnsolicitedReply)
}

// coalescer keeps what is written to it.
type coalescer struct {
	net.Conn
	isHolding bool
	held      []byte
}

func (c *coalescer) Write(b []byte) (int, error) {
	if c.isHolding {
		c.held = append(c.held, b...)
		return len(b), nil
	}
	return c.Conn.Write(b)
}
