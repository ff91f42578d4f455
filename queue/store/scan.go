package store

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Iter walks over keys in order. It is used by one goroutine and must be
// closed: the store cannot be opened again before.
type Iter struct {
	in      *instance
	it      *pebble.Iterator
	lower   []byte
	started bool
}

// NewIter walks over the keys from lower up to but without upper.
func (s *Store) NewIter(lower, upper []byte) (*Iter, error) {
	in, err := s.enter()
	if err != nil {
		return nil, err
	}
	it, err := in.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		in.use.RUnlock()
		return nil, fmt.Errorf("scan %q: %w", lower, err)
	}
	return &Iter{in: in, it: it, lower: lower}, nil
}

// Next moves to the first or the next key, and reports whether there is one.
func (i *Iter) Next() bool {
	if !i.started {
		i.started = true
		return i.it.First()
	}
	return i.it.Next()
}

// Key is valid until the next call of Next or Close.
func (i *Iter) Key() []byte { return i.it.Key() }

// Value is valid until the next call of Next or Close.
func (i *Iter) Value() ([]byte, error) {
	value, err := i.it.ValueAndErr()
	if err != nil {
		return nil, i.in.readError(i.it.Key(), err)
	}
	return value, nil
}

// Close ends the walk and tells what has ended it early.
func (i *Iter) Close() error {
	err := i.it.Error()
	if cerr := i.it.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		err = i.in.readError(i.lower, err)
	}
	i.in.use.RUnlock()
	return err
}

// Scan calls f for the keys from lower up to but without upper, in order.
// Key and value are valid during the call only. It ends at the first error of
// f and returns it.
func (s *Store) Scan(lower, upper []byte, f func(key, value []byte) error) error {
	it, err := s.NewIter(lower, upper)
	if err != nil {
		return err
	}
	for it.Next() {
		value, err := it.Value()
		if err == nil {
			err = f(it.Key(), value)
		}
		if err != nil {
			_ = it.Close() // err is the one to tell
			return err
		}
	}
	return it.Close()
}
