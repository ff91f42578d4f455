// Package intake is the one door through which messages enter the queue,
// whatever way they came: SMTP, a pickup directory, HTTP or the reports that
// we write ourselves.
//
// A message that comes in is made into what will be sent, once, octet by
// octet: line ends become CRLF (so that no stray CR or LF ever reaches the
// wire: SMTP smuggling), lines are brought under 998 octets, header fields
// that the standards demand are added, those that must not travel are removed,
// and it is signed. What is stored is what is sent.
//
// A way in makes a Meta, calls Begin, writes the content and calls Commit,
// which returns when the message is on stable storage. Everything that can be
// refused is refused with an *Error, which holds the SMTP reply to give.
//
// What it leaves to others: who may submit (submission, api), the envelope
// forms of files (pickup), the choice of keys (dkim), and storage (queue).
package intake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"postrider/queue"
)

// Queue is what intake needs of the queue.
type Queue interface {
	NewID(now time.Time) queue.ID
	NewBody() *queue.Body
	// Room tells why no mail is taken at present, before any of it was read.
	Room() error
	Submit(ctx context.Context, s queue.Submission) error
}

// Observer is told what became of each message that was begun. It is called
// from the goroutine of the way in and must not block.
type Observer interface {
	// Accepted reports a message that is on stable storage; took is the time
	// since Begin. The envelope must not be changed.
	Accepted(env *queue.Envelope, took time.Duration)
	// Refused reports an *Error that was returned for the first time. via is
	// queue.Origin.Via.
	Refused(via string, err *Error)
}

// Options make a Receiver. Queue and Hostname are required.
type Options struct {
	Queue  Queue
	Signer Signer // nil: nothing is signed
	Logger *slog.Logger
	// Observer may be nil.
	Observer Observer
	// Hostname is our own name: in Received and Message-ID, and the domain of
	// addresses that have none.
	Hostname string
	// LocalNames are further names of this host, beside Hostname, "localhost"
	// and "localhost.localdomain".
	LocalNames []string
	// LocalMailTo takes the mail for names without a domain and for this host;
	// empty: such mail is refused.
	LocalMailTo string
	// MaxMessageSize is in octets, as they are sent but without what we add; 0: 50 MB.
	MaxMessageSize int64
	// MaxRecipients bounds the envelope; 0: 10,000.
	MaxRecipients int
	// HoldFor tells how long mail of a sender waits for second thoughts before
	// it is first sent; nil: not at all.
	HoldFor func(sender string) time.Duration
	// Disabled refuses everything for now (mode = "disabled").
	Disabled bool
}

const (
	defaultMaxMessageSize = 50_000_000
	defaultMaxRecipients  = 10_000
)

// Receiver takes messages in. It is safe for concurrent use.
type Receiver struct {
	opts    Options
	local   localMail
	stamps  stamps
	buffers sync.Pool // of *buffers
}

// New makes a Receiver. It fails where an option is not usable.
func New(opts Options) (*Receiver, error) {
	if opts.Queue == nil {
		return nil, fmt.Errorf("intake: no queue")
	}
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	opts.MaxMessageSize = cmp.Or(opts.MaxMessageSize, defaultMaxMessageSize)
	opts.MaxRecipients = cmp.Or(opts.MaxRecipients, defaultMaxRecipients)
	opts.Hostname = strings.ToLower(strings.TrimSuffix(opts.Hostname, "."))
	local, err := newLocalMail(opts.Hostname, opts.LocalNames, opts.LocalMailTo)
	if err != nil {
		return nil, err
	}
	return &Receiver{opts: opts, local: local, buffers: sync.Pool{New: func() any { return new(buffers) }}}, nil
}

// Meta is what the way in knows about a message before its content.
type Meta struct {
	// Envelope belongs to intake from Begin on. ID (where it is zero) and
	// ArrivedAt are filled in, addresses are checked and brought into wire
	// form, Recipient.Domain is set, and recipients that repeat are dropped.
	// Body, SMTPUTF8 and TLSIgnored follow from the content, too.
	Envelope *queue.Envelope
	// Protocol is for Received: a "with" keyword of SMTP ("ESMTPS", ...) or
	// "HTTP"; anything else ("pickup") is written as a comment.
	Protocol string
	// RecipientsFromHeader: the recipients are those of To, Cc and Bcc, or of
	// the Resent- fields where there are any. Envelope has none.
	RecipientsFromHeader bool
	// SenderFromHeader: the sender is the one of Sender, or the first of From.
	SenderFromHeader bool
	// DropFields are the names, in lower case, of header fields that were meant
	// for the way in and must not travel.
	DropFields []string
	// FirstLine is the number of the content's first line in its source, for
	// errors; 0: 1.
	FirstLine int
	// MaxSize is this way's limit in octets; 0: Options.MaxMessageSize.
	MaxSize int64
	// StrictLineEnds refuses a CR or LF that stands alone, instead of making
	// it a line end. For SMTP only: files and HTTP may use either.
	StrictLineEnds bool
	// Answers are the notices that this message reports, see queue.Submission.
	Answers *queue.NoticeBatch
	// Mark is the pickup mark to set with the message, see queue.Submission.
	Mark string
	// HoldFor is how long this message waits for second thoughts; nil: as
	// Options.HoldFor says.
	HoldFor *time.Duration
	// SkipReceived is for the reports that we write ourselves: no Received
	// field, and no waiting for second thoughts.
	SkipReceived bool
}

// Begin starts a message. An *Error is the reply to MAIL or RCPT.
func (r *Receiver) Begin(now time.Time, m Meta) (*Message, error) {
	env := m.Envelope
	refuse := func(err *Error) (*Message, error) {
		r.refused(env, err)
		return nil, err
	}
	if r.opts.Disabled {
		return refuse(&Error{Code: 451, Status: "4.3.2", Text: "this server takes no mail at present (mode is disabled)"})
	}
	if err := r.opts.Queue.Room(); err != nil {
		return refuse(notStored(err))
	}
	if err := r.settleEnvelope(m); err != nil {
		return refuse(err)
	}
	if env.ID == (queue.ID{}) {
		env.ID = r.opts.Queue.NewID(now)
	}
	env.ArrivedAt = now
	return &Message{
		r: r, meta: m, env: env, idText: env.ID.String(), now: now, started: time.Now(),
		maxSize: cmp.Or(m.MaxSize, r.opts.MaxMessageSize), ends: lineEnds{strict: m.StrictLineEnds, lines: max(m.FirstLine-1, 0)},
		buf: r.buffers.Get().(*buffers),
	}, nil
}

// settleEnvelope checks the addresses that are known before the content.
func (r *Receiver) settleEnvelope(m Meta) *Error {
	env := m.Envelope
	if !m.SenderFromHeader {
		if err := r.settleSender(env); err != nil {
			return err
		}
	}
	if m.RecipientsFromHeader {
		env.Recipients = nil
		return nil
	}
	return r.settleRecipients(env)
}

// refused tells of a refusal.
func (r *Receiver) refused(env *queue.Envelope, err *Error) {
	if r.opts.Observer != nil {
		r.opts.Observer.Refused(env.Origin.Via, err)
	}
	level := slog.LevelInfo
	switch {
	case errors.Is(err.Err, queue.ErrFull):
		// The queue says once that it has begun and once that it is over: a
		// line for each message would fill what is left of the disk.
		level = slog.LevelDebug
	case err.Temporary() && err.Err != nil: // our own trouble
		level = slog.LevelError
	}
	if r.opts.Logger.Enabled(context.Background(), level) {
		attrs := []slog.Attr{slog.String("from", env.Sender), slog.Int("recipients", len(env.Recipients)),
			slog.String("via", env.Origin.Via), slog.String("status", err.Status), slog.String("reply", err.Text)}
		if env.Origin.Client.IsValid() {
			attrs = append(attrs, slog.String("client", env.Origin.Client.String()))
		}
		if err.Err != nil {
			attrs = append(attrs, slog.String("error", err.Err.Error()))
		}
		r.opts.Logger.LogAttrs(context.Background(), level, "refused", attrs...)
	}
}

// Error is a refusal with what a client is told: 452 4.3.1, 552 5.3.4, 554 5.6.0 ...
// Codes from 400 to 499 mean that the same message may be taken later.
type Error struct {
	Code   int
	Status string // enhanced status (RFC 3463)
	Text   string
	Err    error // the cause, for the log; may be nil
}

// Error is the reply's text, with the cause.
func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%d %s %s: %v", e.Code, e.Status, e.Text, e.Err)
	}
	return fmt.Sprintf("%d %s %s", e.Code, e.Status, e.Text)
}

// Unwrap answers the cause.
func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether the same message may be taken later.
func (e *Error) Temporary() bool { return e.Code < 500 }
