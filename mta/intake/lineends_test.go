package intake

import (
	"bytes"
	"strings"
	"testing"
)

// canonical runs content through lineEnds in pieces of the given sizes, the
// last one repeating.
func canonical(content string, strict bool, sizes ...int) (string, *lineEnds, *Error) {
	l := &lineEnds{strict: strict}
	var out, scratch []byte
	for i := 0; content != ""; i++ {
		n := min(len(content), sizes[min(i, len(sizes)-1)])
		text, tail, s, err := l.take([]byte(content[:n]), scratch)
		if err != nil {
			return string(out), l, err
		}
		out = append(append(out, text...), tail...)
		scratch, content = s, content[n:]
	}
	tail, err := l.end()
	return string(append(out, tail...)), l, err
}

// reference is the rule, said in the simplest way.
func reference(content string) string {
	s := strings.NewReplacer("\r\n", "\r\n", "\r", "\r\n", "\n", "\r\n").Replace(content)
	if s != "" && !strings.HasSuffix(s, "\r\n") {
		s += "\r\n"
	}
	return s
}

// smuggling are the ways in which a message's end was hidden in its text from
// one server and shown to the next (CVE-2023-51764, -51765, -51766).
var smuggling = []string{
	"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r.\n", "\n.\r", "\r\r\n.\r\r\n",
}

func TestLineEndsOfSmuggling(t *testing.T) {
	t.Parallel()
	for _, form := range smuggling {
		content := "Subject: x\r\n\r\ntext" + form + "MAIL FROM:<evil@a.test>\r\n"
		for size := 1; size <= len(content); size++ {
			got, _, err := canonical(content, false, size)
			if err != nil {
				t.Fatalf("%q: %v", form, err)
			}
			if want := reference(content); got != want {
				t.Fatalf("%q in pieces of %d: %q; want %q", form, size, got, want)
			}
			if strings.ContainsAny(strings.ReplaceAll(got, "\r\n", ""), "\r\n") {
				t.Fatalf("%q in pieces of %d: a stray line end in %q", form, size, got)
			}
			if _, _, err := canonical(content, true, size); err == nil {
				t.Errorf("%q in pieces of %d passes when strict", form, size)
			}
		}
	}
}

func TestLineEndsStrictNamesTheLine(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, want string }{
		{"a\r\nb\nc\r\n", "line 2: a LF"},
		{"a\r\nb\rc\r\n", "line 2: a CR"},
		{"a\r\nb\r", "line 2: a CR"},
		{"a\r\n\r\r\n", "line 2: a CR"},
		{"a\r\nb\r\n\n", "line 3: a LF"},
	}
	for _, tt := range tests {
		for size := 1; size <= len(tt.in); size++ {
			if _, _, err := canonical(tt.in, true, size); err == nil || !strings.HasPrefix(err.Text, tt.want) {
				t.Errorf("%q in pieces of %d: %v; want %q", tt.in, size, err, tt.want)
			}
		}
	}
	if got, _, err := canonical("a\r\n\r\nb\r\n", true, 3, 1); err != nil || got != "a\r\n\r\nb\r\n" {
		t.Errorf("clean content: %q, %v", got, err)
	}
}

func TestLineEndsFacts(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in         string
		lines, firstLong int
		eightBit         bool
		sizes            []int
	}{
		{name: "empty", in: "", sizes: []int{1}},
		{name: "one line without end", in: "abc", lines: 1, sizes: []int{1, 3}},
		{name: "998", in: strings.Repeat("x", 998) + "\r\n", lines: 1, sizes: []int{1, 7, 2000}},
		{name: "999", in: "a\r\n" + strings.Repeat("x", 999) + "\r\n", lines: 2, firstLong: 2, sizes: []int{1, 7, 2000}},
		{name: "999 with LF", in: "a\n" + strings.Repeat("x", 999) + "\nb\n", lines: 3, firstLong: 2, sizes: []int{1, 7, 2000}},
		{name: "999 without end", in: strings.Repeat("x", 999), lines: 1, firstLong: 1, sizes: []int{1, 2000}},
		{name: "998 and a CR at a piece's end", in: strings.Repeat("x", 998) + "\r\nb", lines: 2, sizes: []int{999, 1}},
		{name: "eight bits at the end", in: strings.Repeat("x", 67) + "\xc3", lines: 1, eightBit: true, sizes: []int{1, 100}},
		{name: "eight bits in the first word", in: "xxx\x80" + strings.Repeat("x", 60), lines: 1, eightBit: true, sizes: []int{100}},
		{name: "eight bits in the last word", in: strings.Repeat("x", 28) + "\xff\n", lines: 1, eightBit: true, sizes: []int{100}},
	}
	for _, tt := range tests {
		for _, size := range tt.sizes {
			_, l, err := canonical(tt.in, false, size)
			if err != nil || l.lines != tt.lines || l.firstLong != tt.firstLong || l.eightBit != tt.eightBit {
				t.Errorf("%s in pieces of %d: %+v, %v", tt.name, size, *l, err)
			}
		}
	}
}

func TestLineEndsRefuseNUL(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		if _, _, err := canonical("a\r\nb\r\nc\x00d\r\n", strict, 4); err == nil || !strings.HasPrefix(err.Text, "line 3: a NUL") || err.Code != 554 {
			t.Errorf("got %v", err)
		}
	}
}

// TestLineEndsFastPath holds that clean content is not copied.
func TestLineEndsFastPath(t *testing.T) {
	t.Parallel()
	content := []byte(strings.Repeat("a line of text\r\n", 100))
	l := new(lineEnds)
	text, tail, _, err := l.take(content, nil)
	if err != nil || tail != nil || &text[0] != &content[0] || len(text) != len(content) {
		t.Error("clean content was copied or cut")
	}
}

func FuzzLineEnds(f *testing.F) {
	for _, s := range smuggling {
		f.Add("a"+s+"b", uint8(1), uint8(2))
	}
	f.Add("\r\n\r\n", uint8(3), uint8(1))
	f.Fuzz(func(t *testing.T, content string, first, rest uint8) {
		got, l, err := canonical(content, false, int(first)+1, int(rest)+1)
		if err != nil {
			if !strings.Contains(content, "\x00") {
				t.Fatal(err)
			}
			return
		}
		want := reference(content)
		if got != want {
			t.Fatalf("%q became %q; want %q", content, got, want)
		}
		if l.lines != strings.Count(want, "\n") || l.eightBit != hasEightBit([]byte(want)) {
			t.Fatalf("%q: %+v", content, *l)
		}
		long := 0
		for i, line := range strings.Split(want, "\r\n") {
			if len(line) > maxLine && long == 0 {
				long = i + 1
			}
		}
		if l.firstLong != long {
			t.Fatalf("%q: long line %d; want %d", content, l.firstLong, long)
		}
		strictGot, _, err := canonical(content, true, int(first)+1, int(rest)+1)
		clean := !strings.ContainsAny(strings.ReplaceAll(content, "\r\n", ""), "\r\n")
		if clean != (err == nil) || (clean && strictGot != want) {
			t.Fatalf("%q, strict: %q, %v", content, strictGot, err)
		}
	})
}

func BenchmarkLineEnds(b *testing.B) {
	crlfText := []byte(strings.Repeat("a line of text such as people write, with 70 octets in it, or so.\r\n", 60))
	for _, bm := range []struct {
		name string
		text []byte
	}{{"CRLF", crlfText}, {"LF", bytes.ReplaceAll(crlfText, crlf, lf)}} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bm.text)))
			scratch := make([]byte, 0, 8<<10)
			for b.Loop() {
				l := lineEnds{}
				if _, _, _, err := l.take(bm.text, scratch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
