package delivery

import (
	"net/netip"
	"sync"
	"time"
)

// poolKey tells connections apart that must not stand in for each other.
type poolKey struct {
	addr   netip.AddrPort
	source netip.Addr // zero: the system chose
	demand string
	name   string // of the host, where its certificate was verified
	// isFixed: dialled because the operator wrote the host. A stranger's domain
	// with the same address must not get past the guard this way.
	isFixed bool
}

// pool keeps track of every open session, and keeps idle ones for a while.
type pool struct {
	maxOpen        int // 0: no limit
	maxOpenPerAddr int
	idleFor        time.Duration

	mu     sync.Mutex
	idle   map[poolKey]*session // the one put last; further ones by session.below
	oldest *session             // of all idle ones, by time; they are a list
	newest *session
	open   map[*session]struct{} // idle and busy
	byAddr map[netip.Addr]int
	timer  *time.Timer // runs while anything is idle
	closed bool
}

func newPool(maxOpen, maxOpenPerAddr int, idleFor time.Duration) *pool {
	return &pool{
		maxOpen: maxOpen, maxOpenPerAddr: maxOpenPerAddr, idleFor: idleFor,
		idle:   make(map[poolKey]*session),
		open:   make(map[*session]struct{}),
		byAddr: make(map[netip.Addr]int),
	}
}

// get takes the session for key that was idle for the shortest time; nil where
// there is none.
func (p *pool) get(key poolKey) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.idle[key]
	if s != nil {
		p.remove(s)
	}
	return s
}

// put keeps a session for the next attempt. It answers false, and keeps
// nothing, after close.
func (p *pool) put(s *session, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	s.idleSince = now
	s.below = p.idle[s.key]
	p.idle[s.key] = s
	s.older, s.newer = p.newest, nil
	if p.newest != nil {
		p.newest.newer = s
	} else {
		p.oldest = s
		p.schedule(p.idleFor)
	}
	p.newest = s
	return true
}

// schedule has the idle ones looked at after d.
func (p *pool) schedule(d time.Duration) {
	if p.timer == nil {
		p.timer = time.AfterFunc(d, p.expire)
		return
	}
	p.timer.Reset(d)
}

// remove takes an idle session out of the books. The lock is held.
func (p *pool) remove(s *session) {
	if s.older != nil {
		s.older.newer = s.newer
	} else {
		p.oldest = s.newer
	}
	if s.newer != nil {
		s.newer.older = s.older
	} else {
		p.newest = s.older
	}
	top := p.idle[s.key]
	if top == s {
		if s.below == nil {
			delete(p.idle, s.key)
		} else {
			p.idle[s.key] = s.below
		}
	} else {
		for top.below != s {
			top = top.below
		}
		top.below = s.below
	}
	s.older, s.newer, s.below = nil, nil, nil
}

// expire closes what was idle for too long. While nothing is idle no timer runs.
func (p *pool) expire() {
	now := time.Now()
	var over []*session
	p.mu.Lock()
	for p.oldest != nil && now.Sub(p.oldest.idleSince) >= p.idleFor {
		s := p.oldest
		p.remove(s)
		over = append(over, s)
	}
	if p.oldest != nil && !p.closed {
		p.schedule(p.idleFor - now.Sub(p.oldest.idleSince))
	}
	p.mu.Unlock()
	for _, s := range over {
		s.quit()
	}
}

// makeRoom closes idle sessions so that one more to addr keeps the limits,
// which count idle connections too: the other side does.
func (p *pool) makeRoom(addr netip.Addr) {
	var over []*session
	p.mu.Lock()
	if p.maxOpen > 0 && len(p.open) >= p.maxOpen && p.oldest != nil {
		over = append(over, p.oldest)
		p.remove(p.oldest)
	}
	if p.maxOpenPerAddr > 0 && p.byAddr[addr] >= p.maxOpenPerAddr {
		for s := p.oldest; s != nil; s = s.newer {
			if s.key.addr.Addr() == addr {
				p.remove(s)
				over = append(over, s)
				break
			}
		}
	}
	p.mu.Unlock()
	for _, s := range over {
		s.quit()
	}
}

// opened books a new session. It answers false after close.
func (p *pool) opened(s *session) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.open[s] = struct{}{}
	p.byAddr[s.key.addr.Addr()]++
	return true
}

// gone ends the books of a session that is not idle.
func (p *pool) gone(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.open[s]; !ok {
		return
	}
	delete(p.open, s)
	addr := s.key.addr.Addr()
	if p.byAddr[addr]--; p.byAddr[addr] == 0 {
		delete(p.byAddr, addr)
	}
}

// counts are the open connections and the idle ones among them.
func (p *pool) counts() (open, idle int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := p.oldest; s != nil; s = s.newer {
		idle++
	}
	return len(p.open), idle
}

// close ends every session, idle or in use, and takes no more.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
	}
	var idle, busy []*session
	for p.oldest != nil {
		s := p.oldest
		p.remove(s)
		idle = append(idle, s)
		delete(p.open, s)
	}
	for s := range p.open {
		busy = append(busy, s)
	}
	p.mu.Unlock()
	for _, s := range idle {
		s.quit()
	}
	for _, s := range busy {
		s.smtp.Close()
	}
}
