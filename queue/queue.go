package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postrider/queue/store"
)

// Options configure a queue. Dir is required.
type Options struct {
	Dir        string // holds the store, the body files and the lock
	Logger     *slog.Logger
	BodyMemory int64 // octets of bodies kept in memory until their claims settle; 0: 32 MB
	// Schedule gives the schedule of a recipient domain. It is called with
	// the queue's lock held and must not block. Nil: DefaultSchedule for all.
	Schedule    func(domain string) *Schedule
	History     time.Duration // how long the history of ended messages is kept; 0: 7 days
	HistorySize int64         // octets, about; 0: 1 GB
	// MinFree is the floor of free space, in octets, under which Submit
	// answers ErrFull; 0: 5 % of the file system, but between 128 and 512 MiB,
	// and a quarter at most.
	MinFree int64
	// MemoryLimit is what the process may use, in octets: buffers and caches
	// take shares of it where it is small; 0: no limit.
	MemoryLimit int64
	// Pressure tells why there is no memory for more mail; nil: there is. It is
	// asked about once a second while mail comes in. Optional.
	Pressure func() error
	// GivenUp is told of a recipient that failed here and not in an attempt: its
	// time is over, or somebody said so by hand. It is called with the queue's
	// lock held, must not block, and keeps nothing. Optional.
	GivenUp func(now time.Time, env *Envelope, r *Recipient, o *Outcome)

	fs           vfs.FS           // nil: the operating system's
	space        func() diskSpace // nil: asks the file system
	memTableSize uint64           // 0: the store's default
	memTables    int              // 0: the store's default
	cacheSize    int64            // 0: the store's default
}

// The store's buffers under a limit of memory: two memtables are full at a
// time, seldom more. In smaller ones than this a group of commits is too large
// for its place among others.
const (
	smallestMemTable = 8 << 20
	smallestCache    = 4 << 20
)

func (o *Options) setDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.BodyMemory == 0 {
		o.BodyMemory = 32_000_000
	}
	if limit := o.MemoryLimit; limit > 0 {
		o.BodyMemory = min(o.BodyMemory, limit/8)
		if o.memTableSize == 0 {
			o.memTableSize = uint64(min(max(limit/16, smallestMemTable), store.DefaultMemTableSize))
		}
		// With one that is being written out and one that fills, writes only
		// wait for a disk that is slower than they are.
		o.memTables = int(min(max(limit/4/int64(o.memTableSize), 2), store.DefaultMemTables))
		if o.cacheSize == 0 {
			o.cacheSize = min(max(limit/32, smallestCache), store.DefaultCacheSize)
		}
	}
	if o.Schedule == nil {
		s := DefaultSchedule()
		o.Schedule = func(string) *Schedule { return s }
	}
	if o.History == 0 {
		o.History = 7 * 24 * time.Hour
	}
	if o.HistorySize == 0 {
		o.HistorySize = 1_000_000_000
	}
	if o.fs == nil {
		o.fs = vfs.Default
	}
}

// Queue is safe for concurrent use.
type Queue struct {
	opts      Options
	log       *slog.Logger
	fs        vfs.FS
	lock      *dirLock
	store     *store.Store
	ids       idSource
	buffers   bufferPool
	batches   sync.Pool // *submitBatch
	tempNames atomic.Uint64
	room      roomGauge
	changed   chan struct{}
	chance    func() float64 // from 0 to 1, for jitter
	steering  sync.Mutex     // one Suspend or Resume at a time
	trims     chan time.Time // capacity 1: when the history is to be cut
	vetter    *vetter        // of what stands in damaged records of the log

	// mu guards all below. It covers memory only, never the disk.
	mu               sync.Mutex
	closed           bool
	down             bool // the store has failed: no mail is taken, no claim handed out
	messages         map[ID]*message
	loads            map[ID]chan struct{}
	submitting       map[ID]struct{}
	kept             message // head of the ring of fresh messages, oldest first
	keptCost         int64
	slab             slab
	index            idIndex
	lanes            lanes
	waiting          timeHeap // lanes by their earliest waiting entry
	fresh            []int32  // lanes with due work that Due has not named yet
	senders          names
	tags             names
	total            counts
	seq              uint32 // of what enters a heap
	numbers          uint32 // of history records
	sweepAt          int64  // when some entry wants to be looked at; 0: none
	clock            clock
	notices          notices
	writer           writer
	suspensions      []suspension
	suspensionNumber uint64
	suspendedUntil   int64 // when the first of them is over; 0: never
	trimmedAt        time.Time
	doubts           []doubt
	happened         []happening // scratch of one settle
	oldest           struct {    // see oldestEntry
		ref int32
		id  ID
	}

	reopenAfter  time.Duration // the first wait for a failed store
	reclaimAfter time.Duration // the first wait for room on a short disk

	entryMoved func(ref, pos int32)
	laneMoved  func(ref, pos int32)
}

// Open takes the lock on Dir, opens the store (repairing what a crash left)
// and rebuilds the schedule in memory. It starts nothing that acts on its own:
// Run does.
func Open(opts Options) (*Queue, error) {
	opts.setDefaults()
	q := &Queue{
		opts:         opts,
		log:          opts.Logger,
		fs:           opts.fs,
		changed:      make(chan struct{}, 1),
		trims:        make(chan time.Time, 1),
		vetter:       newVetter(),
		chance:       rand.Float64,
		reopenAfter:  reopenAfter,
		reclaimAfter: reclaimAfter,
	}
	q.numbers = uint32(randomUint64()) // two records of one moment are not to meet after a restart
	q.entryMoved = func(ref, pos int32) { q.slab.at(ref).pos = pos }
	q.laneMoved = func(ref, pos int32) { q.lanes.all[ref].pos = pos }
	q.clock.elapsed = elapsed
	q.writer.init(q)
	q.forget()
	if err := q.open(); err != nil {
		if q.store != nil {
			_ = q.store.Close() // the first error is the one to tell
		}
		if q.lock != nil {
			_ = q.lock.release()
		}
		return nil, err
	}
	return q, nil
}

// forget empties all that is rebuilt from the store.
func (q *Queue) forget() {
	q.messages = make(map[ID]*message)
	q.loads = make(map[ID]chan struct{})
	q.submitting = make(map[ID]struct{})
	q.kept.prev, q.kept.link = &q.kept, &q.kept
	q.slab = newSlab()
	q.index = idIndex{slab: &q.slab}
	q.lanes = newLanes()
	q.senders, q.tags = newNames(), newNames()
	q.waiting, q.fresh = nil, nil
	q.total, q.sweepAt = counts{}, 0
	q.suspensions = nil
	q.notices = notices{}
	q.notices.init()
}

func (q *Queue) open() error {
	if q.opts.Dir == "" {
		return errors.New("queue: no directory given")
	}
	if err := q.makeDirs(); err != nil {
		return err
	}
	var err error
	if q.lock, err = lockDir(q.fs, q.opts.Dir); err != nil {
		return err
	}
	q.room.init(q)
	q.store, err = store.Open(store.Options{
		Dir:          q.storeDir(),
		FS:           q.fs,
		Logger:       q.log,
		MemTableSize: q.opts.memTableSize,
		MemTables:    q.opts.memTables,
		CacheSize:    q.opts.cacheSize,
		Vet:          q.vetter.vet,
	})
	if err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	if err := q.openFormat(); err != nil {
		return err
	}
	return q.rebuildMending()
}

// rebuildMending makes the schedule. Damage that is met on the way is mended
// by the store, and the walk begins anew.
func (q *Queue) rebuildMending() error {
	for {
		err := q.readSuspensions()
		if err == nil {
			err = q.rebuild()
		}
		if err == nil {
			err = q.sweepFiles()
		}
		if err == nil || !q.store.Broken() {
			return err
		}
		if rerr := q.store.Reopen(); rerr != nil {
			return fmt.Errorf("%w; open the store again: %w", err, rerr)
		}
		q.forget()
	}
}

func (q *Queue) makeDirs() error {
	dirs := []string{q.opts.Dir, q.storeDir(), q.tempDir()}
	for i := range 256 {
		dir, _ := q.bodyFile(ID{15: byte(i)})
		dirs = append(dirs, dir)
	}
	for _, dir := range dirs {
		if err := q.fs.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("queue: make directory %s: %w", dir, err)
		}
	}
	// The names of the directories must survive a crash before anything in
	// them counts as stored.
	for _, dir := range []string{q.fs.PathDir(q.opts.Dir), q.opts.Dir, q.fs.PathJoin(q.opts.Dir, "b")} {
		err := syncDir(q.fs, dir)
		if errors.Is(err, fs.ErrPermission) && dir != q.opts.Dir {
			continue // a parent that is not ours: its owner made it last
		}
		if err != nil {
			return fmt.Errorf("queue: sync directory %s: %w", dir, err)
		}
	}
	return nil
}

func (q *Queue) storeDir() string { return q.fs.PathJoin(q.opts.Dir, "store") }

// storeFormat is the version of keys and records as a whole.
const storeFormat = 1

// openFormat reads the store's version and this node's number, or draws and
// writes them in a new store.
func (q *Queue) openFormat() error {
	version, err := q.store.Get(versionKey, nil)
	if errors.Is(err, store.ErrAbsent) {
		var b store.Batch
		b.Set(versionKey, []byte{storeFormat})
		b.Set(nodeKey, binary.BigEndian.AppendUint16(nil, uint16(randomUint64())))
		if err := q.store.Commit(context.Background(), &b); err != nil {
			return fmt.Errorf("queue: begin a new store: %w", err)
		}
	} else if err != nil {
		return fmt.Errorf("queue: read the store's version: %w", err)
	} else if len(version) != 1 || version[0] != storeFormat {
		return fmt.Errorf("queue: the store in %s has format %d, this program reads %d: use a newer one",
			q.opts.Dir, version, storeFormat)
	}
	node, err := q.store.Get(nodeKey, nil)
	if err != nil || len(node) != 2 {
		return fmt.Errorf("queue: read the node number (%x): %w", node, err)
	}
	q.ids.start(binary.BigEndian.Uint16(node))
	return nil
}

// NewID makes an ID: unique across nodes, ordered by time.
func (q *Queue) NewID(now time.Time) ID { return q.ids.next(now) }

// Run owns the settle writer, the janitor, who removes the files of ended
// messages and cuts the history, and what makes room on a disk that is short
// of it, until ctx ends. It returns when all have ended and everything settled
// before is on disk.
func (q *Queue) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() { q.clean(stop) })
	wg.Go(func() { q.reclaim(ctx) })
	err := q.write(ctx)
	close(stop)
	wg.Wait()
	return err
}

// Close releases the store and the lock, after Run has returned.
func (q *Queue) Close() error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	q.closed = true
	q.mu.Unlock()
	err := q.store.Close()
	if lerr := q.lock.release(); err == nil {
		err = lerr
	}
	if err != nil {
		return fmt.Errorf("queue: close: %w", err)
	}
	return nil
}

// Err tells why the store refuses mail at present; nil when it does not.
func (q *Queue) Err() error {
	q.mu.Lock()
	closed, down := q.closed, q.down
	q.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if err := q.store.Err(); err != nil {
		return err
	}
	if down {
		return errors.New("queue: the store is being opened again")
	}
	return q.room.check()
}

// Room tells why the queue takes no mail at present, for want of space on the
// disk or of memory: an error of kind ErrFull. It is cheap, and for those who
// would rather know before they take in a message than after.
func (q *Queue) Room() error { return q.room.check() }

// Changed receives a value when Due may have something new to say. It is a
// channel of capacity one: many changes make one value.
func (q *Queue) Changed() <-chan struct{} { return q.changed }

func (q *Queue) signal() {
	select {
	case q.changed <- struct{}{}:
	default:
	}
}
