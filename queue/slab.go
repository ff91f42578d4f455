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
// as much again had been allocated, 70 MB for a million entries.
type slab struct {
	pieces [][]entry
	used   int32 // entries ever used
	free   int32 // the first of the freed ones
	count  int
	memory *mappings
}

func newSlab() slab { return slab{free: noEntry} }

func (s *slab) at(i int32) *entry {
	return &s.pieces[i>>slabBits][i&(1<<slabBits-1)]
}

func (s *slab) alloc() int32 {
	s.count++
	if i := s.free; i != noEntry {
		s.free = s.at(i).next
		return i
	}
	if int(s.used)>>slabBits == len(s.pieces) {
		s.pieces = append(s.pieces, s.piece())
	}
	s.used++
	return s.used - 1
}

func (s *slab) release(i int32) {
	*s.at(i) = entry{next: s.free}
	s.free = i
	s.count--
}

// piece makes room for more entries.
func (s *slab) piece() []entry {
	const n = 1 << slabBits
	if s.memory == nil {
		s.memory = new(mappings)
		// A closed queue may still be asked for its depth, so the memory goes
		// with the last reference to the queue, not with Close.
		runtime.SetFinalizer(s.memory, (*mappings).release)
	}
	b, err := unix.Mmap(-1, 0, n*int(unsafe.Sizeof(entry{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return make([]entry, n) // dearer, and as good
	}
	s.memory.all = append(s.memory.all, b)
	return unsafe.Slice((*entry)(unsafe.Pointer(&b[0])), n) // an entry has no pointers
}

// mappings are pieces of memory of our own.
type mappings struct{ all [][]byte }

func (m *mappings) release() {
	for _, b := range m.all {
		_ = unix.Munmap(b) // fails only for what was not mapped
	}
}
