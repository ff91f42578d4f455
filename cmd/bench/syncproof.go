package main

import (
	"regexp"
	"strings"
)

// syncProof reads the calls of a server, as strace -f -yy writes them, and
// tells of each reply of 250 to a message's content whether a sync began after
// the last octet of the content was read, and had succeeded before the reply
// was written. strace sees a call begin before the kernel does, and end before
// the program does, so the order of its lines is the order of causes.
//
// The order alone does not tell that it was this message that was synced: that
// is what the tests of the queue are for, and why one message at a time is
// looked at.
type syncProof struct {
	local          string // the server's end of the sessions
	after, without int    // replies of 250 after a sync, and without one

	at        int                      // the number of the line
	pending   map[string]pendingCall   // by process: a call that has begun
	sessions  map[string]*sessionCalls // by the descriptor's address pair
	syncBegan int                      // where the last sync to begin of those that succeeded began
}

type pendingCall struct {
	call, rest string
	began      int
}

type sessionCalls struct {
	read    int // where the last read ended
	content bool
}

func newSyncProof(local string) *syncProof {
	return &syncProof{local: local, pending: map[string]pendingCall{}, sessions: map[string]*sessionCalls{}}
}

var (
	callLine    = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	resumedLine = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)$`)
	socketPair  = regexp.MustCompile(`^\d+<TCP:\[([^\]]+)->([^\]]+)\]>`)
	success     = regexp.MustCompile(`\) += (\d+)$`)
	// goAhead is the reply to DATA, at the begin of a line of replies.
	goAhead = regexp.MustCompile(`(?:"|\\n)354[ -]`)
	taken   = regexp.MustCompile(`"250[ -]`)
)

const unfinished = " <unfinished ...>"

// line takes in the next line.
func (p *syncProof) line(text string) {
	p.at++
	if m := resumedLine.FindStringSubmatch(text); m != nil {
		began, ok := p.pending[m[1]]
		if ok && began.call == m[2] {
			delete(p.pending, m[1])
			p.ended(pendingCall{began.call, began.rest + m[3], began.began})
		}
		return
	}
	m := callLine.FindStringSubmatch(text)
	if m == nil {
		return // a signal, an exit
	}
	c := pendingCall{m[2], m[3], p.at}
	if rest, ok := strings.CutSuffix(c.rest, unfinished); ok {
		c.rest = rest
		p.pending[m[1]] = c
		p.began(c)
		return
	}
	p.began(c)
	p.ended(c)
}

// began sees a call begin: a reply is judged here, before anybody has it.
func (p *syncProof) began(c pendingCall) {
	if !strings.HasPrefix(c.call, "write") && !strings.HasPrefix(c.call, "send") {
		return
	}
	s := p.session(c.rest)
	if s == nil {
		return
	}
	if s.content {
		s.content = false
		if taken.MatchString(c.rest) {
			if p.syncBegan > s.read {
				p.after++
			} else {
				p.without++
			}
		}
	}
	if goAhead.MatchString(c.rest) {
		s.content = true
	}
}

// ended sees a call end: from here on a read or a sync counts.
func (p *syncProof) ended(c pendingCall) {
	m := success.FindStringSubmatch(c.rest)
	if m == nil {
		return
	}
	switch {
	case isSync(c.call):
		p.syncBegan = max(p.syncBegan, c.began)
	case (strings.HasPrefix(c.call, "read") || strings.HasPrefix(c.call, "recv")) && m[1] != "0":
		if s := p.session(c.rest); s != nil {
			s.read = p.at
		}
	}
}

// session is the one that a call's first argument is a descriptor of.
func (p *syncProof) session(args string) *sessionCalls {
	m := socketPair.FindStringSubmatch(args)
	if m == nil || m[1] != p.local {
		return nil
	}
	s := p.sessions[m[2]]
	if s == nil {
		s = &sessionCalls{}
		p.sessions[m[2]] = s
	}
	return s
}
