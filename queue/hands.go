package queue

import (
	"context"
	"errors"
	"time"
)

// order is what an operator wants done with a recipient.
type order struct {
	kind   EventKind // EventHeld, EventReleased, EventRetried, EventCancelled, EventFailed; 0: nothing
	reason string
}

// obey does to an open recipient, not claimed, what an operator wants, and
// reports whether that changed anything.
func (q *Queue) obey(m *message, r int32, o order, at int64) bool {
	s := &m.states[r]
	switch o.kind {
	case EventHeld:
		if s.status == StatusHeld {
			return false
		}
		s.status = StatusHeld
		s.heldAt = at
	case EventReleased:
		if s.status != StatusHeld {
			return false
		}
		s.status = StatusWaiting
		if from := max(s.heldAt, m.firstDue()); at > from {
			s.paused += at - from
		}
		s.heldAt = 0
	case EventRetried:
		if s.status == StatusHeld {
			return false // releasing it is another matter
		}
		s.due = at
	case EventCancelled:
		q.finish(m, r, StatusCancelled, s.last)
	case EventFailed:
		text := "returned by the operator"
		if o.reason != "" {
			text = o.reason
		}
		q.finish(m, r, StatusFailed, &Outcome{Verdict: Failed, Scope: ScopeRecipient, Stage: StageQueue,
			Status: "5.3.0", Text: clip(text), Class: ClassOperator})
		q.owe(m, r, NoticeFailure, at, 0)
		q.tellGivenUp(m, r, at)
	}
	s.dirty = true
	h := q.happen(m, r, o.kind, nil)
	h.text = o.reason
	if o.kind == EventFailed {
		h.outcome = s.last
	}
	return true
}

// Hold, Unhold, Retry, Cancel and Fail act on the open recipients that match;
// a claimed one is acted on when it settles. They answer how many recipients
// they touched (or will), and return when that is on stable storage. Hold stops
// the attempts, and the ageing, until Unhold.
func (q *Queue) Hold(ctx context.Context, now time.Time, s Selector, reason string) (int, error) {
	return q.act(ctx, now, s, order{EventHeld, reason})
}

// Unhold releases what was held, by Hold or by Envelope.Held: see Hold.
func (q *Queue) Unhold(ctx context.Context, now time.Time, s Selector, reason string) (int, error) {
	return q.act(ctx, now, s, order{EventReleased, reason})
}

// Retry makes what waits due at once; what is held stays so: see Hold.
func (q *Queue) Retry(ctx context.Context, now time.Time, s Selector, reason string) (int, error) {
	return q.act(ctx, now, s, order{EventRetried, reason})
}

// Cancel ends recipients without a word to the sender: see Hold.
func (q *Queue) Cancel(ctx context.Context, now time.Time, s Selector, reason string) (int, error) {
	return q.act(ctx, now, s, order{EventCancelled, reason})
}

// Fail ends recipients as failed; the sender gets a report: see Hold.
func (q *Queue) Fail(ctx context.Context, now time.Time, s Selector, reason string) (int, error) {
	return q.act(ctx, now, s, order{EventFailed, reason})
}

// act walks over the messages that may match, one at a time, and waits for the
// disk at the end.
func (q *Queue) act(ctx context.Context, now time.Time, s Selector, o order) (int, error) {
	ids, _, err := q.candidates(ctx, now, &s, ID{}, 0, false)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		k, err := q.actOn(id, now, &s, o)
		if err != nil {
			return n, err
		}
		n += k
	}
	return n, q.flush(ctx)
}

// actOn carries an order out on one message.
func (q *Queue) actOn(id ID, now time.Time, s *Selector, o order) (int, error) {
	at := nanos(now)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.writer.waitForRoom()
	if q.closed {
		return 0, ErrClosed
	}
	m, err := q.find(id)
	var d *damage
	switch {
	case errors.Is(err, ErrNotFound):
		return 0, nil
	case errors.As(err, &d):
		q.setAside(id, at, err)
		return 0, nil
	case err != nil:
		return 0, err
	}
	defer q.unpin(m)
	if !s.matchesEnvelope(m.env, now) {
		return 0, nil
	}
	q.happened = q.happened[:0]
	n := 0
	var changed []int32
	for r := range m.states {
		state := &m.states[r]
		status := state.status
		if state.active {
			status = StatusActive
		}
		if state.final() || !s.matchesRecipient(&m.env.Recipients[r], status, state.last) {
			continue
		}
		if state.active {
			state.order = o
			n++
		} else if q.obey(m, int32(r), o, at) {
			changed = append(changed, int32(r))
			n++
		}
	}
	if len(changed) == 0 {
		return n, nil
	}
	q.regroupAll(m, at)
	q.record(m, changed, Timing{}, at)
	q.rest(m, at)
	return n, nil
}

// flush waits until everything settled so far is on stable storage. Without a
// running writer it writes itself.
func (q *Queue) flush(ctx context.Context) error {
	q.mu.Lock()
	if len(q.writer.changes) == 0 && q.writer.used != nil {
		q.mu.Unlock()
		return nil
	}
	if !q.writer.running {
		q.mu.Unlock()
		return q.writeLast()
	}
	done := make(chan error, 1)
	c := q.writer.begin(nil)
	c.done = done
	q.writer.commit(c)
	q.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
