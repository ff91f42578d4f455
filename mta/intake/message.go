package intake

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"postrider/queue"
)

// Message is a message on its way in: written to, then committed or aborted,
// by one goroutine.
type Message struct {
	r       *Receiver
	meta    Meta
	env     *queue.Envelope
	idText  string
	now     time.Time // of the way in; goes into header fields
	started time.Time // to measure
	maxSize int64

	ends lineEnds
	size int64 // of the canonical content
	buf  *buffers
	err  *Error // the first one; it stays
	done bool   // committed or aborted

	looked    int  // octets of buf.header that were searched for its end
	headed    bool // there is a header
	inBody    bool
	traced    int // octets of buf.prefix that are Received, which is not signed
	bodyLine  int // number of the body's first line
	body      *queue.Body
	signature Signature
}

// buffers are what a message needs while it comes in; they go from message to
// message. Nothing that outlives the message may point into them.
type buffers struct {
	header    []byte // the header section as it came, in CRLF form
	kept      []byte // as it will be sent, with its blank line
	prefix    []byte // Received and the fields that were missing
	signed    []byte // what is signed: the added fields and kept
	canonical []byte // lineEnds' scratch
}

// Write takes content in any line-end form; errors (a header too large, a
// message too large) are *Error and also come back from Commit.
func (m *Message) Write(p []byte) (int, error) {
	if m.done {
		return 0, errors.New("intake: the message is done")
	}
	if m.err != nil {
		return 0, m.err
	}
	text, tail, scratch, err := m.ends.take(p, m.buf.canonical)
	m.buf.canonical = scratch
	if err != nil {
		return 0, m.fail(err)
	}
	if err := m.take(text); err != nil {
		return 0, err
	}
	if tail != nil {
		if err := m.take(tail); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// fail keeps the first error, and tells of it once.
func (m *Message) fail(err *Error) error {
	if m.err == nil {
		m.err = err
		m.r.refused(m.env, err)
	}
	return m.err
}

// take takes canonical content.
func (m *Message) take(text []byte) error {
	m.size += int64(len(text))
	if m.size > m.maxSize {
		return m.fail(&Error{Code: 552, Status: "5.3.4", Text: fmt.Sprintf("the message is larger than %d octets", m.maxSize)})
	}
	for !m.inBody {
		const step = 8 << 10 // so that a large piece is not copied whole in search of the header's end
		piece := text[:min(len(text), step)]
		text = text[len(piece):]
		m.buf.header = append(m.buf.header, piece...)
		if m.headerEnds() {
			eightBit := m.ends.eightBit
			if err := m.endHeader(); err != nil {
				return m.fail(err)
			}
			m.ends.eightBit = m.ends.eightBit || eightBit && hasEightBit(text)
		} else if len(m.buf.header) > maxHeader {
			return m.fail(headerTooLarge())
		}
		if len(text) == 0 {
			return nil
		}
	}
	if err := m.takeBody(text); err != nil {
		return m.fail(err)
	}
	return nil
}

func headerTooLarge() *Error {
	return &Error{Code: 552, Status: "5.3.4", Text: fmt.Sprintf("the header is larger than %d octets", maxHeader)}
}

// takeBody takes text behind the header.
func (m *Message) takeBody(text []byte) *Error {
	if m.ends.firstLong > 0 { // it will change, and be signed then
		m.dropSignature()
	}
	return m.store(text)
}

// endHeader makes the header as it will be sent, and begins the body.
func (m *Message) endHeader() *Error {
	line, section, rest := splitContent(m.buf.header)
	line += max(m.meta.FirstLine-1, 0)
	if len(section) > maxHeader {
		return headerTooLarge()
	}
	h := header{
		kept: m.buf.kept[:0], line: line, local: &m.r.local,
		wantSender: m.meta.SenderFromHeader, wantRecipients: m.meta.RecipientsFromHeader, maxRecipients: m.r.opts.MaxRecipients,
		drop: m.meta.DropFields,
	}
	err := h.read(string(section))
	m.buf.kept = append(h.kept, crlf...)
	if err != nil {
		return err
	}
	if err := m.useHeader(&h); err != nil {
		return err
	}
	m.bodyLine = line + bytes.Count(section, lf) + 1
	if err := m.fitHeader(line, rest); err != nil {
		return err
	}
	m.buf.prefix = m.buf.prefix[:0]
	if !m.meta.SkipReceived {
		m.buf.prefix = m.r.appendReceived(m.buf.prefix, m)
	}
	m.traced = len(m.buf.prefix)
	m.buf.prefix = m.appendMissing(m.buf.prefix, &h)
	m.inBody = true
	m.body = m.r.opts.Queue.NewBody()
	if err := m.beginBody(m.ends.firstLong == 0); err != nil {
		return err
	}
	return m.takeBody(rest)
}

// useHeader completes the envelope by what the header says.
func (m *Message) useHeader(h *header) *Error {
	env := m.env
	if m.meta.SenderFromHeader {
		if env.Sender = strings.Clone(h.envelopeSender()); env.Sender == "" {
			return &Error{Code: 554, Status: "5.6.0", Text: "no sender: the header has neither a Sender nor a From field with an address"}
		}
		if err := m.r.settleSender(env); err != nil {
			return err
		}
	}
	if m.meta.RecipientsFromHeader {
		if env.Recipients = h.envelopeRecipients(); len(env.Recipients) == 0 {
			return &Error{Code: 554, Status: "5.6.0", Text: "no recipients: the header has no To, Cc or Bcc field with an address"}
		}
		if err := m.r.settleRecipients(env); err != nil {
			return err
		}
	}
	env.MessageID = h.messageID
	if !env.RequireTLS { // RFC 8689, section 4.1: the parameter outdoes the field
		env.TLSIgnored = env.TLSIgnored || h.tlsOptOut
	}
	return m.grant(h)
}

// appendMissing appends the fields that a message has to have (RFC 5322,
// section 3.6; RFC 6409, section 8) and this one has not.
func (m *Message) appendMissing(dst []byte, h *header) []byte {
	if !h.from {
		author := m.env.Sender
		if author == "" {
			author = "MAILER-DAEMON@" + m.r.opts.Hostname
		}
		dst = fmt.Appendf(dst, "From: %s\r\n", author)
	}
	if !h.date {
		dst = fmt.Appendf(dst, "Date: %s\r\n", m.r.stamps.text(m.now))
	}
	if h.messageID == "" {
		m.env.MessageID = "<" + m.idText + "@" + m.r.opts.Hostname + ">"
		dst = fmt.Appendf(dst, "Message-ID: %s\r\n", m.env.MessageID)
	}
	return dst
}
