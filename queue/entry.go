package queue

import (
	"encoding/binary"
	"strings"
)

// place says where an entry is kept.
type place uint8

const (
	placeIdle    place = iota // nowhere: all its recipients are held or claimed, or somebody reads the message
	placeWaiting              // in its lane's heap
	placeReady                // in its lane's rounds: due
	placeParked               // due, but suspended
)

// entry is one message at one domain, the unit of scheduling. A million of
// them wait in memory, so an entry has no pointers and holds only what is
// needed to find its turn: all else is read when it comes.
type entry struct {
	id        ID
	due       int64 // the earliest of its waiting recipients
	sweepAt   int64 // when Sweep has to look at it
	slot      int64 // not due before, see Claim.Postpone; 0: nobody postponed it
	lane      int32
	sender    int32
	tag       int32
	next      int32 // the message's next entry; in a free one: the next free one
	pos       int32 // its place in the heap that holds it
	open      int32 // recipients that wait or are due
	active    int32 // recipients in claims
	held      int32
	pins      int16 // readers of the message: not to be freed, nor found by others
	place     place
	priority  Priority
	scheduled bool // first due at a time that a person chose
	reserved  bool // the slot is its own
}

// look makes Sweep look at the entry at a time; 0: no need.
func (e *entry) look(at int64) {
	if at != 0 && (e.sweepAt == 0 || at < e.sweepAt) {
		e.sweepAt = at
	}
}

// live reports whether an entry is in use: a freed one has no ID.
func (e *entry) live() bool { return e.id != ID{} }

// idIndex finds the first entry of a message: open addressing over entry
// numbers, 6 octets or so for each message.
type idIndex struct {
	slab  *slab
	slots []int32 // entry + 1; 0: empty
	count int
}

func (x *idIndex) home(id *ID) int {
	// Sequences are consecutive: without mixing they would fill one long run
	// of slots, and every search would walk along it.
	h := (binary.BigEndian.Uint64(id[8:]) ^ binary.BigEndian.Uint64(id[:8])) * 0x9e3779b97f4a7c15
	return int(h>>32) & (len(x.slots) - 1)
}

// find gives the slot of id, or the empty one where it would be.
func (x *idIndex) find(id ID) int {
	for i := x.home(&id); ; i = (i + 1) & (len(x.slots) - 1) {
		if x.slots[i] == 0 || x.slab.at(x.slots[i]-1).id == id {
			return i
		}
	}
}

// first gives the first entry of a message, or noEntry.
func (x *idIndex) first(id ID) int32 {
	if x.count == 0 {
		return noEntry
	}
	return x.slots[x.find(id)] - 1
}

// add puts an entry before the others of its message.
func (x *idIndex) add(i int32) {
	if 4*(x.count+1) > 3*len(x.slots) {
		x.resize(max(64, 2*len(x.slots)))
	}
	e := x.slab.at(i)
	slot := x.find(e.id)
	e.next = x.slots[slot] - 1
	if x.slots[slot] == 0 {
		x.count++
	}
	x.slots[slot] = i + 1
}

// remove takes an entry out of its message's list.
func (x *idIndex) remove(i int32) {
	e := x.slab.at(i)
	slot := x.find(e.id)
	if x.slots[slot]-1 != i {
		before := x.slab.at(x.slots[slot] - 1)
		for before.next != i {
			before = x.slab.at(before.next)
		}
		before.next = e.next
		return
	}
	if e.next != noEntry {
		x.slots[slot] = e.next + 1
		return
	}
	x.count--
	x.empty(slot)
	if len(x.slots) > smallIndex && 16*x.count < len(x.slots) {
		x.resize(len(x.slots) / 4)
	}
}

// empty frees a slot and moves up those behind it that want to be nearer to
// their home.
func (x *idIndex) empty(slot int) {
	mask := len(x.slots) - 1
	x.slots[slot] = 0
	for i := (slot + 1) & mask; x.slots[i] != 0; i = (i + 1) & mask {
		home := x.home(&x.slab.at(x.slots[i] - 1).id)
		if (i-home)&mask >= (i-slot)&mask {
			x.slots[slot], x.slots[i] = x.slots[i], 0
			slot = i
		}
	}
}

// smallIndex is the number of slots that are kept, however few are in use.
const smallIndex = 1 << 14

func (x *idIndex) resize(slots int) {
	old := x.slots
	x.slots = make([]int32, slots)
	for _, s := range old {
		if s != 0 {
			x.slots[x.find(x.slab.at(s-1).id)] = s
		}
	}
}

// names numbers strings that many entries share, and forgets those that no
// entry uses any more. Number 0 is the empty string, for ever.
type names struct {
	byName map[string]int32
	all    []name
	free   []int32
}

type name struct {
	text string
	uses int
}

func newNames() names {
	return names{byName: make(map[string]int32), all: []name{{}}}
}

// use gives the number of text and counts one more use of it.
func (n *names) use(text string) int32 {
	if text == "" {
		return 0
	}
	i, ok := n.byName[text]
	if !ok {
		if k := len(n.free); k > 0 {
			i = n.free[k-1]
			n.free = n.free[:k-1]
		} else {
			i = int32(len(n.all))
			n.all = append(n.all, name{})
		}
		text = strings.Clone(text) // it may be a part of something large
		n.all[i].text = text
		n.byName[text] = i
	}
	n.all[i].uses++
	return i
}

func (n *names) drop(i int32) {
	if i == 0 {
		return
	}
	n.all[i].uses--
	if n.all[i].uses == 0 {
		delete(n.byName, n.all[i].text)
		n.all[i].text = ""
		n.free = append(n.free, i)
	}
}

func (n *names) text(i int32) string { return n.all[i].text }
