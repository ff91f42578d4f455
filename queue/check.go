package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postrider/queue/store"
)

// Report is what a check of the whole queue has found.
type Report struct {
	Messages   int64 // with open recipients or unreported notices
	Recipients int64 // open ones
	Notices    int64
	Bodies     int64 // read in full and compared with their sums
	Histories  int64 // records of history
	Leftovers  int64 // files of bodies whose message was never accepted or has ended: the next start removes them
	SetAside   []ID  // messages that could not be read, and why is in their history
	Problems   []Problem
}

// Problem is something that should not be.
type Problem struct {
	ID   ID // zero: of no message
	What string
}

func (p Problem) String() string {
	if p.ID == (ID{}) {
		return p.What
	}
	return p.ID.String() + ": " + p.What
}

// maxProblems bounds a report: what is wrong a thousand times has one cause.
const maxProblems = 1000

// Check reads everything and tells what does not fit: sums, records without
// their message, bodies without a record and the reverse, and whether the
// schedule in memory says what the disk says. It may be called at any time; it
// looks twice at what changes meanwhile.
func (q *Queue) Check(ctx context.Context) (Report, error) {
	c := &checker{ctx: ctx, store: q.store, fs: q.fs, q: q}
	return c.run()
}

// CheckDir is Check for a queue that is not in use. It changes nothing.
func CheckDir(ctx context.Context, opts Options) (Report, error) {
	opts.setDefaults()
	q := &Queue{opts: opts, log: opts.Logger, fs: opts.fs}
	lock, err := lockDir(q.fs, opts.Dir)
	if err != nil {
		return Report{}, err
	}
	defer lock.release()
	s, err := store.Open(store.Options{Dir: q.storeDir(), FS: q.fs, Logger: q.log,
		MemTableSize: opts.memTableSize, ReadOnly: true})
	if err != nil {
		return Report{}, fmt.Errorf("queue: check: %w", err)
	}
	q.store = s
	c := &checker{ctx: ctx, store: s, fs: q.fs, q: q, offline: true}
	report, err := c.run()
	if cerr := s.Close(); err == nil {
		err = cerr
	}
	return report, err
}

type checker struct {
	ctx     context.Context
	store   *store.Store
	fs      vfs.FS
	q       *Queue
	offline bool
	report  Report
	aside   map[ID]bool
}

func (c *checker) run() (Report, error) {
	c.aside = make(map[ID]bool)
	for _, step := range []func() error{
		c.marks, c.messages, c.states, c.bodies, c.notices, c.histories, c.files, c.schedule,
	} {
		if err := step(); err != nil {
			return c.report, fmt.Errorf("queue: check: %w", err)
		}
	}
	return c.report, nil
}

func (c *checker) problem(id ID, format string, args ...any) {
	if len(c.report.Problems) < maxProblems {
		c.report.Problems = append(c.report.Problems, Problem{id, fmt.Sprintf(format, args...)})
	}
}

// scan walks over the records of one kind. Messages set aside are known to be
// broken.
func (c *checker) scan(kind byte, size int, f func(id ID, key, value []byte)) error {
	lower, upper := keysOf(kind)
	return c.store.Scan(lower, upper, func(key, value []byte) error {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if len(key) != size {
			c.problem(ID{}, "a key of kind %q has %d octets", kind, len(key))
			return nil
		}
		if id := idOf(key); !c.aside[id] {
			f(id, key, value)
		}
		return nil
	})
}

func (c *checker) marks() error {
	err := c.scan(keyDamaged, idKeySize, func(id ID, _, _ []byte) {
		c.report.SetAside = append(c.report.SetAside, id)
	})
	for _, id := range c.report.SetAside {
		c.aside[id] = true
	}
	return err
}

func (c *checker) messages() error {
	return c.scan(keyEnvelope, idKeySize, func(id ID, _, value []byte) {
		c.report.Messages++
		env, err := decodeEnvelope(id, value)
		if err != nil {
			c.problem(id, "its envelope cannot be read: %v", err)
			return
		}
		kind := byte(keyBody)
		if env.large {
			kind = keyLargeBody
		}
		bare := func() bool {
			has, err := c.store.Has(idKey(kind, id))
			return err == nil && !has && c.there(id)
		}
		if c.stays(bare) {
			c.problem(id, "it has no body")
		}
	})
}

// there reports whether a message has not ended since it was read.
func (c *checker) there(id ID) bool {
	has, err := c.store.Has(idKey(keyEnvelope, id))
	return has && err == nil
}

// What does not fit at this moment may be about to: a queue in use gets this
// long before it counts.
const (
	checkPatience = 500 * time.Millisecond
	checkPause    = 10 * time.Millisecond
)

// stays reports whether something that is wrong does not mend itself.
func (c *checker) stays(wrong func() bool) bool {
	for waited := time.Duration(0); wrong(); waited += checkPause {
		if c.offline || waited >= checkPatience || !pause(c.ctx, checkPause) {
			return true
		}
	}
	return false
}

// orphan tells of a record without its message.
func (c *checker) orphan(id ID, key []byte, what string) bool {
	orphan := func() bool {
		has, err := c.store.Has(key)
		return has && err == nil && !c.there(id)
	}
	if !c.there(id) && c.stays(orphan) {
		c.problem(id, "%s without its message", what)
		return true
	}
	return false
}

func (c *checker) states() error {
	return c.scan(keyState, stateKeySize, func(id ID, key, value []byte) {
		if c.orphan(id, key, "a state") {
			return
		}
		scratch := make([]recipientState, statesPerPart)
		if err := decodePart(value, scratch); err != nil {
			c.problem(id, "%v", err)
		}
	})
}

func (c *checker) bodies() error {
	err := c.scan(keyBody, idKeySize, func(id ID, key, value []byte) {
		c.orphan(id, key, "a body")
		c.report.Bodies++
		if _, _, err := splitSmallRecord(value); err != nil {
			c.problem(id, "its body: %v", err)
		}
	})
	if err != nil {
		return err
	}
	return c.scan(keyLargeBody, idKeySize, func(id ID, key, value []byte) {
		c.orphan(id, key, "a body's record")
		c.report.Bodies++
		content, err := c.q.readLarge(id)
		if err == nil {
			_, err = io.Copy(io.Discard, content.File)
			_ = content.Close() // only read from
		}
		if err != nil && c.there(id) {
			c.problem(id, "%v", err)
		}
	})
}

func (c *checker) notices() error {
	return c.scan(keyNotice, noticeKeySize, func(id ID, key, value []byte) {
		c.report.Notices++
		if c.orphan(id, key, "a notice") {
			return
		}
		record, err := c.store.Get(idKey(keyEnvelope, id), nil)
		if err != nil {
			return // ended meanwhile, or told already
		}
		if env, err := decodeEnvelope(id, record); err == nil {
			if _, err := decodeNotice(env, key, value); err != nil {
				c.problem(id, "a notice cannot be read: %v", err)
			}
		}
	})
}

func (c *checker) histories() error {
	return c.scan(keyHistory, historyKeySize, func(id ID, _, value []byte) {
		c.report.Histories++
		if _, err := new(story).decodeHistory(id, value); err != nil {
			c.problem(id, "a record of its history cannot be read: %v", err)
		}
	})
}

// files looks for files that no record names. Bodies under way to a Submit
// have other names.
func (c *checker) files() error {
	for i := range 256 {
		dir, _ := c.q.bodyFile(ID{15: byte(i)})
		names, err := c.fs.List(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			id, err := ParseID(name)
			if err != nil {
				c.problem(ID{}, "%s is not the queue's", c.fs.PathJoin(dir, name))
				continue
			}
			file := c.fs.PathJoin(dir, name)
			if !c.stays(func() bool { return c.unnamed(id, file) }) {
				continue
			}
			// A file is there before the record that names it, and after it. So a
			// kill leaves some behind; the start removes them.
			if c.offline {
				c.report.Leftovers++
			} else {
				c.problem(id, "%s is named by no record", file)
			}
		}
	}
	return nil
}

// unnamed reports whether a file is there that no record names, and is not of
// a message that is being submitted.
func (c *checker) unnamed(id ID, file string) bool {
	if !c.offline && c.q.isSubmitting(id) {
		return false
	}
	named, err := c.store.Has(idKey(keyLargeBody, id))
	if named || err != nil {
		return false
	}
	_, err = c.fs.Stat(file)
	return err == nil
}

// schedule compares what memory holds of each message with the disk.
func (c *checker) schedule() error {
	if c.offline {
		return nil
	}
	var ids []ID
	if err := c.scan(keyEnvelope, idKeySize, func(id ID, _, _ []byte) { ids = append(ids, id) }); err != nil {
		return err
	}
	known, _, err := c.q.candidates(c.ctx, time.Time{}, &Selector{}, ID{}, 0, true)
	if err != nil {
		return err
	}
	ids = append(ids, known...)
	slices.SortFunc(ids, compareID)
	for _, id := range slices.Compact(ids) {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		var what string
		if c.stays(func() bool { what = c.compare(id); return what != "" }) {
			c.problem(id, "%s", what)
		}
	}
	return nil
}

// compare tells what the schedule and the store say differently of a message.
func (c *checker) compare(id ID) string {
	q := c.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.known(id) {
		if _, busy := q.submitting[id]; !busy && c.there(id) && !c.aside[id] {
			return "the store has it, the schedule has not"
		}
		return ""
	}
	m, err := q.hot(id)
	var d *damage
	if errors.As(err, &d) && q.known(id) {
		return "the schedule has it, but it cannot be read: " + err.Error()
	}
	if err != nil {
		return ""
	}
	defer q.unpin(m)
	scheduled := 0
	for i := q.index.first(id); i != noEntry; i = q.slab.at(i).next {
		e := q.slab.at(i)
		scheduled += int(e.open + e.active + e.held)
	}
	if scheduled != m.open {
		return fmt.Sprintf("%d recipients are open in the schedule, %d in the store", scheduled, m.open)
	}
	c.report.Recipients += int64(m.open)
	return ""
}
