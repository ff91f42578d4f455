package smtpwire

import (
	"bytes"
	"errors"
	"io"
)

// What can be wrong with a line. Each leaves the reader behind the line's
// CRLF, so that the session may go on, except ErrLineEndless.
var (
	ErrLineTooLong = errors.New("line too long")
	ErrLineEndless = errors.New("line does not end")
	ErrBareLF      = errors.New("line feed without carriage return")
	ErrBareCR      = errors.New("carriage return without line feed")
	ErrNUL         = errors.New("NUL in a line")
)

// maxSkip is how much of an over-long line is read to find its end. Past it a
// peer does not mean to speak SMTP.
const maxSkip = 64 << 10

// maxEmptyReads is how often a source may give nothing before it counts as
// broken.
const maxEmptyReads = 100

// Reader is a buffer over a connection. What it returns lies in the buffer and
// is valid until the next call.
type Reader struct {
	src  io.Reader
	buf  []byte
	r, w int
}

// NewReader makes a Reader with a buffer of size octets (at least 512), the
// longest line that it can return.
func NewReader(src io.Reader, size int) *Reader {
	return &Reader{src: src, buf: make([]byte, max(size, 512))}
}

// Reset goes on with another source, and forgets what was buffered.
func (r *Reader) Reset(src io.Reader) { r.src, r.r, r.w = src, 0, 0 }

// Buffered is the number of octets that were read from the source and not taken.
func (r *Reader) Buffered() int { return r.w - r.r }

// Fill reads from the source once more, and waits until at least one octet has
// come. It returns [io.ErrShortBuffer] when the buffer is full.
func (r *Reader) Fill() error {
	if r.r == r.w {
		r.r, r.w = 0, 0
	}
	if r.w == len(r.buf) {
		if r.r == 0 {
			return io.ErrShortBuffer
		}
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	for range maxEmptyReads {
		n, err := r.src.Read(r.buf[r.w:])
		if n > 0 {
			// An error beside octets comes again with the next read.
			r.w += n
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// Next takes at most limit octets of what is buffered, and waits for some when
// nothing is. It is how the octets of BDAT are read.
func (r *Reader) Next(limit int) ([]byte, error) {
	if r.r == r.w {
		if err := r.Fill(); err != nil {
			return nil, err
		}
	}
	b := r.buf[r.r:min(r.w, r.r+limit)]
	r.r += len(b)
	return b, nil
}

// Read implements [io.Reader].
func (r *Reader) Read(p []byte) (int, error) {
	b, err := r.Next(len(p))
	return copy(p, b), err
}

// ReadLine takes a line of at most limit octets, its CRLF included, and returns
// it without the CRLF. Only CRLF ends a line: a bare CR, a bare LF or a NUL is
// part of the line and reported with it. At the end of the source it returns
// [io.EOF], within a line [io.ErrUnexpectedEOF].
func (r *Reader) ReadLine(limit int) ([]byte, error) {
	limit = min(limit, len(r.buf))
	scanned := 0
	for {
		have := r.buf[r.r:r.w]
		if i := indexCRLF(have[scanned:]); i >= 0 {
			line := have[:scanned+i]
			r.r += len(line) + 2
			if len(line)+2 > limit {
				return nil, ErrLineTooLong
			}
			return line, lineDefect(line)
		}
		if len(have) >= limit {
			return nil, r.skipLine()
		}
		scanned = max(0, len(have)-1) // the last octet may be the CR
		if err := r.Fill(); err != nil {
			if err == io.EOF && len(have) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// skipLine drops the rest of a line that is too long.
func (r *Reader) skipLine() error {
	for skipped := 0; skipped < maxSkip; {
		have := r.buf[r.r:r.w]
		if i := indexCRLF(have); i >= 0 {
			r.r += i + 2
			return ErrLineTooLong
		}
		// The last octet stays: it may be the CR.
		drop := max(0, len(have)-1)
		r.r += drop
		skipped += drop
		if err := r.Fill(); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return ErrLineEndless
}

func indexCRLF(b []byte) int {
	for from := 0; ; {
		i := bytes.IndexByte(b[from:], '\n')
		if i < 0 {
			return -1
		}
		if at := from + i; at > 0 && b[at-1] == '\r' {
			return at - 1
		}
		from += i + 1
	}
}

func lineDefect(line []byte) error {
	switch {
	case bytes.IndexByte(line, '\n') >= 0:
		return ErrBareLF
	case bytes.IndexByte(line, '\r') >= 0:
		return ErrBareCR
	case bytes.IndexByte(line, 0) >= 0:
		return ErrNUL
	}
	return nil
}
