package queue

import (
	"errors"
	"fmt"

	"postrider/queue/store"
)

// message is what memory holds of a message while somebody works on it:
// fresh mail until its first attempt has ended, older mail while it is
// claimed. All fields but env are under the queue's lock; env never changes.
type message struct {
	id     ID
	env    *Envelope
	states []recipientState // in the order of env.Recipients
	groups []group          // the recipients by domain
	open   int              // recipients that are not final
	active int              // claims in flight
	writes int              // changes not yet on disk: the records there are old
	pins   int              // readers that must find the same message again
	stored bool             // there are, or will be, state records
	ended  bool             // nothing is left to do: being deleted
	broken error            // why it must be set aside

	buf        *buffer // prefix and body, where kept in memory
	prefix     int     // where in buf the prefix begins: after the body
	cost       int64   // counted against Options.BodyMemory; 0: not kept
	prev, link *message

	oneState [1]recipientState
	oneGroup [1]group
}

// group is the recipients of a message at one domain.
type group struct {
	lane       int32 // -1: its recipients are all final
	recipients []int32
}

func newMessage(env *Envelope) *message {
	m := &message{id: env.ID, env: env, open: len(env.Recipients)}
	m.states = m.oneState[:]
	if n := len(env.Recipients); n > 1 {
		m.states = make([]recipientState, n)
	}
	due := m.firstDue()
	for i := range m.states {
		s := &m.states[i]
		s.due = due
		if env.Held {
			s.status = StatusHeld
			s.heldAt = nanos(env.ArrivedAt)
		}
	}
	return m
}

// only is the group of a message with one recipient.
var only = []int32{0}

// group sorts the recipients by domain. A domain whose recipients are all
// final need not have a lane any more.
func (q *Queue) group(m *message) {
	if len(m.env.Recipients) == 1 {
		m.oneGroup[0] = group{lane: q.laneOf(m.env.Recipients[0].Domain), recipients: only}
		m.groups = m.oneGroup[:]
		return
	}
	var t domainTable
	m.env.domains(&t)
	m.groups = make([]group, len(t.names))
	all := make([]int32, len(m.env.Recipients))
	for i, n := range t.counts {
		m.groups[i] = group{lane: q.laneOf(t.names[i]), recipients: all[:0:n]}
		all = all[n:]
	}
	for i := range m.env.Recipients {
		g := &m.groups[t.index(m.env.Recipients[i].Domain)]
		g.recipients = append(g.recipients, int32(i))
	}
}

func (q *Queue) laneOf(domain string) int32 {
	i, _ := q.lanes.find(domain)
	return i
}

func (m *message) groupOf(lane int32) *group {
	for i := range m.groups {
		if m.groups[i].lane == lane {
			return &m.groups[i]
		}
	}
	return nil
}

// firstDue is where the message's age begins.
func (m *message) firstDue() int64 {
	return max(nanos(m.env.ArrivedAt), nanos(m.env.NotBefore))
}

// hot gives a message, from memory or from the disk, and pins it there: the
// caller calls unpin. It is called with the lock held, which it gives up while
// it reads.
func (q *Queue) hot(id ID) (*message, error) {
	for q.messages[id] == nil {
		wait := q.loads[id]
		if wait == nil {
			break
		}
		q.mu.Unlock()
		<-wait
		q.mu.Lock()
	}
	if m := q.messages[id]; m != nil {
		m.pins++
		return m, nil
	}
	// Only one reads a message at a time, and nobody changes one that is not
	// in memory: so what is read here is not overtaken by a change.
	done := make(chan struct{})
	q.loads[id] = done
	q.mu.Unlock()
	m, err := q.read(id)
	q.mu.Lock()
	delete(q.loads, id)
	close(done)
	if err != nil {
		return nil, err
	}
	q.group(m)
	q.messages[id] = m
	m.pins++
	return m, nil
}

// unpin lets go of a message that hot gave.
func (q *Queue) unpin(m *message) {
	m.pins--
	q.cool(m)
}

// cool forgets a message that nobody works on. What is kept for its first
// attempt stays until the budget wants it back, see keep.
func (q *Queue) cool(m *message) {
	if m.active > 0 || m.writes > 0 || m.pins > 0 || m.cost > 0 && !m.ended {
		return
	}
	q.unkeep(m)
	delete(q.messages, m.id)
}

// read gets envelope and states of a message from the disk.
func (q *Queue) read(id ID) (*message, error) {
	record, err := q.store.Get(idKey(keyEnvelope, id), nil)
	if errors.Is(err, store.ErrAbsent) {
		return nil, &damage{id, "read its envelope", err}
	}
	if err != nil {
		return nil, q.readError(id, "read its envelope", err)
	}
	env, err := decodeEnvelope(id, record)
	if err != nil {
		return nil, &damage{id, "read its envelope", err}
	}
	m := newMessage(env)
	if err := q.readStates(m); err != nil {
		return nil, q.readError(id, "read its state", err)
	}
	m.open = 0
	for i := range m.states {
		if !m.states[i].final() {
			m.open++
		}
	}
	return m, nil
}

// readStates reads what is known of the recipients. Most messages have one
// part of states at most, and asking for that is cheaper than a walk.
func (q *Queue) readStates(m *message) error {
	if parts(len(m.states)) > 1 {
		lower, upper := keysOfMessage(keyState, m.id)
		return q.store.Scan(lower, upper, m.readPart)
	}
	var key [stateKeySize]byte
	putStateKey(key[:], m.id, 0)
	value, err := q.store.Get(key[:], nil)
	if errors.Is(err, store.ErrAbsent) {
		return nil
	}
	if err != nil {
		return err
	}
	return m.readPart(key[:], value)
}

func (m *message) readPart(key, value []byte) error {
	m.stored = true
	if len(key) != stateKeySize {
		return fmt.Errorf("key %x: %w", key, errDamaged)
	}
	from := statesPerPart * (int(key[idKeySize])<<8 | int(key[idKeySize+1]))
	if from >= len(m.states) {
		return fmt.Errorf("key %x: %w", key, errDamaged)
	}
	return decodePart(value, m.states[from:min(from+statesPerPart, len(m.states))])
}

// keep holds a fresh message in memory for its first attempt, as long as the
// budget allows: the oldest go first.
func (q *Queue) keep(m *message) {
	m.cost = int64(cap(m.buf.b)) + 512 + 128*int64(len(m.env.Recipients))
	if m.cost > q.opts.BodyMemory {
		m.cost = 0
		m.buf.drop()
		m.buf = nil
		return
	}
	m.prev, m.link = q.kept.prev, &q.kept
	m.prev.link, m.link.prev = m, m
	q.keptCost += m.cost
	for q.keptCost > q.opts.BodyMemory {
		oldest := q.kept.link
		q.unkeep(oldest)
		q.cool(oldest)
	}
}

func (q *Queue) unkeep(m *message) {
	if m.cost == 0 {
		return
	}
	q.keptCost -= m.cost
	m.cost = 0
	m.prev.link, m.link.prev = m.link, m.prev
	m.prev, m.link = nil, nil
	m.buf.drop()
	m.buf = nil
}
