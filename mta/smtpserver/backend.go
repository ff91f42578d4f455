package smtpserver

import (
	"context"
	"errors"
	"fmt"
)

// Backend decides about connections.
type Backend interface {
	// Connect is asked once for each connection, before the greeting. An
	// error is told to the client instead of the greeting; without a [*Reply]
	// in it that is a 421.
	Connect(c *Conn) (Session, error)
}

// Session makes the transactions of one connection. It is used by one
// goroutine. An error of any method of a Session, a Transaction or a Content is
// told to the client: a [*Reply] in it as it is, everything else as 451 4.3.0.
// A reply of 421 ends the connection.
type Session interface {
	// Mail begins a transaction. m is valid until the call returns, and its
	// Path may be any octets without CR, LF and control characters.
	Mail(ctx context.Context, m *Mail) (Transaction, error)
}

// Transaction is one message on its way in.
type Transaction interface {
	// Rcpt adds a recipient. r is valid until the call returns. The path may
	// have no domain: <postmaster> (RFC 5321, section 4.1.1.3), <root>.
	Rcpt(ctx context.Context, r *Rcpt) error
	// Content is asked once, after at least one recipient was accepted and
	// before the client is told to send.
	Content(ctx context.Context) (Content, error)
	// End is called exactly once, whatever became of the transaction, and
	// gives everything back. After a Commit that succeeded it undoes nothing.
	End()
}

// Content takes the content of a message.
type Content interface {
	// Write takes octets as they came, dots unstuffed; p is valid until the
	// call returns. After an error the rest of the content is dropped, and
	// the client gets the error as the reply to the whole.
	Write(p []byte) (int, error)
	// Commit takes responsibility for the message: only then is the client
	// told 250. It appends the text of that reply to text: one line of
	// printable ASCII.
	Commit(ctx context.Context, text []byte) ([]byte, error)
}

// Authenticator checks names and passwords.
type Authenticator interface {
	// Authenticate returns nil where the password is the user's, ErrCredentials
	// where it is not, and another error where it cannot tell (454 4.7.0).
	// Calls may run at once.
	Authenticate(ctx context.Context, user, password string) error
}

// ErrCredentials says that a user is not known or the password is not theirs.
var ErrCredentials = errors.New("user name or password is wrong")

// Mail is a MAIL command.
type Mail struct {
	Path       []byte // the reverse-path without its brackets and source route; empty: <>
	Size       int64  // 0: not stated
	EightBit   bool   // BODY=8BITMIME
	SMTPUTF8   bool
	RequireTLS bool
	Ret        Ret
	EnvID      string // decoded
}

// Rcpt is a RCPT command.
type Rcpt struct {
	Path   []byte // the forward-path without its brackets and source route; never empty
	Notify Notify
	ORcpt  string // "rfc822;a@b.test", decoded; empty: not given
}

// Ret is the RET parameter (RFC 3461, section 4.3).
type Ret uint8

const (
	RetNone Ret = iota // not given
	RetFull
	RetHeaders
)

// Notify is the NOTIFY parameter (RFC 3461, section 4.1); 0: not given.
type Notify uint8

const (
	NotifyNever Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// Reply is what a client is told. As an error of a [Backend] it is a refusal.
type Reply struct {
	Code   int    // 4xx or 5xx
	Status string // enhanced status (RFC 3463) of the same class; empty: class.0.0
	Text   string // one line; what is not printable ASCII is replaced
}

func (r *Reply) Error() string {
	if r.Status == "" {
		return fmt.Sprintf("%d %s", r.Code, r.Text)
	}
	return fmt.Sprintf("%d %s %s", r.Code, r.Status, r.Text)
}
