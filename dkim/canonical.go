package dkim

import (
	"bytes"
	"crypto/sha256"
	"hash"
)

// bodyHash hashes a body in its relaxed canonical form (RFC 6376, section
// 3.4.4): runs of blanks become one space, those at the end of a line nothing,
// and so do empty lines at the end of the body. It takes the body in parts of
// any size, with CRLF line ends; a CR or LF that stands alone is an octet like
// any other.
type bodyHash struct {
	sha    hash.Hash
	buffer []byte // canonical octets on their way to sha
	// What came before and counts only if something follows: complete line
	// ends, then blanks, then a CR.
	lineEnds int
	hasBlank bool
	hasCR    bool
	hasText  bool // anything was hashed
}

func newBodyHash() *bodyHash {
	return &bodyHash{sha: sha256.New(), buffer: make([]byte, 0, hashStep)}
}

// reset makes it ready for another body.
func (b *bodyHash) reset() {
	b.sha.Reset()
	*b = bodyHash{sha: b.sha, buffer: b.buffer[:0]}
}

// hashStep is how much is hashed at once. Less is more calls, more only memory.
const hashStep = 4 << 10

func (b *bodyHash) write(p []byte) {
	for i := 0; i < len(p); {
		switch c := p[i]; {
		case b.hasCR:
			b.hasCR = false
			if c == '\n' {
				b.lineEnds++
				b.hasBlank = false
				i++
				continue
			}
			b.text([]byte{'\r'})
		case c == ' ' || c == '\t':
			b.hasBlank = true
			i++
		case c == '\r':
			b.hasCR = true
			i++
		default:
			n := unchanged(p[i:])
			b.text(p[i : i+n])
			i += n
		}
	}
}

// unchanged tells how much of a part that begins with text is its own canonical
// form, up to a text: single spaces and line ends between texts stay. Nearly
// all of a body does, and is hashed without having been taken to pieces.
func unchanged(p []byte) int {
	n := 1
	for n < len(p) {
		switch c := p[n]; {
		case c > ' ':
			n++
		case c == ' ' && n+1 < len(p) && p[n+1] > ' ':
			n += 2
		case c == '\r' && n+2 < len(p) && p[n+1] == '\n' && p[n+2] > ' ':
			n += 3
		case c != ' ' && c != '\t' && c != '\r':
			n++
		default:
			return n
		}
	}
	return n
}

// text takes what is neither blank nor line end, with what waited for it.
func (b *bodyHash) text(p []byte) {
	for ; b.lineEnds > 0; b.lineEnds-- {
		b.add(crlf)
	}
	if b.hasBlank {
		b.hasBlank = false
		b.add(space)
	}
	b.add(p)
	b.hasText = true
}

func (b *bodyHash) add(p []byte) {
	if len(b.buffer)+len(p) > cap(b.buffer) {
		b.sha.Write(b.buffer)
		b.buffer = b.buffer[:0]
		if len(p) >= cap(b.buffer) {
			b.sha.Write(p)
			return
		}
	}
	b.buffer = append(b.buffer, p...)
}

// sum ends the body. One with text ends in exactly one CRLF; one without is
// empty.
func (b *bodyHash) sum() []byte {
	if b.hasCR {
		b.hasCR = false
		b.text([]byte{'\r'})
	}
	if b.hasText {
		b.add(crlf)
	}
	b.sha.Write(b.buffer)
	return b.sha.Sum(nil)
}

var (
	crlf  = []byte("\r\n")
	space = []byte(" ")
)

// appendRelaxed appends a field in its relaxed canonical form (RFC 6376,
// section 3.4.2): the name in lower case, the value unfolded, with single
// spaces and none at its ends. The field ends in CRLF, as does the form.
func appendRelaxed(dst, field []byte) []byte {
	colon := bytes.IndexByte(field, ':')
	if colon < 0 {
		colon = len(field)
	}
	name, value := field[:colon], field[min(colon+1, len(field)):]
	for len(name) > 0 && isSpace(name[len(name)-1]) {
		name = name[:len(name)-1]
	}
	for _, c := range name {
		dst = append(dst, lower(c))
	}
	dst = append(dst, ':')
	for start := len(dst); ; {
		word := 0
		for word < len(value) && isSpace(value[word]) {
			word++
		}
		if word == len(value) {
			return append(dst, crlf...)
		}
		if len(dst) > start {
			dst = append(dst, ' ')
		}
		end := word + 1
		for end < len(value) && !isSpace(value[end]) {
			end++
		}
		dst = append(dst, value[word:end]...)
		value = value[end:]
	}
}

// isSpace reports whether unfolding takes an octet for a part of a space.
func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }
