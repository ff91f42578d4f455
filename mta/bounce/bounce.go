// Package bounce tells senders what became of their messages.
//
// The queue gathers notices (a recipient failed, is late, or was handed to a
// host that does not report); the Reporter turns those of one message into one
// report, written by package dsn, and submits it through intake like any other
// message. The submission answers the notices: they are deleted in the write
// that stores the report, so no crash repeats or loses one.
//
// A report has the null sender, and nothing with a null sender is ever
// reported about: mail about mail ends here. Where a report cannot be
// submitted for good (its own recipient is refused), it is dropped, logged and
// counted: a double bounce. One sender gets a bounded number of reports in an
// hour; what is beyond is dropped, logged and counted too, since whoever is
// flooded with reports about mail that he may not have sent is a victim.
//
// What failed, and whether a report is owed, is the queue's to decide.
package bounce

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"postrider/mta/intake"
	"postrider/queue"
)

// Queue is what reports need of the queue.
type Queue interface {
	NewID(now time.Time) queue.ID
	DueNotices(now time.Time) (b *queue.NoticeBatch, next time.Time)
	NoticesChanged() <-chan struct{}
	Dismiss(b *queue.NoticeBatch, now time.Time) error
	Return(b *queue.NoticeBatch, now time.Time)
	OpenMessage(id queue.ID) (*queue.Content, error)
}

// Message is a message on its way into the queue: *intake.Message.
type Message interface {
	io.Writer
	Commit(ctx context.Context) (queue.ID, error)
	Abort()
}

// Intake takes the reports; see ToReceiver.
type Intake interface {
	Begin(now time.Time, m intake.Meta) (Message, error)
}

// ToReceiver makes an Intake of the receiver.
func ToReceiver(r *intake.Receiver) Intake { return receiver{r} }

type receiver struct{ r *intake.Receiver }

func (r receiver) Begin(now time.Time, m intake.Meta) (Message, error) {
	msg, err := r.r.Begin(now, m)
	if err != nil {
		return nil, err // not msg: a nil pointer would be no nil Message
	}
	return msg, nil
}

// Drop is why notices were dropped without a report. The values are fit to be
// labels.
type Drop string

const (
	DoubleBounce Drop = "double bounce" // the report itself cannot be sent
	Storm        Drop = "storm"         // the sender has had too many
)

// Observer is told what became of notices. It must not block.
type Observer interface {
	Reported(recipients int)
	Dropped(recipients int, why Drop)
}

// Options make a Reporter. Queue, Intake and Hostname are required.
type Options struct {
	Queue    Queue
	Intake   Intake
	Hostname string // the host that reports
	// From is the author of reports, as an address; empty: MAILER-DAEMON@Hostname.
	From     string
	Logger   *slog.Logger
	Observer Observer // may be nil
	// MaxPerHour is how many reports one sender gets in an hour; 0: 1,000.
	MaxPerHour int
}

// Reporter writes reports.
type Reporter struct {
	opts  Options
	log   *slog.Logger
	storm storm
}

// New makes a Reporter.
func New(opts Options) (*Reporter, error) {
	if opts.Queue == nil || opts.Intake == nil || opts.Hostname == "" {
		return nil, errors.New("bounce: a queue, an intake and a host name are needed")
	}
	opts.From = cmp.Or(opts.From, "MAILER-DAEMON@"+opts.Hostname)
	r := &Reporter{opts: opts, log: cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))}
	r.storm.most = cmp.Or(opts.MaxPerHour, 1000)
	return r, nil
}

const (
	// workers wait for the disk most of the time, and share its syncs.
	workers = 8
	// The queue says when there is something new; this is for what it could
	// not say, such as a store that works again.
	longestWait = time.Minute
)

// Run writes reports until ctx ends. Those begun are finished.
func (r *Reporter) Run(ctx context.Context) error {
	batches := make(chan *queue.NoticeBatch)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for b := range batches {
				r.report(context.WithoutCancel(ctx), time.Now(), b)
			}
		})
	}
	r.collect(ctx, batches)
	close(batches)
	wg.Wait()
	r.tellStorm(time.Now().Add(2 * stormSpan))
	return nil
}

// collect hands out notices as they become due.
func (r *Reporter) collect(ctx context.Context, batches chan<- *queue.NoticeBatch) {
	for ctx.Err() == nil {
		now := time.Now()
		r.tellStorm(now)
		b, next := r.opts.Queue.DueNotices(now)
		if b != nil {
			select {
			case batches <- b:
			case <-ctx.Done():
				r.opts.Queue.Return(b, now)
			}
			continue
		}
		wait := longestWait
		if !next.IsZero() {
			wait = min(wait, next.Sub(now))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-r.opts.Queue.NoticesChanged():
		}
		timer.Stop()
	}
}

// report sees to the notices of one message.
func (r *Reporter) report(ctx context.Context, now time.Time, b *queue.NoticeBatch) {
	env := b.Envelope
	switch {
	case env.Sender == "" || len(b.Notices) == 0:
		r.drop(b, now, DoubleBounce, errors.New("the null sender gets no reports"))
		return
	case !r.storm.allow(now, env.Sender):
		r.drop(b, now, Storm, nil)
		return
	}
	id, err := r.submit(ctx, now, b)
	var refusal *intake.Error
	switch {
	case err == nil:
		r.log.Info("reported", "id", env.ID.String(), "to", env.Sender, "report", id.String(), "recipients", len(b.Notices))
		if r.opts.Observer != nil {
			r.opts.Observer.Reported(len(b.Notices))
		}
	case errors.As(err, &refusal) && !refusal.Temporary():
		r.drop(b, now, DoubleBounce, err)
	default:
		r.log.Warn("a report waits", "id", env.ID.String(), "to", env.Sender, "error", err)
		r.opts.Queue.Return(b, now)
	}
}

// submit writes the report into the queue.
func (r *Reporter) submit(ctx context.Context, now time.Time, b *queue.NoticeBatch) (queue.ID, error) {
	report, env := r.compose(now, b)
	msg, err := r.opts.Intake.Begin(now, intake.Meta{Envelope: env, SkipReceived: true, Answers: b})
	if err != nil {
		return queue.ID{}, err
	}
	defer msg.Abort()
	if err := report.Write(msg); err != nil {
		return queue.ID{}, err
	}
	return msg.Commit(ctx)
}

// drop deletes notices without a report.
func (r *Reporter) drop(b *queue.NoticeBatch, now time.Time, why Drop, cause error) {
	n := len(b.Notices)
	if err := r.opts.Queue.Dismiss(b, now); err != nil {
		r.log.Error("notices cannot be removed", "id", b.Envelope.ID.String(), "error", err)
		r.opts.Queue.Return(b, now)
		return
	}
	if why != Storm { // a storm is logged as a whole
		r.log.Warn("a report is dropped", "reason", string(why), "id", b.Envelope.ID.String(), "to", b.Envelope.Sender, "error", cause)
	}
	if r.opts.Observer != nil {
		r.opts.Observer.Dropped(n, why)
	}
}
