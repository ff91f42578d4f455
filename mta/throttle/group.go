package throttle

import "time"

// Group is limits that must all agree, to be given smallest first: the one that
// holds is then the one that is named. At most one of them has a backoff.
type Group []*Limit

// Connection says which limit keeps one more connection from being opened.
func (g Group) Connection(now time.Time) Hold {
	for _, l := range g {
		if h := l.Connection(now); h.Holds() {
			return h
		}
	}
	return Hold{}
}

// Open counts a connection in every limit; see Limit.Open.
func (g Group) Open(now time.Time) (probe bool) {
	for _, l := range g {
		if l.Open(now) {
			probe = true
		}
	}
	return probe
}

// Close gives a connection back to every limit.
func (g Group) Close(probe bool) {
	for _, l := range g {
		l.Close(probe)
	}
}

// Message says which limit keeps one more message from being sent.
func (g Group) Message(now time.Time) Hold {
	for _, l := range g {
		if h := l.Message(now); h.Holds() {
			return h
		}
	}
	return Hold{}
}

// Send counts a message in every limit.
func (g Group) Send(now time.Time) {
	for _, l := range g {
		l.Send(now)
	}
}

// PutBack undoes one Send.
func (g Group) PutBack() {
	for _, l := range g {
		l.PutBack()
	}
}
