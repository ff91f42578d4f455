package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"postrider/queue/store"
)

// Suspension keeps mail from being handed out, also what comes later, until it
// is resumed or its time is over. Unlike held mail, suspended mail ages. Empty
// fields match all; all given ones must match.
type Suspension struct {
	Domain string // or "*.example.test"
	Site   string // see SetSite
	Sender string // an address, "@domain", or NullSender
	Tag    string
	Since  time.Time
	Until  time.Time // zero: until it is resumed
	Reason string
}

// maxSuspensions bounds what every due entry is compared with.
const maxSuspensions = 1000

// ErrSuspensions: there are too many of them.
var ErrSuspensions = errors.New("queue: too many suspensions: resume some first")

type suspension struct {
	Suspension
	number uint64 // its key in the store
}

// sameScope reports whether two suspensions match the same mail.
func (s *Suspension) sameScope(o *Suspension) bool {
	return s.Domain == o.Domain && s.Site == o.Site && s.Sender == o.Sender && s.Tag == o.Tag
}

// Matches reports whether it holds the mail of a sender ("": the null sender)
// with a tag to a domain of a site.
func (s *Suspension) Matches(sender, tag, domain, site string) bool {
	return (s.Domain == "" || matchDomain(s.Domain, domain)) &&
		(s.Site == "" || s.Site == site) &&
		(s.Tag == "" || s.Tag == tag) &&
		matchSender(s.Sender, sender)
}

func (s *Suspension) matches(q *Queue, e *entry, ln *lane) bool {
	return s.Matches(q.senders.text(e.sender), q.tags.text(e.tag), ln.name, ln.site)
}

// suspended reports whether any suspension matches an entry.
func (q *Queue) suspended(e *entry, ln *lane) bool {
	for i := range q.suspensions {
		if q.suspensions[i].matches(q, e, ln) {
			return true
		}
	}
	return false
}

// Suspend keeps mail back from now on. One that matches the same mail is
// replaced. It returns when that is on stable storage.
func (q *Queue) Suspend(ctx context.Context, now time.Time, s Suspension) error {
	q.steering.Lock()
	defer q.steering.Unlock()
	q.mu.Lock()
	added := suspension{s, q.suspensionNumber + 1}
	if i := slices.IndexFunc(q.suspensions, func(o suspension) bool { return o.sameScope(&s) }); i >= 0 {
		added.number = q.suspensions[i].number
	} else if len(q.suspensions) >= maxSuspensions {
		q.mu.Unlock()
		return ErrSuspensions
	}
	q.mu.Unlock()
	var b store.Batch
	b.Set(suspensionKey(added.number), encodeSuspension(&s))
	if err := q.store.Commit(ctx, &b); err != nil {
		return fmt.Errorf("queue: suspend: %w", err)
	}
	q.mu.Lock()
	q.suspensionNumber = max(q.suspensionNumber, added.number)
	q.suspensions = slices.DeleteFunc(q.suspensions, func(o suspension) bool { return o.number == added.number })
	q.suspensions = append(q.suspensions, added)
	q.noteSuspensions()
	q.mu.Unlock()
	q.resort(nanos(now))
	return nil
}

// Resume ends the suspensions that name the same domain, site, sender and tag
// (all of them where everything is empty) and answers which they were.
func (q *Queue) Resume(ctx context.Context, now time.Time, s Suspension) ([]Suspension, error) {
	q.steering.Lock()
	defer q.steering.Unlock()
	all := s.sameScope(&Suspension{})
	var b store.Batch
	var ended []Suspension
	var numbers []uint64
	q.mu.Lock()
	for i := range q.suspensions {
		if o := &q.suspensions[i]; all || o.sameScope(&s) {
			ended = append(ended, o.Suspension)
			numbers = append(numbers, o.number)
			b.Delete(suspensionKey(o.number))
		}
	}
	q.mu.Unlock()
	if err := q.store.Commit(ctx, &b); err != nil {
		return nil, fmt.Errorf("queue: resume: %w", err)
	}
	q.mu.Lock()
	q.suspensions = slices.DeleteFunc(q.suspensions, func(o suspension) bool { return slices.Contains(numbers, o.number) })
	q.noteSuspensions()
	q.mu.Unlock()
	q.resort(nanos(now))
	return ended, nil
}

// Suspensions gives those in force, oldest first.
func (q *Queue) Suspensions(now time.Time) []Suspension {
	q.mu.Lock()
	defer q.mu.Unlock()
	var all []Suspension
	for i := range q.suspensions {
		if s := &q.suspensions[i]; s.Until.IsZero() || now.Before(s.Until) {
			all = append(all, s.Suspension)
		}
	}
	slices.SortStableFunc(all, func(a, b Suspension) int { return a.Since.Compare(b.Since) })
	return all
}

// SetSite tells the queue which site serves a domain, so that a suspension of
// the site finds its mail. What is not known yet is not suspended by site.
func (q *Queue) SetSite(now time.Time, domain, site string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l, ln := q.lanes.find(domain)
	if ln == nil || ln.site == site {
		return
	}
	ln.site = strings.Clone(site)
	if len(q.suspensions) > 0 {
		for i := range q.slab.used {
			if e := q.slab.at(i); e.live() && e.lane == l {
				q.resortEntry(i, nanos(now))
			}
		}
	}
}

// noteSuspensions finds out when the first suspension is over.
func (q *Queue) noteSuspensions() {
	q.suspendedUntil = 0
	for i := range q.suspensions {
		if until := nanos(q.suspensions[i].Until); until != 0 && (q.suspendedUntil == 0 || until < q.suspendedUntil) {
			q.suspendedUntil = until
		}
	}
}

// endSuspensions lets go of what was kept back long enough.
func (q *Queue) endSuspensions(at int64) {
	if q.suspendedUntil == 0 || at < q.suspendedUntil {
		return
	}
	over := func(s suspension) bool { return !s.Until.IsZero() && nanos(s.Until) <= at }
	for i := range q.suspensions {
		if over(q.suspensions[i]) {
			q.writer.batch.Delete(suspensionKey(q.suspensions[i].number))
		}
	}
	q.writer.commit(q.writer.begin(nil))
	q.suspensions = slices.DeleteFunc(q.suspensions, over)
	q.noteSuspensions()
	for i := range q.slab.used {
		q.resortEntry(i, at)
	}
}

// resort brings what is due to where it belongs after the suspensions have
// changed, in steps.
func (q *Queue) resort(at int64) {
	for i, more := int32(0), true; more; {
		q.mu.Lock()
		for end := i + walkStep; i < end && i < q.slab.used; i++ {
			q.resortEntry(i, at)
		}
		more = i < q.slab.used
		q.mu.Unlock()
	}
}

func (q *Queue) resortEntry(i int32, at int64) {
	e := q.slab.at(i)
	if !e.live() || e.place != placeReady && e.place != placeParked {
		return
	}
	if parked := e.place == placeParked; parked != q.suspended(e, q.lanes.all[e.lane]) {
		q.detach(i)
		q.attach(i, max(at, e.due))
	}
}

func suspensionKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{keySuspension}, number)
}

func encodeSuspension(s *Suspension) []byte {
	var w recordWriter
	w.begin()
	for _, part := range []string{s.Domain, s.Site, s.Sender, s.Tag} {
		w.string(clip(part))
	}
	w.int(nanos(s.Since))
	w.int(nanos(s.Until))
	w.string(clip(s.Reason))
	return w.end()
}

func decodeSuspension(record []byte) (s Suspension, err error) {
	r, err := openRecord(record)
	if err != nil {
		return s, err
	}
	s = Suspension{Domain: r.string(), Site: r.string(), Sender: r.string(), Tag: r.string(),
		Since: timeOf(r.int()), Until: timeOf(r.int()), Reason: r.string()}
	return s, r.end()
}

// readSuspensions is part of Open.
func (q *Queue) readSuspensions() error {
	lower, upper := keysOf(keySuspension)
	err := q.store.Scan(lower, upper, func(key, value []byte) error {
		s, err := decodeSuspension(value)
		if err != nil || len(key) != suspensionKeySize {
			q.log.Error("a suspension cannot be read and counts as ended", "error", err)
			return nil
		}
		number := binary.BigEndian.Uint64(key[1:])
		q.suspensionNumber = max(q.suspensionNumber, number)
		q.suspensions = append(q.suspensions, suspension{s, number})
		return nil
	})
	if err != nil {
		return fmt.Errorf("queue: read the suspensions: %w", err)
	}
	q.noteSuspensions()
	return nil
}
