package intake

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// maxLine is the most octets of a line without its CRLF (RFC 5322, section 2.1.1).
const maxLine = 998

var (
	cr   = []byte{'\r'}
	lf   = []byte{'\n'}
	crlf = []byte("\r\n")
)

// lineEnds makes every line end CRLF: a CR, an LF and a CRLF of the input is
// one line end each, whatever stands around it and however the input is cut
// into pieces. It also counts what the rest of the way wants to know.
//
// One rule for all three is what makes smuggling impossible: no receiver can
// see a line end that we did not see, since none but CRLF is sent.
type lineEnds struct {
	strict    bool // a CR or LF alone is an error
	skipLF    bool // the last octet was a CR, for which CRLF was already given
	lines     int  // complete lines so far
	column    int  // octets of the line that is not complete yet
	firstLong int  // number of the first line over maxLine; 0: none
	eightBit  bool
}

// take answers the canonical form of p, which is p itself or part of it where
// it needs no change, else in scratch, and scratch for the next call. tail is
// to follow text (a CRLF, for which p held only the CR).
func (l *lineEnds) take(p, scratch []byte) (text, tail, scratchOut []byte, err *Error) {
	if l.skipLF && len(p) > 0 {
		if p[0] == '\n' {
			p = p[1:]
		} else if l.strict {
			return nil, nil, scratch, l.bare("CR", l.lines-1)
		}
		l.skipLF = false
	}
	if len(p) == 0 {
		return nil, nil, scratch, nil
	}
	if i := bytes.IndexByte(p, 0); i >= 0 {
		return nil, nil, scratch, l.refuse(p[:i], "a NUL octet; binary content has to be encoded, as base64 for instance")
	}
	if p[len(p)-1] == '\r' { // a CRLF that is cut in two is no reason to copy the rest
		p, tail, l.skipLF = p[:len(p)-1], crlf, true
	}
	if !l.scan(p) {
		if l.strict {
			return nil, nil, scratch, l.firstBare(p)
		}
		scratch = appendCanonical(scratch[:0], p)
		p = scratch
		l.scan(p)
	}
	if tail != nil {
		l.endLine()
	}
	return p, tail, scratch, nil
}

// end answers what is missing at the end of the content.
func (l *lineEnds) end() (tail []byte, err *Error) {
	if l.skipLF && l.strict {
		return nil, l.bare("CR", l.lines-1)
	}
	if l.column > 0 {
		l.endLine()
		return crlf, nil
	}
	return nil, nil
}

func (l *lineEnds) endLine() {
	l.lines++
	if l.column > maxLine && l.firstLong == 0 {
		l.firstLong = l.lines
	}
	l.column = 0
}

// scan counts p and reports whether it holds no line end but CRLF; where it
// does, nothing is counted.
func (l *lineEnds) scan(p []byte) (canonical bool) {
	// Where each LF follows a CR and there are as many of both, each CR has its LF.
	if bytes.Count(p, cr) != bytes.Count(p, lf) {
		return false
	}
	lines, column, firstLong := l.lines, l.column, l.firstLong
	for rest := p; ; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			column += len(rest)
			break
		}
		if i == 0 || rest[i-1] != '\r' {
			return false
		}
		lines++
		if column+i-1 > maxLine && firstLong == 0 {
			firstLong = lines
		}
		column = 0
		rest = rest[i+1:]
	}
	l.lines, l.column, l.firstLong = lines, column, firstLong
	l.eightBit = l.eightBit || hasEightBit(p)
	return true
}

// appendCanonical appends p with each line end made CRLF.
func appendCanonical(dst, p []byte) []byte {
	for {
		i := bytes.IndexByte(p, '\n')
		line := p
		if i >= 0 {
			line = p[:i]
		}
		for {
			j := bytes.IndexByte(line, '\r')
			if j < 0 || (i >= 0 && j == len(line)-1) {
				break
			}
			dst = append(dst, line[:j]...)
			dst = append(dst, crlf...)
			line = line[j+1:]
		}
		if i < 0 {
			return append(dst, line...)
		}
		dst = append(dst, bytes.TrimSuffix(line, cr)...)
		dst = append(dst, crlf...)
		p = p[i+1:]
	}
}

// firstBare names the first line end of p that is not CRLF.
func (l *lineEnds) firstBare(p []byte) *Error {
	lines := l.lines
	for i, c := range p {
		switch {
		case c == '\r' && (i+1 == len(p) || p[i+1] != '\n'):
			return l.bare("CR", lines)
		case c == '\n' && (i == 0 || p[i-1] != '\r'):
			return l.bare("LF", lines)
		case c == '\n':
			lines++
		}
	}
	return l.bare("CR or LF", lines)
}

func (l *lineEnds) bare(what string, lines int) *Error {
	return &Error{Code: 554, Status: "5.6.0", Text: fmt.Sprintf("line %d: a %s that stands alone; line ends have to be CRLF", lines+1, what)}
}

// refuse names the line on which something stands that follows the octets before.
func (l *lineEnds) refuse(before []byte, what string) *Error {
	line := l.lines + 1 + bytes.Count(before, lf)
	return &Error{Code: 554, Status: "5.6.0", Text: fmt.Sprintf("line %d: %s", line, what)}
}

// hasEightBit reports whether an octet is beyond ASCII.
func hasEightBit(p []byte) bool {
	const high = 0x8080808080808080
	for len(p) >= 32 {
		if (binary.LittleEndian.Uint64(p)|binary.LittleEndian.Uint64(p[8:])|
			binary.LittleEndian.Uint64(p[16:])|binary.LittleEndian.Uint64(p[24:]))&high != 0 {
			return true
		}
		p = p[32:]
	}
	for _, c := range p {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
