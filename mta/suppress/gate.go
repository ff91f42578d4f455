package suppress

import (
	"fmt"
	"log/slog"
	"time"

	"postrider/mta/dispatch"
	"postrider/queue"
)

// Gate stands between a queue and who delivers its mail: recipients on the
// list fail when they are claimed, and what the others' hosts answer goes into
// the list.
type Gate struct {
	dispatch.Source
	List   *List
	Logger *slog.Logger
	// Failed is told of the recipients that failed here, for the metrics.
	Failed func(outcomes []queue.Outcome, sinceArrival time.Duration)
}

// Take implements dispatch.Source.
func (g *Gate) Take(now time.Time, domain string, maxRecipients int) (dispatch.Claim, bool) {
	for {
		c, ok := g.Source.Take(now, domain, maxRecipients)
		if !ok {
			return c, false
		}
		h := &handle{Handle: c.Handle, list: g.List, open: c.Recipients}
		if refused := g.judge(now, &c); refused != nil {
			h.outcomes, h.open = refused, nil
			for i := range refused {
				if refused[i].Verdict != queue.Failed {
					h.open = append(h.open, c.Recipients[i])
				}
			}
		}
		if len(h.open) == 0 {
			c.Handle.Settle(now, h.outcomes, queue.Timing{})
			continue
		}
		c.Recipients, c.Handle = h.open, h
		return c, true
	}
}

// judge gives the outcomes of those recipients of a claim that are on the
// list, at their places; nil where there are none.
func (g *Gate) judge(now time.Time, c *dispatch.Claim) (outcomes []queue.Outcome) {
	var failed []queue.Outcome
	for i := range c.Recipients {
		e, is := g.List.Suppressed(now, &c.Recipients[i])
		if !is {
			continue
		}
		if outcomes == nil {
			outcomes = make([]queue.Outcome, len(c.Recipients))
		}
		outcomes[i] = outcomeOf(&e)
		failed = append(failed, outcomes[i])
		g.Logger.Info("suppressed", "id", c.Envelope.ID.String(), "from", c.Envelope.Sender, "to", c.Recipients[i].Address,
			"domain", c.Recipients[i].Domain, "status", outcomes[i].Status, "reply", outcomes[i].Text)
	}
	if failed != nil && g.Failed != nil {
		g.Failed(failed, now.Sub(c.Envelope.ArrivedAt))
	}
	return outcomes
}

// outcomeOf says why nothing is sent to an address, and how to change that.
func outcomeOf(e *Entry) queue.Outcome {
	text := fmt.Sprintf("%s is on this server's suppression list since %s", e.Address, e.FirstAt.Format(time.DateOnly))
	if e.Source == Bounce {
		text = fmt.Sprintf("%s, because its host said that there is no such mailbox, last on %s: %s", text, e.LastAt.Format(time.DateOnly), e.Reason)
	} else if e.Reason != "" {
		text += ": " + e.Reason
	}
	return queue.Outcome{
		Verdict: queue.Failed, Scope: queue.ScopeRecipient, Stage: queue.StagePolicy, Status: "5.7.0",
		Class: queue.ClassInvalidRecipient, Text: text,
	}
}

// handle settles the part of a claim that was handed on together with the part
// that was not, and learns from the answers.
type handle struct {
	dispatch.Handle
	list     *List
	open     []queue.Recipient // those handed on
	outcomes []queue.Outcome   // of all; nil: all were handed on
}

// Settle implements dispatch.Handle.
func (h *handle) Settle(now time.Time, outcomes []queue.Outcome, t queue.Timing) {
	for i := range outcomes[:min(len(outcomes), len(h.open))] {
		h.learn(now, &h.open[i], &outcomes[i])
	}
	if h.outcomes == nil {
		h.Handle.Settle(now, outcomes, t)
		return
	}
	h.Handle.Settle(now, h.merged(outcomes), t)
}

// merged puts the outcomes of the open recipients between the others.
func (h *handle) merged(outcomes []queue.Outcome) []queue.Outcome {
	all := append([]queue.Outcome(nil), h.outcomes...)
	next := 0
	for i := range all {
		if all[i].Verdict == queue.Failed {
			continue // the list's
		}
		all[i] = outcomes[next]
		next++
	}
	return all
}

// learn looks for a word about the address itself: an explicit 5xx that there
// is no such mailbox, or its acceptance.
func (h *handle) learn(now time.Time, r *queue.Recipient, o *queue.Outcome) {
	switch {
	case o.Verdict == queue.Delivered:
		h.list.Delivered(r)
	case o.Verdict == queue.Failed && o.Scope == queue.ScopeRecipient && o.Class == queue.ClassInvalidRecipient && o.Code/100 == 5:
		h.list.Refused(now, r, fmt.Sprintf("%d %s %s", o.Code, o.Status, o.Text))
	}
}
