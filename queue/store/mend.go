package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Damage is mended by copying: what can still be read goes into a fresh
// store, the old one stays beside it under the name of the day. Two kinds are
// told apart. A damaged log keeps Pebble from opening the store at all: its
// sound records are copied into a new log, with what is left of the damaged
// ones, see damagedlog.go. A damaged table is found when it is
// read: then all that still reads is copied, key by key.

// errDamaged is why an instance fails that has met a damaged table.
var errDamaged = errors.New("store: a table is damaged")

// How often a process mends by copying at most: a disk that damages what was
// just written is beyond help.
const (
	maxMends    = 3
	copyBatch   = 1 << 20
	maxTestBits = 8 * 17 // of a kind and an ID, see beyond
)

// met takes note of damage that Pebble has found. The instance fails, and
// Reopen mends.
func (s *Store) met(in *instance, info pebble.DataCorruptionInfo) {
	// Every read of the damaged block says so again, those of the mending too;
	// and as an error the details would come with the stack of whoever read.
	if _, told := s.told.LoadOrStore(info.Path, nil); !told {
		s.opts.Logger.Error("the store found damage", "file", info.Path, "details", info.Details.Error())
	}
	if s.opts.ReadOnly || s.mends.Load() >= maxMends {
		return
	}
	s.wantMend.Store(true)
	in.fail(fmt.Errorf("%w: %s", errDamaged, info.Path))
}

// beside names a directory beside the store's.
func (s *Store) beside(suffix string) string { return s.opts.Dir + suffix }

// replace puts a mended store in the place of the damaged one, which is kept.
func (s *Store) replace(fresh string) error {
	kept := s.beside(".damaged-" + time.Now().UTC().Format("20060102T150405.000"))
	fs := s.opts.FS
	if err := fs.Rename(s.opts.Dir, kept); err != nil {
		return err
	}
	if err := fs.Rename(fresh, s.opts.Dir); err != nil {
		return errors.Join(err, fs.Rename(kept, s.opts.Dir))
	}
	parent, err := fs.OpenDir(fs.PathDir(s.opts.Dir))
	if err != nil {
		return err
	}
	defer parent.Close()
	s.mended.Store(true)
	s.opts.Logger.Warn("the store was mended; the damaged one is kept", "dir", kept)
	return parent.Sync()
}

// Mended reports, once, that the store was mended: records may be missing.
func (s *Store) Mended() bool { return s.mended.Swap(false) }

// recoverReplace undoes the first half of a replace that a crash cut in two.
func (s *Store) recoverReplace() error {
	fs := s.opts.FS
	if names, err := fs.List(s.opts.Dir); err == nil && len(names) > 0 {
		return nil
	}
	names, err := fs.List(fs.PathDir(s.opts.Dir))
	if err != nil {
		return nil // nothing is there yet
	}
	prefix := fs.PathBase(s.opts.Dir) + ".damaged-"
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, prefix) })
	if len(names) == 0 {
		return nil
	}
	kept := fs.PathJoin(fs.PathDir(s.opts.Dir), slices.Max(names))
	s.opts.Logger.Warn("a mending of the store was cut short and begins anew", "dir", kept)
	_ = fs.RemoveAll(s.opts.Dir) // at most an empty directory
	return fs.Rename(kept, s.opts.Dir)
}

// mendLogs makes a store whose logs hold the sound records of the damaged one.
func (s *Store) mendLogs() error {
	fs, fresh := s.opts.FS, s.beside(".new")
	if err := s.freshDir(fresh); err != nil {
		return err
	}
	names, err := fs.List(s.opts.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		from, to := fs.PathJoin(s.opts.Dir, name), fs.PathJoin(fresh, name)
		if number, ok := strings.CutSuffix(name, ".log"); ok {
			if err := s.copyLog(from, to, number); err != nil {
				return fmt.Errorf("copy %s: %w", from, err)
			}
		} else if err := fs.Link(from, to); err != nil {
			return err
		}
	}
	if err := syncDir(fs, fresh); err != nil {
		return err
	}
	// Was it the logs? If not, the damaged store stays where it is.
	opts := s.opts
	opts.Dir, opts.ReadOnly = fresh, true
	db, err := s.openPlain(opts)
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		return errors.Join(err, fs.RemoveAll(fresh))
	}
	return s.replace(fresh)
}

func (s *Store) freshDir(dir string) error {
	if err := s.opts.FS.RemoveAll(dir); err != nil {
		return err
	}
	return s.opts.FS.MkdirAll(dir, 0o700)
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// copyLog writes what is to be kept of one log into another.
func (s *Store) copyLog(from, to, number string) error {
	logNum, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return err
	}
	data, err := readFile(s.opts.FS, from)
	if err != nil {
		return err
	}
	f, err := s.opts.FS.Create(to, "pebble-wal")
	if err != nil {
		return err
	}
	w := newLog(record.NewLogWriter, f, logNum)
	m := &logMender{vet: s.opts.Vet, emit: func(batch []byte) error {
		_, err := w.WriteRecord(batch)
		return err
	}}
	if err := m.mendLog(data, logNum); err != nil {
		_ = w.Close() // err is the one to tell
		return err
	}
	if m.lost > 0 {
		s.opts.Logger.Error("records of a log are lost", "file", from, "octets", m.lost)
	}
	s.opts.Logger.Info("copied a log", "file", from, "records", m.copied, "rescued_from_damaged_ones", m.rescued)
	return w.Close()
}

// Pebble's type for the number of a file is internal to it, so the compiler
// has to find it.
func newLog[N ~uint64](open func(io.Writer, N, record.LogWriterConfig) *record.LogWriter, w io.Writer, n uint64) *record.LogWriter {
	return open(w, N(n), record.LogWriterConfig{WriteWALSyncOffsets: func() bool { return false }})
}

func openLog[N ~uint64](open func(io.Reader, N) *record.Reader, r io.Reader, n uint64) *record.Reader {
	return open(r, N(n))
}

func readFile(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// mendTables copies all that still reads into a fresh store.
func (s *Store) mendTables() error {
	s.mends.Add(1)
	fresh := s.beside(".new")
	if err := s.freshDir(fresh); err != nil {
		return err
	}
	oldOpts, newOpts := s.opts, s.opts
	oldOpts.ReadOnly = true
	newOpts.Dir, newOpts.ReadOnly = fresh, false
	from, err := s.openPlain(oldOpts)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := s.openPlain(newOpts)
	if err != nil {
		return err
	}
	c := &copier{from: from, to: to, log: s.opts.Logger.Error}
	err = c.run()
	if err == nil {
		err = to.Flush()
	}
	if cerr := to.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	s.opts.Logger.Warn("copied a damaged store", "records", c.copied, "gaps", c.gaps)
	return s.replace(fresh)
}

// openPlain opens a database that is used by the mender only.
func (s *Store) openPlain(opts Options) (*pebble.DB, error) {
	in := &instance{log: opts.Logger, broken: make(chan struct{}), notify: make(chan struct{}, 1)}
	in.gate = &gate{FS: opts.FS, fail: in.fail, spare: &s.spare}
	return s.openWithin(in, opts)
}

// copier copies a damaged database.
type copier struct {
	from, to *pebble.DB
	batch    *pebble.Batch
	copied   int
	gaps     int
	log      func(msg string, args ...any)
}

func (c *copier) run() error {
	c.batch = c.to.NewBatch()
	var at []byte // all before it is done
	for {
		last, err := c.forward(at)
		if err != nil {
			return err
		}
		if last == nil {
			return c.commit()
		}
		if at, err = c.leap(last); err != nil {
			return err
		}
		if at == nil {
			return c.commit()
		}
	}
}

// forward copies from a key on until the end (nil) or until nothing reads; it
// gives where that was.
func (c *copier) forward(at []byte) (stuck []byte, err error) {
	it, err := c.from.NewIter(&pebble.IterOptions{LowerBound: at})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	last := append([]byte{}, at...)
	for ok := it.First(); ok; ok = it.Next() {
		value, verr := it.ValueAndErr()
		if verr != nil {
			return append(last[:0], it.Key()...), nil
		}
		last = append(append(last[:0], it.Key()...), 0) // the next key possible
		if err := c.put(it.Key(), value); err != nil {
			return nil, err
		}
	}
	if it.Error() != nil {
		return last, nil
	}
	return nil, nil
}

// leap finds the first key behind a place where nothing reads: it looks at
// places ever further away until one reads, and goes back from there.
func (c *copier) leap(stuck []byte) (next []byte, err error) {
	for bit := range maxTestBits {
		probe := beyond(stuck, bit)
		if probe == nil {
			break
		}
		found, ok := c.seek(probe)
		if !ok {
			continue
		}
		c.gaps++
		c.log("records of the store are lost", "between", hex.EncodeToString(stuck), "and", hex.EncodeToString(found))
		if found == nil {
			return nil, c.backward(nil, stuck)
		}
		return found, c.backward(found, stuck)
	}
	c.gaps++
	c.log("records of the store are lost", "behind", hex.EncodeToString(stuck))
	return nil, c.backward(nil, stuck)
}

// seek gives the first key from probe on (nil: none), and whether that reads.
func (c *copier) seek(probe []byte) (key []byte, ok bool) {
	it, err := c.from.NewIter(&pebble.IterOptions{LowerBound: probe})
	if err != nil {
		return nil, false
	}
	defer it.Close()
	if it.First() {
		if _, err := it.ValueAndErr(); err != nil {
			return nil, false
		}
		return append([]byte{}, it.Key()...), true
	}
	return nil, it.Error() == nil
}

// backward copies from before a key (nil: from the end) back to the place
// where nothing reads.
func (c *copier) backward(from, stuck []byte) error {
	it, err := c.from.NewIter(&pebble.IterOptions{LowerBound: stuck, UpperBound: from})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.Last(); ok; ok = it.Prev() {
		value, err := it.ValueAndErr()
		if err != nil {
			return nil // as far as it reads
		}
		if err := c.put(it.Key(), value); err != nil {
			return err
		}
	}
	return nil
}

// beyond gives a key that lies 2^bit further, counted in the first 17 octets:
// the kind and the ID. Nil: there is none.
func beyond(key []byte, bit int) []byte {
	far := make([]byte, 17)
	copy(far, key)
	i := 16 - bit/8
	carry := uint(1) << (bit % 8)
	for ; i >= 0 && carry > 0; i-- {
		sum := uint(far[i]) + carry
		far[i] = byte(sum)
		carry = sum >> 8
	}
	if carry > 0 {
		return nil
	}
	return far
}

func (c *copier) put(key, value []byte) error {
	c.copied++
	if err := c.batch.Set(key, value, nil); err != nil {
		return err
	}
	if c.batch.Len() < copyBatch {
		return nil
	}
	return c.commit()
}

func (c *copier) commit() error {
	if err := c.to.Apply(c.batch, pebble.NoSync); err != nil {
		return err
	}
	c.batch.Reset()
	return nil
}
