package smtpwire

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadLine(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 600)
	tests := []struct {
		name, in string
		limit    int
		want     []string
		err      error // of the line that is reported, the next one is still read
		after    string
	}{
		{"plain", "NOOP\r\nQUIT\r\n", 512, []string{"NOOP", "QUIT"}, io.EOF, ""},
		{"empty line", "\r\nx\r\n", 512, []string{"", "x"}, io.EOF, ""},
		{"no end", "NOO", 512, nil, io.ErrUnexpectedEOF, ""},
		{"bare LF is no end", "a\nb\r\nnext\r\n", 512, nil, ErrBareLF, "next"},
		{"bare LF first", "\nb\r\nnext\r\n", 512, nil, ErrBareLF, "next"},
		{"bare CR is no end", "a\rb\r\nnext\r\n", 512, nil, ErrBareCR, "next"},
		{"CR CR LF", "a\r\r\nnext\r\n", 512, nil, ErrBareCR, "next"},
		{"NUL", "a\x00b\r\nnext\r\n", 512, nil, ErrNUL, "next"},
		{"just fits", "abcd\r\n", 6, []string{"abcd"}, io.EOF, ""},
		{"one too long", "abcde\r\nnext\r\n", 6, nil, ErrLineTooLong, "next"},
		{"longer than the buffer", long + "\r\nnext\r\n", 4096, nil, ErrLineTooLong, "next"},
		{"never ends", strings.Repeat("a", 200<<10), 512, nil, ErrLineEndless, ""},
		{"LFs never end it", strings.Repeat("a\n", 100<<10), 512, nil, ErrLineEndless, ""},
		{"ends while skipped", long, 512, nil, io.ErrUnexpectedEOF, ""},
	}
	sources := map[string]func(io.Reader) io.Reader{
		"whole":           func(r io.Reader) io.Reader { return r },
		"octet by octet":  iotest.OneByteReader,
		"error with data": iotest.DataErrReader,
	}
	for _, tt := range tests {
		for source, wrap := range sources {
			t.Run(tt.name+"/"+source, func(t *testing.T) {
				t.Parallel()
				r := NewReader(wrap(strings.NewReader(tt.in)), 512)
				for _, want := range tt.want {
					line, err := r.ReadLine(tt.limit)
					if err != nil || string(line) != want {
						t.Fatalf("got %q, %v, want %q", line, err, want)
					}
				}
				if _, err := r.ReadLine(tt.limit); !errors.Is(err, tt.err) {
					t.Fatalf("got %v, want %v", err, tt.err)
				}
				if tt.after == "" {
					return
				}
				if line, err := r.ReadLine(tt.limit); err != nil || string(line) != tt.after {
					t.Fatalf("after it got %q, %v, want %q", line, err, tt.after)
				}
			})
		}
	}
}

func TestNextGivesWhatFollowsALine(t *testing.T) {
	t.Parallel()
	r := NewReader(iotest.HalfReader(strings.NewReader("BDAT 10 LAST\r\n0123456789NOOP\r\n")), 512)
	if line, err := r.ReadLine(512); err != nil || string(line) != "BDAT 10 LAST" {
		t.Fatal(string(line), err)
	}
	var got []byte
	for len(got) < 10 {
		b, err := r.Next(10 - len(got))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, b...)
	}
	if string(got) != "0123456789" {
		t.Fatalf("got %q", got)
	}
	if line, err := r.ReadLine(512); err != nil || string(line) != "NOOP" {
		t.Fatal(string(line), err)
	}
}

func TestFillOfASilentSource(t *testing.T) {
	t.Parallel()
	r := NewReader(readerFunc(func([]byte) (int, error) { return 0, nil }), 512)
	if err := r.Fill(); err != io.ErrNoProgress {
		t.Fatal(err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
