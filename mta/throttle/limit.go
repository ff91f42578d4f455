package throttle

import (
	"fmt"
	"time"
)

// Options describe a limit. The zero value limits nothing.
type Options struct {
	Name        string // for people: "site outlook", "example.test", "all connections"
	Connections int    // most connections at once; 0: no limit
	// Start makes the number of connections adaptive: it begins with Start.
	Start                int
	ConnectionsPerMinute int // 0: no limit
	MessagesPerMinute    int // 0: no limit
	// BackoffFirst is the first wait after the peer was found dead, doubled by
	// each failed probe up to BackoffLongest; 0: never taken for dead.
	BackoffFirst, BackoffLongest time.Duration
}

// Limit holds what one key may do. It is not safe for concurrent use.
type Limit struct {
	name        string
	window      window
	connections rate
	messages    rate
	backoff     backoff
	paused      pause
}

// pause is a rest that somebody ordered: a reply that says so, or an operator.
type pause struct {
	until time.Time
	why   string
}

// New makes a limit with nothing in use.
func New(o Options) *Limit {
	return &Limit{
		name:        o.Name,
		window:      newWindow(o.Connections, o.Start),
		connections: newRate(o.ConnectionsPerMinute),
		messages:    newRate(o.MessagesPerMinute),
		backoff:     backoff{first: o.BackoffFirst, longest: max(o.BackoffFirst, o.BackoffLongest)},
	}
}

// Tighten lowers the limit to what o allows, where that is less. What it has
// learnt stays; Start and the backoff are left as they are.
func (l *Limit) Tighten(o Options) {
	if o.Connections > 0 && (l.window.max == 0 || o.Connections < l.window.max) {
		l.window.max = o.Connections
		l.window.start = min(l.window.start, o.Connections)
		if l.window.size == 0 || l.window.size > o.Connections {
			l.window.size = o.Connections
		}
	}
	l.connections.tighten(o.ConnectionsPerMinute)
	l.messages.tighten(o.MessagesPerMinute)
}

// Reason says which part of a limit holds.
type Reason uint8

const (
	None           Reason = iota
	Full                  // as many connections as may be
	ConnectionRate        // too many connections in this minute
	MessageRate           // too many messages in this minute
	Paused                // told to rest
	Dead                  // the peer did not answer; it is probed later
	Probing               // one connection is finding out whether the peer is back
)

// Hold is what keeps something from happening; the zero value holds nothing.
type Hold struct {
	Limit  *Limit
	Reason Reason
	// Until is when to ask again; zero: when something is given back.
	Until time.Time
}

// Holds reports whether there is anything to wait for.
func (h Hold) Holds() bool { return h.Reason != None }

// String says in words what holds, without the time.
func (h Hold) String() string {
	if h.Limit == nil {
		return ""
	}
	l := h.Limit
	switch h.Reason {
	case Full:
		return fmt.Sprintf("%s: all %d connections are in use", l.name, l.window.size)
	case ConnectionRate:
		return fmt.Sprintf("%s: limited to %d connections a minute", l.name, l.connections.perMinute)
	case MessageRate:
		return fmt.Sprintf("%s: limited to %d messages a minute", l.name, l.messages.perMinute)
	case Paused:
		return fmt.Sprintf("%s: paused: %s", l.name, l.paused.why)
	case Dead:
		return fmt.Sprintf("%s: no answer since %s; one connection will try again", l.name, l.backoff.since.UTC().Format(time.RFC3339))
	case Probing:
		return fmt.Sprintf("%s: no answer since %s; one connection is trying", l.name, l.backoff.since.UTC().Format(time.RFC3339))
	default:
		return ""
	}
}

// Connection says what keeps one more connection from being opened at now.
func (l *Limit) Connection(now time.Time) Hold {
	switch b := &l.backoff; {
	case now.Before(l.paused.until):
		return Hold{l, Paused, l.paused.until}
	case b.isDead() && now.Before(b.until):
		return Hold{l, Dead, b.until}
	case b.isDead() && b.probing:
		return Hold{l, Probing, time.Time{}}
	case l.window.isFull():
		return Hold{l, Full, time.Time{}}
	}
	if at := l.connections.next(); now.Before(at) {
		return Hold{l, ConnectionRate, at}
	}
	return Hold{}
}

// Message says what keeps one more message from being sent at now, over a
// connection that there already is.
func (l *Limit) Message(now time.Time) Hold {
	if now.Before(l.paused.until) {
		return Hold{l, Paused, l.paused.until}
	}
	if at := l.messages.next(); now.Before(at) {
		return Hold{l, MessageRate, at}
	}
	return Hold{}
}

// Open counts a connection that Connection allowed, and answers whether it is
// the probe of a dead peer. Each Open is followed by one Close.
func (l *Limit) Open(now time.Time) (probe bool) {
	l.window.inUse++
	l.connections.take(now)
	if l.backoff.isDead() {
		l.backoff.probing = true
		return true
	}
	return false
}

// Close gives a connection back. A probe that ended without a word of Failed
// or Succeeded leaves the peer as dead as it was, free for the next probe.
func (l *Limit) Close(probe bool) {
	l.window.inUse--
	if probe {
		l.backoff.probing = false
	}
}

// Resume counts a connection again that was given back while it was being made.
// It is no new one to the rate, and may be one too many for a moment.
func (l *Limit) Resume() { l.window.inUse++ }

// Send counts a message; PutBack undoes it where there was none to send.
func (l *Limit) Send(now time.Time) { l.messages.take(now) }

// PutBack undoes one Send.
func (l *Limit) PutBack() { l.messages.putBack() }

// Succeeded takes in that the peer did its work. It answers whether the peer
// was taken for dead until now: then all that waits may go.
func (l *Limit) Succeeded(now time.Time) (revived bool) {
	if l.backoff.succeeded(now) {
		l.window.reset()
		return true
	}
	l.window.succeeded()
	return false
}

// Failed takes in that the whole peer was found wanting by something begun at
// began. It narrows the window, and makes a dead peer of one that nothing else
// got through to since then.
func (l *Limit) Failed(now, began time.Time) {
	l.window.failed()
	l.backoff.failed(now, began)
}

// Narrow takes in that the peer asks for less at a time.
func (l *Limit) Narrow() { l.window.failed() }

// Restart forgets failures: the peer was dead, and is back. A window that is
// wider than at the start stays so.
func (l *Limit) Restart() {
	if l.window.size < l.window.start {
		l.window.reset()
	}
}

// Pause lets nothing begin before until. A longer pause is kept. Why is one
// short phrase for people.
func (l *Limit) Pause(until time.Time, why string) {
	if until.After(l.paused.until) {
		l.paused = pause{until, why}
	}
}

// Wake ends a pause, and lets a dead peer be probed at once.
func (l *Limit) Wake() {
	l.paused = pause{}
	l.backoff.until = time.Time{}
}

// Idle reports whether the limit may be forgotten at now without letting
// anything happen sooner: nothing in use and nothing to wait for. What the
// window learnt is lost with it.
func (l *Limit) Idle(now time.Time) bool {
	return l.window.inUse == 0 && !l.backoff.isDead() && !now.Before(l.paused.until) &&
		!now.Before(l.connections.fullAt) && !now.Before(l.messages.fullAt)
}

// Name is the name given in Options.
func (l *Limit) Name() string { return l.name }

// InUse is the number of open connections.
func (l *Limit) InUse() int { return l.window.inUse }

// Window is how many connections may be open at present; 0: no limit.
func (l *Limit) Window() int { return l.window.size }

// DeadSince is when the peer was found dead; zero while it is not.
func (l *Limit) DeadSince() time.Time { return l.backoff.since }
