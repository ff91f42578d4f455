package delivery

import (
	"net/netip"
	"slices"
	"strings"

	"postrider/mta/smtpclient"
	"postrider/queue"
)

// Large receivers hold a sender's IPv6 and IPv4 addresses to different rules: one
// without a PTR or of bad name may be refused over the one and welcome over the
// other. So a refusal by policy of the first message on a connection is not
// believed before the other family was tried, unless we have no way there.

// toOtherFamily reports whether an attempt goes to an address of the other
// family in place of ending as r says: of this host, of its equals, or of those
// that come next (RFC 5321, section 5.1).
func (c *carrier) toOtherFamily(w waiting, r *Report) bool {
	s := c.session
	if s.hasDelivered || c.ctx.Err() != nil || !isPolicyRefusal(r.Outcomes) {
		return false
	}
	if !s.isUnwanted {
		if !c.hasOtherFamily(s.key.addr.Addr()) {
			return false
		}
		s.isUnwanted = true
		c.walk.leaveFamily(s.key.addr.Addr())
	}
	if w.attempt == c.walk.attempt {
		c.walk.noteRefusal(s, r.Outcomes)
	} else if w.rounds++; w.rounds > maxRounds {
		return false
	}
	c.pending = append(c.pending, w)
	return true
}

// hasOtherFamily reports whether the walk still comes by an address that is not
// of the family of refused. Where a family was refused before, or the other one
// has turned out to be out of our reach, it does not.
func (c *carrier) hasOtherFamily(refused netip.Addr) bool {
	w := &c.walk
	if w.refused.IsValid() || w.isUnreachable(!refused.Is4()) {
		return false
	}
	isOther := func(a netip.Addr) bool { return a.Is4() != refused.Is4() }
	for _, cand := range w.candidates[w.next:] {
		if isOther(cand.addr.Addr()) {
			return true
		}
	}
	for i := w.group; i < len(c.plan.Hosts); i++ {
		h := &c.plan.Hosts[i]
		if h.demands[w.kind].Refused == nil && slices.ContainsFunc(h.Addrs, isOther) {
			return true
		}
	}
	return false
}

// leaveFamily keeps the walk to addresses of the other family.
func (w *walk) leaveFamily(refused netip.Addr) {
	w.refused = refused
	rest := w.candidates[w.next:]
	w.candidates, w.next = slices.DeleteFunc(rest, func(cand candidate) bool { return !w.takes(cand.addr.Addr()) }), 0
}

// takes reports whether an address is of a family that was not refused.
func (w *walk) takes(a netip.Addr) bool {
	return !w.refused.IsValid() || a.Is4() != w.refused.Is4()
}

// noteRefusal takes in what one family was told. A host that speaks decides
// more than those before it that could not be reached.
func (w *walk) noteRefusal(s *session, outcomes []queue.Outcome) {
	o := &outcomes[0]
	isPermanent := !slices.ContainsFunc(outcomes, func(o queue.Outcome) bool { return o.Verdict != queue.Failed })
	w.allPermanent = true
	w.note(&fault{stage: o.Stage, reply: smtpclient.Reply{Code: o.Code, Lines: []string{o.Text}}, status: o.Status,
		remote: s.remote, isPermanent: isPermanent, isOwn: true})
}

// unreachable is a bit for a family.
func unreachable(isIPv4 bool) uint8 {
	if isIPv4 {
		return 1
	}
	return 2
}

func (w *walk) isUnreachable(isIPv4 bool) bool { return w.unreachable&unreachable(isIPv4) != 0 }

// aboutTheAddress are the temporary refusals for what is wrong with one of our
// addresses: SPF (RFC 7372, section 3.2), reverse DNS (3.3), and several such
// checks at once. Others of class 4.7 are often greylisting, which over another
// address would only begin anew.
var aboutTheAddress = []string{"4.7.23", "4.7.25", "4.7.26"}

// isPolicyRefusal reports whether every recipient was refused by policy (RFC
// 3463, section 3.8): for good, or for now because of our address.
func isPolicyRefusal(outcomes []queue.Outcome) bool {
	for i := range outcomes {
		o := &outcomes[i]
		isPolicy := o.Verdict == queue.Failed && strings.HasPrefix(o.Status, "5.7.") ||
			o.Verdict == queue.Deferred && slices.Contains(aboutTheAddress, o.Status)
		if o.Code == 0 || !isPolicy {
			return false
		}
	}
	return len(outcomes) > 0
}
