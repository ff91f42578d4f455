package queue

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// Message is an envelope and the state of each of its recipients.
type Message struct {
	Envelope *Envelope
	States   []RecipientState // in the order of Envelope.Recipients
}

// Status of a recipient.
type Status uint8

const (
	StatusWaiting Status = iota // due now or later
	StatusActive                // claimed by a worker
	StatusHeld
	StatusDelivered
	StatusFailed
	StatusCancelled
)

// RecipientState is what became of a recipient so far.
type RecipientState struct {
	Status   Status
	Attempts int
	DueAt    time.Time
	Last     *Outcome // nil before the first attempt
	LastAt   time.Time
}

// Message tells all about one message that is still in the queue.
func (q *Queue) Message(id ID) (*Message, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m, err := q.find(id)
	if err != nil {
		return nil, err
	}
	defer q.unpin(m)
	return m.snapshot(), nil
}

// find gives a message that is in the queue, pinned; the caller calls unpin.
func (q *Queue) find(id ID) (*message, error) {
	if !q.known(id) {
		return nil, ErrNotFound
	}
	m, err := q.hot(id)
	if err != nil && !q.known(id) || err == nil && m.ended {
		if err == nil {
			q.unpin(m)
		}
		return nil, ErrNotFound // it has ended meanwhile
	}
	return m, err
}

// known reports whether a message has open recipients or unreported notices.
func (q *Queue) known(id ID) bool {
	return q.index.first(id) != noEntry || q.notices.sets[id] != nil
}

func (m *message) snapshot() *Message {
	s := &Message{Envelope: m.env, States: make([]RecipientState, len(m.states))}
	for i := range m.states {
		r := &m.states[i]
		s.States[i] = RecipientState{
			Status:   r.status,
			Attempts: int(r.attempts),
			DueAt:    timeOf(r.due),
			Last:     r.last,
			LastAt:   timeOf(r.lastAt),
		}
		if r.active {
			s.States[i].Status = StatusActive
		}
	}
	return s
}

// Selector chooses messages or, within them, recipients. Empty fields match
// all; all given ones must match.
type Selector struct {
	IDs       []ID
	Domain    string   // a recipient domain, or "*.example.test"
	Domains   []string // any of these (a site, resolved by the caller)
	Sender    string   // an address, or "@domain"
	Recipient string
	Tag       string
	Status    []Status
	OlderThan time.Duration // of the arrival
}

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

func (s *Selector) matchesSender(sender string) bool {
	if strings.HasPrefix(s.Sender, "@") {
		at := strings.LastIndexByte(sender, '@')
		return at >= 0 && strings.EqualFold(sender[at:], s.Sender)
	}
	return s.Sender == "" || strings.EqualFold(s.Sender, sender)
}

// matchesEntry tells from what the schedule knows whether an entry may match.
func (s *Selector) matchesEntry(q *Queue, e *entry, now time.Time) bool {
	return s.matchesDomain(q.lanes.all[e.lane].name) &&
		s.matchesSender(q.senders.text(e.sender)) &&
		(s.Tag == "" || s.Tag == q.tags.text(e.tag)) &&
		(s.OlderThan <= 0 || now.Sub(e.id.Time()) >= s.OlderThan-time.Second) // the ID's time is not exact
}

func (s *Selector) matchesEnvelope(e *Envelope, now time.Time) bool {
	return s.matchesSender(e.Sender) && (s.Tag == "" || s.Tag == e.Tag) &&
		(s.OlderThan <= 0 || now.Sub(e.ArrivedAt) >= s.OlderThan)
}

func (s *Selector) matchesRecipient(r *Recipient, status Status) bool {
	return s.matchesDomain(r.Domain) &&
		(s.Recipient == "" || strings.EqualFold(s.Recipient, r.Address)) &&
		(len(s.Status) == 0 || slices.Contains(s.Status, status))
}

// matches reports whether any recipient of a message matches.
func (s *Selector) matches(m *Message, now time.Time) bool {
	if !s.matchesEnvelope(m.Envelope, now) {
		return false
	}
	for i := range m.States {
		if s.matchesRecipient(&m.Envelope.Recipients[i], m.States[i].Status) {
			return true
		}
	}
	return false
}

// walkStep is how many entries are looked at under the lock at a time.
const walkStep = 1000

// candidates gives the messages whose entries may match, in order of their
// IDs, beginning after the ID after. With all, also those that are kept for
// their notices only.
func (q *Queue) candidates(ctx context.Context, now time.Time, s *Selector, from ID, all bool) ([]ID, error) {
	var ids []ID
	take := func(id ID) {
		if compareID(id, from) > 0 {
			ids = append(ids, id)
		}
	}
	if len(s.IDs) > 0 {
		for _, id := range s.IDs {
			take(id)
		}
	} else {
		for i, more := int32(0), true; more; {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			q.mu.Lock()
			for end := i + walkStep; i < end && i < q.slab.used; i++ {
				if e := q.slab.at(i); e.live() && s.matchesEntry(q, e, now) {
					take(e.id)
				}
			}
			more = i < q.slab.used
			q.mu.Unlock()
		}
		if all {
			q.mu.Lock()
			for id := range q.notices.sets {
				take(id)
			}
			q.mu.Unlock()
		}
	}
	slices.SortFunc(ids, compareID)
	return slices.Compact(ids), nil
}

// List gives the messages that match, oldest first, at most limit (0: all),
// beginning after the ID after (zero: from the start).
func (q *Queue) List(ctx context.Context, now time.Time, s Selector, after ID, limit int) ([]*Message, error) {
	ids, err := q.candidates(ctx, now, &s, after, true)
	if err != nil {
		return nil, err
	}
	var found []*Message
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		m, err := q.Message(id)
		var d *damage
		switch {
		case errors.Is(err, ErrNotFound), errors.As(err, &d):
			continue // ended meanwhile, or about to be set aside
		case err != nil:
			return nil, err
		}
		if s.matches(m, now) {
			if found = append(found, m); len(found) == limit {
				break
			}
		}
	}
	return found, nil
}

// Depth are figures kept in memory: cheap to ask at any time.
type Depth struct {
	Messages, Recipients       int64
	Waiting, Due, Active, Held int64     // recipients
	Oldest                     time.Time // arrival of the oldest open message; zero: none
	UnreportedNotices          int64
	BodyMemory                 int64
}

// Depth tells how full the queue is.
func (q *Queue) Depth(now time.Time) Depth {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.total
	d := Depth{
		Messages:          int64(q.index.count),
		Recipients:        t.waiting + t.due + t.active + t.held,
		Waiting:           t.waiting,
		Due:               t.due,
		Active:            t.active,
		Held:              t.held,
		UnreportedNotices: q.notices.total,
		BodyMemory:        q.keptCost,
	}
	for id := range q.notices.sets {
		if q.index.first(id) == noEntry {
			d.Messages++
		}
	}
	if i := q.oldestEntry(); i != noEntry {
		d.Oldest = q.slab.at(i).id.Time()
	}
	return d
}

// oldestEntry finds the entry with the lowest ID. The answer is kept until
// that entry ends.
func (q *Queue) oldestEntry() int32 {
	if i := q.oldest; i.ref != noEntry && i.id != (ID{}) && q.slab.at(i.ref).id == i.id {
		return i.ref
	}
	found := noEntry
	for i := range q.slab.used {
		if e := q.slab.at(i); e.live() && (found == noEntry || compareID(e.id, q.slab.at(found).id) < 0) {
			found = i
		}
	}
	q.oldest.ref = found
	if found != noEntry {
		q.oldest.id = q.slab.at(found).id
	}
	return found
}

// DomainDepth is one row of the age x destination grid.
type DomainDepth struct {
	Domain                     string
	Waiting, Due, Active, Held int64
	Oldest                     time.Time
	Next                       time.Time // the next due time
	Age                        [10]int64 // recipients by age: under 5, 10, 20, 40, 80, 160, 320, 640, 1280 minutes, and older
}

func (d *DomainDepth) recipients() int64 { return d.Waiting + d.Due + d.Active + d.Held }

// ageClass gives the column of the grid.
func ageClass(age time.Duration) int {
	class := 0
	for limit := 5 * time.Minute; class < 9 && age >= limit; limit *= 2 {
		class++
	}
	return class
}

// Domains gives the domains with open recipients, the fullest first, at most limit (0: all).
func (q *Queue) Domains(now time.Time, limit int) []DomainDepth {
	rows := make(map[string]*DomainDepth)
	q.mu.Lock()
	for i := int32(0); i < q.slab.used; i++ {
		if i%walkStep == walkStep-1 { // let others have their turn
			q.mu.Unlock()
			q.mu.Lock()
		}
		if e := q.slab.at(i); e.live() {
			q.addRow(rows, e, now)
		}
	}
	q.mu.Unlock()
	all := make([]DomainDepth, 0, len(rows))
	for _, row := range rows {
		all = append(all, *row)
	}
	slices.SortFunc(all, func(a, b DomainDepth) int {
		return cmp.Or(cmp.Compare(b.recipients(), a.recipients()), cmp.Compare(a.Domain, b.Domain))
	})
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all
}

func (q *Queue) addRow(rows map[string]*DomainDepth, e *entry, now time.Time) {
	name := q.lanes.all[e.lane].name
	row := rows[name]
	if row == nil {
		row = &DomainDepth{Domain: name}
		rows[name] = row
	}
	var c counts
	c.add(e, 1)
	row.Waiting += c.waiting
	row.Due += c.due
	row.Active += c.active
	row.Held += c.held
	arrived := e.id.Time()
	if row.Oldest.IsZero() || arrived.Before(row.Oldest) {
		row.Oldest = arrived
	}
	if due := timeOf(e.due); e.open > 0 && (row.Next.IsZero() || due.Before(row.Next)) {
		row.Next = due
	}
	row.Age[ageClass(now.Sub(arrived))] += int64(e.open + e.active + e.held)
}

// Find turns a unique prefix of an ID's text into the ID, of a message in the
// queue or in its history. ErrNotFound: none begins so; ErrAmbiguous: several.
func (q *Queue) Find(prefix string) (ID, error) {
	lo, hi, err := idRange(prefix)
	if err != nil {
		return ID{}, err
	}
	var found ID
	for _, kind := range []byte{keyEnvelope, keyHistory} {
		upper := after(idKey(kind, hi))
		for lower := idKey(kind, lo); ; lower = after(idKey(kind, found)) {
			id, ok, err := q.firstID(lower, upper)
			if err != nil {
				return ID{}, err
			}
			if !ok || id == found {
				break
			}
			if found != (ID{}) {
				return ID{}, ErrAmbiguous
			}
			found = id
		}
	}
	if found == (ID{}) {
		return ID{}, ErrNotFound
	}
	return found, nil
}

func (q *Queue) firstID(lower, upper []byte) (id ID, ok bool, err error) {
	it, err := q.store.NewIter(lower, upper)
	if err != nil {
		return id, false, err
	}
	if ok = it.Next(); ok {
		id = idOf(it.Key())
	}
	return id, ok, it.Close()
}
