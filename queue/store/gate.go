package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var errShut = errors.New("store: this instance has failed and may not write any more")

// Each refusal takes a little longer than the one before.
const (
	refusalPause    = 100 * time.Microsecond
	maxRefusalPause = time.Second
)

// gate is a file system that can be shut against writing. Shut, it lets a
// failed instance of the database run out without touching the files that the
// next one works on. The first error of a write, a sync or the making of a
// file is reported to fail.
type gate struct {
	vfs.FS
	fail   func(error)
	spare  *atomic.Bool // see Store.Spare
	closed atomic.Bool
	writes sync.RWMutex // held for reading while something is changed
	// stranded: a goroutine was stopped for good, so the instance cannot be
	// closed.
	stranded atomic.Bool
	refused  atomic.Int64 // changes after the gate was shut
	syncing  atomic.Int64 // since when a sync is under way, unix nanoseconds; 0: none
}

// shut refuses all later changes. drain waits for those under way.
func (g *gate) shut() { g.closed.Store(true) }
func (g *gate) drain() {
	g.writes.Lock()
	defer g.writes.Unlock()
}

func (g *gate) change(what, name string, f func() error) error {
	err := g.quiet(f)
	if err != nil && err != errShut {
		err = fmt.Errorf("%s %s: %w", what, name, err)
		g.fail(err)
	}
	if err != nil {
		g.strandInRotation()
	}
	return err
}

// strand stops the calling goroutine for good.
func (g *gate) strand() {
	g.stranded.Store(true)
	select {}
}

// strandInRotation stops the calling goroutine for good where Pebble is about
// to begin a new log file. An error there makes it panic with its locks in
// such a state that the unwinding ends the process, beyond all recovery.
func (g *gate) strandInRotation() {
	pc := make([]uintptr, 64)
	frames := runtime.CallersFrames(pc[:runtime.Callers(3, pc)])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "(*DB).rotateWAL") {
			g.strand()
		}
		if !more {
			return
		}
	}
}

// quiet is change for what may fail without harm.
func (g *gate) quiet(f func() error) error {
	if g.closed.Load() {
		// Pebble tries a failed flush again at once, for ever.
		n := g.refused.Add(1)
		time.Sleep(min(time.Duration(n)*refusalPause, maxRefusalPause))
		return errShut
	}
	g.writes.RLock()
	defer g.writes.RUnlock()
	if g.closed.Load() {
		return errShut
	}
	return f()
}

func (g *gate) file(f vfs.File, name string) vfs.File {
	return &gatedFile{File: f, g: g, name: g.FS.PathBase(name)}
}

func (g *gate) Create(name string, c vfs.DiskWriteCategory) (f vfs.File, err error) {
	err = g.change("create", name, func() error { f, err = g.FS.Create(name, c); return err })
	if err != nil {
		return nil, err
	}
	return g.file(f, name), nil
}

func (g *gate) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (f vfs.File, err error) {
	err = g.change("open", name, func() error { f, err = g.FS.OpenReadWrite(name, c, o...); return err })
	if err != nil {
		return nil, err
	}
	return g.file(f, name), nil
}

// ReuseForWrite may make a new file in place of the old one, says its contract.
func (g *gate) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (f vfs.File, err error) {
	if g.spare.Load() {
		if err := g.change("remove", from, func() error { return g.FS.Remove(from) }); err != nil {
			return nil, err
		}
		return g.Create(to, c)
	}
	err = g.change("reuse", from, func() error { f, err = g.FS.ReuseForWrite(from, to, c); return err })
	if err != nil {
		return nil, err
	}
	return g.file(f, to), nil
}

func (g *gate) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return g.file(f, name), nil
}

func (g *gate) Link(from, to string) error {
	return g.change("link", from, func() error { return g.FS.Link(from, to) })
}

func (g *gate) Rename(from, to string) error {
	return g.change("rename", from, func() error { return g.FS.Rename(from, to) })
}

func (g *gate) MkdirAll(dir string, perm os.FileMode) error {
	return g.change("make directory", dir, func() error { return g.FS.MkdirAll(dir, perm) })
}

func (g *gate) Remove(name string) error {
	return g.quiet(func() error { return g.FS.Remove(name) })
}

func (g *gate) RemoveAll(name string) error {
	return g.quiet(func() error { return g.FS.RemoveAll(name) })
}

// Lock does nothing: the queue holds a lock of its own over the whole
// directory, and a failed instance must not keep the next one out.
func (g *gate) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

func (g *gate) Unwrap() vfs.FS { return g.FS }

type gatedFile struct {
	vfs.File
	g    *gate
	name string
}

func (f *gatedFile) Write(p []byte) (n int, err error) {
	err = f.g.change("write", f.name, func() error { n, err = f.File.Write(p); return err })
	return n, err
}

func (f *gatedFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.g.change("write", f.name, func() error { n, err = f.File.WriteAt(p, off); return err })
	return n, err
}

func (f *gatedFile) Preallocate(off, n int64) error {
	if f.g.spare.Load() {
		return nil
	}
	return f.g.quiet(func() error { return f.File.Preallocate(off, n) })
}

func (f *gatedFile) Sync() error { return f.sync(f.File.Sync) }

func (f *gatedFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *gatedFile) SyncTo(n int64) (full bool, err error) {
	err = f.sync(func() error { full, err = f.File.SyncTo(n); return err })
	return full, err
}

// Close is the last thing that ending a log file does, after an error too.
func (f *gatedFile) Close() error {
	err := f.File.Close()
	if f.g.closed.Load() {
		f.g.strandInRotation()
	}
	return err
}

// sync notes since when the disk is being waited for. Of several syncs at a
// time the first one counts, so that a hanging one is not overlooked.
func (f *gatedFile) sync(sync func() error) error {
	mine := f.g.syncing.CompareAndSwap(0, time.Now().UnixNano())
	err := f.g.change("sync", f.name, sync)
	if mine {
		f.g.syncing.Store(0)
	}
	return err
}
