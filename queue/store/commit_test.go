package store

import (
	"fmt"
	"testing"
)

// A group that fills half a memtable is written by Pebble in another way, with a
// log file and a memtable of its own.
func TestGroupsFitTheMemtable(t *testing.T) {
	t.Parallel()
	for _, memTable := range []uint64{8 << 20, DefaultMemTableSize, 256 << 20} {
		t.Run(fmt.Sprint(memTable>>20, " MiB"), func(t *testing.T) {
			t.Parallel()
			const batches, size = 400, 100 << 10
			c := newCommitter(memTable)
			for i := range batches {
				b := &Batch{done: make(chan error, 1)}
				b.Set(fmt.Appendf(nil, "k%d", i), make([]byte, size))
				c.queue = append(c.queue, b)
			}
			taken, groups := 0, 0
			for len(c.queue) > 0 {
				if !c.gather() || len(c.taken) == 0 {
					t.Fatal("nothing was gathered")
				}
				if n := uint64(c.group.Len()); n > memTable/4 {
					t.Fatalf("a group of %d octets", n)
				}
				taken += len(c.taken)
				groups++
			}
			if taken != batches || groups > batches/5 {
				t.Errorf("%d batches in %d groups", taken, groups)
			}
		})
	}
}
