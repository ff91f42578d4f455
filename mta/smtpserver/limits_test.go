package smtpserver_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postrider/mta/smtpserver"
)

func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	addr, server := start(t, smtpserver.Options{Backend: &recorder{}, Slots: smtpserver.NewSlots(2, 0)})
	first, second := dial(t, addr), dial(t, addr)
	third := dialRaw(t, addr)
	third.expect("421 4.7.0 too many connections")
	third.expectEnd()
	first.says("QUIT", "221")
	first.expectEnd()
	waitFor(t, func() bool { return server.Stats().Open == 1 })
	dial(t, addr)
	second.says("NOOP", "250")
	if s := server.Stats(); s.Refused != 1 || s.Connections != 4 {
		t.Errorf("%+v", s)
	}
}

// waitFor waits until a condition holds; the test's own time ends it.
func waitFor(t testing.TB, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("condition never held")
		}
	}
}

// pipeListener hands out the ends of pipes, with an address of choice.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 25} }

func (l *pipeListener) dial(t testing.TB, from string) *client {
	t.Helper()
	ours, theirs := net.Pipe()
	l.conns <- addressed{theirs, &net.TCPAddr{IP: net.ParseIP(from), Port: 1025}}
	c := wrap(t, ours)
	c.conn.SetDeadline(time.Time{})
	return c
}

type addressed struct {
	net.Conn
	remote net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.remote }

func TestConnectionLimitPerClient(t *testing.T) {
	t.Parallel()
	l := newPipeListener()
	slots := smtpserver.NewSlots(100, 1)
	startOn(t, smtpserver.Options{Backend: &recorder{}, Slots: slots}, l)
	tests := []struct{ from, want string }{
		{"192.0.2.1", "220"}, {"192.0.2.1", "421 4.7.0"}, {"192.0.2.2", "220"},
		{"2001:db8::1", "220"}, {"2001:db8::ffff", "421 4.7.0"}, {"2001:db8:0:1::1", "220"},
		{"127.0.0.1", "220"}, {"127.0.0.1", "220"},
	}
	var first *client
	for _, test := range tests {
		c := l.dial(t, test.from)
		c.expect(test.want)
		if first == nil {
			first = c
		}
	}
	// Who leaves makes room.
	first.says("QUIT", "221")
	waitFor(t, func() bool { return slots.Open() == 5 })
	l.dial(t, "192.0.2.1").expect("220")
}

// The waits, in a time of their own.

func TestIdleClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		_, server, _ := startOn(t, smtpserver.Options{Backend: &recorder{}}, l)
		c := l.dial(t, "127.0.0.1")
		c.expect("220")
		began := time.Now()
		c.expect("421 4.4.2")
		c.expectEnd()
		if d := time.Since(began); d < 4*time.Minute || d > 5*time.Minute {
			t.Errorf("sent away after %v", d)
		}
		if n := server.Stats().Timeouts; n != 1 {
			t.Errorf("%d timeouts", n)
		}
	})
}

// An octet a minute does not keep a command line alive.
func TestCommandByDrops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		startOn(t, smtpserver.Options{Backend: &recorder{}}, l)
		c := l.dial(t, "127.0.0.1")
		c.expect("220")
		began := time.Now()
		var sender sync.WaitGroup
		defer sender.Wait()
		sender.Go(func() {
			for {
				if _, err := c.conn.Write([]byte("N")); err != nil {
					return
				}
				time.Sleep(time.Minute)
			}
		})
		c.expect("421 4.4.2")
		if d := time.Since(began); d > 5*time.Minute {
			t.Errorf("sent away after %v", d)
		}
	})
}

// A sender that goes on steadily, however slowly, comes to its end; one that
// only keeps the connection alive does not.
func TestSlowContent(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		line  string
		every time.Duration
		lines int
		want  string
	}{
		"steady for an hour":   {strings.Repeat("x", 298) + "\r\n", time.Second, 3600, "250 2.0.0"},
		"a line every 30 s":    {strings.Repeat("x", 98) + "\r\n", 30 * time.Second, 3600, "421 4.4.2"},
		"silence of 6 minutes": {strings.Repeat("x", 98) + "\r\n", 6 * time.Minute, 2, "421 4.4.2"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newPipeListener()
				startOn(t, smtpserver.Options{Backend: &recorder{}}, l)
				c := l.dial(t, "127.0.0.1")
				c.expect("220")
				c.says("EHLO client.test", "250")
				c.says("MAIL FROM:<a@b.test>", "250")
				c.says("RCPT TO:<c@d.test>", "250")
				c.says("DATA", "354")
				var sender sync.WaitGroup
				defer sender.Wait()
				sender.Go(func() {
					for range test.lines {
						if _, err := c.conn.Write([]byte(test.line)); err != nil {
							return
						}
						time.Sleep(test.every)
					}
					c.conn.Write([]byte(".\r\n"))
				})
				c.expect(test.want)
			})
		})
	}
}

// A client that sends commands and never reads does not hold the session for ever.
func TestClientNeverReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		_, server, _ := startOn(t, smtpserver.Options{Backend: &recorder{}}, l)
		c := l.dial(t, "127.0.0.1")
		c.expect("220")
		c.conn.Write([]byte("NOOP\r\n"))
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if n := server.Stats().Open; n != 0 {
			t.Errorf("%d sessions open", n)
		}
	})
}

func TestStopTellsIdleClients(t *testing.T) {
	t.Parallel()
	addr, _, stop := startStoppable(t, smtpserver.Options{Backend: &recorder{}})
	idle, inEnvelope := dial(t, addr), dial(t, addr)
	idle.says("EHLO client.test", "250")
	inEnvelope.says("EHLO client.test", "250")
	inEnvelope.says("MAIL FROM:<a@b.test>", "250")
	stop()
	for _, c := range []*client{idle, inEnvelope} {
		c.expect("421 4.3.2")
		c.expectEnd()
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Error("the listener is still open")
	}
}

// Who is sending content when the server stops finishes it, with DATA and
// between chunks, and then goes.
func TestStopWaitsForContent(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	addr, server, stop := startStoppable(t, smtpserver.Options{Backend: r})
	data, chunks, idle := dial(t, addr), dial(t, addr), dial(t, addr)
	for _, c := range []*client{data, chunks} {
		c.says("EHLO client.test", "250")
		c.says("MAIL FROM:<a@b.test>", "250")
		c.says("RCPT TO:<c@d.test>", "250")
	}
	data.says("DATA", "354")
	chunks.says("BDAT 5\r\none", "250")
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	idle.expect("421 4.3.2")
	waitFor(t, func() bool { return server.Stats().Open == 2 })
	data.write("one\r\n")
	data.write(".\r\n")
	data.expect("250 2.0.0")
	data.expect("421 4.3.2")
	select {
	case <-stopped:
		t.Fatal("stopped while a message was under way")
	default:
	}
	chunks.write("BDAT 3 LAST\r\ntwoMAIL FROM:<a@b.test>\r\n")
	chunks.expect("250 2.0.0")
	chunks.expect("421 4.3.2")
	<-stopped
	if n := len(r.all()); n != 2 {
		t.Errorf("%d messages", n)
	}
}

// The grace period ends, and with it a session that does not.
func TestGraceEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		_, _, stop := startOn(t, smtpserver.Options{Backend: &recorder{}, Grace: 20 * time.Second}, l)
		c := l.dial(t, "127.0.0.1")
		c.expect("220")
		c.says("EHLO client.test", "250")
		c.says("MAIL FROM:<a@b.test>", "250")
		c.says("RCPT TO:<c@d.test>", "250")
		c.says("DATA", "354")
		began := time.Now()
		stop()
		if d := time.Since(began); d != 20*time.Second {
			t.Errorf("stopped after %v", d)
		}
		c.expectEnd()
	})
}

// A commit that hangs when the grace period ends is told, and its client gets no 250.
func TestGraceEndsInCommit(t *testing.T) {
	t.Parallel()
	r := &recorder{onCommit: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	addr, _, stop := startStoppable(t, smtpserver.Options{Backend: r, Grace: time.Millisecond})
	c := dial(t, addr)
	c.says("EHLO client.test", "250")
	c.says("MAIL FROM:<a@b.test>", "250")
	c.says("RCPT TO:<c@d.test>", "250")
	c.says("DATA", "354")
	c.write("x\r\n.\r\n")
	stop()
	if got, _ := c.tryReply(); strings.HasPrefix(got, "2") {
		t.Errorf("got %q", got)
	}
}

func TestBrokenListener(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	server, err := smtpserver.New(smtpserver.Options{Hostname: "mx.sink.test", Backend: &recorder{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Run(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]smtpserver.Options{
		"no backend": {Hostname: "x"}, "no name": {Backend: &recorder{}}, "bad name": {Backend: &recorder{}, Hostname: "a b"},
	} {
		if _, err := smtpserver.New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
