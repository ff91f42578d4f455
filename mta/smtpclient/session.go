package smtpclient

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"postrider/mta/smtpwire"
)

// replyBuffer holds the replies to one flight; MaxReplyLine fits.
const replyBuffer = 4 << 10

// Session is one connection to one server. It is used by one goroutine at a
// time, but for Close. Once a method has returned an error the session is dead
// and its connection closed.
type Session struct {
	opts      Options
	conn      net.Conn // as it was dialled
	stream    net.Conn // conn, or TLS over it
	tls       *tls.Conn
	in        *smtpwire.Reader
	replies   *smtpwire.Replies
	deadlines *smtpwire.Deadlines
	patience  time.Duration
	wait      time.Duration // the deadline that the next read from stream sets; 0: leave it
	limit     time.Time     // of the transaction under way

	greeting Reply
	ext      Extensions
	err      *Error // what ended the session
	closed   atomic.Bool

	window    int  // how many transactions may be in flight now
	needReset bool // a transaction was left open on the server
	wasUsed   bool // by Run
	out       []byte
	queue     []*slot // in flight
	spare     []*slot
}

// New makes a session over a fresh connection and takes ownership of it.
func New(conn net.Conn, o Options) *Session {
	s := &Session{opts: o, conn: conn, window: 1, patience: patience}
	if o.InFlight <= 0 {
		s.opts.InFlight = DefaultInFlight
	}
	s.over(conn)
	return s
}

// over goes on over stream, with nothing buffered.
func (s *Session) over(stream net.Conn) {
	s.stream = stream
	s.in = smtpwire.NewReader((*timedReader)(s), replyBuffer)
	s.replies = smtpwire.NewReplies(s.in)
	s.deadlines = smtpwire.NewDeadlines(stream)
}

// timedReader reads from the session's stream. The deadline is set with the
// first read that a reply needs and not with the next ones, so that a server
// cannot feed it with single octets; and not at all where the reply is
// buffered already.
type timedReader Session

func (r *timedReader) Read(p []byte) (int, error) {
	if r.wait > 0 {
		if err := r.deadlines.Read(time.Now(), r.wait, r.limit); err != nil {
			return 0, err
		}
		r.wait = 0
	}
	return r.stream.Read(p)
}

// reply waits for the next reply, but not for longer than timeout.
func (s *Session) reply(timeout time.Duration) (Reply, error) {
	s.wait = timeout
	return s.replies.Next()
}

// write writes s.out.
func (s *Session) write() (int, error) {
	if err := s.deadlines.Write(time.Now(), s.opts.Timeouts.Block, s.limit); err != nil {
		return 0, err
	}
	n, err := s.stream.Write(s.out)
	s.out = s.out[:0]
	return n, err
}

// end makes err what ended the session, if nothing did before.
func (s *Session) end(err *Error) error {
	if s.err == nil {
		s.err = err
	}
	s.conn.Close()
	return s.err
}

// Greeting is what the server said first.
func (s *Session) Greeting() Reply { return s.greeting }

// Extensions are what the last EHLO offered.
func (s *Session) Extensions() Extensions { return s.ext }

// TLS is nil in clear.
func (s *Session) TLS() *tls.ConnectionState {
	if s.tls == nil {
		return nil
	}
	state := s.tls.ConnectionState()
	return &state
}

// Err is what ended the session; nil while it can be used.
func (s *Session) Err() error {
	if s.err == nil {
		return nil
	}
	return s.err
}

// Greet reads the greeting and says EHLO (HELO where EHLO is refused with 5xx).
// When ctx ends the session does.
func (s *Session) Greet(ctx context.Context) error {
	if s.err != nil {
		return s.err
	}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	reply, err := s.reply(s.opts.Timeouts.Greeting)
	if err != nil {
		return s.end(s.ioError(StageGreeting, err))
	}
	s.greeting = reply
	if reply.Code != 220 {
		return s.end(s.refusal(StageGreeting, reply))
	}
	return s.hello()
}

// refusal is the error for a reply that is not the one hoped for: KindReply
// where it refuses, KindProtocol where it makes no sense.
func (s *Session) refusal(stage Stage, reply Reply) *Error {
	if reply.Code >= 400 {
		return replyError(stage, reply)
	}
	return &Error{Stage: stage, Kind: KindProtocol, Reply: reply,
		Err: fmt.Errorf("%w: %d", ErrUnexpectedReply, reply.Code)}
}

// hello says EHLO, and HELO where the server does not know EHLO (RFC 5321,
// section 3.2).
func (s *Session) hello() error {
	s.ext = Extensions{} // what was offered in clear is not believed after TLS (RFC 3207, section 4.2)
	if err := checkLocalName(s.opts.LocalName); err != nil {
		return s.end(&Error{Stage: StageEHLO, Kind: KindInput, Err: err})
	}
	reply, err := s.command(StageEHLO, s.opts.Timeouts.Command, "EHLO "+s.opts.LocalName)
	if err != nil {
		return err
	}
	if reply.Code == 250 {
		s.ext = parseEHLO(reply.Lines)
		return nil
	}
	if reply.Code < 500 {
		return s.end(s.refusal(StageEHLO, reply))
	}
	reply, err = s.command(StageEHLO, s.opts.Timeouts.Command, "HELO "+s.opts.LocalName)
	if err != nil {
		return err
	}
	if reply.Code != 250 {
		return s.end(s.refusal(StageEHLO, reply))
	}
	s.ext = parseEHLO(reply.Lines[:1])
	return nil
}

// command writes one command while nothing else is under way, and reads the
// reply. It ends the session on any error.
func (s *Session) command(stage Stage, timeout time.Duration, line string) (Reply, error) {
	if s.in.Buffered() > 0 {
		return Reply{}, s.end(&Error{Stage: stage, Kind: KindProtocol, Err: ErrUnsolicitedReply})
	}
	s.limit = time.Time{}
	s.out = append(append(s.out[:0], line...), "\r\n"...)
	_, werr := s.write()
	if werr != nil {
		timeout = min(timeout, s.patience)
	}
	// Also after a failed write: the server may have said why it hung up.
	reply, err := s.reply(timeout)
	if err == nil {
		return reply, nil
	}
	if werr != nil {
		err = werr
	}
	return Reply{}, s.end(s.ioError(stage, err))
}

// StartTLS upgrades and says EHLO again. After any error the session is dead:
// what comes next, another attempt with less or without TLS, needs a new
// connection.
func (s *Session) StartTLS(ctx context.Context, c *tls.Config) error {
	if s.err != nil {
		return s.err
	}
	if !s.ext.StartTLS || s.tls != nil {
		return s.end(&Error{Stage: StageSTARTTLS, Kind: KindProtocol, Err: ErrNotOffered})
	}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	reply, err := s.command(StageSTARTTLS, s.opts.Timeouts.Command, "STARTTLS")
	if err != nil {
		return err
	}
	if reply.Code != 220 {
		return s.end(s.refusal(StageSTARTTLS, reply))
	}
	// Whatever lies in the buffer came in clear, from the server or from
	// somebody between, and must not be taken for what was said under TLS.
	if s.in.Buffered() > 0 {
		return s.end(&Error{Stage: StageSTARTTLS, Kind: KindProtocol, Err: ErrInjected})
	}
	if !c.DynamicRecordSizingDisabled {
		// Small first records help a browser to show a page; here they would
		// turn the one write of a message into four.
		c = c.Clone()
		c.DynamicRecordSizingDisabled = true
	}
	s.tls = tls.Client(s.conn, c)
	s.conn.SetDeadline(time.Now().Add(s.opts.Timeouts.TLS))
	if err := s.tls.HandshakeContext(ctx); err != nil {
		e := s.ioError(StageTLS, err)
		if e.Kind == KindClosed {
			e.Kind = KindTLS
		}
		return s.end(e)
	}
	s.conn.SetDeadline(time.Time{})
	s.over(s.tls)
	return s.hello()
}

// CheckIdle tells, without waiting, whether an idle session may still be used:
// nil where the server has been quiet. A server that closed the connection
// meanwhile, or said 421 or anything else, gives an error that is no attempt's.
func (s *Session) CheckIdle() error {
	if s.err != nil {
		return s.err
	}
	s.limit = time.Time{}
	if s.in.Buffered() == 0 {
		// The deadline of the last reply has perhaps passed.
		isEmpty := s.deadlines.ClearRead() == nil && isQuiet(s.conn)
		if isEmpty && s.tls == nil {
			return nil
		}
		// There is something, or nothing could be learnt. Under TLS it may be a
		// record for TLS itself, or lie decrypted in TLS and not in the socket:
		// with a deadline that has passed only that is read.
		s.wait = idleProbe
		if isEmpty {
			s.wait = 1
		}
		if err := s.in.Fill(); err != nil {
			e := s.ioError(StageIdle, err)
			if e.Kind == KindTimeout {
				return nil
			}
			return s.end(e)
		}
	}
	reply, err := s.reply(min(s.opts.Timeouts.Command, s.patience))
	if err != nil {
		return s.end(s.ioError(StageIdle, err))
	}
	if reply.Code == 421 {
		return s.end(replyError(StageIdle, reply))
	}
	return s.end(&Error{Stage: StageIdle, Kind: KindProtocol, Reply: reply, Err: ErrUnsolicitedReply})
}

const (
	// idleProbe is how long a connection that cannot be polled is listened to.
	idleProbe = time.Millisecond
	// patience is how long a server that failed or said 421 is listened to.
	patience = 2 * time.Second
)

// Quit says QUIT without waiting for the answer, and closes.
func (s *Session) Quit() {
	if s.err == nil {
		s.limit = time.Now().Add(s.patience)
		s.out = append(s.out[:0], "QUIT\r\n"...)
		if _, err := s.write(); err == nil && s.tls != nil {
			s.tls.CloseWrite() // close_notify; the write before it found room
		}
	}
	s.Close()
}

// Close closes the connection at once. It may be called by any goroutine.
func (s *Session) Close() error {
	s.closed.Store(true)
	return s.conn.Close()
}
