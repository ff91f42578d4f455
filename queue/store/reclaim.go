package store

import (
	"bytes"
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// Usage is what the database takes of the disk, in octets.
type Usage struct {
	Tables uint64 // of the disk
	Raw    uint64 // what is in them, dead or alive, before it was packed
	Logs   uint64 // the log in use, and those kept to be written over
}

// Usage looks at every table's properties: it is not for hot paths.
func (s *Store) Usage() (u Usage, err error) {
	in, err := s.enter()
	if err != nil {
		return u, err
	}
	defer in.use.RUnlock()
	levels, err := in.db.SSTables(pebble.WithProperties())
	if err != nil {
		return u, fmt.Errorf("measure the store's tables: %w", err)
	}
	for _, tables := range levels {
		for i := range tables {
			u.Tables += tables[i].Size
			u.Raw += tables[i].Properties.RawKeySize + tables[i].Properties.RawValueSize
		}
	}
	wal := in.db.Metrics().WAL
	u.Logs = wal.PhysicalSize + wal.ObsoletePhysicalSize
	return u, nil
}

// Spare makes the database take no more room than it must: log files are not
// laid out in advance, and none is kept to be written over, which is quicker
// where there is room for it.
func (s *Store) Spare(on bool) { s.spare.Store(on) }

// FlushNeeds is the room that Flush may take meanwhile, in octets.
func (s *Store) FlushNeeds() uint64 { return s.opts.MemTableSize + probeSize }

// Flush writes out what is in memory and gives up the logs that held it. With
// Spare the logs kept to be written over are given up too: each new log takes
// the place of one of them.
func (s *Store) Flush(ctx context.Context) error {
	return s.aside(ctx, "flush", func(db *pebble.DB) error {
		for range db.Metrics().WAL.ObsoleteFiles + 1 {
			if err := db.Flush(); err != nil {
				return err
			}
		}
		return nil
	})
}

// Compact writes all tables anew, without what is dead. That takes as much
// room as what is alive, before the old ones are given up. When ctx ends it
// returns, while the step under way goes on.
func (s *Store) Compact(ctx context.Context) error {
	return s.aside(ctx, "compact", func(db *pebble.DB) error {
		return db.Compact(ctx, []byte{0}, bytes.Repeat([]byte{0xff}, maxKey), false)
	})
}

// maxKey: no key begins with more octets 0xff than this.
const maxKey = 32

// aside lets the database work on a goroutine of its own, that is left behind
// when the instance fails under it: it may never return.
func (s *Store) aside(ctx context.Context, what string, work func(*pebble.DB) error) error {
	in, err := s.enter()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer in.use.RUnlock()
		defer func() {
			if r := recover(); r != nil { // as in apply
				in.gate.stranded.Store(true)
				err := fmt.Errorf("%v", r)
				in.fail(err)
				done <- err
			}
		}()
		done <- work(in.db)
	}()
	select {
	case err = <-done:
	case <-in.broken:
		err = in.err()
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s the store: %w", what, err)
	}
	return nil
}
