package smtpclient

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"postrider/mta/smtpwire"
)

// fastPeer answers as quickly as a server can, and looks at nothing but what it
// needs to find the end of a command.
func fastPeer(conn net.Conn, extensions ...string) {
	defer conn.Close()
	in := smtpwire.NewReader(conn, 256<<10)
	data := smtpwire.NewDataReader(in)
	out := smtpwire.AppendReply(nil, 220, "", "mx.test")
	for {
		if in.Buffered() == 0 {
			if _, err := conn.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
		line, err := in.ReadLine(1000)
		if err != nil {
			return
		}
		switch line[0] {
		case 'E':
			out = smtpwire.AppendReply(out, 250, "", append([]string{"mx.test"}, extensions...)...)
		case 'M':
			out = append(out, "250 2.1.0 sender ok\r\n"...)
		case 'R':
			out = append(out, "250 2.1.5 recipient ok\r\n"...)
		case 'D':
			out = append(out, "354 go ahead\r\n"...)
			if _, err := conn.Write(out); err != nil {
				return
			}
			data.Reset(in)
			if data.Drain() != nil {
				return
			}
			out = append(out[:0], "250 2.0.0 queued\r\n"...)
		case 'B':
			for n := bdatSize(line); n > 0; {
				b, err := in.Next(n)
				if err != nil {
					return
				}
				n -= len(b)
			}
			out = append(out, "250 2.0.0 queued\r\n"...)
		}
	}
}

func bdatSize(line []byte) int {
	n := 0
	for _, c := range line[5:] {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n
}

func benchmarkRun(b *testing.B, size, inFlight int, wrap func(client, server net.Conn) (net.Conn, net.Conn), extensions ...string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	if wrap != nil {
		client, server = wrap(client, server)
	}
	go fastPeer(server, extensions...)
	s := over(b, client, Options{InFlight: inFlight})
	if err := s.Greet(b.Context()); err != nil {
		b.Fatal(err)
	}
	content := []byte(strings.Repeat(strings.Repeat("x", 76)+"\r\n", size/78))
	body := Body{Head: []byte("Received: by test\r\n"), Data: content, Size: int64(len(content)) + 19}
	tx := &Transaction{From: "sender@a.test", Params: "SIZE=4096 BODY=8BITMIME", Rcpts: []Rcpt{{Address: "recipient@b.test"}},
		Open: func() (Body, io.Closer, error) { return body, nil, nil }}
	left := 0
	next := func() (*Transaction, bool) { left--; return tx, left >= 0 }
	failed := 0
	done := func(_ *Transaction, r *Result) {
		if r.Final.Code != 250 {
			failed++
		}
	}
	b.SetBytes(body.Size)
	b.ReportAllocs()
	b.ResetTimer()
	left = b.N
	if err := s.Run(context.Background(), next, done); err != nil || failed > 0 {
		b.Fatal(err, failed)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// Whole transactions over loopback.
func BenchmarkRun(b *testing.B) {
	for _, bb := range []struct {
		name       string
		inFlight   int
		extensions []string
	}{
		{"command by command", 1, []string{"8BITMIME"}},
		{"DATA", 1, []string{"PIPELINING"}},
		{"BDAT", 1, []string{"PIPELINING", "CHUNKING"}},
		{"BDAT 2 in flight", 2, []string{"PIPELINING", "CHUNKING"}},
		{"BDAT 4 in flight", 4, []string{"PIPELINING", "CHUNKING"}},
		{"BDAT 16 in flight", 16, []string{"PIPELINING", "CHUNKING"}},
	} {
		for _, size := range []int{4096, 100_000} {
			b.Run(fmt.Sprint(bb.name, " ", size), func(b *testing.B) {
				benchmarkRun(b, size, bb.inFlight, nil, bb.extensions...)
			})
		}
	}
}

func BenchmarkRunTLS(b *testing.B) {
	ca := testCA(b)
	config := serverTLS(b, ca)
	benchmarkRun(b, 4096, 1, func(client, server net.Conn) (net.Conn, net.Conn) {
		return tls.Client(client, &tls.Config{ServerName: "mx.test", RootCAs: ca.Pool(), DynamicRecordSizingDisabled: true}), tls.Server(server, config)
	}, "PIPELINING", "CHUNKING")
}
