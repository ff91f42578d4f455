package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// Selector chooses messages or, within them, recipients. Empty fields match
// all; all given ones must match.
type Selector struct {
	IDs       []ID
	Domain    string   // a recipient domain, or "*.example.test"
	Domains   []string // any of these (a site, resolved by the caller)
	Sender    string   // an address, "@domain", or NullSender
	Recipient string
	Tag       string
	Status    []Status
	Class     Class         // the bounce class of the last attempt
	OlderThan time.Duration // of the arrival
}

// NullSender stands for the null reverse-path where an empty text means any
// sender.
const NullSender = "<>"

// matchDomain compares a domain with a name or with "*." and a parent.
func matchDomain(pattern, domain string) bool {
	if parent, ok := strings.CutPrefix(pattern, "*"); ok && strings.HasPrefix(parent, ".") {
		return len(domain) > len(parent) && strings.EqualFold(domain[len(domain)-len(parent):], parent)
	}
	return strings.EqualFold(pattern, domain)
}

func (s *Selector) matchesDomain(domain string) bool {
	if s.Domain != "" && !matchDomain(s.Domain, domain) {
		return false
	}
	return len(s.Domains) == 0 || slices.ContainsFunc(s.Domains, func(d string) bool { return matchDomain(d, domain) })
}

// matchSender compares a sender with an address, "@domain" or NullSender; an
// empty pattern matches all.
func matchSender(pattern, sender string) bool {
	switch {
	case pattern == "":
		return true
	case pattern == NullSender:
		return sender == ""
	case pattern[0] == '@':
		at := strings.LastIndexByte(sender, '@')
		return at >= 0 && strings.EqualFold(sender[at:], pattern)
	}
	return strings.EqualFold(pattern, sender)
}

// matchesEntry tells from what the schedule knows whether an entry may match.
func (s *Selector) matchesEntry(q *Queue, e *entry, now time.Time) bool {
	return s.matchesDomain(q.lanes.all[e.lane].name) &&
		matchSender(s.Sender, q.senders.text(e.sender)) &&
		(s.Tag == "" || s.Tag == q.tags.text(e.tag)) &&
		(s.OlderThan <= 0 || now.Sub(e.id.Time()) >= s.OlderThan-time.Second) // the ID's time is not exact
}

func (s *Selector) matchesEnvelope(e *Envelope, now time.Time) bool {
	return matchSender(s.Sender, e.Sender) && (s.Tag == "" || s.Tag == e.Tag) &&
		(s.OlderThan <= 0 || now.Sub(e.ArrivedAt) >= s.OlderThan)
}

func (s *Selector) matchesRecipient(r *Recipient, status Status, last *Outcome) bool {
	return s.matchesDomain(r.Domain) &&
		(s.Recipient == "" || strings.EqualFold(s.Recipient, r.Address)) &&
		(len(s.Status) == 0 || slices.Contains(s.Status, status)) &&
		(s.Class == "" || last != nil && last.Class == s.Class)
}

// Recipients gives the indices of a message's recipients that match, whatever
// their status where that is not asked for. IDs are not looked at.
func (s *Selector) Recipients(m *Message, now time.Time) []int {
	if !s.matchesEnvelope(m.Envelope, now) {
		return nil
	}
	var hits []int
	for i := range m.States {
		if s.matchesRecipient(&m.Envelope.Recipients[i], m.States[i].Status, m.States[i].Last) {
			hits = append(hits, i)
		}
	}
	return hits
}

// walkStep is how many entries are looked at under the lock at a time.
const walkStep = 1000

// lowest gathers IDs above from: all of them, or the lowest ones, at least
// most if there are so many.
type lowest struct {
	from, upTo ID // upTo: what is above is of no interest any more; zero: nothing is
	most       int
	ids        []ID
	left       bool // some were left out
}

func (l *lowest) add(id ID) {
	if compareID(id, l.from) <= 0 {
		return
	}
	if l.upTo != (ID{}) && compareID(id, l.upTo) > 0 {
		l.left = true
		return
	}
	if l.ids = append(l.ids, id); l.most > 0 && len(l.ids) >= 2*l.most {
		l.sort()
		if len(l.ids) > l.most {
			l.upTo, l.left = l.ids[l.most-1], true
			l.ids = l.ids[:l.most]
		}
	}
}

func (l *lowest) sort() {
	slices.SortFunc(l.ids, compareID)
	l.ids = slices.Compact(l.ids)
}

// candidates gives the messages whose entries may match, in order of their
// IDs, beginning after the ID after: all of them, or the first most and maybe
// some more; left tells that there are others behind. With noticed, also those
// that are kept for their notices only.
func (q *Queue) candidates(ctx context.Context, now time.Time, s *Selector, after ID, most int, noticed bool) (ids []ID, left bool, err error) {
	l := lowest{from: after, most: most}
	if len(s.IDs) > 0 {
		for _, id := range s.IDs {
			l.add(id)
		}
	} else {
		for i, more := int32(0), true; more; {
			if err := ctx.Err(); err != nil {
				return nil, false, err
			}
			q.mu.Lock()
			for end := i + walkStep; i < end && i < q.slab.used; i++ {
				if e := q.slab.at(i); e.live() && s.matchesEntry(q, e, now) {
					l.add(e.id)
				}
			}
			more = i < q.slab.used
			q.mu.Unlock()
		}
		if noticed {
			q.mu.Lock()
			for id := range q.notices.sets {
				l.add(id)
			}
			q.mu.Unlock()
		}
	}
	l.sort()
	return l.ids, l.left, nil
}

// walkPart is how many messages a walk notes at a time, so that the memory it
// takes does not grow with the queue.
const walkPart = 10_000

// Walk gives the messages that match, oldest first, beginning after the ID
// after (zero: from the start), until visit answers false. Each one is read as
// it is visited; visit may act on the queue.
func (q *Queue) Walk(ctx context.Context, now time.Time, s Selector, after ID, visit func(*Message) bool) error {
	for {
		ids, left, err := q.candidates(ctx, now, &s, after, walkPart, true)
		if err != nil {
			return err
		}
		for _, id := range ids {
			if err := ctx.Err(); err != nil {
				return err
			}
			m, err := q.Message(id)
			var d *damage
			switch {
			case errors.Is(err, ErrNotFound), errors.As(err, &d):
				continue // ended meanwhile, or about to be set aside
			case err != nil:
				return err
			}
			if len(s.Recipients(m, now)) > 0 && !visit(m) {
				return nil
			}
		}
		if !left {
			return nil
		}
		after = ids[len(ids)-1]
	}
}

// List gives the messages that match, oldest first, at most limit (0: all),
// beginning after the ID after (zero: from the start).
func (q *Queue) List(ctx context.Context, now time.Time, s Selector, after ID, limit int) (found []*Message, err error) {
	err = q.Walk(ctx, now, s, after, func(m *Message) bool {
		found = append(found, m)
		return len(found) != limit
	})
	return found, err
}

// Count tells how many open recipients match, and of how many messages.
func (q *Queue) Count(ctx context.Context, now time.Time, s Selector) (messages, recipients int, err error) {
	if len(s.IDs) == 0 && s.Recipient == "" && s.Class == "" && s.OlderThan <= 0 {
		return q.countEntries(ctx, now, &s)
	}
	err = q.Walk(ctx, now, s, ID{}, func(m *Message) bool {
		open := 0
		for _, i := range s.Recipients(m, now) {
			if status := m.States[i].Status; status <= StatusHeld {
				open++
			}
		}
		if open > 0 {
			messages++
			recipients += open
		}
		return true
	})
	return messages, recipients, err
}

// countEntries counts what the schedule can tell, without reading messages.
func (q *Queue) countEntries(ctx context.Context, now time.Time, s *Selector) (messages, recipients int, err error) {
	for i, more := int32(0), true; more; {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		q.mu.Lock()
		for end := i + walkStep; i < end && i < q.slab.used; i++ {
			n := q.countEntry(i, s, now)
			if n == 0 {
				continue
			}
			recipients += n
			// A message counts with the first of its entries that matches.
			first := q.index.first(q.slab.at(i).id)
			for first != i && q.countEntry(first, s, now) == 0 {
				first = q.slab.at(first).next
			}
			if first == i {
				messages++
			}
		}
		more = i < q.slab.used
		q.mu.Unlock()
	}
	return messages, recipients, nil
}

func (q *Queue) countEntry(i int32, s *Selector, now time.Time) (n int) {
	e := q.slab.at(i)
	if !e.live() || !s.matchesEntry(q, e, now) {
		return 0
	}
	for _, c := range [...]struct {
		status Status
		n      int32
	}{{StatusWaiting, e.open}, {StatusActive, e.active}, {StatusHeld, e.held}} {
		if len(s.Status) == 0 || slices.Contains(s.Status, c.status) {
			n += int(c.n)
		}
	}
	return n
}
