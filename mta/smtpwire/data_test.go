package smtpwire

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestDataReader(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 999)
	tests := []struct {
		name, in, want string
		rest           string
		defects        Defects
		err            error
	}{
		{"empty", ".\r\nQUIT\r\n", "", "QUIT\r\n", Defects{}, nil},
		{"one line", "a\r\n.\r\nQUIT\r\n", "a\r\n", "QUIT\r\n", Defects{}, nil},
		{"stuffed", "..a\r\n...\r\nb.\r\n.\r\n", ".a\r\n..\r\nb.\r\n", "", Defects{}, nil},
		{"stuffed end", "..\r\n.\r\n", ".\r\n", "", Defects{}, nil},
		{"dot removed from an unstuffed line", ".a\r\n.\r\n", "a\r\n", "", Defects{}, nil},
		{"LF.LF", "a\n.\nMAIL\r\n.\r\n", "a\n.\nMAIL\r\n", "", Defects{BareLF: true}, nil},
		{"LF.CRLF", "a\n.\r\nMAIL\r\n.\r\n", "a\n.\r\nMAIL\r\n", "", Defects{BareLF: true}, nil},
		{"CRLF.LF", "a\r\n.\nMAIL\r\n.\r\n", "a\r\n\nMAIL\r\n", "", Defects{BareLF: true}, nil},
		{"CRLF.CR", "a\r\n.\rMAIL\r\n.\r\n", "a\r\n\rMAIL\r\n", "", Defects{BareCR: true}, nil},
		{"CR.CR", "a\r.\rMAIL\r\n.\r\n", "a\r.\rMAIL\r\n", "", Defects{BareCR: true}, nil},
		{"CR.CRLF", "a\r.\r\nMAIL\r\n.\r\n", "a\r.\r\nMAIL\r\n", "", Defects{BareCR: true}, nil},
		{"CRLF.CR CRLF", "a\r\n.\r\r\nMAIL\r\n.\r\n", "a\r\n\r\r\nMAIL\r\n", "", Defects{BareCR: true}, nil},
		{"NUL", "a\x00\r\n.\r\n", "a\x00\r\n", "", Defects{NUL: true}, nil},
		{"998 octets", long[1:] + "\r\n.\r\n", long[1:] + "\r\n", "", Defects{}, nil},
		{"999 octets", long + "\r\n.\r\n", long + "\r\n", "", Defects{LongLine: true}, nil},
		{"cut off", "a\r\n.\r", "a\r\n", "", Defects{}, io.ErrUnexpectedEOF},
		{"cut off in a line", "a\r\nb", "a\r\nb", "", Defects{}, io.ErrUnexpectedEOF},
	}
	for _, tt := range tests {
		for _, step := range []int{1, 2, 3, 5, 512} {
			src := NewReader(&stepReader{[]byte(tt.in), step}, 512)
			d := NewDataReader(src)
			got, err := io.ReadAll(d)
			if err != tt.err || string(got) != tt.want || d.Defects() != tt.defects {
				t.Errorf("%s in steps of %d: got %q, %+v, %v", tt.name, step, got, d.Defects(), err)
				continue
			}
			if d.Size() != int64(len(got)) {
				t.Errorf("%s: size %d of %d", tt.name, d.Size(), len(got))
			}
			if rest, _ := io.ReadAll(src); err == nil && string(rest) != tt.rest {
				t.Errorf("%s in steps of %d: left %q, want %q", tt.name, step, rest, tt.rest)
			}
		}
	}
}

type stepReader struct {
	rest []byte
	step int
}

func (r *stepReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest[:min(r.step, len(r.rest))])
	r.rest = r.rest[n:]
	return n, nil
}

func TestDataReaderResetReadsTheNextMessage(t *testing.T) {
	t.Parallel()
	src := NewReader(iotest.HalfReader(strings.NewReader("a\n\r\n.\r\nb\r\n.\r\n")), 512)
	d := NewDataReader(src)
	if err := d.Drain(); err != nil || !d.Defects().BareLF {
		t.Fatal(err, d.Defects())
	}
	d.Reset(src)
	got, err := io.ReadAll(d)
	if string(got) != "b\r\n" || err != nil || d.Defects() != (Defects{}) {
		t.Fatalf("got %q, %v, %+v", got, err, d.Defects())
	}
}

// stuffSlowly is the rule as it is written.
func stuffSlowly(content []byte) []byte {
	var out []byte
	for i, c := range content {
		if c == '.' && (i == 0 || i >= 2 && content[i-1] == '\n' && content[i-2] == '\r') {
			out = append(out, '.')
		}
		out = append(out, c)
	}
	return out
}

func FuzzStuffing(f *testing.F) {
	for _, s := range []string{"", ".\r\n", "a\r\n.b\r\n..\r\n", "\r\n.\r\n", "a\n.\r.\r\n", "\r", "\n.", "\r\n\r\n."} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, content []byte, step int) {
		content = append(content, "\r\n"...)
		step = max(1, step%64)
		var s Stuffer
		var got []byte
		for rest := content; len(rest) > 0; {
			n := min(step, len(rest))
			got = s.Append(got, rest[:n])
			rest = rest[n:]
		}
		if want := stuffSlowly(content); !bytes.Equal(got, want) {
			t.Fatalf("%q in steps of %d: got %q, want %q", content, step, got, want)
		}
		if !s.EndsLine() {
			t.Fatalf("%q does not end a line", content)
		}
		wire := append(got, ".\r\n"...)
		src := NewReader(&stepReader{append(wire, "QUIT"...), step}, 512)
		back, err := io.ReadAll(NewDataReader(src))
		if err != nil || !bytes.Equal(back, content) {
			t.Fatalf("%q came back as %q, %v", content, back, err)
		}
		if rest, _ := io.ReadAll(src); string(rest) != "QUIT" {
			t.Fatalf("left %q", rest)
		}
	})
}

func BenchmarkDataReader4KB(b *testing.B) {
	wire := bytes.Repeat([]byte(strings.Repeat("x", 76)+"\r\n"), 52)
	wire = append(wire, ".\r\n"...)
	in := bytes.NewReader(nil)
	src := NewReader(in, 16<<10)
	d := NewDataReader(src)
	b.SetBytes(int64(len(wire)))
	b.ReportAllocs()
	for b.Loop() {
		in.Reset(wire)
		d.Reset(src)
		if err := d.Drain(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStuffer4KB(b *testing.B) {
	content := bytes.Repeat([]byte(strings.Repeat("x", 76)+"\r\n"), 52)
	var dst []byte
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	for b.Loop() {
		var s Stuffer
		dst = s.Append(dst[:0], content)
	}
}
