package mtasts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	// renewAfter is how old a policy gets before it is fetched again, changed
	// or not (section 3.3: "e.g., once per day"); for one that lives less than
	// twice as long it is half of its life.
	renewAfter = 24 * time.Hour
	// A record is looked at again after its TTL within these bounds.
	minRecordTTL = time.Minute
	maxRecordTTL = time.Hour
	// A fetch that failed is tried again after 5 minutes (section 3.3),
	// doubling to an hour.
	minRetry = 5 * time.Minute
	maxRetry = time.Hour
	// A policy that nobody has asked for in so long is left to end.
	unusedAfter = 30 * 24 * time.Hour
	// shortestLife keeps a max_age of seconds from a fetch for every message.
	shortestLife = 5 * time.Minute
	// maxEntries bounds what is held in memory; the store has the rest.
	maxEntries = 10_000
	// renewEvery is how often Run looks for policies to renew.
	renewEvery = time.Hour
)

// State is what a policy rests on.
type State uint8

const (
	Absent  State = iota // there is no policy to apply
	Current              // the record of now announces this very policy
	Cached               // the record is gone, or something failed, and the policy remembered still holds
)

func (s State) String() string {
	switch s {
	case Current:
		return "current"
	case Cached:
		return "cached"
	}
	return "absent"
}

// TXT looks up the TXT records of a name. No records without an error means
// that there are none for certain; until when that or they may be believed is
// told by ttl.
type TXT interface {
	LookupTXT(ctx context.Context, name string) (records []string, ttl time.Duration, err error)
}

// Store keeps policies across restarts. Its methods may be called by several
// goroutines. What Put was given, Get gives back; the octets mean nothing to it.
type Store interface {
	Get(domain string) ([]byte, error) // nil without an error: there is none
	Put(domain string, policy []byte) error
	Delete(domain string) error
	Keys() ([]string, error) // all domains that have one
}

// Options of Policies. DNS, Fetcher and Store are needed.
type Options struct {
	DNS     TXT
	Fetcher *Fetcher
	Store   Store
	// Failed is told of each look at a record and each fetch that gave no
	// policy, for reports; nil: nobody. It must not call back.
	Failed func(*Error)
	Log    *slog.Logger // for failures of the store and renewals; nil: none
}

// Policies finds policies and remembers them. It is safe for concurrent use.
type Policies struct {
	dns      TXT
	fetch    func(ctx context.Context, domain string) (Policy, error)
	store    Store
	onFailed func(*Error)
	log      *slog.Logger

	mu      sync.Mutex
	entries map[string]*entry
}

// New gives Policies. It reads nothing yet and starts nothing.
func New(o Options) *Policies {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Policies{dns: o.DNS, fetch: o.Fetcher.Fetch, store: o.Store, onFailed: o.Failed, log: log, entries: make(map[string]*entry)}
	if p.onFailed == nil {
		p.onFailed = func(*Error) {}
	}
	return p
}

// entry is what is known of one domain.
type entry struct {
	busy chan struct{} // holds one token while someone finds out more

	mu      sync.Mutex
	loaded  bool
	known   record    // the policy remembered; zero without one
	checkAt time.Time // when the record is to be looked at again
	state   State
	err     error // of the last look

	triedID  string // that a fetch failed for
	retryAt  time.Time
	failures int
}

// Lookup gives the policy that applies to mail for a domain in A-labels. With
// state Absent there is none (a policy of mode none counts as such). The error,
// an *Error, says what went wrong on the way, for a report; the policy applies
// regardless (section 5.1). Only where ctx has ended the error is its cause,
// and nothing is known.
func (s *Policies) Lookup(ctx context.Context, domain string) (Policy, State, error) {
	if !isPattern(domain) {
		return Policy{}, Absent, nil // an address literal, which cannot have one
	}
	e := s.entry(domain)
	now := time.Now()
	if p, state, err, ok := e.answer(now); ok {
		return p, state, err
	}
	select {
	case e.busy <- struct{}{}:
	default:
		if p, state, err, _ := e.answer(now); state != Absent {
			return p, state, err // its renewal is under way, and nobody has to wait for that
		}
		select {
		case e.busy <- struct{}{}:
		case <-ctx.Done():
			return Policy{}, Absent, fmt.Errorf("MTA-STS of %s: %w", domain, context.Cause(ctx))
		}
	}
	defer func() { <-e.busy }()
	if p, state, err, ok := e.answer(now); ok {
		return p, state, err // someone else has found out meanwhile
	}
	s.load(e, domain)
	s.find(ctx, e, domain)
	if ctx.Err() != nil {
		return Policy{}, Absent, fmt.Errorf("MTA-STS of %s: %w", domain, context.Cause(ctx))
	}
	p, state, err, _ := e.answer(now)
	return p, state, err
}

func (s *Policies) entry(domain string) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[domain]
	if e == nil {
		for d, old := range s.entries {
			if len(s.entries) < maxEntries {
				break
			}
			if len(old.busy) == 0 {
				delete(s.entries, d) // whichever comes first: the store remembers
			}
		}
		e = &entry{busy: make(chan struct{}, 1)}
		s.entries[domain] = e
	}
	return e
}

// answer is what is known, and whether that still may be told.
func (e *entry) answer(now time.Time) (Policy, State, error, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fresh := now.Before(e.checkAt)
	if !e.known.valid(now) {
		return Policy{}, Absent, e.err, fresh
	}
	e.known.UsedAt = now
	if e.known.Policy.Mode == None {
		return Policy{}, Absent, e.err, fresh
	}
	return e.known.Policy, e.state, e.err, fresh
}

// load takes over what the store remembers, once.
func (s *Policies) load(e *entry, domain string) {
	e.mu.Lock()
	loaded := e.loaded
	e.mu.Unlock()
	if loaded {
		return
	}
	known, err := s.read(domain)
	if err != nil {
		s.log.Warn("the MTA-STS policy remembered for a domain cannot be read; it is looked for anew", "domain", domain, "error", err)
	}
	e.mu.Lock()
	e.known, e.loaded = known, true
	e.mu.Unlock()
}

// find looks at the record and, where it calls for that, fetches the policy.
// The caller holds e.busy.
func (s *Policies) find(ctx context.Context, e *entry, domain string) {
	txts, ttl, err := s.dns.LookupTXT(ctx, "_mta-sts."+domain)
	now := time.Now()
	if ctx.Err() != nil {
		return
	}
	next := now.Add(min(max(ttl, minRecordTTL), maxRecordTTL))
	if err != nil {
		e.conclude(Cached, now.Add(minRecordTTL), s.failure(DNSFailed, domain, err))
		return
	}
	id, err := ParseRecord(txts)
	switch {
	case err != nil:
		e.conclude(Cached, next, s.failure(RecordInvalid, domain, err))
		return
	case id == "":
		e.conclude(Cached, next, nil)
		return
	case !e.fetchDue(id, now):
		state, err := e.standing(id, now)
		e.conclude(state, next, err)
		return
	}
	p, err := s.fetch(ctx, domain)
	now = time.Now()
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		var failed *Error
		if errors.As(err, &failed) {
			s.onFailed(failed)
		}
		e.failed(id, now, err)
		return
	}
	p.ID = id
	s.save(domain, e.replace(p, now, next))
}

// failure makes an error and tells of it.
func (s *Policies) failure(kind Kind, domain string, err error) *Error {
	e := &Error{kind, domain, err}
	s.onFailed(e)
	return e
}

// conclude notes the result of a look. The error, if any, is told until the next.
func (e *entry) conclude(state State, checkAt time.Time, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.state, e.checkAt, e.err = state, e.noLaterThanEnd(checkAt), err
}

// noLaterThanEnd bounds the time of the next look by the end of the policy.
func (e *entry) noLaterThanEnd(t time.Time) time.Time {
	if end := e.known.endsAt(); !end.IsZero() && end.Before(t) {
		return end
	}
	return t
}

// fetchDue reports whether the policy announced by id is to be fetched now.
func (e *entry) fetchDue(id string, now time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if id == e.triedID && now.Before(e.retryAt) {
		return false
	}
	return !e.known.valid(now) || e.known.Policy.ID != id || e.known.renewDue(now)
}

// standing is the state where no fetch is due.
func (e *entry) standing(id string, now time.Time) (State, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.known.valid(now) && e.known.Policy.ID == id {
		return Current, nil
	}
	return Cached, e.err // the fetch has failed, and is tried again later
}

// failed keeps what is known when a fetch was in vain.
func (e *entry) failed(id string, now time.Time, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if id != e.triedID {
		e.failures = 0
	}
	pause := min(minRetry<<min(e.failures, 10), maxRetry)
	e.failures++
	e.triedID, e.retryAt = id, now.Add(pause)
	e.state, e.err = Cached, err
	if e.known.valid(now) && e.known.Policy.ID == id {
		e.state = Current // only its renewal failed
	}
	e.checkAt = e.noLaterThanEnd(e.retryAt)
}

// replace takes a new policy over and gives what is to be stored.
func (e *entry) replace(p Policy, now, next time.Time) record {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known = record{Policy: p, FetchedAt: now, UsedAt: e.known.UsedAt}
	if e.known.UsedAt.IsZero() {
		e.known.UsedAt = now
	}
	e.triedID, e.retryAt, e.failures = "", time.Time{}, 0
	e.state, e.err = Current, nil
	e.checkAt = e.noLaterThanEnd(next)
	return e.known
}

// Run renews the policies in the store before they end, until ctx does. It
// always returns nil.
func (s *Policies) Run(ctx context.Context) error {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		s.renew(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// renew goes through the store once.
func (s *Policies) renew(ctx context.Context) {
	domains, err := s.store.Keys()
	if err != nil {
		s.log.Warn("the MTA-STS policies cannot be listed; they are renewed only when mail asks for them", "error", err)
		return
	}
	for _, domain := range domains {
		if ctx.Err() != nil {
			return
		}
		known, err := s.read(domain)
		now := time.Now()
		switch {
		case err != nil, !known.valid(now):
			s.delete(domain)
		case known.renewDue(now) && now.Sub(s.usedAt(domain, known)) < unusedAfter:
			s.renewOne(ctx, domain)
		}
	}
}

// usedAt is when mail last asked for the policy of a domain.
func (s *Policies) usedAt(domain string, known record) time.Time {
	s.mu.Lock()
	e := s.entries[domain]
	s.mu.Unlock()
	if e == nil {
		return known.UsedAt
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.known.UsedAt.After(known.UsedAt) {
		return e.known.UsedAt
	}
	return known.UsedAt
}

func (s *Policies) renewOne(ctx context.Context, domain string) {
	e := s.entry(domain)
	select {
	case e.busy <- struct{}{}:
		defer func() { <-e.busy }()
	case <-ctx.Done():
		return
	}
	s.load(e, domain)
	s.find(ctx, e, domain)
	e.mu.Lock()
	defer e.mu.Unlock()
	var problem *Error
	if errors.As(e.err, &problem) {
		s.log.Info("an MTA-STS policy could not be renewed; the one remembered holds", "domain", domain, "until", e.known.endsAt(), "error", problem)
	}
}
