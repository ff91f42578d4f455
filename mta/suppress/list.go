// Package suppress keeps the addresses that no mail is sent to any more,
// because their hosts have said that there is no such mailbox, or because
// somebody wants it so. Going on to write to them is what large receivers hold
// against a sender.
//
// Only an explicit "no such user" (bounce class invalid-recipient) puts an
// address on the list: neither reputation nor quota says anything about the
// address. A Gate stands between the queue and its claims: what is suppressed
// fails before any connection is made, with a status and a text of its own, so
// that the trace and the report say why.
//
// The list is in memory and in one file, to which changes are appended: those
// that people make are on the disk when they are told so, what is learned from
// answers within a second. Its size is bounded.
package suppress

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"postrider/mta/mailaddr"
	"postrider/queue"
)

// Source says who put an address on the list.
type Source string

const (
	Bounce   Source = "bounce"   // the answers of its host; ends with time
	Operator Source = "operator" // somebody, by hand
	Import   Source = "import"
)

// Entry is one address on the list.
type Entry struct {
	Address string    `json:"address"` // lower case, the domain in A-labels
	Source  Source    `json:"source"`
	Reason  string    `json:"reason,omitempty"` // the last answer, or somebody's words
	Count   int       `json:"count"`            // of the answers; 0: put here by hand
	FirstAt time.Time `json:"first_at"`
	LastAt  time.Time `json:"last_at"`
}

// Options make a List. File is required.
type Options struct {
	File string
	// After is how many answers it takes to suppress an address; 0: 1.
	After int
	// ExpireAfter ends what came of answers, counted from the last one; 0: never.
	ExpireAfter time.Duration
	// MaxEntries bounds the list; 0: 100,000. Of what came of answers the
	// oldest makes room.
	MaxEntries int
	Logger     *slog.Logger
}

// List is safe for concurrent use.
type List struct {
	opts Options
	log  *slog.Logger

	mu      sync.RWMutex
	entries map[string]*Entry
	file    journal
	changed chan struct{} // capacity 1: there is something to write
}

// ErrFull: the list has as many entries as it may, and none of them gives way.
var ErrFull = errors.New("the suppression list is full: remove entries, or raise suppression.max_entries")

// Open reads the list; a file that is not there is an empty one.
func Open(opts Options) (*List, error) {
	opts.After = cmp.Or(opts.After, 1)
	opts.MaxEntries = cmp.Or(opts.MaxEntries, 100_000)
	l := &List{
		opts: opts, log: cmp.Or(opts.Logger, slog.New(slog.DiscardHandler)),
		entries: make(map[string]*Entry), changed: make(chan struct{}, 1),
	}
	l.file.name = opts.File
	if err := l.read(); err != nil {
		return nil, fmt.Errorf("suppression list %s: %w", opts.File, err)
	}
	return l, nil
}

// Normal brings an address into the form in which it is compared.
func Normal(address string) (string, error) {
	a, err := mailaddr.Parse(address)
	if err != nil {
		return "", err
	}
	return strings.ToLower(a.Local) + "@" + a.ASCIIDomain(), nil
}

// appendKey is Normal for what the queue holds, without garbage.
func appendKey(dst []byte, r *queue.Recipient) []byte {
	local := r.Address[:max(0, strings.LastIndexByte(r.Address, '@'))]
	for i := range len(local) {
		if local[i] >= 0x80 { // beyond ASCII small letters take more than a bit
			return append(append(append(dst[:0], strings.ToLower(local)...), '@'), r.Domain...)
		}
		c := local[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return append(append(dst, '@'), r.Domain...)
}

// Suppressed tells whether nothing is to be sent to a recipient, and why.
func (l *List) Suppressed(now time.Time, r *queue.Recipient) (Entry, bool) {
	var scratch [320]byte
	key := appendKey(scratch[:0], r)
	l.mu.RLock()
	defer l.mu.RUnlock()
	e := l.entries[string(key)]
	if e == nil || !l.inForce(now, e) {
		return Entry{}, false
	}
	return *e, true
}

// inForce: an entry of too few answers, or of too old ones, only counts.
func (l *List) inForce(now time.Time, e *Entry) bool {
	return e.Source != Bounce || e.Count >= l.opts.After && !l.expired(now, e)
}

func (l *List) expired(now time.Time, e *Entry) bool {
	return e.Source == Bounce && l.opts.ExpireAfter > 0 && now.Sub(e.LastAt) >= l.opts.ExpireAfter
}

// maxReason is the most octets of a reason: the words of a stranger are kept
// for years.
const maxReason = 200

func clip(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxReason)], "")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// Refused counts an answer that there is no such mailbox.
func (l *List) Refused(now time.Time, r *queue.Recipient, answer string) {
	key := string(appendKey(nil, r))
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entries[key]
	switch {
	case e == nil:
		e = &Entry{Address: key, Source: Bounce, FirstAt: now.UTC()}
		if l.makeRoom(1) != nil {
			return // full of what people put there
		}
		l.entries[key] = e
	case e.Source == Bounce && l.expired(now, e):
		*e = Entry{Address: key, Source: Bounce, FirstAt: now.UTC()}
	}
	e.Count++
	e.LastAt = now.UTC()
	if e.Source == Bounce {
		e.Reason = clip(answer)
	}
	l.file.set(e)
	l.signal()
}

// Delivered forgets the answers about an address that takes mail after all.
func (l *List) Delivered(r *queue.Recipient) {
	var scratch [320]byte
	key := appendKey(scratch[:0], r)
	l.mu.RLock()
	e := l.entries[string(key)]
	known := e != nil && e.Source == Bounce
	l.mu.RUnlock()
	if !known {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.entries[string(key)]; e != nil && e.Source == Bounce {
		l.drop(e)
		l.signal()
	}
}

func (l *List) drop(e *Entry) {
	delete(l.entries, e.Address)
	l.file.remove(e.Address)
}

func (l *List) signal() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// makeRoom sees to it that n more entries fit.
func (l *List) makeRoom(n int) error {
	if len(l.entries)+n <= l.opts.MaxEntries {
		return nil
	}
	var learned []*Entry
	for _, e := range l.entries {
		if e.Source == Bounce {
			learned = append(learned, e)
		}
	}
	over := len(l.entries) + n - l.opts.MaxEntries
	if over > len(learned) {
		return ErrFull
	}
	slices.SortFunc(learned, func(a, b *Entry) int { return a.LastAt.Compare(b.LastAt) })
	for _, e := range learned[:max(over, len(learned)/16)] { // some more, so that not each one sorts
		l.drop(e)
	}
	return nil
}

// Add puts entries on the list, or changes them, and returns when they are on
// the disk. Address, Source and Reason count; what the entry says of times and
// count is taken where it is there. All are added, or none.
func (l *List) Add(now time.Time, add []Entry) error {
	for i := range add {
		key, err := Normal(add[i].Address)
		if err != nil {
			return err
		}
		e := &add[i]
		e.Address, e.Reason = key, clip(e.Reason)
		if e.FirstAt.IsZero() {
			e.FirstAt = now.UTC()
		}
		if e.LastAt.IsZero() {
			e.LastAt = e.FirstAt
		}
	}
	l.mu.Lock()
	fresh := make(map[string]bool)
	for i := range add {
		if l.entries[add[i].Address] == nil {
			fresh[add[i].Address] = true
		}
	}
	if err := l.makeRoom(len(fresh)); err != nil {
		l.mu.Unlock()
		return err
	}
	for i := range add {
		e := add[i]
		l.entries[e.Address] = &e
		l.file.set(&e)
	}
	l.mu.Unlock()
	return l.flush()
}

// Remove takes what match picks off the list, and returns how many those were
// when that is on the disk.
func (l *List) Remove(match func(*Entry) bool) (int, error) {
	l.mu.Lock()
	n := 0
	for _, e := range l.entries {
		if match(e) {
			l.drop(e)
			n++
		}
	}
	l.mu.Unlock()
	return n, l.flush()
}

// Entries gives those that match, at most limit (0: all), in the order of
// their addresses, beginning after the address after.
func (l *List) Entries(match func(*Entry) bool, after string, limit int) []Entry {
	l.mu.RLock()
	var all []Entry
	for _, e := range l.entries {
		if e.Address > after && match(e) {
			all = append(all, *e)
		}
	}
	l.mu.RUnlock()
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.Address, b.Address) })
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all
}

// InForce tells whether an entry of Entries keeps mail back at present.
func (l *List) InForce(now time.Time, e *Entry) bool { return l.inForce(now, e) }
