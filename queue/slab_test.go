package queue

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSlab allocates and frees at random: no entry is handed out twice, none
// that is freed looks alive.
func TestSlab(t *testing.T) {
	t.Parallel()
	s := newSlab()
	random := rand.New(rand.NewPCG(1, 2))
	var used []int32
	for step := range 200_000 {
		// Waves: from empty to some pieces, and back.
		if filling := step/30_000%2 == 0; len(used) == 0 || random.IntN(3) > 0 == filling {
			i := s.alloc()
			if s.at(i).live() {
				t.Fatalf("step %d: entry %d was in use", step, i)
			}
			*s.at(i) = entry{id: ID{15: 1}, lane: i}
			used = append(used, i)
		} else {
			k := random.IntN(len(used))
			i := used[k]
			if e := s.at(i); e.lane != i || i >= s.used {
				t.Fatalf("step %d: entry %d holds %+v", step, i, e)
			}
			s.release(i)
			used[k] = used[len(used)-1]
			used = used[:len(used)-1]
		}
		if s.count != len(used) {
			t.Fatalf("step %d: %d are counted, %d in use", step, s.count, len(used))
		}
	}
	live := 0
	for i := range s.used {
		if s.at(i).live() {
			live++
			if !slices.Contains(used, i) {
				t.Fatalf("entry %d looks alive", i)
			}
		}
	}
	if live != len(used) {
		t.Errorf("%d are alive, %d in use", live, len(used))
	}
}

// TestSlabGivesBack: of a deep queue that has become empty, no more memory is
// left than one piece.
func TestSlabGivesBack(t *testing.T) {
	t.Parallel()
	s := newSlab()
	x := idIndex{slab: &s}
	const n = 4 * pieceSize
	for range n {
		i := s.alloc()
		s.at(i).id = ID{8: byte(i >> 16), 9: byte(i >> 8), 10: byte(i), 15: 1}
		x.add(i)
	}
	slots := len(x.slots)
	for i := range int32(n) {
		if x.first(s.at(i).id) != i {
			t.Fatalf("entry %d is not found", i)
		}
		x.remove(i)
		s.release(i)
	}
	zero := 0
	for k := range s.pieces {
		if s.pieces[k].entries[2] == (entry{}) { // a freed one that was not given back has its next
			zero++
		}
	}
	if zero != len(s.pieces)-1 {
		t.Errorf("%d of %d pieces were given back", zero, len(s.pieces))
	}
	if len(x.slots) > smallIndex || slots <= smallIndex {
		t.Errorf("the index had %d slots and has %d", slots, len(x.slots))
	}
}
