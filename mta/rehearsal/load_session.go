package rehearsal

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"postrider/mta/smtpwire"
)

// loadSession sends messages, one after the other.
type loadSession struct {
	load *Load
	addr string

	conn      net.Conn // nil: none
	replies   *smtpwire.Replies
	deadlines *smtpwire.Deadlines
	stopWatch func() bool // of the context, see connect
	sent      int64       // over this connection
	way       Way         // over this connection
	out       []byte
	early     envelope

	waits                              histogram
	rejected, copies, connects, octets int64
	firstError                         error
}

func newLoadSession(l *Load, addr string) *loadSession { return &loadSession{load: l, addr: addr} }

func (s *loadSession) addTo(r *Result) {
	r.Rejected += s.rejected
	r.Copies += s.copies
	r.Connects += s.connects
	r.Octets += s.octets
	if r.FirstError == "" && s.firstError != nil {
		r.FirstError = s.firstError.Error()
	}
}

// envelope is one that was sent with the content of the message before it.
type envelope struct {
	n      int64
	taken  bool  // n is to be sent, over whatever connection
	opened bool  // its replies were read, over this one
	rcpts  int   // recipients that were accepted
	err    error // refusal, or nil
}

// replyError is a refusal.
type replyError struct {
	to    string
	reply smtpwire.Reply
}

func (e *replyError) Error() string {
	return fmt.Sprintf("%s was answered %d %s", e.to, e.reply.Code, e.reply.Lines[0])
}

// maxDials is how often in a row a connection may not come about.
const maxDials = 5

// run sends until there are no more messages. An error means that this session
// cannot go on at all.
func (s *loadSession) run(ctx context.Context) error {
	defer s.hangUp()
	for ctx.Err() == nil {
		n, ok := s.take()
		if !ok {
			return nil
		}
		if err := s.ready(ctx); err != nil {
			s.load.failed.Add(1)
			s.note(err)
			return err
		}
		s.settle(s.message(n))
		if err := s.pause(ctx); err != nil {
			return nil // Run tells why
		}
	}
	return nil
}

// pause waits as long as the options say.
func (s *loadSession) pause(ctx context.Context) error {
	if s.load.opts.Pause == 0 {
		return nil
	}
	timer := time.NewTimer(s.load.opts.Pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take is the number of the next message: one whose envelope was sent early,
// or a fresh one.
func (s *loadSession) take() (int64, bool) {
	if s.early.taken {
		s.early.taken = false
		return s.early.n, true
	}
	return s.load.take()
}

// settle counts what became of a message.
func (s *loadSession) settle(err error) {
	if err == nil {
		s.load.accepted.Add(1)
		return
	}
	s.note(err)
	refusal, ok := errors.AsType[*replyError](err)
	if !ok {
		s.load.failed.Add(1)
		s.hangUp()
		return
	}
	s.load.refused.Add(1)
	switch {
	case refusal.reply.Code == 421:
		s.hangUp()
	case s.early.opened && s.early.err == nil:
		// The server waits for the next content: a command would be part of it.
	case s.command("RSET", 250) != nil:
		s.hangUp()
	}
}

func (s *loadSession) note(err error) {
	if s.firstError == nil {
		s.firstError = err
		s.load.opts.Logger.Warn("load", "err", err)
	}
}

// ready sees to it that there is a connection to send over.
func (s *loadSession) ready(ctx context.Context) error {
	if limit := s.load.opts.PerConnection; s.conn != nil && limit > 0 && s.sent >= limit {
		s.write([]byte("QUIT\r\n"))
		s.hangUp()
	}
	for try := 1; s.conn == nil; try++ {
		err := s.connect(ctx)
		if err == nil {
			break
		}
		s.hangUp()
		if try == maxDials || ctx.Err() != nil {
			return fmt.Errorf("no session with %s: %w", s.addr, err)
		}
		timer := time.NewTimer(time.Duration(try) * 100 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
	return nil
}

// connect brings a connection to the point where MAIL may come.
func (s *loadSession) connect(ctx context.Context) error {
	conn, err := s.load.dial(ctx, s.addr)
	if err != nil {
		return err
	}
	s.connects++
	s.sent = 0
	s.attach(conn)
	s.stopWatch = context.AfterFunc(ctx, func() { conn.Close() })
	if err := s.expect("the connection", 220); err != nil {
		return err
	}
	if err := s.greet(); err != nil {
		return err
	}
	if s.load.opts.TLS {
		if err := s.startTLS(ctx); err != nil {
			return err
		}
	}
	if o := &s.load.opts; o.User != "" {
		response := base64.StdEncoding.EncodeToString([]byte("\x00" + o.User + "\x00" + o.Password))
		return s.command("AUTH PLAIN "+response, 235)
	}
	return nil
}

// greet says EHLO. Where PIPELINING is not offered, commands go one by one
// (RFC 2920, section 3.1).
func (s *loadSession) greet() error {
	if err := s.write([]byte("EHLO load.test\r\n")); err != nil {
		return err
	}
	r, err := s.answer("EHLO", 250)
	if err != nil {
		return err
	}
	s.way = s.load.opts.Way
	pipelines := slices.ContainsFunc(r.Lines, func(line string) bool { return strings.EqualFold(line, "PIPELINING") })
	if !pipelines && s.way != WayChunked {
		s.way = WaySequential
	}
	return nil
}

func (s *loadSession) attach(conn net.Conn) {
	s.conn = conn
	s.deadlines = smtpwire.NewDeadlines(conn)
	s.replies = smtpwire.NewReplies(smtpwire.NewReader(conn, 4096))
}

func (s *loadSession) startTLS(ctx context.Context) error {
	if err := s.command("STARTTLS", 220); err != nil {
		return err
	}
	t := tls.Client(s.conn, tlsConfig)
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	s.attach(t)
	return s.greet()
}

func (s *loadSession) hangUp() {
	if s.conn == nil {
		return
	}
	s.conn.Close()
	s.conn = nil
	s.early.opened = false
	if s.stopWatch != nil {
		s.stopWatch()
	}
}

func (s *loadSession) write(b []byte) error {
	if err := s.deadlines.Write(time.Now(), s.load.opts.Timeout, time.Time{}); err != nil {
		return err
	}
	_, err := s.conn.Write(b)
	return err
}

func (s *loadSession) reply() (smtpwire.Reply, error) {
	if err := s.deadlines.Read(time.Now(), s.load.opts.Timeout, time.Time{}); err != nil {
		return smtpwire.Reply{}, err
	}
	return s.replies.Next()
}

// expect reads a reply of this code.
func (s *loadSession) expect(to string, code int) error {
	_, err := s.answer(to, code)
	return err
}

// answer reads a reply of this code, and has it.
func (s *loadSession) answer(to string, code int) (smtpwire.Reply, error) {
	r, err := s.reply()
	if err != nil {
		return r, fmt.Errorf("waiting for the reply to %s: %w", to, err)
	}
	if r.Code != code {
		return r, &replyError{to, r}
	}
	return r, nil
}

func (s *loadSession) command(line string, code int) error {
	if err := s.write([]byte(line + "\r\n")); err != nil {
		return err
	}
	verb := line[:4]
	return s.expect(verb, code)
}

// message sends message n. An error that is a replyError leaves the session to
// be reset; after any other it is over.
func (s *loadSession) message(n int64) error {
	s.sent++
	switch s.way {
	case WayChunked:
		return s.chunked(n)
	case WaySequential:
		return s.sequential(n)
	case WayOverlapped:
		return s.overlapped(n)
	}
	return s.pipelined(n)
}

func (s *loadSession) pipelined(n int64) error {
	if err := s.write(s.appendEnvelope(s.out[:0], n)); err != nil {
		return err
	}
	rcpts, err := s.envelopeReplies("DATA", 354)
	if err != nil {
		return err
	}
	s.out = s.load.appendMessage(s.out[:0], n)
	size := len(s.out)
	s.out = append(s.out, ".\r\n"...)
	return s.content(s.out, submitted{n, size, rcpts})
}

// overlapped sends the content of n, and the envelope of the next message with
// it, unless the connection has carried all that it may.
func (s *loadSession) overlapped(n int64) error {
	e := s.early
	s.early = envelope{}
	if !e.opened {
		if err := s.write(s.appendEnvelope(s.out[:0], n)); err != nil {
			return err
		}
		e.rcpts, e.err = s.envelopeReplies("DATA", 354)
	}
	if e.err != nil {
		return e.err
	}
	s.out = s.load.appendMessage(s.out[:0], n)
	size := len(s.out)
	s.out = append(s.out, ".\r\n"...)
	if limit := s.load.opts.PerConnection; limit == 0 || s.sent < limit {
		if s.early.n, s.early.taken = s.load.take(); s.early.taken {
			s.out = s.appendEnvelope(s.out, s.early.n)
		}
	}
	err := s.content(s.out, submitted{n, size, e.rcpts})
	if !s.early.taken || err != nil && !isRefusal(err) {
		return err
	}
	s.early.rcpts, s.early.err = s.envelopeReplies("DATA", 354)
	s.early.opened = s.early.err == nil || isRefusal(s.early.err)
	if err == nil && !s.early.opened {
		s.note(s.early.err)
		s.hangUp()
	}
	return err
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[*replyError](err)
	return ok
}

func (s *loadSession) chunked(n int64) error {
	s.out = s.appendCommands(s.out[:0], n)
	s.out = append(s.out, "BDAT "...)
	s.out = strconv.AppendInt(s.out, int64(s.load.opts.Size), 10)
	s.out = append(s.out, " LAST\r\n"...)
	start := len(s.out)
	s.out = s.load.appendMessage(s.out, n)
	size := len(s.out) - start
	if err := s.write(s.out); err != nil {
		return err
	}
	began := time.Now()
	rcpts, err := s.envelopeReplies("BDAT", 250)
	if err == nil {
		s.done(began, submitted{n, size, rcpts})
	}
	return err
}

func (s *loadSession) sequential(n int64) error {
	s.out = s.appendMail(s.out[:0])
	if err := s.write(s.out); err != nil {
		return err
	}
	if err := s.expect("MAIL", 250); err != nil {
		return err
	}
	rcpts := 0
	for k := range s.load.opts.Recipients {
		if err := s.write(s.appendRcpt(s.out[:0], n, k)); err != nil {
			return err
		}
		if err := s.rcptReply(&rcpts); err != nil {
			return err
		}
	}
	if err := s.command("DATA", 354); err != nil {
		return err
	}
	s.out = s.load.appendMessage(s.out[:0], n)
	size := len(s.out)
	s.out = append(s.out, ".\r\n"...)
	return s.content(s.out, submitted{n, size, rcpts})
}

// submitted is a message whose content was sent.
type submitted struct {
	n           int64
	size, rcpts int
}

// content sends the content and waits for its reply.
func (s *loadSession) content(b []byte, m submitted) error {
	if err := s.write(b); err != nil {
		return err
	}
	began := time.Now()
	if err := s.expect("the content", 250); err != nil {
		return err
	}
	s.done(began, m)
	return nil
}

// done counts a message that was accepted.
func (s *loadSession) done(began time.Time, m submitted) {
	now := time.Now()
	s.waits.add(now.Sub(began))
	s.octets += int64(m.size)
	s.copies += int64(m.rcpts)
	if p := s.load.opts.Passage; p != nil {
		p.accept(m.n, now)
	}
}

// appendEnvelope appends MAIL, RCPT and DATA.
func (s *loadSession) appendEnvelope(dst []byte, n int64) []byte {
	return append(s.appendCommands(dst, n), "DATA\r\n"...)
}

// appendCommands appends MAIL and RCPT.
func (s *loadSession) appendCommands(dst []byte, n int64) []byte {
	dst = s.appendMail(dst)
	for k := range s.load.opts.Recipients {
		dst = s.appendRcpt(dst, n, k)
	}
	return dst
}

func (s *loadSession) appendMail(dst []byte) []byte {
	return append(append(append(dst, "MAIL FROM:<"...), s.load.opts.Sender...), ">\r\n"...)
}

func (s *loadSession) appendRcpt(dst []byte, n int64, k int) []byte {
	return append(s.load.appendRecipient(append(dst, "RCPT TO:<"...), n, k), ">\r\n"...)
}

// envelopeReplies reads the replies to MAIL, each RCPT and what came with them,
// all of them also where one is a refusal: those behind it are on their way.
func (s *loadSession) envelopeReplies(last string, code int) (rcpts int, err error) {
	refused := s.expect("MAIL", 250)
	if refused != nil && !isRefusal(refused) {
		return 0, refused
	}
	for range s.load.opts.Recipients {
		if err := s.rcptReply(&rcpts); err != nil {
			return rcpts, err
		}
	}
	err = s.expect(last, code)
	if isRefusal(err) && refused != nil {
		err = refused // the first one tells more
	}
	return rcpts, err
}

// rcptReply reads the reply to one RCPT. A refusal is no error: it is known by
// what DATA says.
func (s *loadSession) rcptReply(rcpts *int) error {
	r, err := s.reply()
	if err != nil {
		return fmt.Errorf("waiting for the reply to RCPT: %w", err)
	}
	switch r.Code {
	case 250, 251:
		*rcpts++
	default:
		s.rejected++
		s.note(&replyError{"RCPT", r})
	}
	return nil
}
