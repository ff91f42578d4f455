package smtpwire

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReplies(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in string
		want     Reply
		err      error
	}{
		{"one line", "250 2.1.0 Ok\r\n", Reply{250, "2.1.0", []string{"2.1.0 Ok"}}, nil},
		{"code alone", "250\r\n", Reply{250, "", []string{""}}, nil},
		{"many lines", "550-5.7.1 no\r\n550-\r\n550 5.7.1 really\r\n", Reply{550, "5.7.1", []string{"5.7.1 no", "", "5.7.1 really"}}, nil},
		{"last line without text", "250-a\r\n250\r\n", Reply{250, "", []string{"a", ""}}, nil},
		{"class of another code", "250 5.7.1 odd\r\n", Reply{250, "", []string{"5.7.1 odd"}}, nil},
		{"a version is no status", "250 2.0.0.1 odd\r\n", Reply{250, "", []string{"2.0.0.1 odd"}}, nil},
		{"UTF-8", "550 5.1.1 größe\r\n", Reply{550, "5.1.1", []string{"5.1.1 größe"}}, nil},
		{"571", "571 5.7.1 denied\r\n", Reply{571, "5.7.1", []string{"5.7.1 denied"}}, nil},
		{"tab", "250 a\tb\r\n", Reply{250, "", []string{"a\tb"}}, nil},
		{"Latin-1", "550 gr\xf6\xdfe\r\n", Reply{}, ErrReplyText},
		{"escape", "550 \x1b[2J\r\n", Reply{}, ErrReplyText},
		{"NUL", "250 \x00\r\n", Reply{}, ErrNUL},
		{"bare LF", "250 ok\n250 ok\r\n", Reply{}, ErrBareLF},
		{"bare CR", "250 o\rk\r\n", Reply{}, ErrBareCR},
		{"empty line", "\r\n", Reply{}, ErrReplySyntax},
		{"two digits", "25 ok\r\n", Reply{}, ErrReplySyntax},
		{"1yz", "150 ok\r\n", Reply{}, ErrReplySyntax},
		{"6yz", "650 ok\r\n", Reply{}, ErrReplySyntax},
		{"letter", "2x0 ok\r\n", Reply{}, ErrReplySyntax},
		{"four digits", "2500 ok\r\n", Reply{}, ErrReplySyntax},
		{"garbage", "HTTP/1.1 400 Bad Request\r\n", Reply{}, ErrReplySyntax},
		{"code changes", "250-a\r\n550 b\r\n", Reply{}, ErrReplyCode},
		{"long line", "250 " + strings.Repeat("a", MaxReplyLine) + "\r\n", Reply{}, ErrReplyLine},
		{"endless line", strings.Repeat("2", 1<<20), Reply{}, ErrReplyLine},
		{"endless lines", strings.Repeat("250-a\r\n", 1<<10), Reply{}, ErrReplyLong},
		{"too many octets", strings.Repeat("250-"+strings.Repeat("a", 1990)+"\r\n", 50), Reply{}, ErrReplyLong},
		{"cut off between lines", "250-a\r\n", Reply{}, io.ErrUnexpectedEOF},
		{"cut off in a line", "250-a\r\n25", Reply{}, io.ErrUnexpectedEOF},
		{"nothing", "", Reply{}, io.EOF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := NewReplies(NewReader(iotest.HalfReader(strings.NewReader(tt.in)), 4096)).Next()
			if !errors.Is(err, tt.err) || !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("got %+v, %v", got, err)
			}
		})
	}
}

func TestRepliesKeptStayAsTheyWere(t *testing.T) {
	t.Parallel()
	var in strings.Builder
	for i := range 200 {
		in.Write(AppendReply(nil, 250, "2.0.0", "queued as "+strings.Repeat("x", i%7)))
		in.Write(AppendReply(nil, 250, "2.1.0", "Ok"))
	}
	p := NewReplies(NewReader(strings.NewReader(in.String()), 4096))
	var kept []Reply
	for range 400 {
		reply, err := p.Next()
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, reply)
	}
	for i, reply := range kept {
		want := "2.1.0 Ok"
		if i%2 == 0 {
			want = "2.0.0 queued as " + strings.Repeat("x", i/2%7)
		}
		if len(reply.Lines) != 1 || reply.Lines[0] != want {
			t.Fatalf("reply %d is %q, want %q", i, reply.Lines, want)
		}
	}
}

func TestAppendReply(t *testing.T) {
	t.Parallel()
	got := string(AppendReply(nil, 250, "", "mx.test", "PIPELINING"))
	if want := "250-mx.test\r\n250 PIPELINING\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	got = string(AppendReply(nil, 550, "5.1.1", "no such user"))
	if want := "550 5.1.1 no such user\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzReplies(f *testing.F) {
	f.Add([]byte("250-a\r\n250 b\r\n"))
	f.Add([]byte("550 5.1.1 no\r\n421 x\r\n"))
	f.Add([]byte("250-a\r\n251 b\r\n"))
	f.Add([]byte("250 a\nb\r\n\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		p := NewReplies(NewReader(strings.NewReader(string(in)), 4096))
		for {
			reply, err := p.Next()
			if err != nil {
				return
			}
			octets := 0
			for _, line := range reply.Lines {
				octets += len(line)
			}
			if reply.Code < 200 || reply.Code > 599 || len(reply.Lines) == 0 ||
				len(reply.Lines) > MaxReplyLines || octets > MaxReplyBytes {
				t.Fatalf("accepted %+v", reply)
			}
			back, err := NewReplies(NewReader(strings.NewReader(string(AppendReply(nil, reply.Code, "", reply.Lines...))), 4096)).Next()
			if err != nil || !reflect.DeepEqual(back, reply) {
				t.Fatalf("%+v came back as %+v, %v", reply, back, err)
			}
		}
	})
}

func BenchmarkReplies(b *testing.B) {
	const flight = "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 Ok: queued as 01JD5Z9Q8M2V\r\n"
	in := strings.NewReader("")
	p := NewReplies(NewReader(in, 4096))
	b.ReportAllocs()
	for b.Loop() {
		in.Reset(flight)
		for range 3 {
			if _, err := p.Next(); err != nil {
				b.Fatal(err)
			}
		}
	}
}
