package queue

import (
	"cmp"
	"slices"
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
