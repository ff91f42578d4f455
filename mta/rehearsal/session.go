package rehearsal

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"postrider/mta/smtpserver"
)

// maxHead is how much of a message is searched for its Message-ID.
const maxHead = 256 << 10

// Connect implements [smtpserver.Backend].
func (s *Sink) Connect(c *smtpserver.Conn) (smtpserver.Session, error) {
	return &sinkSession{sink: s, conn: c}, nil
}

// sinkSession is a client, and the transaction that it has under way. Its
// buffers are used again for the next one.
type sinkSession struct {
	sink *Sink
	conn *smtpserver.Conn

	from    []byte
	rcpts   []byte   // the recipients, with a line feed after each; only where they are wanted
	copies  []uint64 // what the tally knows the recipients by
	count   int
	octets  int64
	id      finder
	content []byte // where it is kept
	domain  []byte // scratch
}

// Mail implements [smtpserver.Session].
func (t *sinkSession) Mail(ctx context.Context, m *smtpserver.Mail) (smtpserver.Transaction, error) {
	t.from = append(t.from[:0], m.Path...)
	t.rcpts, t.copies, t.content = t.rcpts[:0], t.copies[:0], t.content[:0]
	t.count, t.octets = 0, 0
	t.id.reset()
	return t, t.sink.opts.pause(ctx)
}

// Rcpt implements [smtpserver.Transaction].
func (t *sinkSession) Rcpt(ctx context.Context, r *smtpserver.Rcpt) error {
	s := t.sink
	if err := s.opts.pause(ctx); err != nil {
		return err
	}
	if reply := s.judge(t.from, r.Path); reply != nil {
		s.refused.Add(1)
		return reply
	}
	t.domain = appendDomain(t.domain[:0], r.Path)
	s.domains.add(t.domain)
	t.count++
	if s.tally != nil {
		t.copies = append(t.copies, s.tally.hash(r.Path))
	}
	if s.kept.on() {
		t.rcpts = append(append(t.rcpts, r.Path...), '\n')
	}
	return nil
}

// judge tells how a recipient is refused; nil where it is taken.
func (s *Sink) judge(from, to []byte) *smtpserver.Reply {
	for i := range s.refusals {
		if r := &s.refusals[i]; r.applies(to) {
			return &r.Reply
		}
	}
	if s.greylist.isEarly(from, to, time.Now()) {
		s.greylisted.Add(1)
		return replyGreylisted
	}
	return nil
}

// appendDomain appends the domain of a path in lower case.
func appendDomain(dst, path []byte) []byte {
	for _, c := range path[bytes.LastIndexByte(path, '@')+1:] {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// Content implements [smtpserver.Transaction].
func (t *sinkSession) Content(context.Context) (smtpserver.Content, error) { return t, nil }

// Write implements [smtpserver.Content].
func (t *sinkSession) Write(p []byte) (int, error) {
	t.octets += int64(len(p))
	if t.sink.looksAtIDs() {
		t.id.feed(p)
	}
	if t.sink.kept.on() {
		t.content = append(t.content, p...)
	}
	return len(p), nil
}

// Commit implements [smtpserver.Content].
func (t *sinkSession) Commit(ctx context.Context, text []byte) ([]byte, error) {
	s := t.sink
	if err := s.opts.pause(ctx); err != nil {
		return nil, err
	}
	now := time.Now()
	if s.kept.on() {
		if err := s.kept.add(t.message(now)); err != nil {
			return nil, fmt.Errorf("%w: %w", errNothingKept, err)
		}
	}
	if s.looksAtIDs() {
		t.note(t.id.messageID(), now)
	}
	s.messages.Add(1)
	s.recipients.Add(int64(t.count))
	s.octets.Add(t.octets)
	s.first.CompareAndSwap(0, now.UnixNano())
	s.last.Store(now.UnixNano())
	return append(text, "seen and forgotten"...), nil
}

// note counts a message by its Message-ID.
func (t *sinkSession) note(id []byte, now time.Time) {
	s := t.sink
	if s.opts.Passage != nil {
		s.opts.Passage.arrive(id, now)
	}
	switch {
	case s.tally == nil:
	case len(id) > 0:
		s.tally.add(id, t.copies)
	default:
		s.withoutID.Add(1)
	}
}

func (t *sinkSession) message(now time.Time) Message {
	m := Message{
		At: now, From: string(t.from), HELO: t.conn.HELO(), Client: t.conn.RemoteAddr().Addr(),
		TLS: t.conn.TLS() != nil, Content: bytes.Clone(t.content),
	}
	for rcpt := range bytes.Lines(t.rcpts) {
		m.To = append(m.To, string(bytes.TrimSuffix(rcpt, newline)))
	}
	return m
}

// End implements [smtpserver.Transaction].
func (t *sinkSession) End() {}

var newline = []byte{'\n'}

// finder finds the Message-ID of content that comes in pieces. Where the
// header is all in the first piece, as it mostly is, nothing is copied.
type finder struct {
	done bool
	id   []byte
	head []byte // the header so far, where it did not end within the first piece
}

func (f *finder) reset() { f.done, f.id, f.head = false, f.id[:0], f.head[:0] }

var blankLine = []byte("\r\n\r\n")

func (f *finder) feed(p []byte) {
	if f.done {
		return
	}
	header := p
	if len(f.head) > 0 {
		f.head = append(f.head, p...)
		header = f.head
	}
	end := bytes.Index(header, blankLine)
	if end < 0 && len(header) < maxHead {
		if len(f.head) == 0 {
			f.head = append(f.head, p...)
		}
		return
	}
	if end >= 0 {
		header = header[:end+2]
	}
	f.done = true
	f.id = appendMessageID(f.id[:0], header)
}

// messageID ends the search; content may have had no body.
func (f *finder) messageID() []byte {
	if !f.done {
		f.done = true
		f.id = appendMessageID(f.id[:0], f.head)
	}
	return f.id
}

// appendMessageID appends the value of the first Message-ID field.
func appendMessageID(dst, header []byte) []byte {
	const name = "message-id:"
	for {
		if len(header) > len(name) && bytes.EqualFold(header[:len(name)], []byte(name)) {
			value := header[len(name):]
			// The value may stand on a line of its own (RFC 5322, section 2.2.3).
			if i := bytes.IndexByte(value, '>'); i >= 0 {
				value = value[:i+1]
			}
			return append(dst, bytes.TrimLeft(value, " \t\r\n")...)
		}
		i := bytes.IndexByte(header, '\n')
		if i < 0 {
			return dst
		}
		header = header[i+1:]
	}
}
