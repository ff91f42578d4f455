package api

import (
	"testing"
	"time"

	"postrider/queue"
)

// What the history says has to add up to the state that the queue had.
func TestFromHistory(t *testing.T) {
	t.Parallel()
	at := func(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }
	env := &queue.Envelope{Recipients: []queue.Recipient{{Address: "a@shop.test"}, {Address: "b@shop.test"}, {Address: "c@shop.test"}, {Address: "d@shop.test"}}}
	events := []queue.Event{
		{At: at(0), Kind: queue.EventAccepted, Envelope: env},
		{At: at(1), Kind: queue.EventDeferred, Recipient: "a@shop.test", Attempt: 1, Outcome: &greylistedOutcome, Next: at(6)},
		{At: at(1), Kind: queue.EventFailed, Recipient: "b@shop.test", Attempt: 1, Outcome: &refusedOutcome},
		{At: at(2), Kind: queue.EventHeld, Recipient: "c@shop.test"},
		{At: at(3), Kind: queue.EventReleased, Recipient: "c@shop.test"},
		{At: at(4), Kind: queue.EventCancelled, Recipient: "d@shop.test"},
		{At: at(6), Kind: queue.EventDelivered, Recipient: "a@shop.test", Attempt: 2, Outcome: &deliveredOutcome},
		{At: at(7), Kind: queue.EventReported, Text: "another"},
	}
	m, ok := fromHistory(events)
	if !ok {
		t.Fatal("no message")
	}
	want := []queue.RecipientState{
		{Status: queue.StatusDelivered, Attempts: 2, Last: &deliveredOutcome, LastAt: at(6)},
		{Status: queue.StatusFailed, Attempts: 1, Last: &refusedOutcome, LastAt: at(1)},
		{Status: queue.StatusWaiting},
		{Status: queue.StatusCancelled},
	}
	for i := range want {
		if m.States[i] != want[i] {
			t.Errorf("%s is %+v, want %+v", env.Recipients[i].Address, m.States[i], want[i])
		}
	}
	if _, ok := fromHistory(events[1:]); ok {
		t.Error("a message without its acceptance")
	}
}
