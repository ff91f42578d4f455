package smtpclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"postrider/mta/smtpwire"
)

// Stage is what a session was at when an error ended it.
type Stage uint8

// The stages of a session, in order.
const (
	StageGreeting Stage = iota + 1
	StageEHLO
	StageSTARTTLS // the command
	StageTLS      // the handshake
	StageIdle     // between transactions
	StageReset
	StageMail
	StageRcpt
	StageData    // the command
	StageContent // while the content was sent
	StageFinal   // the reply to the end of the content
)

func (s Stage) String() string {
	switch s {
	case StageGreeting:
		return "greeting"
	case StageEHLO:
		return "EHLO"
	case StageSTARTTLS:
		return "STARTTLS"
	case StageTLS:
		return "TLS handshake"
	case StageIdle:
		return "idle"
	case StageReset:
		return "RSET"
	case StageMail:
		return "MAIL"
	case StageRcpt:
		return "RCPT"
	case StageData:
		return "DATA"
	case StageContent:
		return "sending the content"
	case StageFinal:
		return "end of the content"
	}
	return "unknown stage"
}

// Kind is what sort of error it was.
type Kind uint8

const (
	// KindReply: the server's Reply ended the session: it refused the greeting,
	// EHLO or STARTTLS, said 421, or spoke while the content was being sent.
	KindReply    Kind = iota + 1
	KindClosed        // the server closed or reset the connection
	KindTimeout       // a deadline passed, or the server was too slow
	KindProtocol      // what came is no reply, or answers nothing that was asked
	KindTLS           // the handshake failed
	KindAborted       // ended by us: Close, or the context
	KindInput         // the caller's: an address, a parameter, the content
)

func (k Kind) String() string {
	switch k {
	case KindReply:
		return "refused"
	case KindClosed:
		return "connection lost"
	case KindTimeout:
		return "timed out"
	case KindProtocol:
		return "protocol error"
	case KindTLS:
		return "handshake failed"
	case KindAborted:
		return "ended by us"
	case KindInput:
		return "cannot be sent"
	}
	return "unknown kind"
}

// Error is the only type of error that this package returns.
type Error struct {
	Stage Stage
	Kind  Kind
	Reply Reply // with KindReply, and with KindProtocol where there is one
	Err   error // the cause; nil with KindReply
}

func (e *Error) Error() string {
	switch {
	case e.Kind == KindReply && len(e.Reply.Lines) > 0:
		return fmt.Sprintf("%v: server says %d %q", e.Stage, e.Reply.Code, e.Reply.Lines[0])
	case e.Err != nil:
		return fmt.Sprintf("%v: %v: %v", e.Stage, e.Kind, e.Err)
	}
	return fmt.Sprintf("%v: %v", e.Stage, e.Kind)
}

func (e *Error) Unwrap() error { return e.Err }

// Causes of KindProtocol and KindInput besides those of smtpwire.
var (
	ErrUnexpectedReply  = errors.New("reply does not answer the command")
	ErrUnsolicitedReply = errors.New("server speaks without being asked")
	ErrInjected         = errors.New("octets in clear after the reply to STARTTLS")
	ErrNotOffered       = errors.New("server does not offer it")
	ErrAddress          = errors.New("address cannot be written")
	ErrParameter        = errors.New("parameter cannot be written")
	ErrLocalName        = errors.New("HELO name cannot be written")
	ErrNoRecipient      = errors.New("transaction without a recipient")
	ErrContentSize      = errors.New("content is not as long as announced")
	ErrContentEnd       = errors.New("content does not end in CRLF")
)

// ioError makes an Error of what a read or a write returned.
func (s *Session) ioError(stage Stage, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	e = &Error{Stage: stage, Kind: KindClosed, Err: err}
	var reply *smtpwire.ReplyError
	var timeout net.Error
	switch {
	case s.closed.Load(), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Kind = KindAborted
	case errors.As(err, &reply):
		e.Kind = KindProtocol
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
	case errors.As(err, &timeout) && timeout.Timeout():
		e.Kind = KindTimeout
	}
	return e
}

func replyError(stage Stage, reply Reply) *Error {
	return &Error{Stage: stage, Kind: KindReply, Reply: reply}
}
