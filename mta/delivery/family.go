package delivery

import (
	"strings"

	"postrider/mta/smtpclient"
	"postrider/queue"
)

// Large receivers hold a sender's IPv6 and IPv4 addresses to different rules: one
// without a PTR or of bad name may be refused over the one and welcome over the
// other. So a refusal by policy of the first message on a connection is not
// believed before the other family was tried.

// toOtherFamily reports whether an attempt goes to an address of the other
// family in place of ending as r says.
func (c *carrier) toOtherFamily(w waiting, r *Report) bool {
	s := c.session
	if s.hasDelivered || c.ctx.Err() != nil || !isPolicyRefusal(r.Outcomes) {
		return false
	}
	others := c.walk.otherFamily(s)
	if len(others) == 0 && !s.isUnwanted {
		return false
	}
	if !s.isUnwanted {
		s.isUnwanted = true
		c.walk.candidates, c.walk.next = append(c.walk.candidates[:0], others...), 0
	}
	if w.attempt == c.walk.attempt {
		o := &r.Outcomes[0]
		reply := smtpclient.Reply{Code: o.Code, Lines: []string{o.Text}}
		c.walk.note(&fault{stage: o.Stage, reply: reply, status: o.Status, remote: s.remote, isPermanent: true, isOwn: true})
	} else if w.rounds++; w.rounds > maxRounds {
		return false
	}
	c.pending = append(c.pending, w)
	return true
}

// otherFamily gives the candidates of the walk that are still to come and are
// not of the session's family.
func (w *walk) otherFamily(s *session) []candidate {
	var others []candidate
	for _, cand := range w.candidates[w.next:] {
		if cand.addr.Addr().Is4() != s.key.addr.Addr().Is4() {
			others = append(others, cand)
		}
	}
	return others
}

// isPolicyRefusal reports whether every recipient was refused for good, by
// policy (RFC 3463, section 3.8).
func isPolicyRefusal(outcomes []queue.Outcome) bool {
	for i := range outcomes {
		o := &outcomes[i]
		if o.Verdict != queue.Failed || o.Code == 0 || !strings.HasPrefix(o.Status, "5.7.") {
			return false
		}
	}
	return len(outcomes) > 0
}
