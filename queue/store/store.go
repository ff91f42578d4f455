// Package store is the queue's door to its disk: a Pebble database whose
// failures are told to the caller instead of ending the process, and which can
// be closed and opened again while the process lives.
//
// Pebble reports a failed write or sync only by calling Logger.Fatalf or by
// panicking, and what it acknowledged before that is not to be trusted. So
// every instance of the database works through a gate over its file system:
// the first failed write shuts the gate, marks the instance as failed, and
// nothing that the dead instance still does can reach the disk. Reopen then
// opens a new instance on the same directory. All commits are made by one
// goroutine, see committer; reads are made by their callers.
//
// Damage in logs, tables and manifest is mended by copying what still reads,
// see mend.go and salvage.go; the damaged store is kept beside the new one.
//
// The package knows keys and values, not messages.
package store

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// The errors that callers decide by.
var (
	// ErrAbsent: there is no such key.
	ErrAbsent = errors.New("store: no such key")
	// ErrFailed: the store is failed, stalled or closed; nothing was written.
	ErrFailed = errors.New("store: out of order")
	// ErrUnknown: the write failed on its way, and may or may not be found
	// after the store was opened again.
	ErrUnknown = errors.New("store: write failed, its fate is unknown")
	// ErrHopeless: the process must be restarted to get a working store.
	ErrHopeless = errors.New("store: restart needed")
)

// How long a stalled or hanging disk is waited for before new writes are
// refused.
const stallPatience = 5 * time.Second

// How long a failed instance may take to let go before it is left behind its
// closed gate.
const closePatience = 5 * time.Second

// maxAbandoned bounds the failed instances left behind: each may keep its
// memtables.
const maxAbandoned = 3

// What Options' fields are where they are 0, sizes in octets.
const (
	DefaultMemTableSize = 32 << 20
	DefaultMemTables    = 4
	DefaultCacheSize    = 32 << 20
)

// Options configure a store. Dir and FS are required.
type Options struct {
	Dir          string
	FS           vfs.FS
	Logger       *slog.Logger
	MemTableSize uint64 // octets; 0: DefaultMemTableSize
	MemTables    int    // that may be full or filling at once before writes wait; 0: DefaultMemTables
	CacheSize    int64  // octets; 0: DefaultCacheSize
	// ReadOnly changes nothing on the disk. A store that is not there, or
	// damaged, is an error.
	ReadOnly bool
	// Vet decides which operations of a damaged record of a log are kept that
	// are not certain, see damagedlog.go. It is called by Open and Reopen, for a
	// record more than once at times, and keeps nothing of it. Nil: none is.
	Vet func(*DamagedRecord)
}

// Store is safe for concurrent use.
type Store struct {
	opts      Options
	cur       atomic.Pointer[instance]
	failed    chan struct{} // capacity 1: an instance has failed
	abandoned int
	mu        sync.Mutex // serialises Reopen and Close
	closed    atomic.Bool
	wantMend  atomic.Bool  // a table is damaged
	mends     atomic.Int32 // by copying, in this process
	mended    atomic.Bool  // see Mended
	told      sync.Map     // damaged files that the log has named
	spare     atomic.Bool  // see Spare
}

// Open opens the database, or makes it where there is none. One with a damaged
// log is mended; the damaged one is kept.
func Open(opts Options) (*Store, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.MemTableSize == 0 {
		opts.MemTableSize = DefaultMemTableSize
	}
	if opts.MemTables == 0 {
		opts.MemTables = DefaultMemTables
	}
	if opts.CacheSize == 0 {
		opts.CacheSize = DefaultCacheSize
	}
	s := &Store{opts: opts, failed: make(chan struct{}, 1)}
	in, err := s.open()
	if err != nil {
		return nil, err
	}
	s.cur.Store(in)
	return s, nil
}

// Err tells why writes are refused at present; nil when they are not.
func (s *Store) Err() error {
	if s.closed.Load() {
		return fmt.Errorf("%w: closed", ErrFailed)
	}
	return s.cur.Load().err()
}

// Broken reports whether the present instance has failed. Unlike Err it says
// nothing of a disk that is only slow.
func (s *Store) Broken() bool { return s.cur.Load().failure.Load() != nil }

// Failed receives a value after an instance has failed. The receiver calls
// Reopen until it succeeds.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Reopen replaces a failed instance. It does nothing where the present one is
// sound. An error of kind ErrHopeless means that only a new process helps.
func (s *Store) Reopen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.cur.Load()
	if s.closed.Load() || old.failure.Load() == nil {
		return nil
	}
	if !old.gone && !old.letGo(closePatience) {
		s.abandoned++
		s.opts.Logger.Warn("failed store left behind: it cannot be closed", "abandoned", s.abandoned)
	}
	old.gone = true
	if s.abandoned > maxAbandoned {
		return fmt.Errorf("%w: %d failed instances cannot be closed", ErrHopeless, s.abandoned)
	}
	in, err := s.open()
	if err != nil {
		return err
	}
	s.cur.Store(in)
	return nil
}

// Close flushes nothing: everything committed is in the log. The caller sees
// to it that nothing else uses the store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Swap(true) {
		return nil
	}
	in := s.cur.Load()
	if in.gone {
		return nil
	}
	if in.failure.Load() != nil {
		in.letGo(closePatience)
		return nil
	}
	in.committer.finish()
	in.use.Lock()
	defer in.use.Unlock()
	if !in.failure.CompareAndSwap(nil, &failure{errors.New("closed")}) {
		return nil // failed while finishing: the gate is shut
	}
	return in.db.Close()
}

// failure is why an instance is out of order.
type failure struct{ cause error }

// instance is one opened database. It is used under use held for reading, and
// closed under use held for writing.
type instance struct {
	log       *slog.Logger
	gate      *gate
	use       sync.RWMutex
	db        *pebble.DB
	gone      bool // closed, or left behind; under the store's mu
	committer *committer
	failure   atomic.Pointer[failure]
	broken    chan struct{} // closed with failure
	notify    chan<- struct{}
	stalledAt atomic.Int64 // unix nanoseconds; 0: not stalled
}

// fail marks the instance as failed, once, and shuts its gate against all
// later writes. It does not wait for those that are under way.
func (in *instance) fail(cause error) {
	if !in.failure.CompareAndSwap(nil, &failure{cause}) {
		return
	}
	in.gate.shut()
	close(in.broken)
	in.log.Error("the store has failed and will be opened again", "error", cause)
	select {
	case in.notify <- struct{}{}:
	default:
	}
}

func (in *instance) err() error {
	if f := in.failure.Load(); f != nil {
		return fmt.Errorf("%w: %w", ErrFailed, f.cause)
	}
	if at := in.stalledAt.Load(); at != 0 && time.Since(time.Unix(0, at)) > stallPatience {
		return fmt.Errorf("%w: writes are stalled: compaction cannot keep up", ErrFailed)
	}
	if at := in.gate.syncing.Load(); at != 0 && time.Since(time.Unix(0, at)) > stallPatience {
		return fmt.Errorf("%w: the disk does not answer", ErrFailed)
	}
	return nil
}

// enter gets the present instance for use; the caller calls use.RUnlock.
func (s *Store) enter() (*instance, error) {
	if s.closed.Load() {
		return nil, fmt.Errorf("%w: closed", ErrFailed)
	}
	in := s.cur.Load()
	in.use.RLock()
	if f := in.failure.Load(); f != nil {
		in.use.RUnlock()
		return nil, fmt.Errorf("%w: %w", ErrFailed, f.cause)
	}
	return in, nil
}

// letGo closes the database of a failed instance, and reports whether that
// was possible within the patience.
func (in *instance) letGo(patience time.Duration) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }() // a broken instance may panic while closing
		<-in.committer.ended
		in.use.Lock() // no reader enters a failed instance; wait for those inside
		defer in.use.Unlock()
		_ = in.db.Close() // its error is a consequence of the failure
	}()
	deadline := time.Now().Add(patience)
	for {
		select {
		case <-done:
			return true
		case <-time.After(5 * time.Millisecond):
		}
		if in.gate.stranded.Load() || time.Now().After(deadline) {
			return false
		}
	}
}

// Get appends the value of key to buf.
func (s *Store) Get(key, buf []byte) ([]byte, error) {
	in, err := s.enter()
	if err != nil {
		return buf, err
	}
	defer in.use.RUnlock()
	value, closer, err := in.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return buf, ErrAbsent
	}
	if err != nil {
		return buf, in.readError(key, err)
	}
	buf = append(buf, value...)
	return buf, closer.Close()
}

// readError tells what a failed read means: on an instance that has met damage
// the answer will be another one after the mending.
func (in *instance) readError(key []byte, err error) error {
	if f := in.failure.Load(); f != nil {
		return fmt.Errorf("%w: read %x: %w", ErrFailed, key, err)
	}
	return fmt.Errorf("read %x: %w", key, err)
}

// Has reports whether key is there.
func (s *Store) Has(key []byte) (bool, error) {
	in, err := s.enter()
	if err != nil {
		return false, err
	}
	defer in.use.RUnlock()
	_, closer, err := in.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, in.readError(key, err)
	}
	return true, closer.Close()
}

// Size estimates the octets on disk between two keys.
func (s *Store) Size(lower, upper []byte) (uint64, error) {
	in, err := s.enter()
	if err != nil {
		return 0, err
	}
	defer in.use.RUnlock()
	return in.db.EstimateDiskUsage(lower, upper)
}
