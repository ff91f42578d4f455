package pickup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postrider/queue"
)

// directory is one spool directory. Its run loop finds and claims files; the
// workers give them back through finish.
type directory struct {
	w    *Watcher
	path string
	log  *slog.Logger

	lock  *os.File
	taken *os.File // .taken, to be synced

	mu     sync.Mutex
	later  []*file       // taken, but there was no room for them
	done   []queue.ID    // unlinked, their marks still set
	doneAt time.Time     // when the first of them was
	pause  time.Duration // how long to wait when there is no room again
	until  time.Time     // no new files before
	wake   chan struct{} // of capacity one: a file has come back
	failed string        // the last trouble with the directory, to log it once
}

// file is a claimed file.
type file struct {
	dir   *directory
	id    queue.ID
	name  string // as it was found; after a restart that of the claim
	again bool   // it was tried before, perhaps by another process
	probe bool   // finds out whether the queue has room again
	tries int
	due   time.Time
}

func (f *file) path() string { return filepath.Join(f.dir.takenDir(), f.id.String()+".eml") }

func newDirectory(w *Watcher, path string) *directory {
	return &directory{w: w, path: path, log: w.log.With("dir", path), wake: make(chan struct{}, 1)}
}

func (d *directory) takenDir() string { return filepath.Join(d.path, ".taken") }
func (d *directory) badDir() string   { return filepath.Join(d.path, "bad") }

// The most files that are claimed with one sync, that wait for another try
// before no more are claimed, and that are known by name but not claimed.
const (
	maxClaim = 256
	maxLater = 1000
	maxNames = 10000
)

// open makes the directory where it is missing, and locks it: two processes
// must never share one.
func (d *directory) open() error {
	if d.lock != nil {
		return nil
	}
	if err := makeDir(d.path, 0o770|fs.ModeSetgid); err != nil {
		return fmt.Errorf("pickup: %w", err)
	}
	info, err := os.Stat(d.path)
	if err != nil {
		return fmt.Errorf("pickup: %w", err)
	}
	if info.Mode().Perm()&0o002 != 0 {
		d.log.Warn("everyone on this host may put mail into this directory; chmod o-w it, and use its group")
	}
	lock, err := os.OpenFile(filepath.Join(d.path, ".lock"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("pickup: lock the directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder := make([]byte, 32)
		n, _ := lock.ReadAt(holder, 0) // for the text only
		lock.Close()
		return fmt.Errorf("pickup: %s is in use by process %s; each server needs a directory of its own", d.path, strings.TrimSpace(string(holder[:n])))
	}
	d.lock = lock
	if err := d.prepare(); err != nil {
		d.close()
		return fmt.Errorf("pickup: %w", err)
	}
	return nil
}

// prepare makes what is inside the directory.
func (d *directory) prepare() error {
	if err := d.lock.Truncate(0); err != nil {
		return err
	}
	if _, err := d.lock.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0); err != nil {
		return err
	}
	if err := makeDir(d.takenDir(), 0o700); err != nil {
		return err
	}
	if err := makeDir(d.badDir(), 0o770|fs.ModeSetgid); err != nil {
		return err
	}
	taken, err := os.Open(d.takenDir())
	d.taken = taken
	return err
}

// makeDir makes a directory with exactly this mode; one that is there stays as it is.
func makeDir(path string, mode fs.FileMode) error {
	err := os.Mkdir(path, 0o700)
	switch {
	case err == nil:
		return os.Chmod(path, mode) // Mkdir's is cut by the umask
	case errors.Is(err, fs.ErrExist):
		info, err := os.Lstat(path)
		if err == nil && !info.IsDir() && info.Mode()&fs.ModeSymlink == 0 {
			err = fmt.Errorf("%s is no directory", path)
		}
		return err
	}
	return err
}

func (d *directory) close() {
	for _, f := range []**os.File{&d.taken, &d.lock} {
		if *f != nil {
			(*f).Close() // nothing was written that is needed
			*f = nil
		}
	}
}

// recover lists what another process, or this one before a crash, had taken.
func (d *directory) recover() []*file {
	names, err := os.ReadDir(d.takenDir())
	if err != nil {
		d.trouble("read .taken", err)
		return nil
	}
	var files []*file
	for _, e := range names {
		id, err := queue.ParseID(strings.TrimSuffix(e.Name(), ".eml"))
		if err != nil || !strings.HasSuffix(e.Name(), ".eml") {
			d.log.Warn("a file in .taken is not ours; remove it", "file", e.Name())
			continue
		}
		files = append(files, &file{dir: d, id: id, name: e.Name(), again: true})
	}
	if len(files) > 0 {
		d.log.Info("files taken before the last stop are looked at again", "count", len(files))
	}
	return files
}

// claim renames files into .taken, where nobody else can change them, and
// syncs that: after a power cut a file must not be both here and in the queue.
func (d *directory) claim(now time.Time, names []string) []*file {
	files := make([]*file, 0, len(names))
	for _, name := range names {
		f := &file{dir: d, id: d.w.opts.Marks.NewID(now), name: name}
		err := os.Rename(filepath.Join(d.path, name), f.path())
		switch {
		case err == nil:
			files = append(files, f)
		case !errors.Is(err, fs.ErrNotExist): // seen twice, or withdrawn
			d.trouble("take "+name, err)
		}
	}
	if len(files) > 0 {
		if err := d.taken.Sync(); err != nil {
			d.trouble("sync .taken", err) // the claims stand, only a power cut could undo them
		}
	}
	return files
}

// wanted reports whether a name is that of a message.
func wanted(name string) bool {
	const suffix = ".eml"
	return len(name) > len(suffix) && name[0] != '.' && strings.EqualFold(name[len(name)-len(suffix):], suffix)
}

// scan reads the next names of a directory listing: those at rest, and whether
// some were too young. io.EOF at the end.
func (d *directory) scan(list *os.File, now time.Time) (names []string, young bool, err error) {
	entries, err := list.ReadDir(512)
	for _, e := range entries {
		if !wanted(e.Name()) || e.IsDir() {
			continue
		}
		info, err := e.Info()
		if err != nil {
			continue // withdrawn
		}
		// A time a little in the future is of just now, one far in it says that
		// the clock was set back.
		if now.Sub(changedAt(info)).Abs() < d.w.opts.Rest {
			young = true
			continue
		}
		names = append(names, e.Name())
	}
	return names, young, err
}

// trouble logs a fault of the directory, once until it is another one.
func (d *directory) trouble(what string, err error) {
	text := what + ": " + err.Error()
	d.mu.Lock()
	same := d.failed == text
	d.failed = text
	d.mu.Unlock()
	if !same {
		d.log.Error("pickup directory", "tried", what, "error", err)
	}
}

// run finds files and hands them to the workers until ctx ends.
func (d *directory) run(ctx context.Context, jobs chan<- *file) {
	events := watch(ctx, d)
	loop := &loop{d: d, jobs: jobs}
	loop.send(ctx, d.recover())
	loop.rescanAt = time.Now()
	for ctx.Err() == nil {
		now := time.Now()
		if loop.step(ctx, now) {
			continue
		}
		timer := time.NewTimer(loop.next.Sub(now))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-d.wake:
		case e := <-events:
			loop.event(e, now)
		}
		timer.Stop()
	}
	if loop.list != nil {
		loop.list.Close()
	}
	for range events { // the watch ends with ctx
	}
}

// loop is the state of a directory's run loop.
type loop struct {
	d        *directory
	jobs     chan<- *file
	names    []string // moved in, to be claimed
	list     *os.File // a listing under way
	young    bool     // it found files that were not at rest
	rescanAt time.Time
	next     time.Time // when to look again, where step found nothing to do
}

// event takes what the watch has seen.
func (l *loop) event(e seen, now time.Time) {
	if l.names = append(l.names, e.moved...); len(l.names) > maxNames {
		l.names, e.lost = nil, true // they are found by reading the directory, once there is room
	}
	if e.written && l.rescanAt.After(now.Add(l.d.w.opts.Rest)) {
		l.rescanAt = now.Add(l.d.w.opts.Rest)
	}
	if e.lost {
		l.rescanAt = now
	}
}

// step does one piece of work, and reports whether there was any.
func (l *loop) step(ctx context.Context, now time.Time) bool {
	d := l.d
	d.forgetMarks(now)
	due, open := d.dueAgain(now)
	if len(due) > 0 {
		l.send(ctx, due)
		return true
	}
	if l.next = d.nextDue(); !open { // no new files until then
		return false
	}
	if len(l.names) > 0 {
		n := min(len(l.names), maxClaim)
		claimed := d.claim(now, l.names[:n])
		if l.names = l.names[n:]; len(l.names) == 0 {
			l.names = nil
		}
		l.send(ctx, claimed)
		return true
	}
	if l.list == nil && !now.Before(l.rescanAt) {
		l.rescanAt, l.young = now.Add(d.w.opts.Rescan), false
		list, err := os.Open(d.path)
		if err != nil {
			d.trouble("read the directory", err)
		}
		l.list = list
	}
	if l.list != nil {
		l.read(now)
		return true
	}
	if l.next.IsZero() || l.rescanAt.Before(l.next) {
		l.next = l.rescanAt
	}
	return false
}

// read reads on in the listing.
func (l *loop) read(now time.Time) {
	names, young, err := l.d.scan(l.list, now)
	l.names = append(l.names, names...)
	l.young = l.young || young
	if err == nil {
		return
	}
	if err != io.EOF {
		l.d.trouble("read the directory", err)
	}
	l.list.Close() // it was only read from
	l.list = nil
	if again := now.Add(l.d.w.opts.Rest); l.young && l.rescanAt.After(again) {
		l.rescanAt = again
	}
}

func (l *loop) send(ctx context.Context, files []*file) {
	for _, f := range files {
		select {
		case l.jobs <- f:
		case <-ctx.Done():
			return // it stays in .taken, for the next start
		}
	}
}
