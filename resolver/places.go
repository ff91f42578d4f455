package resolver

import (
	"context"
	"sync/atomic"
	"time"
)

// places bound the queries at one time; each has a socket. A query that is not
// answered after a moment leaves its place to another one, so that name servers
// that do not answer cannot hold up what is asked of those that do. How many
// are waited for so is bounded too.
type places struct {
	answering chan struct{}
	hanging   chan struct{}
}

// hangingAfter is when a query is taken for one that hangs.
const hangingAfter = 50 * time.Millisecond

func newPlaces(answering, hanging int) places {
	return places{make(chan struct{}, answering), make(chan struct{}, hanging)}
}

// The states of a place.
const (
	placeHeld = iota
	placeMoved
	placeLeft
)

// enter waits for a place. Leave gives it back.
func (p *places) enter(ctx context.Context) (leave func(), err error) {
	select {
	case p.answering <- struct{}{}:
	case <-ctx.Done():
		return nil, errBusy
	}
	var state atomic.Int32
	timer := time.AfterFunc(hangingAfter, func() {
		select {
		case p.hanging <- struct{}{}:
		default:
			return // too many hang: this one keeps its place
		}
		if state.CompareAndSwap(placeHeld, placeMoved) {
			<-p.answering
		} else {
			<-p.hanging
		}
	})
	return func() {
		timer.Stop()
		if state.CompareAndSwap(placeHeld, placeLeft) {
			<-p.answering
		} else {
			<-p.hanging
		}
	}, nil
}
