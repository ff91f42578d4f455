package queue

import "strings"

// lane is what waits for one domain. Due work is served in turns by sender
// within a priority; what is not due yet waits in a heap.
type lane struct {
	name    string
	site    string // as far as it is known, see SetSite
	waiting timeHeap
	rounds  [3]round // urgent, normal, bulk
	entries int32
	ready   int32 // entries in the rounds
	pos     int32 // in the queue's heap of lanes; -1: nothing waits
	named   bool  // Due has named it, and Take not yet found it empty
	listed  bool  // in the queue's list of lanes to be named
	counts  counts
}

// counts are recipients.
type counts struct {
	waiting, due, active, held int64
}

func (c *counts) add(e *entry, sign int64) {
	if e.place == placeReady || e.place == placeParked {
		c.due += sign * int64(e.open)
	} else {
		c.waiting += sign * int64(e.open)
	}
	c.active += sign * int64(e.active)
	c.held += sign * int64(e.held)
}

// round is the due work of one lane and priority: a ring of senders, of which
// cur is served next.
type round struct {
	cur      *turn
	bySender map[int32]*turn
}

// turn is the due work of one sender.
type turn struct {
	sender     int32
	prev, next *turn
	due        timeHeap
}

// order of service of the priorities.
func roundOf(p Priority) int {
	switch p {
	case PriorityUrgent:
		return 0
	case PriorityBulk:
		return 2
	}
	return 1
}

// lanes are the lanes by name and number.
type lanes struct {
	byName map[string]int32
	all    []*lane // nil: free
	free   []int32
	turns  *turn // those not in use, linked by next
}

func newLanes() lanes { return lanes{byName: make(map[string]int32)} }

func (l *lanes) find(name string) (int32, *lane) {
	i, ok := l.byName[name]
	if !ok {
		return -1, nil
	}
	return i, l.all[i]
}

func (l *lanes) get(name string) int32 {
	if i, ok := l.byName[name]; ok {
		return i
	}
	name = strings.Clone(name) // it may be a part of something large
	ln := &lane{name: name, pos: -1}
	var i int32
	if n := len(l.free); n > 0 {
		i = l.free[n-1]
		l.free = l.free[:n-1]
		l.all[i] = ln
	} else {
		i = int32(len(l.all))
		l.all = append(l.all, ln)
	}
	l.byName[name] = i
	return i
}

func (l *lanes) release(i int32) {
	delete(l.byName, l.all[i].name)
	l.all[i] = nil
	l.free = append(l.free, i)
}

// enter puts an entry into its sender's turn.
func (l *lanes) enter(r *round, t timed, sender int32, moved func(ref, pos int32)) {
	s := r.bySender[sender]
	if s == nil {
		if s = l.turns; s != nil {
			l.turns = s.next
		} else {
			s = new(turn)
		}
		s.sender = sender
		if r.cur == nil {
			s.prev, s.next = s, s
			r.cur = s
		} else { // the newcomer is served last
			s.prev, s.next = r.cur.prev, r.cur
			s.prev.next, s.next.prev = s, s
		}
		if r.bySender == nil {
			r.bySender = make(map[int32]*turn)
		}
		r.bySender[sender] = s
	}
	s.due.push(t, moved)
}

// keepTurns bounds the memory that an emptied turn keeps.
const keepTurns = 64

// leave takes an entry out of its sender's turn.
func (l *lanes) leave(r *round, sender, pos int32, moved func(ref, pos int32)) {
	s := r.bySender[sender]
	s.due.remove(pos, moved)
	if len(s.due) > 0 {
		return
	}
	delete(r.bySender, sender)
	if s.next == s {
		r.cur = nil
	} else {
		s.prev.next, s.next.prev = s.next, s.prev
		if r.cur == s {
			r.cur = s.next
		}
	}
	if cap(s.due) > keepTurns {
		s.due = nil
	}
	s.prev, s.next = nil, l.turns
	l.turns = s
}

// pick gives the entry whose turn it is. pass ends that turn.
func (ln *lane) pick() (r *round, ref int32) {
	for i := range ln.rounds {
		if r = &ln.rounds[i]; r.cur != nil {
			return r, r.cur.due[0].ref
		}
	}
	return nil, noEntry
}
