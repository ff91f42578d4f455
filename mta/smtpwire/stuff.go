package smtpwire

import "bytes"

var crlfDot = []byte("\r\n.")

// Stuffer doubles the dots that begin a line (RFC 5321, section 4.5.2) in
// content that comes in pieces. The zero value is at the start of the content.
type Stuffer struct {
	seen int8 // atLineStart, inLine or afterCR
}

const (
	atLineStart = iota
	inLine
	afterCR
)

// Append appends the next piece of content to dst.
func (s *Stuffer) Append(dst, piece []byte) []byte {
	if len(piece) == 0 {
		return dst
	}
	if s.seen == afterCR && piece[0] == '\n' {
		dst = append(dst, '\n')
		s.seen = atLineStart
		if piece = piece[1:]; len(piece) == 0 {
			return dst
		}
	}
	if s.seen == atLineStart && piece[0] == '.' {
		dst = append(dst, '.')
	}
	rest := piece
	for {
		i := bytes.Index(rest, crlfDot)
		if i < 0 {
			break
		}
		dst = append(dst, rest[:i+3]...)
		dst = append(dst, '.')
		rest = rest[i+3:]
	}
	s.seen = inLine
	if bytes.HasSuffix(piece, crlfDot[:2]) {
		s.seen = atLineStart
	} else if piece[len(piece)-1] == '\r' {
		s.seen = afterCR
	}
	return append(dst, rest...)
}

// EndsLine tells whether what was appended so far ends in CRLF or is nothing:
// only then may the line with the dot follow.
func (s *Stuffer) EndsLine() bool { return s.seen == atLineStart }
