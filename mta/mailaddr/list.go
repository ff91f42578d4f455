package mailaddr

import (
	"iter"
	"strings"
)

// Mailbox is one address of a header field's value, with the places in the
// value where its parts stand, so that a part can be replaced.
type Mailbox struct {
	Address            Address // without a domain where none was written
	Start, End         int     // the address, without angle brackets
	NameStart, NameEnd int     // the display name before angle brackets; equal where there is none
}

// List reads the value of a From, Sender, Reply-To, To, Cc or Bcc field (RFC
// 5322, section 3.4, and the obsolete forms of 4.4): folded lines, comments,
// display names, groups, routes, blanks within an address, empty elements. The
// semicolon is taken for a comma, as people write it. An error ends the list.
func List(value string) iter.Seq2[Mailbox, error] {
	return func(yield func(Mailbox, error) bool) {
		l := lister{v: value}
		for {
			m, ok, err := l.next()
			if !ok && err == nil {
				return
			}
			if !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// lister walks a value.
type lister struct {
	v string
	i int
}

// words are what stands in a row without a delimiter: a display name, or an
// address whose parts may be torn apart by blanks and comments.
type words struct {
	start, end int    // in the value
	joined     string // the parts, put together; empty where they are in one piece
	torn       bool   // a gap that is not beside a dot or an @: no address
}

func (w *words) empty() bool { return w.start == w.end }

func (w *words) text(v string) string {
	if w.joined != "" {
		return w.joined
	}
	return v[w.start:w.end]
}

// next answers the next mailbox; neither ok nor an error at the end.
func (l *lister) next() (m Mailbox, ok bool, err error) {
	for {
		w, err := l.words()
		if err != nil {
			return m, false, err
		}
		switch l.peek() {
		case 0, ',', ';':
			ended := l.peek() == 0
			l.i++
			if w.empty() {
				if ended {
					return m, false, nil
				}
				continue
			}
			m, err = l.mailbox(w)
			return m, err == nil, err
		case ':': // a group begins; its name is of no use
			l.i++
		case '<':
			m, err = l.angle(w)
			return m, err == nil, err
		default: // '>'
			return m, false, refuse(l.v, "a closing angle bracket without an opening one")
		}
	}
}

func (l *lister) peek() byte {
	if l.i >= len(l.v) {
		return 0
	}
	return l.v[l.i]
}

// angle reads <address> and the delimiter behind it.
func (l *lister) angle(name words) (Mailbox, error) {
	l.i++
	w, err := l.words()
	if err != nil {
		return Mailbox{}, err
	}
	for l.peek() == ',' || l.peek() == ':' { // a route: <@a.test,@b.test:c@d.test>
		if !strings.HasPrefix(w.text(l.v), "@") && !w.empty() {
			break
		}
		l.i++
		if w, err = l.words(); err != nil {
			return Mailbox{}, err
		}
	}
	if l.peek() != '>' {
		return Mailbox{}, refuse(l.v, "the closing angle bracket is missing")
	}
	l.i++
	after, err := l.words()
	if err != nil {
		return Mailbox{}, err
	}
	if c := l.peek(); !after.empty() || (c != 0 && c != ',' && c != ';') {
		return Mailbox{}, refuse(l.v, "text behind the closing angle bracket")
	}
	l.i++
	m, err := l.mailbox(w)
	m.NameStart, m.NameEnd = name.start, name.end
	return m, err
}

func (l *lister) mailbox(w words) (Mailbox, error) {
	if w.torn {
		return Mailbox{}, refuse(l.v[w.start:w.end], "words where an address should be; an address behind a name stands in angle brackets")
	}
	a, err := ParseUnqualified(w.text(l.v))
	return Mailbox{Address: a, Start: w.start, End: w.end}, err
}

// words reads up to a delimiter outside quotes, comments and literals.
func (l *lister) words() (w words, err error) {
	pieces := 0
	for {
		if err := l.skipComments(); err != nil {
			return w, err
		}
		start := l.i
		if err := l.word(); err != nil {
			return w, err
		}
		if l.i == start {
			return w, nil
		}
		piece := l.v[start:l.i]
		switch {
		case pieces == 0:
			w.start = start
		case w.end < start: // a gap
			before := w.text(l.v)
			if !strings.ContainsAny(before[len(before)-1:], ".@") && piece[0] != '.' && piece[0] != '@' {
				w.torn = true
			}
			if !w.torn && len(before) <= MaxLength {
				w.joined = before + piece
			}
		case w.joined != "" && len(w.joined) <= MaxLength:
			w.joined += piece
		}
		w.end = l.i
		pieces++
	}
}

// word moves over one atom (with its dots and @), quoted-string or literal.
func (l *lister) word() error {
	switch l.peek() {
	case '"':
		return l.delimited('"')
	case '[':
		return l.delimited(']')
	}
	n := strings.IndexAny(l.v[l.i:], " \t\r\n(\"[<>,;:")
	if n < 0 {
		n = len(l.v) - l.i
	}
	l.i += n
	return nil
}

// delimited moves behind the character that ends a quoted-string or literal.
func (l *lister) delimited(end byte) error {
	for j := l.i + 1; j < len(l.v); j++ {
		switch l.v[j] {
		case '\\':
			j++
		case end:
			l.i = j + 1
			return nil
		}
	}
	return refuse(l.v[l.i:], "the closing "+string(end)+" is missing")
}

// skipComments moves over blanks, line ends and comments, which may nest.
func (l *lister) skipComments() error {
	depth, opened := 0, 0
	for ; l.i < len(l.v); l.i++ {
		switch c := l.v[l.i]; {
		case c == '(':
			if depth == 0 {
				opened = l.i
			}
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == '\\' && depth > 0:
			l.i++
		case depth == 0 && c != ' ' && c != '\t' && c != '\r' && c != '\n':
			return nil
		}
	}
	l.i = len(l.v)
	if depth > 0 {
		return refuse(l.v[opened:], "a comment is not closed")
	}
	return nil
}
