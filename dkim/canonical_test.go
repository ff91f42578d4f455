package dkim

import (
	"encoding/base64"
	"strings"
	"testing"
)

func TestBodyHash(t *testing.T) {
	t.Parallel()
	// The hash of the empty body is that of RFC 6376, section 3.4.4; the other
	// one that of the example in RFC 8463, appendix A.3.
	const empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	const game = "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="
	for body, want := range map[string]string{
		"":                empty,
		"\r\n":            empty,
		" \t\r\n\r\n  \t": empty,
		"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n":                game,
		"Hi. \t\r\n\t\r\nWe  lost\tthe game. \tAre you hungry yet?\r\n\r\nJoe.":            game,
		"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n \t\r\n\r\n\r\n": game,
		"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\t":                  game,
	} {
		for _, part := range []int{1, 2, 3, 7, 10_000} {
			b := newBodyHash()
			for rest := body; rest != ""; {
				n := min(part, len(rest))
				b.write([]byte(rest[:n]))
				rest = rest[n:]
			}
			if got := base64.StdEncoding.EncodeToString(b.sum()); got != want {
				t.Errorf("%q in parts of %d: %s, not %s", body, part, got, want)
			}
		}
	}
}

// The example of RFC 6376, section 3.4.5.
func TestRelaxedFields(t *testing.T) {
	t.Parallel()
	for field, want := range map[string]string{
		"A: X\r\n":                     "a:X\r\n",
		"B : Y\t\r\n\tZ  \r\n":         "b:Y Z\r\n",
		"Subject\t:\r\n  a\r\n\tb\r\n": "subject:a b\r\n",
		"Empty:\r\n":                   "empty:\r\n",
		"Blank: \r\n \r\n":             "blank:\r\n",
		"Colons: a:b : c\r\n":          "colons:a:b : c\r\n",
	} {
		if got := string(appendRelaxed(nil, []byte(field))); got != want {
			t.Errorf("%q: %q, not %q", field, got, want)
		}
	}
}

// What we sign must be valid to another implementation, whatever it is that a
// message may have within its lines.
func FuzzSignaturesVerify(f *testing.F) {
	for _, body := range bodies {
		f.Add("a subject", body[:min(len(body), 500)], uint16(777))
	}
	f.Add(" a\r\n\tb ", "a \r\n b", uint16(1))
	f.Add("\t", strings.Repeat(" ", 5000)+"x\r\n\r\n", uint16(3))
	x := newFixture(f, "example.test s ed25519")
	f.Fuzz(func(t *testing.T, subject, body string, part uint16) {
		subject = strings.NewReplacer("\r", "", "\n", "", "\x00", "").Replace(subject)
		body = strings.ReplaceAll(strings.ReplaceAll(body, "\r", ""), "\n", "\r\n")
		if len(subject) > 900 {
			return
		}
		header := "From: a@example.test\r\nSubject:" + subject + "\r\nSubject: b\r\nTo: c@d.test,\r\n\te@f.test\r\n\r\n"
		s, err := x.keys.Signer([]byte(header))
		if err != nil || s == nil {
			t.Fatal(s, err)
		}
		for rest := []byte(body); len(rest) > 0; {
			n := min(len(rest), int(part)+1)
			if _, err := s.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		fields, err := s.Sign()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := x.verify(string(fields) + header + body); err != nil || len(got) != 1 {
			t.Fatalf("%v %v\n%q", got, err, string(fields)+header+body)
		}
	})
}
