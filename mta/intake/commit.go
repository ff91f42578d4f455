package intake

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"time"
	"unicode/utf8"

	"postrider/mta/intake/recode"
	"postrider/queue"
)

// fitHeader makes the kept header section one that any host takes: encoded
// words in place of raw octets, short lines. rest is the text behind it.
func (m *Message) fitHeader(line int, rest []byte) *Error {
	if m.ends.eightBit && hasEightBit(m.buf.kept) {
		// Who asked for SMTPUTF8 gets his UTF-8 through as it is; nobody else
		// is to depend on hosts that have it.
		if !m.env.SMTPUTF8 || !utf8.Valid(m.buf.kept) {
			m.buf.kept = recode.EncodeWords(m.buf.kept)
		}
		if !utf8.Valid(m.buf.kept) {
			return &Error{Code: 554, Status: "5.6.0", Text: "the header has octets that are not UTF-8 where they cannot be encoded, in an address or a structured field"}
		}
		m.env.SMTPUTF8 = m.env.SMTPUTF8 || hasEightBit(m.buf.kept)
	}
	// What was not ASCII may have been encoded, or not have been kept.
	m.ends.eightBit = m.ends.eightBit && (hasEightBit(m.buf.kept) || hasEightBit(rest))
	if m.ends.firstLong == 0 {
		return nil
	}
	folded, err := recode.Fold(m.buf.kept, line)
	if err != nil {
		return notStored(err)
	}
	m.buf.kept = folded
	return nil
}

// beginBody stores the header, and begins to sign where the text behind it is
// the final one.
func (m *Message) beginBody(final bool) *Error {
	if _, err := m.body.Write(m.buf.kept); err != nil {
		return notStored(err)
	}
	if !final {
		return nil
	}
	return m.beginSignature()
}

// store stores text behind the header, and signs it.
func (m *Message) store(text []byte) *Error {
	if _, err := m.body.Write(text); err != nil {
		return notStored(err)
	}
	if m.signature == nil {
		return nil
	}
	if _, err := m.signature.Write(text); err != nil {
		return notSigned(err)
	}
	return nil
}

// beginSignature begins to sign the message as it will be sent, but for the
// trace field, which is no promise of ours.
func (m *Message) beginSignature() *Error {
	if m.r.opts.Signer == nil {
		return nil
	}
	m.buf.signed = append(append(m.buf.signed[:0], m.buf.prefix[m.traced:]...), m.buf.kept...)
	s, err := m.r.opts.Signer.Sign(m.buf.signed)
	if err != nil {
		return notSigned(err)
	}
	m.signature = s
	return nil
}

func (m *Message) dropSignature() {
	if m.signature != nil {
		m.signature.Close()
		m.signature = nil
	}
}

// Commit makes the message durable and answers its ID. An *Error is the reply
// to the end of the content. The message is done, whatever comes of it.
func (m *Message) Commit(ctx context.Context) (queue.ID, error) {
	if m.done {
		return queue.ID{}, errors.New("intake: the message is done")
	}
	defer m.Abort()
	if err := m.finish(); err != nil {
		return queue.ID{}, err
	}
	prefix, refusal := m.finalPrefix()
	if refusal != nil {
		return queue.ID{}, m.fail(refusal)
	}
	m.env.Body = queue.Body7Bit
	if m.ends.eightBit || hasEightBit(m.buf.prefix) {
		m.env.Body = queue.Body8BitMIME
	}
	err := m.r.opts.Queue.Submit(ctx, queue.Submission{Envelope: m.env, Prefix: prefix, Body: m.body, Answers: m.meta.Answers, Mark: m.meta.Mark})
	if err != nil {
		return queue.ID{}, m.fail(notStored(err))
	}
	m.accepted(ctx)
	return m.env.ID, nil
}

// finish ends the content: the last line, the header, lines that are too long.
func (m *Message) finish() error {
	if m.err != nil {
		return m.err
	}
	tail, err := m.ends.end()
	if err != nil {
		return m.fail(err)
	}
	if tail != nil {
		if err := m.take(tail); err != nil {
			return err
		}
	}
	if !m.inBody { // a header and nothing behind it, or nothing at all
		if h := m.buf.header; isField(h) || mboxSeparator(h) > 0 {
			m.buf.header = append(h, crlf...)
		}
		if err := m.endHeader(); err != nil {
			return m.fail(err)
		}
	}
	if m.ends.firstLong > 0 {
		if err := m.shorten(); err != nil {
			return m.fail(err)
		}
	}
	return nil
}

// shorten writes the message anew, without lines that are too long.
func (m *Message) shorten() *Error {
	m.dropSignature()
	header := bytes.Clone(m.buf.kept)
	was := m.body
	defer was.Discard()
	var plan *recode.Plan
	err := readText(was, len(header), func(r io.Reader) (err error) {
		plan, err = recode.New(header, r, m.bodyLine, recode.ShortLines)
		return err
	})
	if err != nil {
		return notStored(err)
	}
	m.buf.kept = append(m.buf.kept[:0], plan.Header()...)
	m.ends.eightBit = hasEightBit(m.buf.kept)
	m.body = m.r.opts.Queue.NewBody()
	if err := m.beginBody(true); err != nil {
		return err
	}
	err = readText(was, len(header), func(r io.Reader) error { return plan.Write(shortened{m}, header, r) })
	if err != nil {
		return notStored(err)
	}
	return nil
}

// readText gives f the text of a body behind its header.
func readText(b *queue.Body, headerSize int, f func(io.Reader) error) error {
	r, err := b.Reader()
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.CopyN(io.Discard, r, int64(headerSize)); err != nil {
		return err
	}
	return f(r)
}

// shortened takes the text that shorten makes.
type shortened struct{ m *Message }

func (s shortened) Write(p []byte) (int, error) {
	s.m.ends.eightBit = s.m.ends.eightBit || hasEightBit(p)
	if err := s.m.store(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// finalPrefix is what goes before the body: signatures, trace field, and the
// fields that were missing. The queue keeps it, so it shares no memory.
func (m *Message) finalPrefix() ([]byte, *Error) {
	var signatures []byte
	if m.signature != nil {
		var err error
		if signatures, err = m.signature.Sign(); err != nil {
			return nil, notSigned(err)
		}
	}
	prefix := make([]byte, 0, len(signatures)+len(m.buf.prefix))
	return append(append(prefix, signatures...), m.buf.prefix...), nil
}

// accepted tells of a message that is on stable storage.
func (m *Message) accepted(ctx context.Context) {
	env, took := m.env, time.Since(m.started)
	if m.r.opts.Observer != nil {
		m.r.opts.Observer.Accepted(env, took)
	}
	log := m.r.opts.Logger
	if !log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	to := slog.String("to", env.Recipients[0].Address)
	if n := len(env.Recipients); n > 1 {
		to = slog.Int("recipients", n)
	}
	attrs := append(make([]slog.Attr, 0, 8), slog.String("id", m.idText), slog.String("from", env.Sender), to,
		slog.Int64("size", env.Size), slog.String("via", env.Origin.Via), slog.Duration("delay", took))
	if env.Origin.Client.IsValid() {
		attrs = append(attrs, slog.String("client", env.Origin.Client.String()))
	}
	if env.Origin.User != "" {
		attrs = append(attrs, slog.String("user", env.Origin.User))
	}
	log.LogAttrs(ctx, slog.LevelInfo, "accepted", attrs...)
}

// Abort gives everything back. It may follow Commit, where it does nothing: defer it.
func (m *Message) Abort() {
	if m.done {
		return
	}
	m.done = true
	m.dropSignature()
	if m.body != nil {
		m.body.Discard()
	}
	m.buf.reset()
	m.r.buffers.Put(m.buf)
	m.buf = nil
}

// reset empties the buffers. What grew large for one message is let go.
func (b *buffers) reset() {
	const most = 64 << 10
	for _, p := range []*[]byte{&b.header, &b.kept, &b.prefix, &b.signed, &b.canonical} {
		if *p = (*p)[:0]; cap(*p) > most {
			*p = nil
		}
	}
}

func notSigned(err error) *Error {
	return &Error{Code: 451, Status: "4.3.5", Text: "the message cannot be signed at present; the server's log says why", Err: err}
}

// notStored is the reply to a failure of the queue, or of the work on a
// message's content.
func notStored(err error) *Error {
	var fit *recode.Error
	var refusal *Error
	switch {
	case errors.As(err, &refusal):
		return refusal
	case errors.As(err, &fit):
		return &Error{Code: 554, Status: "5.6.0", Text: fit.Error()}
	case errors.Is(err, queue.ErrFull):
		return &Error{Code: 452, Status: "4.3.1", Text: "no room for the message at present", Err: err}
	case errors.Is(err, queue.ErrClosed):
		return &Error{Code: 451, Status: "4.3.2", Text: "the server is stopping", Err: err}
	}
	return &Error{Code: 451, Status: "4.3.0", Text: "the message cannot be stored at present; the server's log says why", Err: err}
}
