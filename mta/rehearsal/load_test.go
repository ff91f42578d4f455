package rehearsal_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/mta/rehearsal"
	"postrider/mta/smtpserver"
)

// Every message arrives once, is of the size asked for, and is another one;
// whichever way it goes.
func TestLoad(t *testing.T) {
	t.Parallel()
	tests := map[string]rehearsal.LoadOptions{
		"pipelined":             {Way: rehearsal.WayPipelined},
		"chunked":               {Way: rehearsal.WayChunked},
		"overlapped":            {Way: rehearsal.WayOverlapped},
		"sequential":            {Way: rehearsal.WaySequential},
		"few per connection":    {Way: rehearsal.WayPipelined, PerConnection: 7},
		"overlapped, few":       {Way: rehearsal.WayOverlapped, PerConnection: 7},
		"TLS and many sessions": {Way: rehearsal.WayPipelined, TLS: true, Sessions: 50},
	}
	for name, o := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := rehearsal.SelfSigned("mx.sink.test")
			if err != nil {
				t.Fatal(err)
			}
			sink := newSink(t, rehearsal.SinkOptions{TLS: cfg, Verify: true, Keep: rehearsal.Keep{Last: 500}})
			o.Target, o.Messages, o.Size, o.Domains, o.Recipients = sink.addr, 500, 1000, 10, 3
			load, err := rehearsal.NewLoad(o)
			if err != nil {
				t.Fatal(err)
			}
			r, err := load.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if r.Accepted != 500 || r.Copies != 1500 || r.Refused+r.Failed+r.Rejected != 0 || r.FirstError != "" || r.Octets != 500_000 {
				t.Errorf("%+v", r)
			}
			if w := r.Wait; w.P50 <= 0 || w.P99 < w.P50 || w.Max < w.P999 {
				t.Errorf("%+v", w)
			}
			if o.PerConnection > 0 && r.Connects < 500/7 {
				t.Errorf("%d connections", r.Connects)
			}
			s := sink.Stats()
			if s.Messages != 500 || s.Copies != 1500 || s.Duplicates != 0 || s.Octets != 500_000 || s.Domains != 10 || s.ProtocolErrors != 0 {
				t.Errorf("%+v", s)
			}
			for _, m := range sink.Messages() {
				if len(m.Content) != 1000 || !strings.HasSuffix(string(m.Content), "\r\n") || !strings.Contains(string(m.Content), "\r\nTo: <"+m.To[0]+">\r\n") {
					t.Fatalf("%q for %v", m.Content, m.To)
				}
			}
		})
	}
}

// What is refused is counted as that, and the session goes on.
// A server that does not offer PIPELINING is sent one command at a time. The
// sink counts a command that came too early as an error of protocol.
func TestLoadToServerWithoutPipelining(t *testing.T) {
	t.Parallel()
	for name, way := range map[string]rehearsal.Way{"pipelined": rehearsal.WayPipelined, "overlapped": rehearsal.WayOverlapped} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newStrictServer(t)
			load, err := rehearsal.NewLoad(rehearsal.LoadOptions{Target: server, Sessions: 2, Messages: 10, Way: way})
			if err != nil {
				t.Fatal(err)
			}
			if r, err := load.Run(t.Context()); err != nil || r.Accepted != 10 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

// newStrictServer runs a server that ends a session in which more than one
// command comes at once.
func newStrictServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serveStrictly(conn) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

func serveStrictly(conn net.Conn) {
	defer conn.Close()
	io.WriteString(conn, "220 strict.test\r\n")
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil || r.Buffered() > 0 {
			return
		}
		reply := "250 ok\r\n"
		switch {
		case strings.HasPrefix(line, "EHLO"):
			reply = "250-strict.test\r\n250 8BITMIME\r\n"
		case strings.HasPrefix(line, "DATA"):
			io.WriteString(conn, "354 go ahead\r\n")
			for line != ".\r\n" && err == nil {
				line, err = r.ReadString('\n')
			}
			if r.Buffered() > 0 {
				return
			}
		}
		io.WriteString(conn, reply)
	}
}

// A load and a sink that share a passage tell of every message.
func TestLoadWithPassage(t *testing.T) {
	t.Parallel()
	for name, way := range map[string]rehearsal.Way{"pipelined": rehearsal.WayPipelined, "chunked": rehearsal.WayChunked, "overlapped": rehearsal.WayOverlapped} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			passage := rehearsal.NewPassage(100)
			sink := newSink(t, rehearsal.SinkOptions{Passage: passage})
			load, err := rehearsal.NewLoad(rehearsal.LoadOptions{Target: sink.addr, Messages: 100, Way: way, Passage: passage})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := load.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if passage.Arrived() != 100 || sink.Stats().Copies != 0 {
				t.Errorf("%d arrived; %+v", passage.Arrived(), sink.Stats())
			}
		})
	}
}

// A session waits between its messages, and not when it is told to end.
func TestLoadPauses(t *testing.T) {
	t.Parallel()
	sink := newSink(t, rehearsal.SinkOptions{})
	pausing := func(messages int64, pause time.Duration) *rehearsal.Load {
		load, err := rehearsal.NewLoad(rehearsal.LoadOptions{Target: sink.addr, Sessions: 1, Messages: messages, Pause: pause})
		if err != nil {
			t.Fatal(err)
		}
		return load
	}
	if r, err := pausing(3, 10*time.Millisecond).Run(t.Context()); err != nil || r.Took < 20*time.Millisecond {
		t.Errorf("%+v, %v: no pause", r, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	long := pausing(2, time.Hour)
	ended := make(chan error, 1)
	go func() { _, err := long.Run(ctx); ended <- err }()
	for accepted := int64(0); accepted < 1; accepted, _ = long.Progress() {
		runtime.Gosched()
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestLoadIsRefused(t *testing.T) {
	t.Parallel()
	refusal := func(s string) rehearsal.SinkOptions {
		r, err := rehearsal.ParseRefusal(s)
		if err != nil {
			t.Fatal(err)
		}
		return rehearsal.SinkOptions{Manners: rehearsal.Manners{Refuse: []rehearsal.Refusal{r}}}
	}
	sinks := map[string]rehearsal.SinkOptions{
		"one domain": refusal("@d1.load.test=550 5.1.1 no"), "goodbye": refusal("@d1.load.test=421 4.3.2 closing"), "content": {MaxMessageSize: 500},
	}
	for name, o := range sinks {
		for _, way := range []rehearsal.Way{rehearsal.WayPipelined, rehearsal.WayChunked, rehearsal.WayOverlapped, rehearsal.WaySequential} {
			t.Run(name+", "+way.String(), func(t *testing.T) {
				t.Parallel()
				sink := newSink(t, o)
				load, err := rehearsal.NewLoad(rehearsal.LoadOptions{Target: sink.addr, Messages: 40, Domains: 4, Sessions: 2, Way: way, Size: 1000})
				if err != nil {
					t.Fatal(err)
				}
				r, err := load.Run(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				wantAccepted := int64(30)
				if name == "content" {
					wantAccepted = 0
				}
				lost := r.Refused + r.Failed
				if r.Accepted != wantAccepted || lost != 40-wantAccepted || r.FirstError == "" || sink.Stats().Messages != wantAccepted {
					t.Errorf("%+v", r)
				}
				if name != "goodbye" && r.Failed != 0 {
					t.Errorf("%d failed", r.Failed)
				}
				if a, l := load.Progress(); a != wantAccepted || l != lost {
					t.Errorf("progress %d, %d", a, l)
				}
			})
		}
	}
}

func TestLoadStaysOnThisHost(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"192.0.2.1:25", "[2001:db8::1]:25"} {
		load, err := rehearsal.NewLoad(rehearsal.LoadOptions{Target: target})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := load.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "not on this host") {
			t.Errorf("%s: %v", target, err)
		}
	}
	// An allowed network is tried: the context that is over ends it.
	load, err := rehearsal.NewLoad(rehearsal.LoadOptions{Target: "192.0.2.1:25", AllowNetworks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := load.Run(ctx); err == nil || strings.Contains(err.Error(), "not on this host") {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestLoadOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]rehearsal.LoadOptions{
		"no target":      {},
		"no port":        {Target: "127.0.0.1"},
		"too small":      {Target: "127.0.0.1:25", Size: 100},
		"negative":       {Target: "127.0.0.1:25", Sessions: -1},
		"far too large":  {Target: "127.0.0.1:25", Size: 2 << 30},
		"header in name": {Target: "127.0.0.1:25", Sender: "a\r\nb"},
		"hasty pause":    {Target: "127.0.0.1:25", Way: rehearsal.WayOverlapped, Pause: time.Second},
		"short passage":  {Target: "127.0.0.1:25", Messages: 2, Passage: rehearsal.NewPassage(1)},
	} {
		if _, err := rehearsal.NewLoad(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := rehearsal.ParseWay("chunked"); err != nil {
		t.Error(err)
	}
	if _, err := rehearsal.ParseWay("backwards"); err == nil {
		t.Error("an unknown way was taken")
	}
}

// A server that turns sessions away is named, and nothing hangs.
func TestLoadFindsNoSession(t *testing.T) {
	t.Parallel()
	sink := newSink(t, rehearsal.SinkOptions{Without: smtpserver.ExtESMTP})
	load, err := rehearsal.NewLoad(rehearsal.LoadOptions{Target: sink.addr, Sessions: 1})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := load.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "EHLO was answered 500") || r.Accepted != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}
