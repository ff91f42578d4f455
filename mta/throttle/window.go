package throttle

// window is how many may be in use at once. With an adaptive window the size
// follows what the peer bears: as in Postfix, a window's worth of successes
// widens it by one. Unlike there, a failure halves it, but once per window: the
// connections that were open when things went wrong tell the same news.
type window struct {
	size, max int // max 0: no limit
	start     int // 0: not adaptive
	inUse     int
	credit    int // successes since the size last changed
	deaf      int // results still to come of what was open at the last failure
}

func newWindow(limit, start int) window {
	w := window{size: limit, max: limit}
	if start > 0 && limit > 0 {
		w.start = min(start, limit)
		w.size = w.start
	}
	return w
}

func (w *window) isFull() bool { return w.max > 0 && w.inUse >= w.size }

func (w *window) succeeded() {
	w.deaf = max(0, w.deaf-1)
	if w.start == 0 || w.size >= w.max {
		return
	}
	if w.credit++; w.credit >= w.size {
		w.size++
		w.credit = 0
	}
}

func (w *window) failed() {
	if w.start == 0 {
		return
	}
	w.credit = 0
	if w.deaf > 0 {
		w.deaf--
		return
	}
	w.size = max(1, w.size/2)
	w.deaf = max(0, w.inUse-1)
}

// reset begins again as if nothing were known of the peer.
func (w *window) reset() {
	if w.start > 0 {
		w.size, w.credit, w.deaf = w.start, 0, 0
	}
}
