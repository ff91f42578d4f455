package pickup

import (
	"time"

	"postrider/queue"
)

// result is what became of a file.
type result uint8

const (
	accepted result = iota // or was before
	bad                    // set aside
	noRoom                 // the queue takes nothing at present
	notNow                 // this file cannot be taken at present
)

// The waits for room in the queue, each twice as long as the one before.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// finish takes back a file from a worker.
func (d *directory) finish(f *file, r result) {
	d.mu.Lock()
	now := time.Now()
	switch r {
	case accepted:
		d.pause, d.until = 0, time.Time{}
		d.failed = ""
		if len(d.done) == 0 {
			d.doneAt = now
		}
		d.done = append(d.done, f.id)
	case noRoom: // it is the same for all files
		if f.probe || d.pause == 0 { // else it was on its way when another found out
			d.pause = min(max(2*d.pause, firstPause), lastPause)
			d.until = now.Add(d.pause)
		}
		f.putOff(d.until)
	case notNow:
		f.putOff(now.Add(min(firstPause<<min(f.tries, 10), 5*lastPause)))
	}
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// putOff keeps a file for another try.
func (f *file) putOff(until time.Time) {
	f.again, f.probe, f.due = true, false, until
	f.tries++
	f.dir.later = append(f.dir.later, f)
}

// dueAgain takes the files whose time for another try has come. more tells
// whether new files may be claimed; if not, nextDue is when to ask again.
func (d *directory) dueAgain(now time.Time) (due []*file, more bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.Before(d.until) {
		return nil, false
	}
	rest := d.later[:0]
	for _, f := range d.later {
		probing := d.pause > 0 && len(due) > 0
		if f.due.After(now) || probing {
			rest = append(rest, f)
		} else {
			due = append(due, f)
		}
	}
	clear(d.later[len(rest):])
	d.later = rest
	switch {
	case d.pause > 0 && len(due) > 0: // one finds out whether there is room again
		due[0].probe = true
		d.until = now.Add(d.pause)
	case d.pause > 0: // none is left to find out with: new ones will
		d.pause, d.until = 0, time.Time{}
	}
	return due, d.pause == 0 && len(rest) < maxLater
}

// nextDue is when dueAgain or forgetMarks will have something to do; zero: never.
func (d *directory) nextDue() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	next := d.until // zero where there is room
	for _, f := range d.later {
		if next.IsZero() || f.due.Before(next) {
			next = f.due
		}
	}
	if next.Before(d.until) {
		next = d.until
	}
	if forget := d.doneAt.Add(markRest); len(d.done) > 0 && (next.IsZero() || forget.Before(next)) {
		next = forget
	}
	return next
}

// Marks are removed in groups, since each group costs two syncs: when there
// are many, or when the oldest has stood for a while.
const (
	manyMarks = 512
	markRest  = time.Second
)

// forgetMarks removes the marks of files that were unlinked, if it is time,
// after making sure that a power cut does not bring the files back.
func (d *directory) forgetMarks(now time.Time) {
	d.mu.Lock()
	var done []queue.ID
	if len(d.done) >= manyMarks || (len(d.done) > 0 && !now.Before(d.doneAt.Add(markRest))) {
		done, d.done = d.done, nil
	}
	d.mu.Unlock()
	if len(done) == 0 {
		return
	}
	if err := d.taken.Sync(); err != nil {
		d.trouble("sync .taken", err)
		return // the marks stay: they do no harm, and are needed if the files come back
	}
	marks := make([]string, len(done))
	for i, id := range done {
		marks[i] = mark(id)
	}
	if err := d.w.opts.Marks.UnmarkAll(marks); err != nil {
		d.trouble("remove marks", err)
	}
}

// mark is the name under which a submission says that a file has become a message.
func mark(id queue.ID) string { return id.String() }
