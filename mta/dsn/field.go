package dsn

import (
	"bytes"
	"mime"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// statusWriter writes the fields of a delivery status.
type statusWriter struct {
	b    *bytes.Buffer
	utf8 bool // else what is not ASCII is written as "?"
}

// maxField is the most octets of a field's value: the words of a remote host
// are as long as it likes.
const maxField = 1000

func (s *statusWriter) field(name, value string) {
	value = oneLine(value)
	if !s.utf8 {
		value = strings.Map(func(r rune) rune {
			if r >= utf8.RuneSelf {
				return '?'
			}
			return r
		}, value)
	}
	s.b.WriteString(fold(name+": "+cut(value, maxField), 78))
	s.b.WriteString("\r\n")
}

func (s *statusWriter) date(name string, t time.Time) {
	if !t.IsZero() {
		s.field(name, t.Format(dateForm))
	}
}

// oneLine makes a stranger's text fit into a line: whatever could end it or
// mislead a reader becomes a blank or "?".
func oneLine(s string) string {
	clean := true
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case unicode.IsSpace(r) || unicode.IsControl(r):
			return ' '
		case unicode.In(r, unicode.Bidi_Control):
			return '?'
		}
		return r
	}, s)
}

// cut cuts a text to at most n octets, between characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// fold breaks a field at blanks into lines of about width octets, and within
// words where one is longer than a line may be.
func fold(line string, width int) string {
	var b strings.Builder
	for len(line) > width {
		i := strings.LastIndexByte(line[:width], ' ')
		if i <= 0 || strings.TrimSpace(line[:i]) == "" || strings.HasSuffix(line[:i], ":") {
			next := strings.IndexByte(line[width:], ' ')
			if next < 0 {
				break
			}
			i = width + next
		}
		if strings.TrimSpace(line[i:]) == "" {
			line = line[:i]
			break
		}
		b.WriteString(line[:i])
		b.WriteString("\r\n")
		line = line[i:]
	}
	b.WriteString(line)
	return b.String()
}

// writeSubject writes the Subject field, with encoded words where needed.
func writeSubject(b *bytes.Buffer, subject string) {
	if isASCII(subject) {
		b.WriteString(fold("Subject: "+subject, 78))
	} else {
		b.WriteString("Subject: ")
		b.WriteString(strings.ReplaceAll(mime.QEncoding.Encode("utf-8", subject), " ", "\r\n "))
	}
	b.WriteString("\r\n")
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
