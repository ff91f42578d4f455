package dispatch

import "time"

// Hosts that do not answer must not use up the connections of those that do: a
// thousand of them would hold all of max_connections for as long as a
// connection may take to be made. So a connection that is not there after a
// moment leaves the total, which counts it again once it is made. How many may
// be aside at a time is bounded too: they cost memory and a file descriptor
// each. And where all connections of a path are aside, no more are begun.

// asideAfter is how long a connection being made, or a lookup, keeps its place
// from others. Five thousand dead destinations cost the living ones a quarter
// of a second of a thousand connections once. A host that is farther away than
// this answers while it is aside, so that for a moment there may be more
// connections than the total allows.
const asideAfter = 50 * time.Millisecond

// Connecting is for delivery.
func (w *worker) Connecting(isConnecting bool) {
	d := w.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if isConnecting {
		d.set(&w.alarm, time.Now().Add(asideAfter))
		return
	}
	d.set(&w.alarm, time.Time{})
	if w.isAside {
		w.isAside = false
		d.aside--
		w.path.aside--
		d.total.Resume()
		d.offer(w.path)
	}
}

// stepAside lets others have what of the total the worker holds.
func (w *worker) stepAside(now time.Time) {
	d := w.d
	if w.isAside || d.aside >= d.o.Aside {
		return
	}
	w.isAside = true
	d.aside++
	w.path.aside++
	d.total.Close(false)
	d.startWaiting(now)
}
