package delivery

import (
	"slices"

	"postrider/mta/tlspolicy"
	"postrider/queue"
)

// Domains with the same hosts and the same demand share connections. Each of
// them has its own reasons for the demand, which its mail's traces tell, and its
// own policy, by which RFC 8460 has the sessions counted: a session counts once
// for each domain whose mail it carries.

// words are a host and its demand, for outcomes, as a plan puts them.
type words struct {
	remote *queue.Remote
	less   string // than TLS at its best, and why
	plan   *Plan  // whose words they are
	kind   tlspolicy.Message
}

// speak puts the words as a plan does that has the host as h.
func (w *words) speak(plan *Plan, kind tlspolicy.Message, h *PlannedHost) {
	w.plan, w.kind = plan, kind
	name, demand := hostName(h), demandWords(&h.demands[kind].Requirement, w.less)
	if w.remote.Host == name && w.remote.Demand == demand {
		return
	}
	remote := *w.remote // outcomes have the former one
	remote.Host, remote.Demand = name, demand
	w.remote = &remote
}

// speakFor puts the words as is right for a message of that kind.
func (s *session) speakFor(plan *Plan, kind tlspolicy.Message) *queue.Remote {
	if s.plan != plan || s.words.kind != kind {
		if h := s.hostOf(plan); h != nil {
			s.speak(plan, kind, h)
		}
	}
	return s.remote
}

// hostOf is the session's host in another plan of the same key; nil where that
// has so many hosts that it got others of them.
func (s *session) hostOf(plan *Plan) *PlannedHost {
	i := slices.IndexFunc(plan.Hosts, func(h PlannedHost) bool { return hostName(&h) == s.remote.Host })
	if i < 0 {
		return nil
	}
	return &plan.Hosts[i]
}

// counted is for which domains the observer was told of a session.
type counted struct {
	verdict                     // on TLS itself, whoever asks for it
	last    string              // of them
	all     map[string]struct{} // nil while there is only last
}

// maxCounted bounds the domains of one session. Those beyond are not counted.
const maxCounted = 1000

// isNew reports whether a domain was not told of, and takes note of it.
func (c *counted) isNew(domain string) bool {
	if c.all == nil {
		c.all = map[string]struct{}{c.last: {}}
	}
	_, isKnown := c.all[domain]
	if !isKnown && len(c.all) >= maxCounted {
		return false
	}
	c.all[domain] = struct{}{}
	c.last = domain
	return !isKnown
}

// count begins the count of a connection that is ready. A message that no
// policy is to be asked for does not count for its domain.
func (t *try) count() counted {
	c := counted{verdict: t.verdict}
	switch {
	case t.smtp.TLS() != nil:
		c.verdict = verdict{result: TLSOK}
	case t.result == TLSNotTried:
		c.verdict = t.broken
	}
	if t.walk.kind != tlspolicy.MessageTLSIgnored {
		c.last = t.plan.Domain
	}
	return c
}

// observeShared tells the observer of a session that has carried a message of a
// domain for the first time, unless it was made for that domain.
func (a *Agent) observeShared(s *session, w waiting) {
	if a.o.Observer == nil || w.kind == tlspolicy.MessageTLSIgnored || w.plan.Domain == s.counts.last || !s.counts.isNew(w.plan.Domain) {
		return
	}
	h := s.hostOf(w.plan)
	if h == nil {
		return
	}
	d := &h.demands[w.kind].Requirement
	c := Connection{
		Domain: w.plan.Domain, IsShared: true, Host: h.Name, Addr: s.key.addr, Local: s.local, Demand: *d, Message: w.kind,
		Stage: queue.StageMAIL, TLS: s.smtp.TLS(), TLSResult: s.counts.result, TLSErr: s.counts.err,
	}
	c.Reached = reached(d.Level, c.TLS)
	if c.TLSResult == TLSOK {
		v := a.watch(d, h.Name, c.TLS)
		c.TLSResult, c.TLSErr = v.result, v.err
	}
	a.o.Observer.Connection(&c)
}
