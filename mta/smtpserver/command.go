package smtpserver

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"postrider/mta/smtpwire"
)

// verbLength is the longest verb that there is, and a little more.
const verbLength = 12

// splitVerb cuts the verb off a command line, in upper case; a verb longer than
// any that is known comes back empty.
func splitVerb(line []byte, verb *[verbLength]byte) (name, args []byte) {
	name, args, _ = bytes.Cut(line, space)
	return upper(name, verb[:]), trimSpace(args)
}

var space = []byte{' '}

// upper copies s in upper case into buf; empty where it does not fit.
func upper(s, buf []byte) []byte {
	if len(s) > len(buf) {
		return nil
	}
	for i, c := range s {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		buf[i] = c
	}
	return buf[:len(s)]
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// cutPrefixFold removes a prefix in upper case from s, whatever the case of s.
func cutPrefixFold(s []byte, prefix string) ([]byte, bool) {
	if len(s) < len(prefix) {
		return nil, false
	}
	for i := range len(prefix) {
		c := s[i]
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != prefix[i] {
			return nil, false
		}
	}
	return s[len(prefix):], true
}

// parsePath reads "<path>" and what follows it. A source route is dropped (RFC
// 5321, section 4.1.1.3). Blanks before the bracket are an old and common
// mistake that harms nobody.
func parsePath(s []byte) (path, rest []byte, ok bool) {
	s = trimSpace(s)
	if len(s) < 2 || s[0] != '<' {
		return nil, nil, false
	}
	end := closingBracket(s)
	if end < 0 {
		return nil, nil, false
	}
	path, rest = s[1:end], s[end+1:]
	if len(rest) > 0 && rest[0] != ' ' {
		return nil, nil, false
	}
	if len(path) > 0 && path[0] == '@' {
		i := bytes.IndexByte(path, ':')
		if i < 0 || i == len(path)-1 {
			return nil, nil, false
		}
		path = path[i+1:]
	}
	return path, rest, true
}

// closingBracket finds the bracket that closes s[0], outside of a quoted-string.
func closingBracket(s []byte) int {
	quoted := false
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if quoted {
				i++
			}
		case '"':
			quoted = !quoted
		case '<':
			if !quoted {
				return -1
			}
		case '>':
			if !quoted {
				return i
			}
		}
	}
	return -1
}

// parameter is one esmtp-param (RFC 5321, section 4.1.2).
type parameter struct {
	key      [verbLength]byte
	keyLen   int
	value    []byte
	hasValue bool
}

func (p *parameter) name() []byte { return p.key[:p.keyLen] }

// nextParameter cuts the first parameter off s. more is false where there is
// none; ok is false where there is something else. A keyword that is longer
// than any that is known has an empty name.
func nextParameter(s []byte, p *parameter) (rest []byte, more, ok bool) {
	s = trimSpace(s)
	if len(s) == 0 {
		return nil, false, true
	}
	word, rest, _ := bytes.Cut(s, space)
	key, value, hasValue := bytes.Cut(word, equals)
	if !isKeyword(key) || hasValue && !isValue(value) {
		return nil, false, false
	}
	p.keyLen = len(upper(key, p.key[:]))
	p.value, p.hasValue = value, hasValue
	return rest, true, true
}

var equals = []byte{'='}

func isKeyword(s []byte) bool {
	for i, c := range s {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '-' && i > 0:
		default:
			return false
		}
	}
	return len(s) > 0
}

// isValue: any but "=", blanks and control characters; UTF-8 by RFC 6531,
// section 3.3.
func isValue(s []byte) bool {
	for _, c := range s {
		if c <= ' ' || c == '=' || c == 0x7f {
			return false
		}
	}
	return len(s) > 0 && utf8.Valid(s)
}

// parseNumber reads 1 to 18 digits.
func parseNumber(s []byte) (int64, bool) {
	if len(s) == 0 || len(s) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// parseNotify reads NOTIFY: NEVER alone, or a list of the others.
func parseNotify(s []byte) (Notify, bool) {
	var n Notify
	for {
		word, rest, more := bytes.Cut(s, comma)
		var buf [verbLength]byte
		var bit Notify
		switch string(upper(word, buf[:])) {
		case "NEVER":
			bit = NotifyNever
		case "SUCCESS":
			bit = NotifySuccess
		case "FAILURE":
			bit = NotifyFailure
		case "DELAY":
			bit = NotifyDelay
		default:
			return 0, false
		}
		n |= bit
		if !more {
			break
		}
		s = rest
	}
	return n, n&NotifyNever == 0 || n == NotifyNever
}

var comma = []byte{','}

// maxEnvID and maxORcpt are the bounds of RFC 3461, sections 4.4 and 4.2.
const (
	maxEnvID = 100
	maxORcpt = 500
)

// parseEnvID decodes ENVID, which must come out printable (RFC 3461, section 4.4).
func parseEnvID(s []byte) (string, bool) {
	if len(s) > maxEnvID {
		return "", false
	}
	id, err := smtpwire.DecodeXtext(string(s))
	return id, err == nil && isPrintable(id) && isASCII(id)
}

// parseORcpt decodes ORCPT: an address type, and the address in xtext or, for
// the type utf-8, in the forms of RFC 6533, section 3.
func parseORcpt(s []byte) (string, bool) {
	if len(s) > maxORcpt {
		return "", false
	}
	kind, coded, ok := bytes.Cut(s, semicolon)
	if !ok || !isKeyword(kind) || len(coded) == 0 {
		return "", false
	}
	var address string
	if _, utf := cutPrefixFold(kind, "UTF-8"); utf && len(kind) == len("UTF-8") {
		address, ok = decodeUTF8Address(string(coded))
	} else {
		var err error
		address, err = smtpwire.DecodeXtext(string(coded))
		ok = err == nil && isASCII(address)
	}
	return strings.ToLower(string(kind)) + ";" + address, ok && isPrintable(address)
}

var semicolon = []byte{';'}

// decodeUTF8Address undoes \x{HEX} (RFC 6533, section 3). "+" and "=" have no
// place in it.
func decodeUTF8Address(s string) (string, bool) {
	if !strings.Contains(s, `\`) {
		return s, !strings.ContainsAny(s, "+=")
	}
	var b strings.Builder
	for s != "" {
		plain, escape, found := strings.Cut(s, `\`)
		if strings.ContainsAny(plain, "+=") {
			return "", false
		}
		b.WriteString(plain)
		if !found {
			break
		}
		digits, rest, closed := strings.Cut(strings.TrimPrefix(escape, "x{"), "}")
		if !closed || !strings.HasPrefix(escape, "x{") {
			return "", false
		}
		r, ok := parseHexpoint(digits)
		if !ok {
			return "", false
		}
		b.WriteRune(r)
		s = rest
	}
	return b.String(), true
}

// parseHexpoint reads the upper-case hexadecimal digits of a code point.
func parseHexpoint(s string) (rune, bool) {
	if len(s) < 2 || len(s) > 6 {
		return 0, false
	}
	var r rune
	for i := range len(s) {
		d := strings.IndexByte("0123456789ABCDEF", s[i])
		if d < 0 {
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	return r, utf8.ValidRune(r)
}

func isPrintable(s string) bool {
	for _, r := range s {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == utf8.RuneError {
			return false
		}
	}
	return true
}

func isASCII[T string | []byte](s T) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
