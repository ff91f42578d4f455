package smtpwire

import (
	"bytes"
	"io"
)

// MaxTextLine is the longest line of content, without its CRLF (RFC 5321,
// section 4.5.3.1.6).
const MaxTextLine = 998

// Defects are what content should not have and a careful receiver mends or
// refuses.
type Defects struct {
	BareCR, BareLF, NUL bool
	LongLine            bool // over MaxTextLine octets
}

// DataReader reads the content after DATA (RFC 5321, section 4.5.2): it ends
// at CRLF "." CRLF and nowhere else, so that no other form of a line end can
// smuggle a second message into the first one, and a dot that begins a line is
// removed. Line ends are left as they came.
type DataReader struct {
	src        *Reader
	rest       []byte // of Next, for Read
	lineStart  bool
	prevCR     bool
	done       bool
	lineLength int
	size       int64
	loneCRs    int64 // carriage returns less line ends
	defects    Defects
}

// NewDataReader reads one message's content from src.
func NewDataReader(src *Reader) *DataReader {
	d := new(DataReader)
	d.Reset(src)
	return d
}

// Reset begins another message.
func (d *DataReader) Reset(src *Reader) { *d = DataReader{src: src, lineStart: true} }

// Size is how many octets of content were returned so far.
func (d *DataReader) Size() int64 { return d.size }

// Defects are those of what was returned so far; BareCR is settled at the end.
func (d *DataReader) Defects() Defects { return d.defects }

// Next returns the next octets of the content, which lie in the Reader's
// buffer and are valid until the next call, and [io.EOF] after the last. When
// the source ends first that is [io.ErrUnexpectedEOF].
func (d *DataReader) Next() ([]byte, error) {
	for !d.done {
		have := d.src.buf[d.src.r:d.src.w]
		if len(have) == 0 || d.lineStart && isPartOfEnd(have) {
			if err := d.src.Fill(); err == io.EOF {
				return nil, io.ErrUnexpectedEOF
			} else if err != nil {
				return nil, err
			}
			continue
		}
		if d.lineStart && have[0] == '.' {
			if len(have) >= 3 && have[1] == '\r' && have[2] == '\n' {
				d.src.r += 3
				d.done = true
				break
			}
			d.src.r++
			d.lineStart = false
			continue
		}
		b := d.take(have)
		d.src.r += len(b)
		d.size += int64(len(b))
		return b, nil
	}
	if d.loneCRs > 0 {
		d.defects.BareCR = true
	}
	return nil, io.EOF
}

// isPartOfEnd tells whether b, at the start of a line, may grow into the end
// of the content.
func isPartOfEnd(b []byte) bool {
	return len(b) == 1 && b[0] == '.' || len(b) == 2 && b[0] == '.' && b[1] == '\r'
}

// take cuts have at the first line that begins with a dot, and looks at what
// it returns.
func (d *DataReader) take(have []byte) []byte {
	from := 0
	for {
		i := bytes.IndexByte(have[from:], '\n')
		if i < 0 {
			d.lineLength += len(have) - from
			d.lineStart = false
			return d.inspect(have)
		}
		at := from + i
		isEnd := d.prevCR
		if at > 0 {
			isEnd = have[at-1] == '\r'
		}
		d.lineLength += i + 1
		from = at + 1
		if !isEnd {
			d.defects.BareLF = true
			continue
		}
		d.loneCRs--
		if d.lineLength > MaxTextLine+2 {
			d.defects.LongLine = true
		}
		d.lineLength = 0
		if from == len(have) || have[from] == '.' {
			d.lineStart = true
			return d.inspect(have[:from])
		}
	}
}

func (d *DataReader) inspect(b []byte) []byte {
	d.prevCR = b[len(b)-1] == '\r'
	d.loneCRs += int64(bytes.Count(b, crByte))
	if !d.defects.NUL && bytes.IndexByte(b, 0) >= 0 {
		d.defects.NUL = true
	}
	return b
}

var crByte = []byte{'\r'}

// Read implements [io.Reader].
func (d *DataReader) Read(p []byte) (int, error) {
	if len(d.rest) == 0 {
		b, err := d.Next()
		if err != nil {
			return 0, err
		}
		d.rest = b
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

// Drain reads to the end of the content and drops it.
func (d *DataReader) Drain() error {
	d.rest = nil
	for {
		if _, err := d.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}
