package tlsrpt

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// maxTallies bounds how many domains are counted at a time, over all intervals
// that have not been reported. Domains beyond are not counted until there is
// room again.
const maxTallies = 10_000

// maxMemory bounds the tallies all together, in octets: what they take is up to
// the hosts that mail is sent to.
const maxMemory = 32 << 20

// Store keeps tallies across restarts. Its methods may be called by several
// goroutines. What Put was given, Get gives back; the octets mean nothing to
// it. Keys are made of letters, digits, dots, hyphens and underscores.
type Store interface {
	Get(key string) ([]byte, error) // nil without an error: there is none
	Put(key string, tally []byte) error
	Delete(key string) error
	Keys() ([]string, error)
}

// Recorder counts sessions. It is safe for concurrent use.
type Recorder struct {
	interval time.Duration
	store    Store
	log      *slog.Logger

	mu      sync.Mutex
	tallies map[string]*tally // by key
	size    int               // of all of them
	dropped int64             // sessions that were not counted, for want of room
}

// NewRecorder gives a Recorder for reports over the given interval (24 hours,
// or less for a rehearsal; they begin at multiples of it, so days begin at
// midnight UTC, section 4.1), and reads back what the store has. A nil log is
// none.
func NewRecorder(interval time.Duration, store Store, log *slog.Logger) (*Recorder, error) {
	if interval < time.Second {
		return nil, fmt.Errorf("an interval of %s is too short for TLS reports", interval)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Recorder{interval: interval, store: store, log: log, tallies: make(map[string]*tally)}
	keys, err := store.Keys()
	if err != nil {
		return nil, fmt.Errorf("listing the tallies of TLS sessions: %w", err)
	}
	for _, key := range keys {
		if len(r.tallies) < maxTallies {
			r.load(key)
		}
	}
	return r, nil
}

func (r *Recorder) load(key string) {
	data, err := r.store.Get(key)
	if err == nil && data == nil {
		return
	}
	var t *tally
	if err == nil {
		t, err = decodeTally(key, data)
	}
	if err != nil {
		r.log.Warn("a tally of TLS sessions cannot be read and is dropped", "key", key, "error", err)
		if err := r.store.Delete(key); err != nil {
			r.log.Warn("a tally of TLS sessions cannot be removed", "key", key, "error", err)
		}
		return
	}
	r.tallies[key] = t
	r.size += t.size
}

// Record counts one session with a recipient domain (in A-labels), held to a
// policy. A nil failure is a success. A session held to two policies is
// recorded twice (section 4.4).
func (r *Recorder) Record(now time.Time, domain string, p Policy, f *Failure) {
	start := now.UTC().Truncate(r.interval)
	key := tallyKey(start, domain)
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tallies[key]
	if t == nil {
		if len(r.tallies) >= maxTallies || !isPlain(domain) {
			r.dropped++
			return
		}
		t = newTally(domain, start, r.interval)
		t.notBefore = t.dueAt()
	}
	before := t.size
	if !t.add(p, f, maxMemory-r.size-tallySize-len(domain)) {
		r.dropped++
		return
	}
	if r.tallies[key] == nil {
		r.tallies[key], before = t, 0
	}
	r.size += t.size - before
}

// Dropped counts the sessions that were not counted for want of room.
func (r *Recorder) Dropped() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped
}

// Due gives tallies that are to be reported now, the oldest first, at most a
// batch of them. They stay until Forget or Postpone.
func (r *Recorder) Due(now time.Time) []Tally {
	const batch = 100
	r.mu.Lock()
	defer r.mu.Unlock()
	var keys []string
	for key, t := range r.tallies {
		if !now.Before(t.notBefore) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	var due []Tally
	for _, key := range keys[:min(len(keys), batch)] {
		due = append(due, r.tallies[key].export())
	}
	return due
}

// Postpone makes a tally due again at a later time.
func (r *Recorder) Postpone(t Tally, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if own := r.tallies[tallyKey(t.Start, t.Domain)]; own != nil {
		own.notBefore = until
	}
}

// Forget drops a tally that has been reported, or is not wanted.
func (r *Recorder) Forget(t Tally) error {
	key := tallyKey(t.Start, t.Domain)
	r.mu.Lock()
	if own := r.tallies[key]; own != nil {
		r.size -= own.size
		delete(r.tallies, key)
	}
	r.mu.Unlock()
	if err := r.store.Delete(key); err != nil {
		return fmt.Errorf("removing the tally of TLS sessions with %s: %w", t.Domain, err)
	}
	return nil
}

// Save writes to the store what has changed since the last time. What cannot
// be written is tried again at the next. It is not to be called concurrently
// with itself or with Forget, which could leave what was just dropped.
func (r *Recorder) Save() error {
	r.mu.Lock()
	var changed []string
	for key, t := range r.tallies {
		if t.changed {
			changed = append(changed, key)
		}
	}
	r.mu.Unlock()
	var errs []error
	for _, key := range changed {
		if err := r.saveOne(key); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		const shown = 3
		return fmt.Errorf("saving %d of %d tallies of TLS sessions failed: %w", len(errs), len(changed), errors.Join(errs[:min(len(errs), shown)]...))
	}
	return nil
}

// saveOne holds the lock only while it reads the tally.
func (r *Recorder) saveOne(key string) error {
	r.mu.Lock()
	t := r.tallies[key]
	if t == nil {
		r.mu.Unlock()
		return nil
	}
	data, err := t.encode()
	t.changed = false
	r.mu.Unlock()
	if err == nil {
		err = r.store.Put(key, data)
	}
	if err != nil {
		r.mu.Lock()
		t.changed = true
		r.mu.Unlock()
	}
	return err
}
