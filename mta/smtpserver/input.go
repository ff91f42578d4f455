package smtpserver

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"time"

	"postrider/mta/smtpwire"
)

// maxCommandLine is the longest command line with its CRLF. RFC 5321, section
// 4.5.3.1.4, has 512 octets; parameters and SMTPUTF8 add to that, and a PLAIN
// response of AUTH may be long.
const maxCommandLine = 4096

// Why input ended.
var (
	errStopping = errors.New("server stops")
	errBareLF   = errors.New("peer waits behind a bare line feed")
	errPlainTLS = errors.New("TLS without STARTTLS")
)

// inputState is what decides how long input is waited for.
type inputState struct {
	inContent bool
	since     time.Time // start of this wait for a line, or of this run of content; zero: at the next read
	moved     int64     // octets of content since then
	last      byte      // the octet that came last
	bareLF    bool      // the octets so far end in a bare line feed
	begun     bool      // something came
	woken     bool      // the wake-up of a stopping server was seen
}

// input is the connection as the Reader sees it: before it waits, the replies
// are written and the deadline is set.
type input Conn

func (i *input) Read(p []byte) (int, error) {
	c := (*Conn)(i)
	now := time.Now()
	if err := c.flush(now); err != nil {
		return 0, err
	}
	// Only CRLF ends a line. A client that ends its command with LF waits for
	// an answer now, and would wait until the timeout.
	if c.input.bareLF && !c.input.inContent && c.in.Buffered() > 0 {
		return 0, errBareLF
	}
	for {
		if err := c.setReadDeadline(now); err != nil {
			return 0, err
		}
		// Only after the deadline was set: so no wake-up is overwritten.
		if c.server.stopping.Load() && !c.input.inContent && c.tx.content == nil {
			return 0, errStopping
		}
		n, err := c.conn.Read(p)
		if n > 0 {
			if !c.noteInput(p[:n]) {
				return 0, errPlainTLS
			}
			return n, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || !c.server.stopping.Load() || c.input.woken {
			return 0, err
		}
		// The wake-up: content goes on, with its own deadline set anew.
		c.input.woken = true
		c.deadlines = smtpwire.NewDeadlines(c.raw)
	}
}

func (c *Conn) setReadDeadline(now time.Time) error {
	o, in := &c.server.opts, &c.input
	if in.since.IsZero() {
		in.since = now
	}
	if !in.inContent {
		return c.deadlines.Read(now, o.CommandTimeout, in.since.Add(o.CommandTimeout))
	}
	pace := smtpwire.Pace{Start: in.since, Grace: o.BlockTimeout, Rate: o.MinRate}
	return c.deadlines.Read(now, o.BlockTimeout, pace.Deadline(in.moved))
}

// noteInput looks at octets that came. It returns false where they are TLS, and
// the client, set to TLS from the start, would wait for ever.
func (c *Conn) noteInput(p []byte) bool {
	in := &c.input
	before := in.last
	if len(p) > 1 {
		before = p[len(p)-2]
	}
	in.last = p[len(p)-1]
	in.bareLF = in.last == '\n' && before != '\r'
	in.moved += int64(len(p))
	isFirst := !in.begun
	in.begun = true
	return !isFirst || p[0] != recordHandshake || c.tls != nil
}

// recordHandshake is the first octet of a TLS session (RFC 8446, section 5.1).
const recordHandshake = 0x16

// readCommand waits for a command line.
func (c *Conn) readCommand() ([]byte, error) {
	c.input.inContent, c.input.since = false, time.Time{}
	return c.in.ReadLine(maxCommandLine)
}

// beginContent switches the deadlines to those of content.
func (c *Conn) beginContent() {
	c.input.inContent, c.input.since, c.input.moved = true, time.Time{}, 0
}

// badInput answers what is wrong with the input, or that there is no more.
func (c *Conn) badInput(err error) {
	switch {
	case errors.Is(err, smtpwire.ErrLineTooLong):
		c.refuse(replyLineTooLong)
		c.enforceLimits()
		return
	case errors.Is(err, smtpwire.ErrBareLF):
		c.refuse(replyBareLF)
		c.enforceLimits()
		return
	case errors.Is(err, smtpwire.ErrBareCR), errors.Is(err, smtpwire.ErrNUL):
		c.refuse(replyBadOctet)
		c.enforceLimits()
		return
	case errors.Is(err, errBareLF):
		c.refuse(replyBareLF)
	case errors.Is(err, smtpwire.ErrLineEndless):
		c.refuse(replyLineTooLong)
	case errors.Is(err, errPlainTLS):
		c.refuse(replyPlainTLS)
	case errors.Is(err, errStopping):
		c.tell(replyStopping)
		c.noLinger = true
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.server.stats.timeouts.Add(1)
		c.tell(replyIdle)
		c.noLinger = true
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		c.noLinger = true
	default:
		c.server.opts.Logger.Debug("connection broke", "ip", c.remote.Addr(), "err", err)
		c.noLinger = true
	}
	c.leave = true
}

// flush writes the replies.
func (c *Conn) flush(now time.Time) error {
	if len(c.out) == 0 {
		return nil
	}
	if err := c.deadlines.Write(now, c.server.opts.CommandTimeout, time.Time{}); err != nil {
		return err
	}
	if c.server.opts.Logger.Enabled(context.Background(), slog.LevelDebug) {
		c.server.opts.Logger.Debug("replies", "ip", c.remote.Addr(), "lines", string(c.out))
	}
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}
