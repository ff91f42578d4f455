package suppress

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// fileHead is the first line of the file, with the version of its form. Each
// further line is a change in JSON.
const fileHead = "postrider suppression list 1\n"

// change is one line: an entry, or the address of one that is gone.
type change struct {
	*Entry
	Removed string `json:"removed,omitempty"`
}

// journal gathers changes until they are written. Its fields but writing are
// guarded by the list's lock.
type journal struct {
	name    string
	pending []byte
	lines   int  // in the file
	rewrite bool // the file as it is cannot be appended to
	writing sync.Mutex
}

func (j *journal) set(e *Entry)          { j.note(change{Entry: e}) }
func (j *journal) remove(address string) { j.note(change{Removed: address}) }

func (j *journal) note(c change) {
	line, _ := json.Marshal(c) // strings, numbers and times: cannot fail
	j.pending = append(append(j.pending, line...), '\n')
	j.lines++
}

// read is part of Open. What cannot be read, as after a crash in the midst of
// a line, is left out and told.
func (l *List) read() error {
	f, err := os.Open(l.file.name)
	if errors.Is(err, fs.ErrNotExist) {
		l.file.rewrite = true
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	const maxLine = 4 << 10
	r := bufio.NewReaderSize(f, maxLine)
	bad := 0
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			bad++
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = r.ReadSlice('\n')
			}
		case first && string(line) != fileHead:
			return errors.New("this is no suppression list of a form that is known here")
		case first:
		case err == nil && l.apply(bytes.TrimSuffix(line, []byte("\n"))):
			l.file.lines++
		case len(line) > 0:
			bad++
		}
		if err != nil {
			break
		}
	}
	if bad > 0 {
		l.log.Warn("lines of the suppression list cannot be read and are left out", "file", l.file.name, "lines", bad)
		l.file.rewrite = true
	}
	if over := len(l.entries) - l.opts.MaxEntries; over > 0 {
		if err := l.makeRoom(0); err != nil {
			return err
		}
	}
	return nil
}

func (l *List) apply(line []byte) bool {
	var c change
	if json.Unmarshal(line, &c) != nil {
		return false
	}
	switch {
	case c.Removed != "":
		delete(l.entries, c.Removed)
	case c.Entry == nil || c.Address == "":
		return false
	default:
		l.entries[c.Address] = c.Entry
	}
	return true
}

// spare is how many lines about nothing the file may have beyond those about
// the entries before it is written anew.
const spare = 10_000

// flush brings all changes to the disk.
func (l *List) flush() error {
	j := &l.file
	j.writing.Lock()
	defer j.writing.Unlock()
	l.mu.Lock()
	text, whole := j.pending, j.rewrite || j.lines > 2*len(l.entries)+spare
	if whole {
		text = l.all()
	}
	j.pending = nil
	l.mu.Unlock()
	var err error
	switch {
	case whole:
		err = replace(j.name, text)
	case len(text) > 0:
		err = extend(j.name, text)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	j.rewrite = err != nil // then the next time writes everything
	return err
}

// all is the whole file as it should be.
func (l *List) all() []byte {
	text := []byte(fileHead)
	for _, e := range l.entries {
		line, _ := json.Marshal(e) // cannot fail, see note
		text = append(append(text, line...), '\n')
	}
	l.file.lines = len(l.entries)
	return text
}

func extend(name string, text []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return closeSynced(f, err)
}

// replace writes beside, syncs, and renames into place.
func replace(name string, text []byte) error {
	f, err := os.OpenFile(name+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = closeSynced(f, err); err != nil {
		return err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func closeSynced(f *os.File, err error) error {
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

const (
	flushEvery = time.Second
	sweepEvery = time.Hour
)

// Run writes what is learned until ctx ends, and forgets what is too old.
func (l *List) Run(ctx context.Context) error {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-sweep.C:
			l.expire(time.Now())
		case <-l.changed:
			rest(ctx, flushEvery) // so that many answers share a write
			if err := l.flush(); err != nil {
				l.log.Error("the suppression list cannot be written; it is tried again with the next change", "file", l.file.name, "error", err)
			}
		}
	}
	return l.flush()
}

func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// expire drops what is too old.
func (l *List) expire(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.entries {
		if l.expired(now, e) {
			l.drop(e)
			l.signal()
		}
	}
}
