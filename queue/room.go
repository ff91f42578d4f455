package queue

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// diskSpace is what a file system has left. Inodes are 0 where it does not
// count them.
type diskSpace struct {
	free, total             uint64
	freeInodes, totalInodes uint64
	err                     error
}

const (
	defaultMinFree = 512 << 20
	// On a small file system 5 % would not take the memtables when they are
	// written out, and the store would fail with space left.
	leastMinFree = 128 << 20
	// A large body takes one inode, and the store a few dozens.
	minFreeInodes = 1000
	// How often the file system is asked.
	roomEverySubmits = 256
	roomEvery        = time.Second
	// Where memory is limited: in a second a burst would have used all of it.
	memoryEvery = 20 * time.Millisecond
)

// roomGauge turns mail away before the disk or the memory is full: what was
// accepted still needs room for its results.
type roomGauge struct {
	ask     func() diskSpace
	memory  func() error // nil: there is always enough
	log     *slog.Logger
	minFree int64
	every   time.Duration
	asked   atomic.Int64 // when, unix nanoseconds
	submits atomic.Uint32
	judging sync.Mutex // a verdict must not come after one that saw more
	verdict atomic.Pointer[roomVerdict]
	short   chan struct{} // capacity 1: the disk is short of space
}

type roomVerdict struct {
	err  error
	disk bool // that is short, not the memory
}

func (g *roomGauge) init(q *Queue) {
	g.minFree, g.memory, g.log = q.opts.MinFree, q.opts.Pressure, q.log
	g.every = roomEvery
	if q.opts.MemoryLimit > 0 {
		g.every = memoryEvery
	}
	g.ask = q.opts.space
	if g.ask == nil {
		dir := q.opts.Dir
		g.ask = func() diskSpace { return askFileSystem(dir) }
	}
	g.short = make(chan struct{}, 1)
	g.verdict.Store(&roomVerdict{})
}

// check tells why there is no room, from what was seen a moment ago.
func (g *roomGauge) check() error {
	last := g.asked.Load()
	now := time.Now().UnixNano()
	if g.submits.Add(1)%roomEverySubmits == 0 || now-last > int64(g.every) || now < last {
		if g.asked.CompareAndSwap(last, now) {
			g.look()
		}
	}
	return g.err()
}

func (g *roomGauge) err() error { return g.verdict.Load().err }

// pronounce makes a verdict known. Whoever reads the log learns of the first
// of many that are alike.
func (g *roomGauge) pronounce(v roomVerdict) {
	before, err := g.verdict.Swap(&v), v.err
	if v.disk && !before.disk {
		select {
		case g.short <- struct{}{}:
		default:
		}
	}
	switch {
	case err != nil && before.err == nil:
		g.log.Warn("new mail is turned away for the time being", "error", err)
	case err == nil && before.err != nil:
		g.log.Info("there is room for new mail again")
	}
}

// look judges anew, and reports whether the disk is short of space.
func (g *roomGauge) look() bool {
	g.judging.Lock()
	defer g.judging.Unlock()
	v := g.judge()
	g.pronounce(v)
	return v.disk
}

func (g *roomGauge) judge() roomVerdict {
	err := g.judgeDisk(g.ask())
	if err == nil && g.memory != nil {
		if merr := g.memory(); merr != nil {
			return roomVerdict{err: fmt.Errorf("%w: %w", ErrFull, merr)}
		}
	}
	return roomVerdict{err: err, disk: err != nil}
}

func (g *roomGauge) judgeDisk(s diskSpace) error {
	if s.err != nil {
		return fmt.Errorf("%w: ask the file system for its free space: %w", ErrFull, s.err)
	}
	floor, inodes := s.floors(g.minFree)
	if s.free < floor {
		return fmt.Errorf("%w: %d MB are free on the queue's file system, %d MB are kept back",
			ErrFull, s.free/1_000_000, floor/1_000_000)
	}
	if s.totalInodes > 0 && s.freeInodes < inodes {
		return fmt.Errorf("%w: %d inodes are free on the queue's file system", ErrFull, s.freeInodes)
	}
	return nil
}

// floors are what is kept back: space in octets, and inodes.
func (s *diskSpace) floors(minFree int64) (space, inodes uint64) {
	space = uint64(minFree)
	if minFree == 0 {
		space = min(defaultMinFree, max(s.total/20, min(leastMinFree, s.total/4)))
	}
	return space, min(minFreeInodes, s.totalInodes/20)
}

// Space is what the file system of a queue has left, and what of it Submit
// keeps back: below, it answers ErrFull.
type Space struct {
	Free, Floor             uint64 // octets
	FreeInodes, FloorInodes uint64 // both 0 where the file system does not count them
}

// SpaceOf asks the file system of a directory; minFree is Options.MinFree.
func SpaceOf(dir string, minFree int64) (Space, error) {
	s := askFileSystem(dir)
	if s.err != nil {
		return Space{}, s.err
	}
	out := Space{Free: s.free}
	out.Floor, out.FloorInodes = s.floors(minFree)
	if s.totalInodes > 0 {
		out.FreeInodes = s.freeInodes
	}
	return out, nil
}

func askFileSystem(dir string) diskSpace {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return diskSpace{err: err}
	}
	return diskSpace{
		free:        s.Bavail * uint64(s.Bsize),
		total:       s.Blocks * uint64(s.Bsize),
		freeInodes:  s.Ffree,
		totalInodes: s.Files,
	}
}
