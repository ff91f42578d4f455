// Package smtpclient is one SMTP conversation with hard limits (RFC 5321). It
// knows nothing of queues, DNS or policy: whoever uses it dials, chooses the
// TLS demand and judges the replies.
//
// A [Session] is made over a connection with [New]; [Session.Greet] and
// perhaps [Session.StartTLS] bring it to where [Session.Run] carries
// transactions, as many as its caller has, in as few round trips as the
// server's extensions allow:
//
//   - with PIPELINING and CHUNKING (RFC 2920, RFC 3030) MAIL, RCPT and BDAT
//     LAST with the content in one write: one round trip for a message of up
//     to 64 KiB, and with Options.InFlight less than one;
//   - with PIPELINING alone MAIL, RCPT and DATA in one write, then the content,
//     its end and the next MAIL, RCPT and DATA in one write;
//   - otherwise command by command.
//
// Content over 64 KiB waits for the replies to RCPT: who is turned away, by a
// greylister for one, sends no 50 MB for nothing.
//
// Nothing that a server sends is trusted: replies are bounded in size and time
// and must be replies ([smtpwire.Replies]), one that nobody asked for ends the
// session, and so does one that comes before the content was sent. What the
// caller gives is not trusted either: an address that would end its path, or a
// line, is refused before it is written.
//
// Left out on purpose: AUTH, as this client speaks to the servers of
// recipients, and BINARYMIME.
package smtpclient

import (
	"io"
	"time"

	"postrider/mta/smtpwire"
)

// MaxOneFlight is the largest content that is sent along with its envelope.
const MaxOneFlight = 64 << 10

// DefaultInFlight is a compromise: four messages in one write cost a third of
// the system calls of four writes, sixteen not much less, and four is few
// enough to have in doubt, or waiting behind a slow server.
const DefaultInFlight = 4

// maxInFlight bounds the octets of content for which no reply has come,
// whatever Options.InFlight says.
const maxInFlight = 256 << 10

// Timeouts are those of RFC 5321, section 4.5.3.2. All are required.
type Timeouts struct {
	Greeting time.Duration
	Command  time.Duration // for each reply to EHLO, MAIL, RCPT, RSET
	TLS      time.Duration // for the handshake
	Data     time.Duration // for the reply to DATA
	// Block is for each write of at most 64 KiB. It is not renewed by a server
	// that takes a few octets, so it is also the slowest pace allowed.
	Block time.Duration
	Final time.Duration // for the reply to the end of the content
	// Message is for one whole transaction. 0: 30 minutes, and what its content
	// needs at 10 KB/s.
	Message time.Duration
}

// Options configure a session.
type Options struct {
	LocalName                string // for EHLO
	Timeouts                 Timeouts
	NoChunking, NoPipelining bool // for destinations that announce and break them
	// InFlight is how many transactions may be under way at once, content and
	// all, on a server with PIPELINING and CHUNKING; 0 is DefaultInFlight. With
	// n of them a connection over a long way carries n messages in a round
	// trip, and when it breaks up to n are in doubt instead of one. The session
	// begins with one, takes one more for each that is accepted, and goes back
	// to one after any refusal.
	InFlight int
}

// Reply is a whole reply. Lines are raw, without code and line end; they are
// shared, so do not change them.
type Reply = smtpwire.Reply

// Body is the content: Head, Data, then File when it is not nil. CRLF line
// ends, ending in CRLF; dots not stuffed. Size is that of all three together.
type Body struct {
	Head, Data []byte
	File       io.Reader
	Size       int64
}

// Rcpt is one recipient of a transaction.
type Rcpt struct {
	Address string
	Params  string // ready to append, e.g. "NOTIFY=FAILURE ORCPT=rfc822;a@b.test"
}

// Transaction is one message to some recipients. The caller decides which
// parameters fit the server's Extensions; [MailParams] and [RcptParams] write
// them.
type Transaction struct {
	From   string // empty: <>
	Params string // e.g. "SIZE=1234 BODY=8BITMIME RET=HDRS ENVID=x"
	Rcpts  []Rcpt
	// Open gives the content; it is called before the envelope is written.
	// The closer (may be nil) is closed when the content is done with: when it
	// was written or will not be, but before any reply to it has come.
	Open  func() (Body, io.Closer, error)
	Value any // the caller's own
}

// Result is what came of a transaction. A zero Reply means that none came. The
// Result and its Rcpts belong to the session and are valid until done returns;
// each Reply may be copied and kept.
//
// Read it in this order. Err with Untried: not this transaction's fault, try
// it again. A Mail that is no success decides for all recipients. A reply to a
// recipient that is no success decides for that one. Then Final decides, or
// Data where that refused; without either, Sent says whether the others are
// in doubt or were surely not delivered.
type Result struct {
	Mail  Reply
	Rcpts []Reply // one per recipient
	Data  Reply   // to DATA; zero with BDAT
	Final Reply
	// Err is an [*Error]: what ended the session before all replies came, or
	// what is wrong with this transaction alone (KindInput: its addresses,
	// parameters or content, Open's error included); nil where replies tell all.
	Err error
	// Sent: all of the content, with its end, was written. With a zero Final
	// it is in doubt whether the server has it.
	Sent bool
	// Untried: the session ended before it came to this transaction. Nothing of
	// its content was sent; or it was, behind a transaction on which the server
	// said 421 and closed without another word. Never set with KindInput.
	Untried            bool
	StartedAt, EndedAt time.Time
}

// reset makes r ready for a transaction with n recipients.
func (r *Result) reset(n int, now time.Time) {
	rcpts := r.Rcpts[:0]
	if cap(rcpts) < n {
		rcpts = make([]Reply, n)
	}
	rcpts = rcpts[:n]
	clear(rcpts)
	*r = Result{Rcpts: rcpts, StartedAt: now}
}
