package smtpwire

import (
	"errors"
	"fmt"
)

// ErrXtext is wrapped by what [DecodeXtext] returns.
var ErrXtext = errors.New("malformed xtext")

const upperHex = "0123456789ABCDEF"

// isXchar: "!" to "~" but "+" and "=" (RFC 3461, section 4).
func isXchar(c byte) bool { return c >= '!' && c <= '~' && c != '+' && c != '=' }

// AppendXtext appends s as xtext (RFC 3461, section 4): what is not an xchar
// becomes "+" and two upper-case hexadecimal digits.
func AppendXtext(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; isXchar(c) {
			dst = append(dst, c)
		} else {
			dst = append(dst, '+', upperHex[c>>4], upperHex[c&15])
		}
	}
	return dst
}

// DecodeXtext reads xtext. Lower-case hexadecimal digits are refused, as the
// grammar has none.
func DecodeXtext(s string) (string, error) {
	dst := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '+' {
			if i+2 >= len(s) {
				return "", fmt.Errorf("%w: %q ends within an escape", ErrXtext, s)
			}
			high, low := unhex(s[i+1]), unhex(s[i+2])
			if high < 0 || low < 0 {
				return "", fmt.Errorf("%w: %q is not an escape", ErrXtext, s[i:i+3])
			}
			dst = append(dst, byte(high<<4|low))
			i += 2
			continue
		}
		if !isXchar(c) {
			return "", fmt.Errorf("%w: %q must be escaped", ErrXtext, c)
		}
		dst = append(dst, c)
	}
	return string(dst), nil
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
