package rehearsal_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"

	"postrider/mta/rehearsal"
)

// BenchmarkStraightThrough is load into sink, both in this process: what is
// left for the MTA between them. CPU is that of both.
func BenchmarkStraightThrough(b *testing.B) {
	for name, o := range map[string]rehearsal.LoadOptions{
		"pipelined, 4 KB":   {Way: rehearsal.WayPipelined},
		"chunked, 4 KB":     {Way: rehearsal.WayChunked},
		"overlapped, 4 KB":  {Way: rehearsal.WayOverlapped},
		"sequential, 4 KB":  {Way: rehearsal.WaySequential},
		"pipelined, 100 KB": {Way: rehearsal.WayPipelined, Size: 100_000},
	} {
		for _, verify := range []bool{false, true} {
			name := name
			if verify {
				name += ", verified"
			}
			b.Run(name, func(b *testing.B) {
				sink := newSink(b, rehearsal.SinkOptions{Verify: verify})
				o := o
				o.Target, o.Messages = sink.addr, int64(b.N)
				load, err := rehearsal.NewLoad(o)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				b.ResetTimer()
				r, err := load.Run(context.Background())
				if err != nil || r.Accepted != int64(b.N) {
					b.Fatalf("%+v, %v", r, err)
				}
				b.ReportMetric(r.PerSecond(), "messages/s")
				b.ReportMetric(float64(r.CPU.Microseconds())/float64(b.N), "cpu-us/op")
			})
		}
	}
}

// BenchmarkBareRoundTrip is what the machine takes for 4 KB one way and 64
// octets back over loopback, 20 connections at once, without any SMTP: no load
// can be faster than its round trips.
func BenchmarkBareRoundTrip(b *testing.B) {
	const sessions = 20
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	for range sessions {
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() { bounce(server, 4200, 64) })
		wg.Go(func() {
			defer client.Close()
			out, in := make([]byte, 4200), make([]byte, 64)
			for range b.N/sessions + 1 {
				client.Write(out)
				io.ReadFull(client, in)
			}
		})
	}
}

// bounce answers so many octets with so many.
func bounce(conn net.Conn, want, give int) {
	defer conn.Close()
	in, out := make([]byte, want), make([]byte, give)
	for {
		if _, err := io.ReadFull(conn, in); err != nil {
			return
		}
		conn.Write(out)
	}
}

type testSink struct {
	*rehearsal.Sink
	addr string
}

// newSink runs a sink on loopback until the test ends.
func newSink(tb testing.TB, o rehearsal.SinkOptions) *testSink {
	tb.Helper()
	sink, err := rehearsal.NewSink(o)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sink.Run(ctx, l) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Errorf("sink: %v", err)
		}
	})
	return &testSink{Sink: sink, addr: l.Addr().String()}
}
