package recode

import (
	"bufio"
	"encoding/base64"
	"strings"
)

// action is what is done to a part's content.
type action uint8

const (
	keep action = iota
	toQuotedPrintable
	toBase64
	wrapQuotedPrintable
	wrapBase64
)

// remedy is what makes the part fit; keep where nothing does. RFC 2045,
// section 6.4, forbids any encoding of multipart and message, but the message
// types of internationalized mail may have one (RFC 6532, section 3.5; RFC
// 6533, section 4).
func (p *part) remedy() action {
	switch {
	case p.encoding == "quoted-printable":
		return wrapQuotedPrintable
	case p.encoding == "base64":
		return wrapBase64
	case p.identity() && strings.HasPrefix(p.mediaType, "message/global"):
		return toQuotedPrintable
	case !p.identity() || strings.HasPrefix(p.mediaType, "multipart/") || strings.HasPrefix(p.mediaType, "message/"):
		return keep
	case strings.HasPrefix(p.mediaType, "text/"):
		return toQuotedPrintable
	}
	return toBase64
}

// newHeader is a part's header with the encoding that its content gets.
func (p *part) newHeader(header []byte, top bool) []byte {
	var encoding string
	switch p.action {
	case toQuotedPrintable:
		encoding = "quoted-printable"
	case toBase64:
		encoding = "base64"
	default:
		return header
	}
	out := make([]byte, 0, len(header)+128)
	hasVersion := false
	for field := range fields(header) {
		switch name := fieldName(field); {
		case strings.EqualFold(name, "Content-Transfer-Encoding"):
			continue
		case strings.EqualFold(name, "MIME-Version"):
			hasVersion = true
		}
		out = append(out, field...)
	}
	if top && !hasVersion {
		out = append(out, "MIME-Version: 1.0\r\n"...)
	}
	if !p.named && p.eightBit { // it never said what it is; this is what it most likely is
		out = append(out, "Content-Type: text/plain; charset=utf-8\r\n"...)
	}
	out = append(out, "Content-Transfer-Encoding: "+encoding+"\r\n\r\n"...)
	return out
}

// encoder writes a part's content in another form. What it wrote ends in a
// line end after close, if the content did.
type encoder interface {
	write(octets []byte) error
	close() error
}

func newEncoder(a action, w *bufio.Writer) encoder {
	switch a {
	case toQuotedPrintable:
		return &quotedPrintable{w: w}
	case wrapQuotedPrintable:
		return &quotedWrapper{w: w}
	case toBase64:
		lines := &lineWriter{w: w}
		return &base64Encoder{lines: lines, enc: base64.NewEncoder(base64.StdEncoding, lines)}
	case wrapBase64:
		return &base64Wrapper{lineWriter{w: w}}
	}
	return nil
}

// The most columns of an encoded line without its CRLF (RFC 2045, sections 6.7 and 6.8).
const maxEncodedLine = 76

const hex = "0123456789ABCDEF"

// quotedPrintable encodes text (RFC 2045, section 6.7). Each line end of the
// text stays one.
type quotedPrintable struct {
	w      *bufio.Writer
	column int
	blank  byte // a blank that may turn out to end its line; 0: none
	cr     bool // the last octet was the CR of a CRLF
}

func (q *quotedPrintable) write(octets []byte) error {
	for _, c := range octets {
		switch {
		case c == '\r':
			q.cr = true
			continue
		case c == '\n' && q.cr:
			q.endLine()
		case c == ' ' || c == '\t':
			q.flushBlank()
			q.blank = c
		case c > ' ' && c < 0x7f && c != '=' && (c != '.' || q.column > 0 || q.blank != 0):
			q.flushBlank()
			q.put(1)
			q.w.WriteByte(c)
		default:
			// A dot at the start of a line too: it is the one that relays trip over.
			q.flushBlank()
			q.escape(c)
		}
		q.cr = false
	}
	return nil
}

func (q *quotedPrintable) flushBlank() {
	if q.blank != 0 {
		q.put(1)
		q.w.WriteByte(q.blank)
		q.blank = 0
	}
}

// put makes room for n columns, leaving one for the sign of a soft line break.
func (q *quotedPrintable) put(n int) {
	if q.column+n > maxEncodedLine-1 {
		q.w.WriteString("=\r\n")
		q.column = 0
	}
	q.column += n
}

func (q *quotedPrintable) escape(c byte) {
	q.put(3)
	q.w.WriteByte('=')
	q.w.WriteByte(hex[c>>4])
	q.w.WriteByte(hex[c&15])
}

func (q *quotedPrintable) endLine() {
	if q.blank != 0 {
		q.escape(q.blank)
		q.blank = 0
	}
	q.w.WriteString("\r\n")
	q.column = 0
}

func (q *quotedPrintable) close() error { return nil }

// quotedWrapper breaks the long lines of text that is quoted-printable
// already, and escapes octets that should have been.
type quotedWrapper struct {
	w      *bufio.Writer
	column int
	escape int // octets left of an escape that must not be torn
}

func (q *quotedWrapper) write(octets []byte) error {
	for _, c := range octets {
		width := 1
		switch {
		case c == '\n':
			q.w.WriteByte(c)
			q.column, q.escape = 0, 0
			continue
		case c == '\r':
			q.w.WriteByte(c)
			continue
		case c == '=' || c >= 0x80:
			width = 3
		}
		if q.escape == 0 && q.column+width > MaxLine-1 {
			q.w.WriteString("=\r\n")
			q.column = 0
		}
		if c >= 0x80 {
			q.w.WriteByte('=')
			q.w.WriteByte(hex[c>>4])
			q.w.WriteByte(hex[c&15])
			q.column += 3
			continue
		}
		q.w.WriteByte(c)
		q.column++
		if q.escape > 0 {
			q.escape--
		}
		if c == '=' {
			q.escape = 2
		}
	}
	return nil
}

func (q *quotedWrapper) close() error { return nil }

// lineWriter breaks what is written into lines.
type lineWriter struct {
	w      *bufio.Writer
	column int
}

func (l *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if l.column == maxEncodedLine {
			l.w.WriteString("\r\n")
			l.column = 0
		}
		k := min(len(p), maxEncodedLine-l.column)
		l.w.Write(p[:k])
		l.column += k
		p = p[k:]
	}
	return n, nil
}

func (l *lineWriter) endLine() {
	if l.column > 0 {
		l.w.WriteString("\r\n")
	}
}

// base64Encoder encodes content. The CRLF at its end belongs to the boundary
// that follows (RFC 2046, section 5.1.1) and is no part of it.
type base64Encoder struct {
	lines *lineWriter
	enc   interface {
		Write([]byte) (int, error)
		Close() error
	}
	held bool // a CRLF that may be the last one
}

func (b *base64Encoder) write(octets []byte) error {
	if b.held {
		b.enc.Write([]byte("\r\n"))
		b.held = false
	}
	if n := len(octets); n >= 2 && octets[n-2] == '\r' && octets[n-1] == '\n' {
		octets, b.held = octets[:n-2], true
	}
	_, err := b.enc.Write(octets)
	return err
}

func (b *base64Encoder) close() error {
	err := b.enc.Close()
	b.lines.endLine()
	return err
}

// base64Wrapper wraps the lines of content that is base64 already.
type base64Wrapper struct{ lines lineWriter }

func (b *base64Wrapper) write(octets []byte) error {
	for len(octets) > 0 {
		n := 0
		for n < len(octets) && isBase64(octets[n]) {
			n++
		}
		b.lines.Write(octets[:n])
		for n < len(octets) && !isBase64(octets[n]) { // decoders pass over it (RFC 2045, section 6.8)
			n++
		}
		octets = octets[n:]
	}
	return nil
}

func (b *base64Wrapper) close() error {
	b.lines.endLine()
	return nil
}

func isBase64(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '='
}
