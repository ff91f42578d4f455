// Package pickup turns files that appear in spool directories into messages.
//
// A program writes a message to a file elsewhere on the same file system and
// moves it into the directory under a name that ends in ".eml". It is taken at
// once. A file that is written in place is taken when it has been at rest for a
// second. Who is to get the message stands in X-Sender and X-Receiver lines, as
// PowerMTA, IIS, Exchange and .NET programs write them, or else in the header:
// From (or Sender), To, Cc and Bcc.
//
// Each file becomes one message exactly once, whatever happens in between:
//
//   - it is claimed by renaming it to .taken/<id>.eml, and the claim is synced;
//   - the message gets that ID, and Submit sets a mark of that name with it;
//   - the file is unlinked, that is synced, and then the mark is removed.
//
// At the start a file in .taken with a mark is unlinked, and one without is
// submitted under its ID.
//
// A file that cannot become a message moves to bad/, with a text beside it that
// says why and what to do. While the queue has no room, files stay.
//
// What is left out on purpose: BSMTP files, sub-directories, and any polling
// beyond a slow rescan.
package pickup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"postrider/mta/intake"
	"postrider/queue"
)

// Marks is what pickup needs of the queue.
type Marks interface {
	NewID(now time.Time) queue.ID
	Marked(mark string) (bool, error)
	UnmarkAll(marks []string) error
}

// Message is a message on its way into the queue: *intake.Message.
type Message interface {
	io.Writer
	Commit(ctx context.Context) (queue.ID, error)
	Abort()
}

// Intake takes the messages; see ToReceiver.
type Intake interface {
	Begin(now time.Time, m intake.Meta) (Message, error)
}

// ToReceiver makes an Intake of the receiver.
func ToReceiver(r *intake.Receiver) Intake { return receiver{r} }

type receiver struct{ r *intake.Receiver }

func (r receiver) Begin(now time.Time, m intake.Meta) (Message, error) {
	msg, err := r.r.Begin(now, m)
	if err != nil {
		return nil, err // not msg: a nil pointer would be no nil Message
	}
	return msg, nil
}

// Options make a Watcher. Marks, Intake and at least one directory are required.
type Options struct {
	Marks  Marks
	Intake Intake
	Logger *slog.Logger
	// Dirs are the directories. Those that do not exist are made, for the group
	// to write to (mode 2770).
	Dirs []string
	// Workers is how many files are worked on at a time; 0: 32. They wait for
	// the disk most of the time.
	Workers int
	// Rest is how long a file that was written in place has to be unchanged
	// before it is taken; 0: 1 s.
	Rest time.Duration
	// Rescan is how often the directories are read without a reason; 0: 1 min.
	Rescan time.Duration
}

// Watcher watches spool directories.
type Watcher struct {
	opts Options
	log  *slog.Logger
	dirs []*directory
}

// New makes a Watcher. Run opens the directories.
func New(opts Options) (*Watcher, error) {
	if opts.Marks == nil || opts.Intake == nil || len(opts.Dirs) == 0 {
		return nil, errors.New("pickup: a queue, an intake and a directory are needed")
	}
	opts.Workers = cmp.Or(opts.Workers, 32)
	opts.Rest = cmp.Or(opts.Rest, time.Second)
	opts.Rescan = cmp.Or(opts.Rescan, time.Minute)
	w := &Watcher{opts: opts, log: cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))}
	seen := make(map[string]bool)
	for _, path := range opts.Dirs {
		if seen[path] {
			return nil, fmt.Errorf("pickup: the directory %s is named twice", path)
		}
		seen[path] = true
		w.dirs = append(w.dirs, newDirectory(w, path))
	}
	return w, nil
}

// Open makes and locks the directories, so that faults in them are known
// before the server says that it is ready. Run does it where it was not done.
func (w *Watcher) Open() error {
	for _, d := range w.dirs {
		if err := d.open(); err != nil {
			w.Close()
			return err
		}
	}
	return nil
}

// Close gives back what Open took, where Run is not called.
func (w *Watcher) Close() {
	for _, d := range w.dirs {
		d.close()
	}
}

// Run takes files until ctx ends; then those in work are finished or given
// back, and it returns.
func (w *Watcher) Run(ctx context.Context) error {
	if err := w.Open(); err != nil {
		return err
	}
	defer w.Close()
	jobs := make(chan *file, maxClaim) // so that the next files are claimed while these are worked on
	var workers, dirs sync.WaitGroup
	for range w.opts.Workers {
		workers.Go(func() {
			for f := range jobs {
				if ctx.Err() == nil { // else it stays in .taken, for the next start
					f.dir.finish(f, w.work(ctx, f))
				}
			}
		})
	}
	for _, d := range w.dirs {
		dirs.Go(func() { d.run(ctx, jobs) })
	}
	dirs.Wait()
	close(jobs)
	workers.Wait()
	for _, d := range w.dirs {
		d.forgetMarks(time.Now().Add(markRest))
	}
	return nil
}
