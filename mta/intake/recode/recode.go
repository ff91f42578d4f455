// Package recode changes the encoding of a message's parts, and nothing that a
// reader sees of them, so that the message fits a way that is narrower than its
// content: lines of at most 998 octets (RFC 5321, section 4.5.3.1.6), or
// seven bits (RFC 6152, section 3), or headers in ASCII (for hosts without
// SMTPUTF8, RFC 6531).
//
// A Plan is made in one pass over the body and carried out in a second one, so
// that a message of any size is rewritten in little memory. Text becomes
// quoted-printable, other content base64; what is encoded already but has
// lines that are too long is only wrapped. What is signed or of an unknown
// encoding cannot be changed and is an *Error.
//
// The header of a message is mended by EncodeWords (raw octets beyond ASCII)
// and Fold (long lines).
package recode

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Fit is what a message has to fit.
type Fit uint8

const (
	ShortLines   Fit = 1 << iota // lines of at most MaxLine octets
	SevenBit                     // no octet beyond ASCII
	ASCIIHeaders                 // none in the header of a part; the content stays as it is
)

// MaxLine is the most octets of a line, without its CRLF.
const MaxLine = 998

// The bounds of what is kept in memory of foreign structure.
const (
	maxPartHeader = 64 << 10
	maxDepth      = 32    // multiparts and messages within each other
	maxParts      = 10000 // in all
)

// Error says why a message cannot be made to fit.
type Error struct {
	Line   int // of the message, from 1
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Reason) }

// Plan is what is to be done to a message.
type Plan struct {
	fit    Fit
	first  int // number of the body's first line
	parts  []part
	header []byte
}

// New reads a message and plans what has to change. header is its header
// section in CRLF form with the blank line, already of short lines; body
// follows it, in CRLF form, ending in a line end; bodyLine is the number of the
// body's first line, for errors. An error is an *Error, or one of reading.
func New(header []byte, body io.Reader, bodyLine int, fit Fit) (*Plan, error) {
	p := &Plan{fit: fit, first: bodyLine}
	s := &survey{plan: p}
	if err := walk(header, body, bodyLine, s); err != nil {
		return nil, err
	}
	p.header = header
	if len(p.parts) > 0 {
		p.header = p.parts[0].newHeader(header, true)
	}
	return p, nil
}

// Changes reports whether there is anything to do.
func (p *Plan) Changes() bool {
	for i := range p.parts {
		if p.parts[i].action != keep || p.parts[i].header {
			return true
		}
	}
	return false
}

// Header is the header section to send, with its blank line.
func (p *Plan) Header() []byte { return p.header }

// Write writes the changed body, without the header. header and body are those
// that were given to New.
func (p *Plan) Write(w io.Writer, header []byte, body io.Reader) error {
	out := &rewriter{plan: p, w: bufio.NewWriterSize(w, 32<<10)}
	if err := walk(header, body, p.first, out); err != nil {
		return err
	}
	return out.w.Flush()
}

// survey is the first pass: it fills in the plan.
type survey struct{ plan *Plan }

func (s *survey) part(p *part, header []byte, top bool) error {
	if len(s.plan.parts) == maxParts {
		return &Error{p.line, fmt.Sprintf("more than %d MIME parts", maxParts)}
	}
	if !top && s.plan.headerNeeds(header) {
		fixed, err := fixHeader(header, p.line, s.plan.fit)
		if err != nil {
			return err
		}
		if s.plan.headerNeeds(fixed) {
			return &Error{p.line, "the header of a MIME part is not ASCII and cannot be encoded"}
		}
		if p.sealed {
			return &Error{p.line, "a part that is signed has a header that does not fit; it cannot be changed"}
		}
		p.header = !bytes.Equal(fixed, header)
	}
	s.plan.parts = append(s.plan.parts, *p)
	return nil
}

// headerNeeds reports whether the header of a part does not fit.
func (p *Plan) headerNeeds(header []byte) bool {
	return p.fit&ShortLines != 0 && longLine(header) || p.fit&(SevenBit|ASCIIHeaders) != 0 && hasEightBit(header)
}

// fixHeader makes a part's header fit.
func fixHeader(header []byte, line int, fit Fit) ([]byte, error) {
	if fit&(SevenBit|ASCIIHeaders) != 0 {
		header = EncodeWords(header)
	}
	return Fold(header, line)
}

func (s *survey) text(p *part, t text) error {
	p = &s.plan.parts[p.index]
	long := s.plan.fit&ShortLines != 0 && t.column > MaxLine
	eightBit := s.plan.fit&SevenBit != 0 && hasEightBit(t.octets)
	p.eightBit = p.eightBit || hasEightBit(t.octets)
	if p.action != keep || (!long && !eightBit) {
		return nil
	}
	what := "longer than 998 octets"
	if eightBit {
		what = "not ASCII"
	}
	if p.sealed {
		return &Error{t.line, "a line that is " + what + " in a part that is signed; it cannot be changed"}
	}
	if p.action = p.remedy(); p.action == keep {
		return &Error{t.line, fmt.Sprintf("a line that is %s in a part of type %s, encoding %q; it cannot be changed", what, p.mediaType, p.encoding)}
	}
	return nil
}

func (s *survey) structure(t text) error {
	if s.plan.fit&ShortLines != 0 && t.column > MaxLine {
		return &Error{t.line, "a line longer than 998 octets outside the MIME parts"}
	}
	if s.plan.fit&SevenBit != 0 && hasEightBit(t.octets) {
		return &Error{t.line, "a line that is not ASCII outside the MIME parts"}
	}
	return nil
}

func (s *survey) end(*part) error { return nil }

// rewriter is the second pass.
type rewriter struct {
	plan *Plan
	w    *bufio.Writer
	enc  encoder // of the present part; nil: as it is
}

func (r *rewriter) part(p *part, header []byte, top bool) error {
	if p.index >= len(r.plan.parts) {
		return errors.New("recode: the body is not the one that was planned for")
	}
	p = &r.plan.parts[p.index]
	r.enc = newEncoder(p.action, r.w)
	if top {
		return nil // Plan.Header
	}
	if p.header {
		var err error
		if header, err = fixHeader(header, p.line, r.plan.fit); err != nil {
			return err
		}
	}
	_, err := r.w.Write(p.newHeader(header, false))
	return err
}

func (r *rewriter) text(_ *part, t text) error {
	if r.enc != nil {
		return r.enc.write(t.octets)
	}
	_, err := r.w.Write(t.octets)
	return err
}

func (r *rewriter) structure(t text) error {
	_, err := r.w.Write(t.octets)
	return err
}

func (r *rewriter) end(*part) error {
	if r.enc == nil {
		return nil
	}
	enc := r.enc
	r.enc = nil
	return enc.close()
}

func longLine(p []byte) bool {
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			return len(p) > MaxLine
		}
		if i > MaxLine+1 {
			return true
		}
		p = p[i+1:]
	}
	return false
}

func hasEightBit(p []byte) bool {
	for _, c := range p {
		if c >= 0x80 {
			return true
		}
	}
	return false
}
