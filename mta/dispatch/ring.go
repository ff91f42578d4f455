package dispatch

// ring is what takes turns: the first goes next. A member is in at most one
// ring of its kind at a time, through the node inside it.
type ring[T any] struct {
	first *node[T]
	count int
}

type node[T any] struct {
	value      T
	prev, next *node[T]
	in         *ring[T]
}

// push makes n the last one.
func (r *ring[T]) push(n *node[T]) {
	if n.in != nil {
		return
	}
	n.in = r
	r.count++
	if r.first == nil {
		r.first, n.prev, n.next = n, n, n
		return
	}
	n.prev, n.next = r.first.prev, r.first
	n.prev.next, n.next.prev = n, n
}

// turn makes the first one the last, and answers who that was.
func (r *ring[T]) turn() (v T, ok bool) {
	if r.first == nil {
		return v, false
	}
	v = r.first.value
	r.first = r.first.next
	return v, true
}

// leave takes n out of the ring it is in, if any.
func (n *node[T]) leave() {
	r := n.in
	if r == nil {
		return
	}
	r.count--
	n.prev.next, n.next.prev = n.next, n.prev
	if r.first == n {
		r.first = n.next
	}
	if r.count == 0 {
		r.first = nil
	}
	n.prev, n.next, n.in = nil, nil, nil
}
