package queue

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	slabBits = 12
	noEntry  = int32(-1)
)

// slab keeps the entries in pieces, so that growing copies nothing. The pieces
// lie outside the garbage collector's heap: it would wait with its work until
// as much again had been allocated, 70 MB for a million entries. The memory of
// a piece that is empty again goes back to the system.
type slab struct {
	pieces []piece
	open   []int32 // pieces with room; the last one is filled next
	used   int32   // all entries are below this
	count  int
	memory *mappings
}

const pieceSize = 1 << slabBits

// piece is some entries: those that were never used, those that are, and the
// freed ones, which are linked by next.
type piece struct {
	entries []entry
	mapped  []byte // their memory; nil: of the garbage collector
	used    int32  // entries ever used since it was empty
	free    int32  // the first of the freed ones
	count   int32
}

func newSlab() slab { return slab{} }

func (s *slab) at(i int32) *entry {
	return &s.pieces[i>>slabBits].entries[i&(pieceSize-1)]
}

func (s *slab) alloc() int32 {
	if len(s.open) == 0 {
		s.grow()
	}
	n := s.open[len(s.open)-1]
	p := &s.pieces[n]
	i := p.free
	if i != noEntry {
		p.free = s.at(i).next
	} else {
		i = n<<slabBits | p.used
		p.used++
	}
	s.count++
	p.count++
	if p.count == pieceSize {
		s.open = s.open[:len(s.open)-1]
	}
	return i
}

func (s *slab) release(i int32) {
	n := i >> slabBits
	p := &s.pieces[n]
	*s.at(i) = entry{next: p.free}
	p.free = i
	if p.count == pieceSize {
		s.open = append(s.open, n)
	}
	s.count--
	p.count--
	if p.count == 0 {
		// The one that is left is filled again at once.
		p.clear(len(s.open) > 1)
	}
}

// clear begins a piece anew that is empty. Its addresses stay good. Where it
// is not needed soon and much of it was used, the system gets the memory.
func (p *piece) clear(giveBack bool) {
	if giveBack && p.used > pieceSize/2 && p.mapped != nil {
		_ = unix.Madvise(p.mapped, unix.MADV_DONTNEED) // a hint; without it the memory stays ours
	}
	p.used, p.free = 0, noEntry
}

// grow adds an empty piece.
func (s *slab) grow() {
	p := piece{free: noEntry}
	if b, err := unix.Mmap(-1, 0, pieceSize*int(unsafe.Sizeof(entry{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE); err == nil {
		if s.memory == nil {
			s.memory = new(mappings)
			// A closed queue may still be asked for its depth, so the memory
			// goes with the last reference to the queue, not with Close.
			runtime.SetFinalizer(s.memory, (*mappings).release)
		}
		s.memory.all = append(s.memory.all, b)
		p.mapped = b
		p.entries = unsafe.Slice((*entry)(unsafe.Pointer(&b[0])), pieceSize) // an entry has no pointers
	} else {
		p.entries = make([]entry, pieceSize) // dearer, and as good
	}
	s.open = append(s.open, int32(len(s.pieces)))
	s.pieces = append(s.pieces, p)
	s.used += pieceSize
}

// mappings are pieces of memory of our own.
type mappings struct{ all [][]byte }

func (m *mappings) release() {
	for _, b := range m.all {
		_ = unix.Munmap(b) // fails only for what was not mapped
	}
}
