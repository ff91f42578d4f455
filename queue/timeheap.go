package queue

// timed is something, known by its number, that has its time.
type timed struct {
	at  int64
	ref int32
	seq uint32 // among equals, the one that came first
}

func (t timed) before(o timed) bool {
	if t.at != o.at {
		return t.at < o.at
	}
	return int32(t.seq-o.seq) < 0
}

// timeHeap gives the earliest. It is a heap with four children to a node: half
// as deep as one with two, and a node's children are neighbours in memory.
// moved is told the place of everything that moves, so that it can be removed
// from the middle.
type timeHeap []timed

func (h *timeHeap) push(t timed, moved func(ref, pos int32)) {
	*h = append(*h, t)
	h.up(len(*h)-1, moved)
}

// remove takes out what is at pos, and gives it.
func (h *timeHeap) remove(pos int32, moved func(ref, pos int32)) timed {
	old := *h
	t := old[pos]
	last := len(old) - 1
	tail := old[last]
	*h = old[:last]
	if int(pos) == last {
		return t
	}
	(*h)[pos] = tail
	if tail.before(t) {
		h.up(int(pos), moved)
	} else {
		h.down(int(pos), moved)
	}
	return t
}

// fix moves what is at pos to where its new time belongs.
func (h *timeHeap) fix(pos int32, at int64, moved func(ref, pos int32)) {
	t := &(*h)[pos]
	earlier := at < t.at
	t.at = at
	if earlier {
		h.up(int(pos), moved)
	} else {
		h.down(int(pos), moved)
	}
}

func (h timeHeap) up(i int, moved func(ref, pos int32)) {
	t := h[i]
	for i > 0 {
		parent := (i - 1) / 4
		if !t.before(h[parent]) {
			break
		}
		h[i] = h[parent]
		moved(h[i].ref, int32(i))
		i = parent
	}
	h[i] = t
	moved(t.ref, int32(i))
}

func (h timeHeap) down(i int, moved func(ref, pos int32)) {
	t := h[i]
	for {
		first := 4*i + 1
		if first >= len(h) {
			break
		}
		least := first
		for c := first + 1; c < min(first+4, len(h)); c++ {
			if h[c].before(h[least]) {
				least = c
			}
		}
		if !h[least].before(t) {
			break
		}
		h[i] = h[least]
		moved(h[i].ref, int32(i))
		i = least
	}
	h[i] = t
	moved(t.ref, int32(i))
}
