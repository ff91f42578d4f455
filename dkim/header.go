package dkim

import "bytes"

// oversigned are signed once more than they are present: what a reader is
// shown, or what decides how the content is shown.
var oversigned = [...]string{
	"From", "Reply-To", "Subject", "Date", "To", "Cc", "Message-ID", "In-Reply-To", "References",
	"MIME-Version", "Content-Type", "Content-Transfer-Encoding",
}

// signed are signed where they are present (RFC 6376, section 5.4.1). Lists and
// relays may add fields of these names.
var signed = [...]string{
	"Sender", "Content-Disposition", "Content-ID", "Content-Language", "Resent-Date", "Resent-From", "Resent-To", "Resent-Cc", "Resent-Message-ID",
	"List-Id", "List-Help", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Subscribe", "List-Post", "List-Owner", "List-Archive",
	"Auto-Submitted", "Feedback-ID", "TLS-Required",
}

// fieldNumber gives the place of a field name in oversigned, or, behind it, in
// signed; -1 for none.
func fieldNumber(name []byte) int {
	for i, s := range oversigned {
		if sameName(name, s) {
			return i
		}
	}
	for i, s := range signed {
		if sameName(name, s) {
			return len(oversigned) + i
		}
	}
	return -1
}

// sameName compares names of fields, which are ASCII, without case.
func sameName(a []byte, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(b) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

const (
	numberOfFrom      = 0
	numberOfMessageID = 6
)

// maxNames bounds the list of h=. It is reached only by headers that repeat
// fields which may stand once.
const maxNames = 900

// survey is what signing has to know of a header.
type survey struct {
	counts    [len(oversigned) + len(signed)]int // by fieldNumber
	fields    []numbered                         // of those that have a number, in the header's order
	from      []byte                             // the value of the last From
	messageID []byte
}

type numbered struct {
	number int
	field  []byte // a part of the header
}

// look goes through a header section, with CRLF line ends.
func (s *survey) look(header []byte) {
	for len(header) > 0 {
		field := firstField(header)
		header = header[len(field):]
		name, value, _ := bytes.Cut(field, []byte(":"))
		n := fieldNumber(bytes.TrimRight(name, " \t"))
		if n < 0 {
			continue
		}
		s.counts[n]++
		s.fields = append(s.fields, numbered{n, field})
		switch n {
		case numberOfFrom:
			s.from = value
		case numberOfMessageID:
			s.messageID = bytes.TrimSpace(value)
		}
	}
}

// forget lets go of the header, and keeps the room for the next one.
func (s *survey) forget() {
	clear(s.fields)
	*s = survey{fields: s.fields[:0]}
}

// firstField gives the first field with its continuation lines.
func firstField(header []byte) []byte {
	end := 0
	for {
		n := bytes.IndexByte(header[end:], '\n')
		if n < 0 {
			return header
		}
		end += n + 1
		if end == len(header) || header[end] != ' ' && header[end] != '\t' {
			return header[:end]
		}
	}
}

// appendNames appends the list for h=; false where it would be too long.
func (s *survey) appendNames(list []string) ([]string, bool) {
	length := 0
	add := func(name string, n int) bool {
		for range n {
			list = append(list, name)
			length += len(name) + 1
			if length > maxNames {
				return false
			}
		}
		return true
	}
	for i, name := range oversigned {
		if !add(name, s.counts[i]+1) {
			return list, false
		}
	}
	for i, name := range signed {
		if !add(name, s.counts[len(oversigned)+i]) {
			return list, false
		}
	}
	return list, true
}

// appendCanonical appends the fields that appendNames lists, in its order and
// in canonical form. Of several fields of a name the last one comes first; names
// beyond those present stand for nothing (RFC 6376, section 5.4.2).
func (s *survey) appendCanonical(out []byte) []byte {
	for n, count := range s.counts {
		for i := len(s.fields) - 1; i >= 0 && count > 0; i-- {
			if s.fields[i].number == n {
				out = appendRelaxed(out, s.fields[i].field)
				count--
			}
		}
	}
	return out
}
