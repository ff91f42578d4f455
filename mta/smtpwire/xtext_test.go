package smtpwire

import (
	"errors"
	"testing"
)

func TestXtext(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ plain, coded string }{
		{"", ""},
		{"a@b.test", "a@b.test"},
		{"a+b=c d@e.test", "a+2Bb+3Dc+20d@e.test"},
		{"\x00\r\n\x7f\xff", "+00+0D+0A+7F+FF"},
	} {
		if got := string(AppendXtext(nil, tt.plain)); got != tt.coded {
			t.Errorf("encode %q: got %q, want %q", tt.plain, got, tt.coded)
		}
		if got, err := DecodeXtext(tt.coded); err != nil || got != tt.plain {
			t.Errorf("decode %q: got %q, %v, want %q", tt.coded, got, err, tt.plain)
		}
	}
	for _, bad := range []string{"+", "+2", "a+2b", "+GG", "a=b", "a b", "é", "a\r\n"} {
		if got, err := DecodeXtext(bad); !errors.Is(err, ErrXtext) {
			t.Errorf("decode %q: got %q, %v", bad, got, err)
		}
	}
}

func FuzzXtext(f *testing.F) {
	f.Add("a+2Bb")
	f.Add("+3d =")
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := DecodeXtext(string(AppendXtext(nil, s))); err != nil || got != s {
			t.Fatalf("%q came back as %q, %v", s, got, err)
		}
		if plain, err := DecodeXtext(s); err == nil {
			for i := range len(s) {
				if s[i] <= ' ' || s[i] >= 0x7f {
					t.Fatalf("accepted %q as %q", s, plain)
				}
			}
		}
	})
}
