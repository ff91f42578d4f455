package mtasts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// world is the outside as Policies see it.
type world struct {
	mu      sync.Mutex
	txts    []string
	dnsErr  error
	policy  Policy
	httpErr error
	hold    chan struct{} // a fetch waits for it
	lookups int
	fetches int
	store   map[string][]byte
	broken  error // of the store
}

func newWorld() *world {
	return &world{
		txts:   []string{"v=STSv1; id=1;"},
		policy: Policy{Mode: Enforce, MX: []string{"mx.test"}, MaxAge: 7 * 24 * time.Hour},
		store:  make(map[string][]byte),
	}
}

func (w *world) LookupTXT(_ context.Context, name string) ([]string, time.Duration, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lookups++
	if !strings.HasPrefix(name, "_mta-sts.") {
		return nil, 0, fmt.Errorf("%s was looked up", name)
	}
	return w.txts, 10 * time.Minute, w.dnsErr
}

func (w *world) fetch(ctx context.Context, domain string) (Policy, error) {
	w.mu.Lock()
	w.fetches++
	hold := w.hold
	w.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return Policy{}, &Error{FetchFailed, domain, ctx.Err()}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.httpErr != nil {
		return Policy{}, &Error{FetchFailed, domain, w.httpErr}
	}
	return w.policy, nil
}

func (w *world) Get(domain string) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.store[domain], w.broken
}

func (w *world) Put(domain string, data []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken == nil {
		w.store[domain] = data
	}
	return w.broken
}

func (w *world) Delete(domain string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.store, domain)
	return w.broken
}

func (w *world) Keys() ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.store)), w.broken
}

// policies gives fresh Policies, as after a start.
func (w *world) policies() *Policies {
	p := New(Options{DNS: w, Fetcher: &Fetcher{}, Store: w})
	p.fetch = w.fetch
	return p
}

// want looks a policy up and says what is not as expected: the mode and state
// as in "enforce current", the kind of the error, and how many lookups and
// fetches there have been.
func (w *world) want(t *testing.T, p *Policies, what string, kind Kind, lookups, fetches int) {
	t.Helper()
	policy, state, err := p.Lookup(t.Context(), "d.test")
	got := state.String()
	if state != Absent {
		got = string(policy.Mode) + " " + got
	}
	var e *Error
	if errors.As(err, &e); got != what || (e == nil) != (kind == 0) || e != nil && e.Kind != kind {
		t.Errorf("%s, %v, want %s, kind %d", got, err, what, kind)
	}
	if w.lookups != lookups || w.fetches != fetches {
		t.Errorf("%d lookups and %d fetches, want %d and %d", w.lookups, w.fetches, lookups, fetches)
	}
}

func TestLookupRemembers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := w.policies()
		w.want(t, p, "enforce current", 0, 1, 1)
		w.want(t, p, "enforce current", 0, 1, 1)
		time.Sleep(10 * time.Minute) // the record's TTL
		w.want(t, p, "enforce current", 0, 2, 1)
		time.Sleep(24 * time.Hour)
		w.want(t, p, "enforce current", 0, 3, 2) // renewed though it has not changed
	})
}

func TestRestartKeepsThePolicy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.want(t, w.policies(), "enforce current", 0, 1, 1)
		w.dnsErr, w.httpErr = errors.New("down"), errors.New("down")
		w.want(t, w.policies(), "enforce cached", DNSFailed, 2, 1)
		w.dnsErr = nil
		w.want(t, w.policies(), "enforce current", 0, 3, 1)
		time.Sleep(7*24*time.Hour - time.Second)
		w.dnsErr = errors.New("down")
		p := w.policies()
		w.want(t, p, "enforce cached", DNSFailed, 4, 1)
		time.Sleep(time.Second)
		w.want(t, p, "absent", DNSFailed, 5, 1)
	})
}

func TestNewIDIsFetched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := w.policies()
		w.want(t, p, "enforce current", 0, 1, 1)
		w.txts = []string{"v=STSv1; id=2;"}
		w.policy.Mode = Testing
		w.want(t, p, "enforce current", 0, 1, 1) // the TTL is not over
		time.Sleep(10 * time.Minute)
		w.want(t, p, "testing current", 0, 2, 2)
		w.txts = []string{"v=STSv1; id=3;"}
		w.policy = Policy{Mode: None, MaxAge: time.Hour}
		time.Sleep(10 * time.Minute)
		w.want(t, p, "absent", 0, 3, 3)
		w.want(t, p, "absent", 0, 3, 3)
	})
}

func TestFailedFetchKeepsThePolicy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := w.policies()
		w.want(t, p, "enforce current", 0, 1, 1)
		w.txts = []string{"v=STSv1; id=2;"}
		w.httpErr = errors.New("down")
		time.Sleep(10 * time.Minute)
		w.want(t, p, "enforce cached", FetchFailed, 2, 2)
		w.want(t, p, "enforce cached", FetchFailed, 2, 2)
		time.Sleep(5 * time.Minute) // tried again, then after 10, 20, 40 minutes and an hour
		w.want(t, p, "enforce cached", FetchFailed, 3, 3)
		time.Sleep(5 * time.Minute)
		w.want(t, p, "enforce cached", FetchFailed, 3, 3)
		time.Sleep(5 * time.Minute)
		w.want(t, p, "enforce cached", FetchFailed, 4, 4)
		w.httpErr = nil
		time.Sleep(20 * time.Minute)
		w.want(t, p, "enforce current", 0, 5, 5)
	})
}

// The end of the policy remembered is no reason to try the next one early.
func TestPolicyEndsWhileFetchesFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.policy.MaxAge = 12 * time.Minute
		p := w.policies()
		w.want(t, p, "enforce current", 0, 1, 1)
		w.txts = []string{"v=STSv1; id=2;"}
		w.httpErr = errors.New("down")
		time.Sleep(10 * time.Minute)
		w.want(t, p, "enforce cached", FetchFailed, 2, 2)
		time.Sleep(2 * time.Minute)
		w.want(t, p, "absent", FetchFailed, 3, 2)
	})
}

func TestFailedFetchOfAFirstPolicy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.httpErr = errors.New("down")
		p := w.policies()
		w.want(t, p, "absent", FetchFailed, 1, 1)
		w.want(t, p, "absent", FetchFailed, 1, 1) // not for every message
		time.Sleep(5 * time.Minute)
		w.httpErr = nil
		w.want(t, p, "enforce current", 0, 2, 2)
	})
}

func TestRecordGone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		txts []string
		kind Kind
	}{
		{"none", nil, 0},
		{"only others", []string{"hello"}, 0},
		{"malformed", []string{"v=STSv1; id=?"}, RecordInvalid},
		{"two", []string{"v=STSv1; id=1", "v=STSv1; id=2"}, RecordInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				p := w.policies()
				w.want(t, p, "enforce current", 0, 1, 1)
				w.txts = tt.txts
				time.Sleep(10 * time.Minute)
				w.want(t, p, "enforce cached", tt.kind, 2, 1)
				w.want(t, p, "enforce cached", tt.kind, 2, 1)
				time.Sleep(7 * 24 * time.Hour)
				w.want(t, p, "absent", tt.kind, 3, 1)
			})
		})
	}
}

func TestAbsenceIsRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.txts = nil
		p := w.policies()
		for range 3 {
			w.want(t, p, "absent", 0, 1, 0)
		}
		time.Sleep(10 * time.Minute)
		w.txts = []string{"v=STSv1; id=1;"}
		w.want(t, p, "enforce current", 0, 2, 1)
	})
}

func TestShortLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.policy.MaxAge = 0
		p := w.policies()
		for range 3 {
			w.want(t, p, "enforce current", 0, 1, 1)
		}
		time.Sleep(5 * time.Minute)
		w.want(t, p, "enforce current", 0, 2, 2)
	})
}

func TestBrokenStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.broken = errors.New("disk is full")
		p := w.policies()
		w.want(t, p, "enforce current", 0, 1, 1)
		w.want(t, p, "enforce current", 0, 1, 1)
	})
}

func TestDamagedRecordIsLookedForAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.store["d.test"] = []byte("{")
		w.want(t, w.policies(), "enforce current", 0, 1, 1)
		w.want(t, w.policies(), "enforce current", 0, 2, 1)
	})
}

func TestCallersShareAFetch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.hold = make(chan struct{})
		p := w.policies()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if policy, state, err := p.Lookup(t.Context(), "d.test"); err != nil || state != Current || policy.Mode != Enforce {
					t.Errorf("%v, %v, %v", policy, state, err)
				}
			})
		}
		synctest.Wait()
		close(w.hold)
		wg.Wait()
		if w.fetches != 1 {
			t.Errorf("%d fetches", w.fetches)
		}
	})
}

func TestNobodyWaitsForARenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := w.policies()
		w.want(t, p, "enforce current", 0, 1, 1)
		time.Sleep(24 * time.Hour)
		w.hold = make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.Lookup(t.Context(), "d.test")
		}()
		synctest.Wait()
		w.want(t, p, "enforce current", 0, 2, 2)
		close(w.hold)
		<-done
	})
}

// A caller that leaves in the middle neither spoils what is remembered nor
// leaves the next one waiting.
func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.hold = make(chan struct{})
		p := w.policies()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 2 { // one fetches, one waits for it
			wg.Go(func() {
				_, state, err := p.Lookup(ctx, "d.test")
				if e := new(Error); state != Absent || !errors.Is(err, context.Canceled) || errors.As(err, &e) {
					t.Errorf("%v, %v", state, err)
				}
			})
		}
		synctest.Wait()
		cancel()
		wg.Wait()
		close(w.hold)
		w.lookups, w.fetches = 0, 0
		w.want(t, p, "enforce current", 0, 1, 1)
	})
}

func TestRunRenews(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		p := w.policies()
		w.want(t, p, "enforce current", 0, 1, 1)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		p = w.policies() // after a restart nobody has asked yet
		go func() { done <- p.Run(ctx) }()
		time.Sleep(20 * 24 * time.Hour) // far more than max_age
		synctest.Wait()
		w.mu.Lock()
		w.dnsErr = errors.New("down")
		fetches := w.fetches
		w.mu.Unlock()
		if fetches < 20 || fetches > 22 {
			t.Errorf("%d fetches in 20 days", fetches)
		}
		if policy, state, _ := p.Lookup(t.Context(), "d.test"); state == Absent {
			t.Errorf("%v, %v: the policy was not renewed", policy, state)
		}
		w.mu.Lock()
		w.dnsErr = nil
		w.mu.Unlock()
		time.Sleep(60 * 24 * time.Hour) // nobody asks any more
		synctest.Wait()
		if kept, _ := w.Keys(); len(kept) != 0 {
			t.Error("a policy that nobody asks for is kept for ever")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.txts = nil
	p := w.policies()
	for i := range maxEntries + 100 {
		if _, _, err := p.Lookup(t.Context(), fmt.Sprintf("d%d.test", i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(p.entries); n > maxEntries {
		t.Errorf("%d entries", n)
	}
}

func TestAddressLiteralHasNoPolicy(t *testing.T) {
	t.Parallel()
	w := newWorld()
	if _, state, err := w.policies().Lookup(t.Context(), "[192.0.2.1]"); state != Absent || err != nil || w.lookups != 0 {
		t.Errorf("%v, %v, %d lookups", state, err, w.lookups)
	}
}

func TestResultType(t *testing.T) {
	t.Parallel()
	for kind, want := range map[Kind]string{
		DNSFailed: "", RecordInvalid: "sts-policy-invalid", FetchFailed: "sts-policy-fetch-error",
		CertificateInvalid: "sts-webpki-invalid", PolicyInvalid: "sts-policy-invalid",
	} {
		if got := kind.ResultType(); got != want {
			t.Errorf("%d: %s, want %s", kind, got, want)
		}
	}
}
