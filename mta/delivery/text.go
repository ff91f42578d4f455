package delivery

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"postrider/mta/smtpclient"
)

// maxText bounds an outcome's text, in octets.
const maxText = 1000

// replyText makes one line of a reply: its lines in a row, the enhanced status
// once. It does not copy the usual reply of one clean line.
func replyText(r smtpclient.Reply) string {
	switch len(r.Lines) {
	case 0:
		return ""
	case 1:
		return oneLine(r.Lines[0])
	}
	var b strings.Builder
	for i, line := range r.Lines {
		if i > 0 {
			line = strings.TrimPrefix(line, r.Enhanced)
		}
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(line)
		if b.Len() > maxText {
			break
		}
	}
	return oneLine(b.String())
}

// oneLine makes s fit for an outcome: valid UTF-8 without control characters, at
// most maxText octets.
func oneLine(s string) string {
	if isPlain(s) && len(s) <= maxText {
		return s
	}
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
	if len(s) <= maxText {
		return s
	}
	const ellipsis = "..."
	cut := maxText - len(ellipsis)
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + ellipsis
}

func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
