package smtpwire

import (
	"errors"
	"io"
)

// remembered is how many one-line replies are kept to be given again: a
// session hears "2.1.0 Ok" for every message.
const remembered = 4

// Replies reads the replies of a server.
type Replies struct {
	src   *Reader
	known [remembered]Reply // the last used first
	lines []string          // where Lines are cut from; never written twice
}

// NewReplies reads from src, whose buffer should hold MaxReplyLine.
func NewReplies(src *Reader) *Replies { return &Replies{src: src} }

// Next reads a whole reply. An error is the source's own, [io.EOF] where it
// ended before the first octet of the reply, or a [*ReplyError]; after any of
// them no further reply can be matched with its command.
func (p *Replies) Next() (Reply, error) {
	code, text, more, err := p.line()
	if err != nil {
		return Reply{}, err
	}
	if !more {
		return p.single(code, text), nil
	}
	reply := Reply{Code: code, Lines: []string{string(text)}}
	for octets := len(text); more; {
		var next int
		next, text, more, err = p.line()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return Reply{}, err
		}
		if next != code {
			return Reply{}, replyError(ErrReplyCode, text)
		}
		octets += len(text)
		if len(reply.Lines) == MaxReplyLines || octets > MaxReplyBytes {
			return Reply{}, &ReplyError{Err: ErrReplyLong}
		}
		reply.Lines = append(reply.Lines, string(text))
	}
	reply.Enhanced = EnhancedStatus(code, reply.Lines[0])
	return reply, nil
}

func (p *Replies) line() (code int, text []byte, more bool, err error) {
	line, err := p.src.ReadLine(MaxReplyLine)
	switch {
	case err == nil:
		return ParseReplyLine(line)
	case errors.Is(err, ErrLineTooLong), errors.Is(err, ErrLineEndless):
		err = &ReplyError{Err: ErrReplyLine}
	case line != nil:
		err = replyError(err, line)
	}
	return 0, nil, false, err
}

// single makes a reply of one line, or gives one again that is the same.
func (p *Replies) single(code int, text []byte) Reply {
	for i, known := range p.known {
		if known.Code == code && known.Lines[0] == string(text) {
			copy(p.known[1:i+1], p.known[:i])
			p.known[0] = known
			return known
		}
	}
	if len(p.lines) == cap(p.lines) {
		p.lines = make([]string, 0, 32)
	}
	n := len(p.lines)
	p.lines = append(p.lines, string(text))
	reply := Reply{Code: code, Lines: p.lines[n : n+1 : n+1]}
	reply.Enhanced = EnhancedStatus(code, reply.Lines[0])
	copy(p.known[1:], p.known[:remembered-1])
	p.known[0] = reply
	return reply
}
