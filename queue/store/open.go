package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// open makes a new instance on the directory. A damaged store is mended first.
func (s *Store) open() (*instance, error) {
	in := &instance{
		log:       s.opts.Logger,
		broken:    make(chan struct{}),
		committer: newCommitter(s.opts.MemTableSize),
		notify:    s.failed,
	}
	if old := s.cur.Load(); old != nil {
		old.gate.drain()
	}
	in.gate = &gate{FS: s.opts.FS, fail: in.fail, spare: &s.spare}
	db, err := s.openMending(in)
	if err != nil {
		in.gate.shut()
		in.gate.drain()
		return nil, fmt.Errorf("open the store in %s: %w", s.opts.Dir, err)
	}
	in.db = db
	go in.commitLoop()
	return in, nil
}

// openMending opens the database, after mending what is known or turns out to
// be damaged.
func (s *Store) openMending(in *instance) (*pebble.DB, error) {
	if s.opts.ReadOnly {
		if err := s.logsSound(); err != nil {
			return nil, fmt.Errorf("%w; the next start mends it", err)
		}
		return s.openWithin(in, s.opts)
	}
	if s.cur.Load() != nil { // it has failed before
		if err := s.probe(); err != nil {
			return nil, err
		}
	}
	if err := s.recoverReplace(); err != nil {
		return nil, err
	}
	if s.wantMend.Load() {
		if err := s.mendTables(); err != nil {
			return nil, fmt.Errorf("mend it: %w", err)
		}
		s.wantMend.Store(false)
	}
	sound, err := s.manifestSound()
	if err != nil {
		return nil, err
	}
	if !sound {
		s.opts.Logger.Error("the store's manifest is damaged and is done without")
		if err := s.salvage(); err != nil {
			return nil, fmt.Errorf("put it together again: %w", err)
		}
	}
	err = s.logsSound()
	if errors.Is(err, errDamagedLog) {
		return s.openDamaged(in, err)
	}
	if err != nil {
		return nil, err
	}
	db, err := s.openWithin(in, s.opts)
	if err == nil || !pebble.IsCorruptionError(err) || in.failure.Load() != nil {
		return db, err
	}
	return s.openDamaged(in, err)
}

// openDamaged opens a database that Pebble does not open, or would open without
// a part of its log.
func (s *Store) openDamaged(in *instance, err error) (*pebble.DB, error) {
	s.opts.Logger.Error("the store cannot be opened and is being mended", "error", err.Error())
	if lerr := s.mendLogs(); lerr != nil {
		s.opts.Logger.Error("it is not the logs", "error", lerr.Error())
		if serr := s.salvage(); serr != nil {
			return nil, fmt.Errorf("%w; put it together again: %w; move the directory away to start with an empty store", err, serr)
		}
	}
	return s.openWithin(in, s.opts)
}

// probeSize is about what opening the store may write at once.
const probeSize = 1 << 20

// probe writes a file and syncs it. On a disk that fails, opening the database
// would not end: Pebble waits for a flush that it tries for ever.
func (s *Store) probe() error {
	fs, name := s.opts.FS, s.beside(".probe")
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("try the disk: %w", err)
	}
	_, err = f.Write(make([]byte, probeSize))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if rerr := fs.Remove(name); err == nil {
		err = rerr
	}
	if err != nil {
		return fmt.Errorf("try the disk: %w", err)
	}
	return nil
}

// openWithin opens the database on a goroutine of its own: when a fatal error
// stops one of Pebble's goroutines, the opening may never end.
func (s *Store) openWithin(in *instance, opts Options) (*pebble.DB, error) {
	type result struct {
		db  *pebble.DB
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil {
				r.err = fmt.Errorf("%v", p)
			}
			done <- r
		}()
		r.db, r.err = s.openPebble(opts, in)
	}()
	select {
	case r := <-done:
		return r.db, r.err
	case <-in.broken:
	}
	timer := time.NewTimer(closePatience)
	defer timer.Stop()
	select {
	case r := <-done:
		if r.err == nil {
			_ = r.db.Close() // it has failed already
		}
	case <-timer.C:
		s.abandoned++
	}
	return nil, in.err()
}

// openPebble sets what was measured to suit a queue: most records die young,
// inside a memtable, and never reach a table.
func (s *Store) openPebble(opts Options, in *instance) (*pebble.DB, error) {
	o := &pebble.Options{
		FS:                          in.gate,
		ReadOnly:                    opts.ReadOnly,
		ErrorIfNotExists:            opts.ReadOnly,
		FormatMajorVersion:          pebble.FormatValueSeparation,
		MemTableSize:                opts.MemTableSize,
		MemTableStopWritesThreshold: opts.MemTables,
		L0CompactionThreshold:       8,
		L0StopWritesThreshold:       64,
		LBaseMaxBytes:               256 << 20,
		CacheSize:                   opts.CacheSize,
		BytesPerSync:                1 << 20,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		Logger:                      logger{in},
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) {
				in.log.Warn("the store's background work failed", "error", err)
			},
			DataCorruption: func(info pebble.DataCorruptionInfo) { s.met(in, info) },
			WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
				in.log.Warn("the store's writes are stalled", "reason", info.Reason)
				in.stalledAt.Store(time.Now().UnixNano())
			},
			WriteStallEnd: func() { in.stalledAt.Store(0) },
		},
	}
	o.Experimental.CompactionScheduler = newCompactions()
	// A key that is asked for and absent (a pickup mark, a state that was never
	// written) should not cost a read of every level.
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return pebble.Open(opts.Dir, o)
}

// logger hands Pebble's chatter to the debug log and turns its fatal errors
// into a failure of the instance.
type logger struct{ in *instance }

func (l logger) Infof(format string, args ...any) {
	if l.in.log.Enabled(context.Background(), slog.LevelDebug) {
		l.in.log.Debug("pebble: " + fmt.Sprintf(format, args...))
	}
}

func (l logger) Errorf(format string, args ...any) {
	l.in.log.Warn("pebble: " + fmt.Sprintf(format, args...))
}

// Fatalf must not return: Pebble would go on and acknowledge what it has not
// written. So the goroutine that calls it is stopped for good, with whatever
// locks of Pebble's it holds. No goroutine but the committer and Pebble's own
// ever comes here; Reopen leaves such an instance behind its shut gate.
func (l logger) Fatalf(format string, args ...any) {
	l.in.fail(fmt.Errorf(format, args...))
	l.in.gate.strand()
}
