package resolver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postrider/resolver/resolvertest"
)

func TestCallersJoin(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{})
	hold := make(chan struct{})
	zone.Add("d.test. IN TXT a")
	zone.Fail("d.test", resolvertest.Fault{Hold: hold})

	impatient, cancel := context.WithCancelCause(t.Context())
	gone := make(chan error)
	go func() {
		_, err := r.TXT(impatient, "d.test")
		gone <- err
	}()
	zone.Wait("d.test", dns.TypeTXT, 1)
	const callers = 50
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			if got, err := r.TXT(t.Context(), "d.test"); err != nil || got.Records[0] != "a" {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	waitFor(t, func() bool {
		r.flights.mu.Lock()
		defer r.flights.mu.Unlock()
		f := r.flights.running[question{"d.test", dns.TypeTXT}]
		return f != nil && f.waiters == callers+1
	})
	reason := errors.New("the caller has had enough")
	cancel(reason)
	if err := <-gone; !errors.Is(err, reason) {
		t.Errorf("%v, want the cause of the caller's end", err)
	} else if e := new(Error); errors.As(err, &e) {
		t.Errorf("%v is told as an answer of DNS", err)
	}
	close(hold)
	wg.Wait()
	if n := zone.Queries("d.test", dns.TypeTXT); n != 1 {
		t.Errorf("%d queries, want 1", n)
	}
}

func TestLookupEndsWithItsLastCaller(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{Timeout: time.Hour})
	zone.Fail("d.test", resolvertest.Fault{Drop: true, Times: 1})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := r.TXT(ctx, "d.test"); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	zone.Wait("d.test", dns.TypeTXT, 1)
	waitFor(t, func() bool { // else the last one begins a lookup of its own
		r.flights.mu.Lock()
		defer r.flights.mu.Unlock()
		for _, f := range r.flights.running {
			return f.waiters == 3
		}
		return false
	})
	cancel()
	wg.Wait()
	if len(r.inFlight.answering) != 0 || len(r.flights.running) != 0 {
		t.Errorf("%d queries and %d lookups still run", len(r.inFlight.answering), len(r.flights.running))
	}
	if s := r.servers.list[0]; s.failures != 0 {
		t.Error("the server is blamed for what its caller did")
	}
	// Nothing was learnt, so nothing is remembered.
	zone.Add("d.test. IN TXT a")
	if got, err := r.TXT(t.Context(), "d.test"); err != nil || got.Records[0] != "a" {
		t.Errorf("%v, %v", got, err)
	}
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for range 10_000 {
		if cond() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("it did not come to pass")
}

func TestDeadlineOfTheCaller(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{Timeout: time.Hour})
	zone.Fail("d.test", resolvertest.Fault{Drop: true})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Route(ctx, "d.test"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestQueriesInFlightAreBounded(t *testing.T) {
	t.Parallel()
	r, zone := newPair(t, Options{Timeout: time.Minute})
	r.inFlight = newPlaces(2, 3)
	hold := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 10 {
		name := fmt.Sprintf("d%d.test", i)
		zone.Add(name + ". IN TXT a")
		zone.Fail(name, resolvertest.Fault{Hold: hold})
		wg.Go(func() {
			if _, err := r.TXT(t.Context(), name); err != nil {
				t.Error(err)
			}
		})
	}
	// Three hang, and two keep their places because no more may hang.
	waitFor(t, func() bool { return zone.Total() == 5 && len(r.flights.snapshot()) == 10 })
	close(hold)
	wg.Wait()
	if zone.Total() != 10 {
		t.Errorf("%d queries", zone.Total())
	}
	waitFor(t, func() bool { return len(r.inFlight.answering) == 0 && len(r.inFlight.hanging) == 0 })
}

func (s *flights) snapshot() []question {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []question
	for q := range s.running {
		all = append(all, q)
	}
	return all
}
