package recode

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"mime"
	"strings"
)

// part is one MIME entity that holds content, or a multipart or message that
// holds others.
type part struct {
	index     int
	line      int    // number of its header's first line
	mediaType string // lower case
	encoding  string // lower case; empty: none given
	boundary  string // of a multipart
	nested    bool   // a message/rfc822 whose header follows
	sealed    bool   // within multipart/signed
	named     bool   // has a Content-Type field

	// Found by the survey.
	eightBit bool
	header   bool // the header has to change
	action   action
}

// text is a piece of a line of the body.
type text struct {
	octets []byte // with the CRLF where the line is complete
	line   int
	column int // octets of the line so far, without its CRLF
}

// visitor is told of a message's parts in order.
type visitor interface {
	part(p *part, header []byte, top bool) error // header with its blank line
	text(p *part, t text) error                  // content of the part last begun
	structure(t text) error                      // boundaries, preambles, epilogues
	end(p *part) error                           // the part's content is complete
}

// level is a multipart that is open.
type level struct {
	delimiter string // with its two hyphens
	sealed    bool
	messages  int // that it is within
}

type walker struct {
	v       visitor
	levels  []level
	current part
	leaf    bool // lines are content of current
	heading bool // lines are a header
	header  []byte
	count   int // of parts so far

	messages int // attached ones that are open, one within the other
	line     int
	column   int
}

// walk takes a message apart. The first part is the message itself.
func walk(header []byte, body io.Reader, bodyLine int, v visitor) error {
	w := &walker{v: v, line: bodyLine}
	if err := w.begin(header, 1, true); err != nil {
		return err
	}
	r := bufio.NewReaderSize(body, 8<<10) // longer than any boundary line
	for {
		line, err := r.ReadSlice('\n')
		if len(line) > 0 {
			if err := w.take(line, err == nil); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return w.endPart()
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

// take takes a line, or a piece of one that is longer than the buffer.
func (w *walker) take(octets []byte, complete bool) error {
	atStart := w.column == 0
	w.column += len(octets)
	t := text{octets: octets, line: w.line, column: w.column}
	if complete {
		t.column -= 2
		w.line++
		w.column = 0
	}
	if atStart && complete && len(w.levels) > 0 && bytes.HasPrefix(octets, []byte("--")) {
		if i, closes := w.delimiter(octets); i >= 0 {
			return w.boundary(t, i, closes)
		}
	}
	switch {
	case w.heading:
		w.header = append(w.header, octets...)
		if len(w.header) > maxPartHeader {
			return &Error{t.line, "the header of a MIME part is too large"}
		}
		if atStart && len(octets) == 2 {
			return w.begin(w.header, w.line-bytes.Count(w.header, []byte("\n")), false)
		}
		return nil
	case w.leaf:
		return w.v.text(&w.current, t)
	}
	return w.v.structure(t)
}

// delimiter finds the multipart that a line separates or closes, the innermost first.
func (w *walker) delimiter(line []byte) (i int, closes bool) {
	s := bytes.TrimRight(line, " \t\r\n")
	for i := len(w.levels) - 1; i >= 0; i-- {
		if rest, ok := bytes.CutPrefix(s, []byte(w.levels[i].delimiter)); ok {
			if len(rest) == 0 || string(rest) == "--" {
				return i, len(rest) > 0
			}
		}
	}
	return -1, false
}

func (w *walker) boundary(t text, i int, closes bool) error {
	if err := w.endPart(); err != nil {
		return err
	}
	w.levels = w.levels[:i+1]
	w.messages = w.levels[i].messages
	if closes {
		w.levels = w.levels[:i]
	} else {
		w.heading = true
	}
	return w.v.structure(t)
}

// endPart ends the part at hand. It may be cut short in its header, and then
// lacks the blank line.
func (w *walker) endPart() error {
	if w.heading {
		if err := w.begin(w.header, w.line-bytes.Count(w.header, []byte("\n")), false); err != nil {
			return err
		}
	}
	w.heading = false
	if !w.leaf {
		return nil
	}
	w.leaf = false
	return w.v.end(&w.current)
}

// begin begins the part that has this header.
func (w *walker) begin(header []byte, line int, top bool) error {
	w.current = readPart(header)
	p := &w.current
	p.index, p.line = w.count, line
	w.count++
	if n := len(w.levels); n > 0 {
		p.sealed = w.levels[n-1].sealed
	}
	w.heading, w.leaf = false, p.boundary == "" && !p.nested
	if err := w.v.part(p, header, top); err != nil {
		return err
	}
	w.header = w.header[:0]
	if len(w.levels)+w.messages == maxDepth && !w.leaf {
		return &Error{line, "MIME parts are nested too deeply"}
	}
	switch {
	case p.boundary != "":
		sealed := p.sealed || p.mediaType == "multipart/signed"
		w.levels = append(w.levels, level{"--" + p.boundary, sealed, w.messages})
	case p.nested:
		w.messages++
		w.heading = true
	}
	return nil
}

// readPart reads what a header says of its part's content (RFC 2045).
func readPart(header []byte) part {
	p := part{mediaType: "text/plain"}
	if v, ok := fieldValue(header, "Content-Transfer-Encoding"); ok {
		v, _, _ = strings.Cut(v, ";")
		p.encoding = strings.ToLower(strings.TrimSpace(v))
	}
	v, ok := fieldValue(header, "Content-Type")
	if !ok {
		return p
	}
	p.named = true
	mediaType, params, err := mime.ParseMediaType(v)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return p // RFC 2045, section 5.2: like text/plain
	}
	p.mediaType = mediaType
	switch {
	case strings.HasPrefix(mediaType, "multipart/"):
		p.boundary = params["boundary"]
	case mediaType == "message/rfc822" && p.identity():
		p.nested = true // message/global is not: it may be encoded as a whole
	}
	return p
}

// identity reports whether the content stands as it is.
func (p *part) identity() bool {
	switch p.encoding {
	case "", "7bit", "8bit", "binary":
		return true
	}
	return false
}
