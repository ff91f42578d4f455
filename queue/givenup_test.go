package queue

import (
	"slices"
	"testing"
	"time"
)

// TestGivenUpIsTold: what fails in the queue is told of once, and what fails in
// an attempt is not, since who settles it knows.
func TestGivenUpIsTold(t *testing.T) {
	t.Parallel()
	var told []string
	q := newTestQueue(t, oneSchedule(shortSchedule), func(o *Options) {
		o.GivenUp = func(now time.Time, env *Envelope, r *Recipient, out *Outcome) {
			if env == nil || out.Verdict != Failed {
				t.Errorf("%s: envelope %v, outcome %+v", r.Address, env, out)
			}
			told = append(told, r.Address+" "+string(out.Class)+" "+now.Sub(epoch).String())
		}
	})
	q.send(epoch, "refused@there.test")
	settle(q.take(epoch, "there.test"), epoch, failed())
	q.send(epoch, "delivered@there.test")
	settle(q.take(epoch, "there.test"), epoch, delivered())
	cancelled, byHand := q.send(epoch, "cancelled@there.test"), q.send(epoch, "hand@there.test")
	if _, err := q.Cancel(t.Context(), epoch, Selector{IDs: []ID{cancelled}}, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Fail(t.Context(), epoch, Selector{IDs: []ID{byHand}}, ""); err != nil {
		t.Fatal(err)
	}
	q.send(epoch, "never@there.test")
	q.send(epoch, "last@elsewhere.test")
	c := q.take(epoch.Add(time.Hour), "elsewhere.test")
	settle(c, epoch.Add(time.Hour), deferred()) // there is no time for another attempt
	q.Sweep(epoch.Add(time.Hour))
	q.Sweep(epoch.Add(2 * time.Hour))
	q.settled()
	want := []string{"hand@there.test operator 0s", "last@elsewhere.test expired 1h0m0s", "never@there.test expired 1h0m0s"}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
