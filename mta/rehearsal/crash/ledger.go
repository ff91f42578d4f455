package crash

import (
	"context"
	"fmt"
	"slices"
	"time"

	"postrider/mta/api/client"
)

// ledger knows which deliveries are on record: in the history that the server
// has brought over its kill. Such a message may never arrive again. One that
// has arrived before the kill and is not on record was in flight: its result
// was on its way back, or in the group that had not been synced. Of these the
// ledger knows two things more, without a clock. Results of one connection are
// settled in the order of its replies, so what is not on record must be the
// end of what the connection carried. And a result is in the next group but
// one that is synced, as an acceptance is: of the acceptances of one client,
// each of which began after the former was answered, only a few can have been
// answered since the reply.
type ledger struct {
	recorded map[string]bool // by Message-ID
}

// maxRounds is how many acceptances in a row may be answered while a result
// comes on record: two by the groups, and as many again for goroutines
// that wait for a processor on their way from the socket to the writer.
const maxRounds = 4

func newLedger() ledger { return ledger{make(map[string]bool)} }

// judge holds what has arrived until the kill at a time against what the
// server has on record. Without rounds there was no kill, and all must be.
func (r *run) judge(ctx context.Context, arrivals []arrival, rounds [][]time.Time, killed time.Time) error {
	r.repeated(arrivals)
	server := client.New(r.socket())
	defer server.Close()
	pending := make(map[int]string) // by connection: the first that was not on record
	for _, a := range arrivals {
		done, err := delivered(ctx, server, a.queued, killed)
		if err != nil {
			return err
		}
		switch first := pending[a.conn]; {
		case done && first != "":
			r.report.Unordered = append(r.report.Unordered, first)
			fallthrough
		case done:
			r.ledger.recorded[a.id] = true
		case rounds == nil:
			r.report.Unrecorded = append(r.report.Unrecorded, a.id)
		default:
			pending[a.conn] = a.id
			r.report.InFlight++
			n := answeredSince(rounds, a.at)
			r.report.Longest = max(r.report.Longest, n)
			if n > maxRounds {
				r.report.Late = append(r.report.Late, a.id)
			}
		}
	}
	return nil
}

// repeated notes what has arrived although it was on record before, or twice
// without a kill between.
func (r *run) repeated(arrivals []arrival) {
	now := make(map[string]bool, len(arrivals))
	for _, a := range arrivals {
		if r.ledger.recorded[a.id] || now[a.id] {
			r.report.Repeated = append(r.report.Repeated, a.id)
		}
		now[a.id] = true
	}
}

// delivered reports whether the server has on record that a message was
// delivered before a time.
func delivered(ctx context.Context, server *client.Client, id string, before time.Time) (bool, error) {
	history, err := server.History(ctx, id)
	if err != nil {
		return false, fmt.Errorf("history of %q: %w", id, err)
	}
	for i := range history.Events {
		if e := &history.Events[i]; e.Kind == "delivered" && e.At.Before(before) {
			return true, nil
		}
	}
	return false, nil
}

// answeredSince is the most acceptances of one client that began after a
// moment and were answered.
func answeredSince(rounds [][]time.Time, at time.Time) (most int) {
	for _, began := range rounds {
		first, _ := slices.BinarySearchFunc(began, at, time.Time.Compare)
		most = max(most, len(began)-first)
	}
	return most
}
