package rehearsal_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"postrider/mta/rehearsal"
	"postrider/mta/smtpserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// send sends a message with go-smtp's client, which shares no code with the sink.
func send(t testing.TB, addr, from string, to []string, content string) error {
	t.Helper()
	c, err := smtp.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return sendOver(c, from, to, content)
}

func sendOver(c *smtp.Client, from string, to []string, content string) error {
	if err := c.Mail(from, nil); err != nil {
		return err
	}
	for _, rcpt := range to {
		if err := c.Rcpt(rcpt, nil); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, content); err != nil {
		return err
	}
	return w.Close()
}

func TestSinkCounts(t *testing.T) {
	t.Parallel()
	sink := newSink(t, rehearsal.SinkOptions{Verify: true})
	send1 := func(id, body string, to ...string) {
		t.Helper()
		if err := send(t, sink.addr, "a@b.test", to, id+"\r\n"+body); err != nil {
			t.Fatal(err)
		}
	}
	send1("Message-ID: <1@b.test>\r\n", "x\r\n", "r@One.test", "r@two.test")
	send1("Subject: y\r\nmessage-id:\r\n <1@b.test>\r\n", "other\r\n", "R@one.test", "r@two.test") // r@two.test again
	send1("Subject: none\r\n", "Message-ID: <1@b.test>\r\n", "r@one.test")
	// A header that comes in many pieces.
	send1(strings.Repeat("X: "+strings.Repeat("x", 70)+"\r\n", 2000)+"Message-ID: <2@b.test>\r\n", "x\r\n", "r@one.test")
	// No body.
	if err := send(t, sink.addr, "a@b.test", []string{"r@one.test"}, "Message-ID: <3@b.test>\r\n"); err != nil {
		t.Fatal(err)
	}
	s := sink.Stats()
	if s.Messages != 5 || s.Recipients != 7 || s.Domains != 2 || s.Copies != 5 || s.Duplicates != 1 || s.WithoutID != 1 || s.Unverified != 0 {
		t.Errorf("%+v", s)
	}
	if d := sink.Domains(); d["one.test"] != 5 || d["two.test"] != 2 {
		t.Errorf("%v", d)
	}
	if s.First.IsZero() || s.Last.Before(s.First) || s.PerSecond() <= 0 {
		t.Errorf("first %v, last %v", s.First, s.Last)
	}
}

func TestSinkKeeps(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "kept")
	sink := newSink(t, rehearsal.SinkOptions{Keep: rehearsal.Keep{Dir: dir, Last: 2}})
	const content = "Subject: x\r\n\r\n.dot\r\n"
	for i := range 3 {
		if err := send(t, sink.addr, "a@b.test", []string{fmt.Sprint(i, "@c.test"), "e@d.test"}, content); err != nil {
			t.Fatal(err)
		}
	}
	all := sink.Messages()
	if len(all) != 2 || all[0].To[0] != "1@c.test" || all[1].To[0] != "2@c.test" {
		t.Fatalf("%+v", all)
	}
	m := all[1]
	if m.From != "a@b.test" || len(m.To) != 2 || m.To[1] != "e@d.test" || string(m.Content) != content || m.TLS || !m.Client.IsLoopback() {
		t.Errorf("%+v", m)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.eml"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v", files, err)
	}
	got, err := os.ReadFile(files[0])
	if want := "x-sender: a@b.test\r\nx-receiver: 0@c.test\r\nx-receiver: e@d.test\r\n" + content; err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
}

// A message that cannot be kept is not taken.
func TestSinkCannotKeep(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "kept")
	sink := newSink(t, rehearsal.SinkOptions{Keep: rehearsal.Keep{Dir: dir}})
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	wantCode(t, send(t, sink.addr, "a@b.test", []string{"c@d.test"}, "x\r\n"), 451)
	if s := sink.Stats(); s.Messages != 0 {
		t.Errorf("%+v", s)
	}
}

func wantCode(t *testing.T, err error, code int) {
	t.Helper()
	if e, ok := errors.AsType[*smtp.SMTPError](err); !ok || e.Code != code {
		t.Errorf("got %v, want code %d", err, code)
	}
}

func TestSinkRefuses(t *testing.T) {
	t.Parallel()
	var refuse []rehearsal.Refusal
	for _, s := range []string{"Nobody@c.test=550 5.1.1 no such user", "@full.test=452", "*:50%=450 4.2.0 later"} {
		r, err := rehearsal.ParseRefusal(s)
		if err != nil {
			t.Fatal(err)
		}
		refuse = append(refuse, r)
	}
	sink := newSink(t, rehearsal.SinkOptions{Manners: rehearsal.Manners{Refuse: refuse}})
	c, err := smtp.Dial(sink.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Mail("a@b.test", nil); err != nil {
		t.Fatal(err)
	}
	wantCode(t, c.Rcpt("nobody@C.test", nil), 550)
	wantCode(t, c.Rcpt("x@full.test", nil), 452)
	taken := 0
	for i := range 1000 {
		if c.Rcpt(fmt.Sprintf("r%d@d.test", i), nil) == nil {
			taken++
		}
	}
	if taken < 400 || taken > 600 {
		t.Errorf("%d of 1000 taken, want half", taken)
	}
	if s := sink.Stats(); s.Refused != int64(1002-taken) {
		t.Errorf("%+v", s)
	}
}

func TestParseRefusal(t *testing.T) {
	t.Parallel()
	r, err := rehearsal.ParseRefusal("*:2.5%=421 4.3.2 closing")
	if err != nil || r.Match != "*" || r.Share != 0.025 || r.Reply != (smtpserver.Reply{Code: 421, Status: "4.3.2", Text: "closing"}) {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = rehearsal.ParseRefusal("@d.test=550 no")
	if err != nil || r.Share != 0 || r.Reply != (smtpserver.Reply{Code: 550, Text: "no"}) {
		t.Errorf("%+v, %v", r, err)
	}
	for _, s := range []string{"", "x", "=550", "a=550", "*=250", "*=x", "*:0%=550", "*:101%=550", "*:5=550", "*:x%=550", "*=600"} {
		if r, err := rehearsal.ParseRefusal(s); err == nil {
			t.Errorf("%q: taken as %+v", s, r)
		}
	}
	if _, err := rehearsal.NewSink(rehearsal.SinkOptions{Manners: rehearsal.Manners{Refuse: []rehearsal.Refusal{{}}}}); err == nil {
		t.Error("an empty refusal was taken")
	}
}

func TestSinkGreylists(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink, err := rehearsal.NewSink(rehearsal.SinkOptions{Manners: rehearsal.Manners{Greylist: time.Minute}})
		if err != nil {
			t.Fatal(err)
		}
		c := pipeClient(t, sink)
		for _, step := range []struct {
			after time.Duration
			to    string
			code  int
		}{
			{0, "c@d.test", 450}, {59 * time.Second, "c@d.test", 450}, {0, "e@d.test", 450}, {time.Second, "c@d.test", 0}, {0, "e@d.test", 450}, {time.Minute, "e@d.test", 0},
		} {
			time.Sleep(step.after)
			err := sendOver(c, "a@b.test", []string{step.to}, "x\r\n")
			if step.code != 0 {
				wantCode(t, err, step.code)
				if err := c.Reset(); err != nil {
					t.Fatal(err)
				}
			} else if err != nil {
				t.Error(err)
			}
		}
		if s := sink.Stats(); s.Greylisted != 4 || s.Messages != 2 {
			t.Errorf("%+v", s)
		}
	})
}

// pipeClient is a client over a pipe, for a bubble of time.
func pipeClient(t *testing.T, sink *rehearsal.Sink) *smtp.Client {
	t.Helper()
	l := newPipes()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- sink.Run(ctx, l) }()
	c := smtp.NewClient(l.dial())
	t.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("sink: %v", err)
		}
	})
	return c
}

type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) dial() net.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	return ours
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// Each round trip takes its time, and octets that are on their way together
// wait together.
func TestSinkFarAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink, err := rehearsal.NewSink(rehearsal.SinkOptions{Manners: rehearsal.Manners{RoundTrip: 100 * time.Millisecond}})
		if err != nil {
			t.Fatal(err)
		}
		l := newPipes()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- sink.Run(ctx, l) }()
		began := time.Now()
		c := l.dial()
		buf := make([]byte, 4096)
		read := func(lines int) string {
			all := ""
			for strings.Count(all, "\n") < lines {
				n, err := c.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				all += string(buf[:n])
			}
			return all
		}
		took := func(what string, want time.Duration) {
			t.Helper()
			if d := time.Since(began); d != want {
				t.Errorf("%s took %v, want %v", what, d, want)
			}
			began = time.Now()
		}
		read(1)
		took("the greeting", 200*time.Millisecond)
		io.WriteString(c, "HELO x\r\n")
		read(1)
		took("a command", 100*time.Millisecond)
		io.WriteString(c, "MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nNOOP\r\n")
		read(3)
		took("a group of commands", 100*time.Millisecond)
		// The second is on its way 40 ms later than the first, not behind it.
		io.WriteString(c, "NOOP\r\n")
		time.Sleep(40 * time.Millisecond)
		io.WriteString(c, "NOOP\r\n")
		read(2)
		took("two that overlap", 140*time.Millisecond)
		io.WriteString(c, "QUIT\r\n")
		if got := read(1); !strings.HasPrefix(got, "221") {
			t.Errorf("got %q", got)
		}
		if _, err := c.Read(buf); err != io.EOF {
			t.Errorf("after QUIT: %v", err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestSinkThinks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sink, err := rehearsal.NewSink(rehearsal.SinkOptions{Manners: rehearsal.Manners{Delay: time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		c := pipeClient(t, sink)
		began := time.Now()
		if err := sendOver(c, "a@b.test", []string{"c@d.test", "e@d.test"}, "x\r\n"); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != 4*time.Second {
			t.Errorf("took %v", d)
		}
	})
}

func TestSinkOverTLS(t *testing.T) {
	t.Parallel()
	cfg, err := rehearsal.SelfSigned("mx.sink.test", "*.mx.test", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	leaf := cfg.Certificates[0].Leaf
	for _, name := range []string{"mx.sink.test", "a.mx.test", "127.0.0.1"} {
		if err := leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	sink := newSink(t, rehearsal.SinkOptions{TLS: cfg, Keep: rehearsal.Keep{Last: 1}})
	c, err := smtp.DialStartTLS(sink.addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := sendOver(c, "a@b.test", []string{"c@d.test"}, "x\r\n"); err != nil {
		t.Fatal(err)
	}
	if m := sink.Messages(); len(m) != 1 || !m[0].TLS {
		t.Errorf("%+v", m)
	}
}
