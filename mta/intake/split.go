package intake

import "bytes"

// headerEnds reports whether the content so far holds the whole header: a
// blank line was seen, or the first line is no field, and so all is text. It
// looks at each octet once, however small the pieces are.
func (m *Message) headerEnds() bool {
	h := m.buf.header
	from := max(0, m.looked-len(blankLine)+1)
	if bytes.IndexByte(h[m.looked:], '\n') < 0 {
		m.looked = len(h)
		return false
	}
	m.looked = len(h)
	if !m.headed {
		first := bytes.IndexByte(h, '\n') + 1
		if bytes.HasPrefix(h, mboxFrom) && bytes.IndexByte(h[first:], '\n') < 0 {
			return false // whether it is an mbox separator shows in the next line
		}
		if !isField(h) && mboxSeparator(h) == 0 {
			return true
		}
		m.headed = true
	}
	return bytes.Contains(h[from:], blankLine)
}

var (
	blankLine = []byte("\r\n\r\n")
	mboxFrom  = []byte("From ")
)

// splitContent splits content whose header is complete: the number of the
// header's first line, the header section without its blank line, and what
// follows. Content that does not begin with a field has no header: a program
// that hands over mere text, as sendmail(8) allows.
func splitContent(content []byte) (line int, section, rest []byte) {
	if bytes.HasPrefix(content, crlf) {
		return 1, nil, content[len(crlf):]
	}
	line = 1
	if n := mboxSeparator(content); n > 0 {
		content, line = content[n:], 2
	}
	if !isField(content) {
		return line, nil, content
	}
	i := bytes.Index(content, blankLine)
	return line, content[:i+len(crlf)], content[i+len(blankLine):]
}

// mboxSeparator is the length of an mbox file's separator line at the start
// of content; 0: there is none. "From here on ..." is one only before a field.
func mboxSeparator(content []byte) int {
	if !bytes.HasPrefix(content, mboxFrom) {
		return 0
	}
	n := bytes.IndexByte(content, '\n') + 1
	if n == 0 || !isField(content[n:]) {
		return 0
	}
	return n
}

// isField reports whether a header field begins here.
func isField(content []byte) bool {
	name, colon := nameLength(content)
	return name > 0 && colon > 0
}

// nameLength measures the name of the field at the start of s, and where its
// colon stands (0: nowhere). Blanks between the two are obsolete (RFC 5322,
// section 4.5).
func nameLength[T string | []byte](s T) (name, colon int) {
	i := 0
	for i < len(s) && s[i] > ' ' && s[i] < 0x7f && s[i] != ':' {
		i++
	}
	name = i
	for i < len(s) && (s[i] == ' ' || s[i] == '\t') {
		i++
	}
	if i == len(s) || s[i] != ':' {
		return name, 0
	}
	return name, i
}
