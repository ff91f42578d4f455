package api

import (
	"time"

	"postrider/mta/api/wire"
	"postrider/queue"
)

// instant brings a time into the form of the interface.
func instant(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

func envelopeOf(env *queue.Envelope) wire.Message {
	m := wire.Message{
		ID:             env.ID.String(),
		Sender:         env.Sender,
		MessageID:      env.MessageID,
		Size:           env.Size,
		ArrivedAt:      instant(env.ArrivedAt),
		NotBefore:      instant(env.NotBefore),
		DeliverBy:      instant(env.DeliverBy),
		Priority:       word(priorityWords, env.Priority),
		Tag:            env.Tag,
		EnvID:          env.EnvID,
		Ret:            word(retWords, env.Ret),
		Body:           word(bodyWords, env.Body),
		SMTPUTF8:       env.SMTPUTF8,
		RequireTLS:     env.RequireTLS,
		TLSIgnored:     env.TLSIgnored,
		RecipientCount: len(env.Recipients),
		Origin:         wire.Origin{Via: env.Origin.Via, HELO: env.Origin.HELO, User: env.Origin.User, TLS: env.Origin.TLS},
	}
	if env.Origin.Client.IsValid() {
		m.Origin.Client = env.Origin.Client.String()
	}
	return m
}

func recipientOf(r queue.Recipient, state queue.RecipientState) wire.Recipient {
	return wire.Recipient{
		Address:  r.Address,
		Domain:   r.Domain,
		Status:   word(statusWords, state.Status),
		Attempts: state.Attempts,
		DueAt:    instant(state.DueAt),
		Last:     outcomeOf(state.Last),
		LastAt:   instant(state.LastAt),
		Notify:   notifyTexts(r.Notify),
		ORcpt:    r.ORcpt,
	}
}

// messageOf shows a message of the queue with those of its recipients.
func messageOf(m *queue.Message, recipients []int) wire.Message {
	out := envelopeOf(m.Envelope)
	out.Ended = true
	for i := range m.States {
		if open(m.States[i].Status) {
			out.Ended = false
			break
		}
	}
	out.Recipients = make([]wire.Recipient, len(recipients))
	for to, i := range recipients {
		out.Recipients[to] = recipientOf(m.Envelope.Recipients[i], m.States[i])
	}
	return out
}

// all are the indices of every recipient.
func all(m *queue.Message) []int {
	indices := make([]int, len(m.States))
	for i := range indices {
		indices[i] = i
	}
	return indices
}

func open(s queue.Status) bool {
	return s == queue.StatusWaiting || s == queue.StatusActive || s == queue.StatusHeld
}

func outcomeOf(o *queue.Outcome) *wire.Outcome {
	if o == nil {
		return nil
	}
	out := &wire.Outcome{
		Verdict:           word(verdictWords, o.Verdict),
		Scope:             word(scopeWords, o.Scope),
		Stage:             word(stageWords, o.Stage),
		Code:              o.Code,
		Status:            o.Status,
		Text:              o.Text,
		Class:             string(o.Class),
		InDoubt:           o.InDoubt,
		RetryAfterSeconds: o.RetryAfter.Seconds(),
	}
	if r := o.Remote; r != nil {
		out.MX, out.TLS, out.Demand, out.HELO = r.Host, r.TLS, r.Demand, r.HELO
		if r.IP.IsValid() {
			out.IP = r.IP.String()
		}
	}
	return out
}

func eventOf(e *queue.Event) wire.Event {
	return wire.Event{
		At:              instant(e.At),
		Kind:            word(eventWords, e.Kind),
		Recipient:       e.Recipient,
		Attempt:         e.Attempt,
		Outcome:         outcomeOf(e.Outcome),
		DelaySeconds:    e.Delay.Seconds(),
		ConnectSeconds:  e.Timing.Connect.Seconds(),
		TransferSeconds: e.Timing.Transfer.Seconds(),
		Next:            instant(e.Next),
		Text:            e.Text,
	}
}

// fromHistory puts a message together from its events; false where they do
// not reach back to its acceptance.
func fromHistory(events []queue.Event) (*queue.Message, bool) {
	var m *queue.Message
	at := make(map[string]int)
	for i := range events {
		e := &events[i]
		if e.Kind == queue.EventAccepted && e.Envelope != nil {
			m = &queue.Message{Envelope: e.Envelope, States: make([]queue.RecipientState, len(e.Envelope.Recipients))}
			for j, r := range e.Envelope.Recipients {
				at[r.Address] = j
			}
		}
		if m == nil {
			continue
		}
		if e.Recipient != "" {
			if j, ok := at[e.Recipient]; ok {
				replay(&m.States[j], e)
			}
			continue
		}
		for j := range m.States {
			replay(&m.States[j], e)
		}
	}
	return m, m != nil
}

// replay brings a recipient's state to where an event left it.
func replay(s *queue.RecipientState, e *queue.Event) {
	switch e.Kind {
	case queue.EventDelivered:
		s.Status = queue.StatusDelivered
	case queue.EventFailed, queue.EventExpired:
		s.Status = queue.StatusFailed
	case queue.EventCancelled:
		s.Status = queue.StatusCancelled
	case queue.EventHeld:
		s.Status = queue.StatusHeld
	case queue.EventReleased:
		s.Status = queue.StatusWaiting
	case queue.EventDeferred:
		s.DueAt = e.Next
	default:
		return
	}
	if e.Outcome != nil {
		s.Last, s.LastAt, s.Attempts = e.Outcome, e.At, max(s.Attempts, e.Attempt)
	}
	if !open(s.Status) {
		s.DueAt = time.Time{}
	}
}
