package store

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Scan calls f for the keys from lower up to but without upper, in order.
// Key and value are valid during the call only. It ends at the first error of
// f and returns it.
func (s *Store) Scan(lower, upper []byte, f func(key, value []byte) error) error {
	in, err := s.enter()
	if err != nil {
		return err
	}
	defer in.use.RUnlock()
	it, err := in.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return fmt.Errorf("scan %q: %w", lower, err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("scan %q: %w", it.Key(), err)
		}
		if err := f(it.Key(), value); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("scan %q: %w", lower, err)
	}
	return nil
}
