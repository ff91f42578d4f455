package dispatch

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"postrider/queue"
)

func isFailure(v queue.Verdict) bool { return v == queue.Deferred || v == queue.Failed }

// settle ends a claim with its outcomes, and tells log and metrics. The
// outcomes belong to the queue from here on.
func (d *Dispatcher) settle(c Claim, outcomes []queue.Outcome, timing queue.Timing, began, now time.Time) {
	waited := max(0, began.Sub(c.DueAt))
	if o := d.o.Observer; o != nil {
		o.Attempt(&Attempt{At: now, Envelope: c.Envelope, Outcomes: outcomes, Number: c.Attempts + 1, Waited: waited, Timing: timing})
	}
	if d.o.Logger.Enabled(context.Background(), slog.LevelInfo) {
		d.log(c, outcomes, now, delays(c.DueAt.Sub(c.Envelope.ArrivedAt), waited, timing))
	}
	c.Handle.Settle(now, outcomes, timing)
}

// log writes a line for each recipient of an attempt.
func (d *Dispatcher) log(c Claim, outcomes []queue.Outcome, now time.Time, delays string) {
	e := entry{claim: &c, delays: delays, id: c.Envelope.ID.String(), delay: now.Sub(c.Envelope.ArrivedAt).Round(time.Millisecond)}
	for i := range outcomes {
		e.log(d.o.Logger, &c.Recipients[i], &outcomes[i])
	}
}

// entry is what the log lines of an attempt have in common.
type entry struct {
	claim  *Claim
	id     string
	delay  time.Duration
	delays string
}

var verdictWords = [...]string{queue.Untried: "untried", queue.Delivered: "delivered", queue.Deferred: "deferred", queue.Failed: "failed"}

// log writes one line for one recipient.
func (e *entry) log(l *slog.Logger, r *queue.Recipient, o *queue.Outcome) {
	if o.Verdict == queue.Untried {
		return
	}
	env := e.claim.Envelope
	attrs := make([]slog.Attr, 0, 16)
	attrs = append(attrs,
		slog.String("id", e.id),
		slog.String("from", env.Sender),
		slog.String("to", r.Address),
		slog.String("domain", r.Domain),
		slog.Int("attempt", e.claim.Attempts+1),
		slog.String("status", o.Status),
		slog.String("reply", replyText(o)),
	)
	if o.Class != queue.ClassNone {
		attrs = append(attrs, slog.String("class", string(o.Class)))
	}
	if h := o.Remote; h != nil {
		attrs = append(attrs, slog.String("mx", h.Host))
		if h.IP.IsValid() {
			attrs = append(attrs, slog.String("ip", h.IP.String()))
		}
		attrs = append(attrs, slog.String("tls", h.TLS), slog.String("demand", h.Demand))
	}
	attrs = append(attrs, slog.Duration("delay", e.delay), slog.String("delays", e.delays))
	if o.InDoubt {
		attrs = append(attrs, slog.Bool("in_doubt", true))
	}
	l.LogAttrs(context.Background(), slog.LevelInfo, verdictWords[o.Verdict], attrs...)
}

// replyText is a reply with its code, or our own words.
func replyText(o *queue.Outcome) string {
	if o.Code == 0 {
		return o.Text
	}
	return strconv.Itoa(o.Code) + " " + o.Text
}

// errorText is an outcome for people who look at a lane.
func errorText(o *queue.Outcome) string {
	if o.Code == 0 || o.Remote == nil {
		return o.Text
	}
	return o.Remote.Host + ": " + replyText(o)
}

// delays says in seconds where the time went, as Postfix does: until the
// message was due for this attempt, due but waiting for its turn, connecting,
// transferring.
func delays(before, waited time.Duration, t queue.Timing) string {
	b := make([]byte, 0, 48)
	for i, span := range [...]time.Duration{before, waited, t.Connect, t.Transfer} {
		if i > 0 {
			b = append(b, '/')
		}
		b = appendSeconds(b, span)
	}
	return string(b)
}

// appendSeconds writes two significant digits under ten seconds, and whole
// seconds above.
func appendSeconds(b []byte, d time.Duration) []byte {
	switch s := d.Seconds(); {
	case d <= 0:
		return append(b, '0')
	case s >= 10:
		return strconv.AppendInt(b, int64(s+0.5), 10)
	case s >= 0.095:
		return strconv.AppendFloat(b, s, 'f', 1, 64)
	default:
		return strconv.AppendFloat(b, s, 'f', 3, 64)
	}
}
