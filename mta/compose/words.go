package compose

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// encodeWords makes encoded words (RFC 2047) of what is not ASCII, and of
// what would be taken for one. Used says how many columns of the first line
// are taken: a line with encoded words has at most 76 (section 2).
func encodeWords(s string, used int) string {
	if isASCII(s) && !strings.Contains(s, "=?") {
		return s
	}
	prefix, encode := "=?utf-8?q?", qEncode
	if beyond := len(s) - utf8.RuneCountInString(s); beyond*3 > len(s) { // mostly not Latin
		prefix, encode = "=?utf-8?b?", func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	}
	const line, least = 75, 24 // least: room for one character, whatever is used
	room := max(line-used, least) - len(prefix) - len("?=")
	var words []string
	for s != "" {
		n := fit(s, room, encode)
		words = append(words, prefix+encode(s[:n])+"?=")
		s = s[n:]
		room = line - 1 - len(prefix) - len("?=")
	}
	return strings.Join(words, " ")
}

// fit tells how many octets of s, in whole characters (section 5), make an
// encoded text of at most room octets; at least one character.
func fit(s string, room int, encode func(string) string) int {
	end := 0
	for end < len(s) {
		_, size := utf8.DecodeRuneInString(s[end:])
		if end > 0 && len(encode(s[:end+size])) > room {
			break
		}
		end += size
	}
	return end
}

// qEncode is the "Q" encoding (section 4.2) in the narrow form that is
// allowed everywhere, also within a display name (section 5).
func qEncode(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == ' ':
			b.WriteByte('_')
		case 'a' <= c|0x20 && c|0x20 <= 'z', '0' <= c && c <= '9', strings.IndexByte("!*+-/", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('=')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String()
}
