package compose

import (
	"bytes"
	"mime"
	"strings"
	"testing"
)

// Whatever is typed into a form, it stays within its field: the header has
// the fields that were asked for and no other, and reads back as it was.
func FuzzSubjectStaysInItsField(f *testing.F) {
	for _, s := range []string{"hello", "Grüße", "=?utf-8?q?x?=", "a\r\nBcc: b@shop.test", strings.Repeat("日本", 100), " leading", "x  y "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, subject string) {
		var b bytes.Buffer
		m := Message{From: "a@sender.test", To: []string{"b@shop.test"}, Subject: subject, Text: "x"}
		if _, err := m.WriteTo(&b); err != nil {
			return
		}
		header, _, _ := strings.Cut(b.String(), "\r\n\r\n")
		var names, value []string
		for _, line := range strings.Split(header, "\r\n") {
			if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
				if names[len(names)-1] == "Subject" {
					value = append(value, line)
				}
				continue
			}
			name, rest, ok := strings.Cut(line, ":")
			if !ok {
				t.Fatalf("a line that is no field: %q", line)
			}
			names = append(names, name)
			if name == "Subject" {
				value = append(value, rest)
			}
		}
		if got := strings.Join(names, " "); got != "From To Subject MIME-Version Content-Type Content-Transfer-Encoding" && subject != "" {
			t.Fatalf("fields are %s", got)
		}
		if subject == "" {
			return
		}
		got, err := new(mime.WordDecoder).DecodeHeader(strings.TrimPrefix(strings.Join(value, ""), " "))
		if err != nil || got != subject {
			t.Errorf("read back %q (%v), wrote %q", got, err, subject)
		}
	})
}
