package queue

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"postrider/queue/store"
)

// Event is one line of a message's history.
type Event struct {
	At        time.Time
	Kind      EventKind
	ID        ID
	Recipient string // empty for events of the message
	Outcome   *Outcome
	Attempt   int
	Delay     time.Duration // since arrival
	Timing    Timing
	Next      time.Time // for EventDeferred
	Text      string    // for the rest: an operator's words, the origin of an acceptance
	Envelope  *Envelope // for EventAccepted
}

// EventKind is a closed set.
type EventKind uint8

const (
	EventAccepted EventKind = iota + 1
	EventDelivered
	EventDeferred
	EventFailed
	EventExpired
	EventHeld
	EventReleased
	EventCancelled
	EventRetried  // by an operator
	EventReported // a report was sent: Text holds its ID
	EventDamaged  // set aside
)

// historyNumber tells records of one message and moment apart.
func (q *Queue) historyNumber() uint32 {
	q.numbers++
	return q.numbers
}

// putHistory writes what has happened into the batch under way. The record of
// a message's end carries the envelope, whose own record is deleted in the
// same step: as long as that one is there, it is the record of the acceptance.
func (q *Queue) putHistory(id ID, env *Envelope, ended bool, t Timing, at int64) {
	w := &q.writer
	w.record.b = w.record.b[:0]
	if !ended {
		env = nil
	}
	encodeHistory(&w.record, env, t, at, q.happened)
	record := w.record.end()
	key, value := w.batch.Reserve(historyKeySize, len(record))
	putHistoryKey(key, id, at, q.historyNumber())
	copy(value, record)
}

// encodeHistory begins a record and writes all but its end.
func encodeHistory(w *recordWriter, env *Envelope, t Timing, at int64, events []happening) {
	w.begin()
	if env != nil {
		w.byte(1)
		env.encode(w)
	} else {
		w.byte(0)
	}
	w.int(at)
	w.uint(uint64(max(t.Connect, 0) / time.Microsecond))
	w.uint(uint64(max(t.Transfer, 0) / time.Microsecond))
	w.uint(uint64(len(events)))
	for i := range events {
		h := &events[i]
		w.byte(byte(h.kind))
		w.uint(uint64(h.recipient + 1))
		w.uint(uint64(h.attempt))
		w.int(h.next)
		w.string(clip(h.text))
		if h.outcome == nil {
			w.byte(0)
			continue
		}
		w.byte(1)
		w.outcome(h.outcome)
	}
}

// story is a message's history while it is being put together.
type story struct {
	events     []Event
	recipients []int // of the events, -1: of the message
}

// decodeHistory adds the events of one record, and gives the envelope if it
// is in there.
func (st *story) decodeHistory(id ID, record []byte) (*Envelope, error) {
	r, err := openRecord(record)
	if err != nil {
		return nil, err
	}
	var env *Envelope
	if r.byte() == 1 {
		env = r.envelope(id)
	}
	at := timeOf(r.int())
	t := Timing{Connect: time.Duration(r.uint()) * time.Microsecond, Transfer: time.Duration(r.uint()) * time.Microsecond}
	for range r.count(6) {
		e := Event{At: at, ID: id, Timing: t, Kind: EventKind(r.byte())}
		recipient := int(r.uint()) - 1
		e.Attempt = int(r.uint())
		e.Next = timeOf(r.int())
		e.Text = r.string()
		if r.byte() == 1 {
			e.Outcome = r.outcome()
		}
		if e.Kind < EventAccepted || e.Kind > EventDamaged || recipient > maxRecipients {
			r.fail()
		}
		if r.bad {
			break
		}
		st.events = append(st.events, e)
		st.recipients = append(st.recipients, recipient)
	}
	return env, r.end()
}

// History tells what happened to a message, oldest first; ErrNotFound where
// nothing is known (any more).
func (q *Queue) History(id ID) ([]Event, error) {
	env, err := q.envelope(id)
	if err != nil {
		return nil, err
	}
	var st story
	lower, upper := keysOfMessage(keyHistory, id)
	err = q.store.Scan(lower, upper, func(key, value []byte) error {
		e, err := st.decodeHistory(id, value)
		if err != nil {
			q.log.Warn("a record of the history cannot be read", "id", id, "error", err)
		}
		if e != nil && env == nil {
			env = e
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("queue: history of %s: %w", id, err)
	}
	if env == nil && len(st.events) == 0 {
		return nil, ErrNotFound
	}
	return st.tell(env), nil
}

// tell completes the events with what the envelope knows.
func (st *story) tell(env *Envelope) []Event {
	if env == nil {
		return st.events
	}
	for i := range st.events {
		e := &st.events[i]
		e.Delay = e.At.Sub(env.ArrivedAt)
		if r := st.recipients[i]; r >= 0 && r < len(env.Recipients) {
			e.Recipient = env.Recipients[r].Address
		}
	}
	accepted := Event{At: env.ArrivedAt.Round(0), Kind: EventAccepted, ID: env.ID, Text: env.Origin.Via, Envelope: env}
	st.events = append(st.events, accepted)
	slices.SortStableFunc(st.events, func(a, b Event) int {
		if c := a.At.Compare(b.At); c != 0 {
			return c
		}
		return cmp.Compare(min(a.Kind, 2), min(b.Kind, 2)) // the acceptance first
	})
	return st.events
}

// envelope gives the envelope of a message in the queue; nil where it is not
// there any more.
func (q *Queue) envelope(id ID) (*Envelope, error) {
	q.mu.Lock()
	if q.index.first(id) == noEntry && q.notices.sets[id] == nil && q.messages[id] == nil {
		q.mu.Unlock()
		return q.storedEnvelope(id)
	}
	defer q.mu.Unlock()
	m, err := q.hot(id)
	if err != nil {
		return nil, err
	}
	env := m.env
	q.unpin(m)
	return env, nil
}

// storedEnvelope looks on the disk for the envelope of a message that has left
// the memory: the write that ends it, and puts the envelope into the history,
// may still be on its way. Nil: it is done, or there was no such message.
func (q *Queue) storedEnvelope(id ID) (*Envelope, error) {
	record, err := q.store.Get(idKey(keyEnvelope, id), nil)
	if errors.Is(err, store.ErrAbsent) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("queue: envelope of %s: %w", id, err)
	}
	env, err := decodeEnvelope(id, record)
	if err != nil {
		return nil, nil // set aside, as the rest of its history tells
	}
	return env, nil
}
