package tlsrpt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// A report that cannot be sent is tried again for a day (section 5.5), or
	// for an interval where that is longer.
	giveUpAfter = 24 * time.Hour
	// retryShare of the interval lies between tries: an hour of a day.
	retryShare = 24
	// stepShare of the interval, within bounds, is how often Run looks for what
	// is due.
	stepShare        = 60
	minStep, maxStep = time.Second, time.Minute
	saveEvery        = time.Minute
	// atOnce is how many reports are sent at the same time. Web servers that
	// take their time must not hold up the others.
	atOnce = 8
)

// TXT looks up the TXT records of a name. No records without an error means
// that there are none for certain.
type TXT interface {
	LookupTXT(ctx context.Context, name string) (records []string, ttl time.Duration, err error)
}

// Mailer sends a message that this package made: signs it, queues it.
type Mailer interface {
	SendReport(ctx context.Context, from, to string, message []byte) error
}

// Reporter sends reports as they fall due. All fields but Log are needed.
type Reporter struct {
	Recorder *Recorder
	DNS      TXT
	Mailer   Mailer
	Poster   *Poster
	Sender   Sender
	From     string // of reports by mail
	Log      *slog.Logger
}

// Run saves tallies and sends reports until ctx ends, and saves once more. It
// always returns nil.
func (r *Reporter) Run(ctx context.Context) error {
	tick := time.NewTicker(min(max(r.Recorder.interval/stepShare, minStep), maxStep))
	defer tick.Stop()
	savedAt := time.Now()
	for {
		select {
		case <-ctx.Done():
			r.save()
			return nil
		case now := <-tick.C:
			if now.Sub(savedAt) >= saveEvery {
				r.save()
				savedAt = now
			}
			r.SendDue(ctx, now)
		}
	}
}

func (r *Reporter) log() *slog.Logger {
	if r.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return r.Log
}

func (r *Reporter) save() {
	if err := r.Recorder.Save(); err != nil {
		r.log().Warn("a restart now would lose part of the TLS reports", "error", err)
	}
}

// SendDue sends a batch of the reports that are due, a few at the same time,
// and returns when that is done. Run calls it.
func (r *Reporter) SendDue(ctx context.Context, now time.Time) {
	var sending errgroup.Group
	sending.SetLimit(atOnce)
	for _, t := range r.Recorder.Due(now) {
		sending.Go(func() error {
			r.sendOne(ctx, t, now)
			return nil
		})
	}
	sending.Wait()
}

func (r *Reporter) sendOne(ctx context.Context, t Tally, now time.Time) {
	err := r.send(ctx, t, now)
	if err != nil && ctx.Err() != nil {
		return // it stays, and is sent after the next start
	}
	end := t.Start.Add(t.Interval)
	if err != nil && now.Before(end.Add(max(giveUpAfter, t.Interval))) {
		r.Recorder.Postpone(t, now.Add(t.Interval/retryShare))
		return
	}
	if err != nil {
		r.log().Warn("a TLS report could not be sent for too long and is dropped", "domain", t.Domain, "error", err)
	}
	if err := r.Recorder.Forget(t); err != nil {
		r.log().Warn("a TLS report may be sent again after a restart", "domain", t.Domain, "error", err)
	}
}

// send reports a tally to whoever the domain names. It counts as sent when one
// of them has it (section 3 leaves it to the sender whether all are served).
func (r *Reporter) send(ctx context.Context, t Tally, now time.Time) error {
	txts, _, err := r.DNS.LookupTXT(ctx, "_smtp._tls."+t.Domain)
	if err != nil {
		return fmt.Errorf("looking up who wants the TLS report: %w", err)
	}
	wanted, err := ParseRecord(txts)
	if err != nil {
		r.log().Info("no TLS report is sent to a domain whose record cannot be read", "domain", t.Domain, "error", err)
		return nil
	}
	if len(wanted) == 0 {
		return nil
	}
	report, err := NewReport(t, r.Sender)
	if err != nil {
		return err
	}
	var failed []error
	for _, d := range wanted {
		if err := r.deliver(ctx, d, report, now); err != nil {
			failed = append(failed, err)
			continue
		}
		r.log().Info("a TLS report is sent", "domain", t.Domain, "to", d.String(), "report", report.ID)
	}
	if len(failed) < len(wanted) {
		return nil
	}
	return errors.Join(failed...)
}

func (r *Reporter) deliver(ctx context.Context, d Destination, report *Report, now time.Time) error {
	if d.Mail == "" {
		return r.Poster.Post(ctx, d.URL, report)
	}
	message, err := report.Message(r.From, d.Mail, now)
	if err != nil {
		return err
	}
	if err := r.Mailer.SendReport(ctx, r.From, d.Mail, message); err != nil {
		return fmt.Errorf("mailing a TLS report to %s: %w", d.Mail, err)
	}
	return nil
}
