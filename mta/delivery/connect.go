package delivery

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"postrider/mta/smtpclient"
	"postrider/mta/tlspolicy"
	"postrider/queue"
)

// maxSessions is how many hosts may break off one attempt's transaction before
// it waits for the schedule; hosts that could not be connected to do not count.
const maxSessions = 3

// candidate is one address of one host.
type candidate struct {
	host *PlannedHost
	addr netip.AddrPort
}

// walk is the way of one attempt along the hosts of a plan: group by group of
// equal preference.
type walk struct {
	attempt    *Attempt
	kind       tlspolicy.Message
	since      time.Time
	group      int // index of the first host of the group after the current one
	candidates []candidate
	next       int
	isListed   bool // the current group's candidates are listed

	worst        *fault // the one that came furthest
	faults       int
	allPermanent bool
	sessions     int // that broke off

	refused     netip.Addr // of a family that refused us by policy; see toOtherFamily
	unreachable uint8      // families that we have no way to
}

func (w *walk) begin(a *Attempt, kind tlspolicy.Message, now time.Time) {
	*w = walk{attempt: a, kind: kind, since: now, candidates: w.candidates[:0], isListed: true, allPermanent: true}
}

// note takes in why a candidate, or the transaction with it, failed.
func (w *walk) note(f *fault) {
	w.faults++
	if f.isUnreachable {
		w.unreachable |= unreachable(f.remote.IP.Is4())
	}
	// What one family refused for good stands where we have no way to the other.
	w.allPermanent = w.allPermanent && (f.isPermanent || f.isUnreachable && w.refused.IsValid())
	// What a host said tells more than that another was down.
	if w.worst == nil || f.stage >= w.worst.stage || f.isAborted {
		w.worst = f
	}
}

// groupEnd is the end of the group that begins at from.
func groupEnd(hosts []PlannedHost, from int) int {
	to := from + 1
	for to < len(hosts) && hosts[to].Preference == hosts[from].Preference {
		to++
	}
	return to
}

// connect finds a session for the attempt at the head: where the walk stands,
// and on. Nil: no host is left, or ctx ended; the walk knows why.
func (c *carrier) connect() *session {
	w := &c.walk
	for {
		if w.next < len(w.candidates) {
			if w.sessions >= maxSessions {
				return nil
			}
			w.next++
			s, f := c.open(w.candidates[w.next-1])
			if s != nil {
				return s
			}
			w.note(f)
			if f.isAborted {
				return nil
			}
			continue
		}
		if w.isListed {
			if w.group >= len(c.plan.Hosts) {
				return nil
			}
			// A new group: perhaps there is an idle session to one of it.
			w.isListed = false
			if s := c.pooled(c.plan.Hosts[w.group:groupEnd(c.plan.Hosts, w.group)]); s != nil {
				return s
			}
		}
		c.list()
	}
}

// pooled takes an idle session to one of the hosts.
func (c *carrier) pooled(hosts []PlannedHost) *session {
	at := 0
	if len(hosts) > 1 {
		at = rand.IntN(len(hosts))
	}
	for range hosts {
		h := &hosts[at]
		at = (at + 1) % len(hosts)
		d := &h.demands[c.walk.kind]
		if d.Refused != nil {
			continue
		}
		for _, addr := range h.Addrs {
			if !c.walk.takes(addr) {
				continue
			}
			if s := c.pooledAt(h, d, h.AddrPort(addr)); s != nil {
				return s
			}
		}
	}
	return nil
}

func (c *carrier) pooledAt(h *PlannedHost, d *demand, addr netip.AddrPort) *session {
	key := c.key(h, d, addr)
	if len(c.agent.o.Sources) == 0 {
		return c.taken(key, h)
	}
	for _, source := range c.agent.o.Sources {
		if source.Is4() != addr.Addr().Is4() {
			continue
		}
		key.source = source
		if s := c.taken(key, h); s != nil {
			return s
		}
	}
	return nil
}

func (c *carrier) key(h *PlannedHost, d *demand, addr netip.AddrPort) poolKey {
	key := poolKey{addr: addr, demand: d.key, isFixed: c.plan.Fixed}
	if d.Level >= tlspolicy.Verify {
		key.name = h.Name
	}
	return key
}

// taken is a session out of the pool, called what this plan calls its host:
// domains may have other names for one address.
func (c *carrier) taken(key poolKey, h *PlannedHost) *session {
	s := c.take(key)
	if s == nil {
		return nil
	}
	s.speak(c.plan, c.walk.kind, h)
	s.label = hostLabel(h.Name, key.addr)
	return s
}

// take takes a session out of the pool that may still be used.
func (c *carrier) take(key poolKey) *session {
	for {
		s := c.agent.pool.get(key)
		if s == nil {
			return nil
		}
		if s.mayCarryMore(c.plan.MaxMessages, c.agent.o.Life, time.Now()) && c.agent.o.HELO(s.local) == s.remote.HELO {
			s.isReused = true
			return s
		}
		s.quit()
	}
}

// list puts the current group's addresses into the order of this walk: hosts of
// equal preference at random (RFC 5321, section 5.1).
func (c *carrier) list() {
	w := &c.walk
	from, to := w.group, groupEnd(c.plan.Hosts, w.group)
	w.group, w.isListed = to, true
	w.candidates, w.next = w.candidates[:0], 0
	for _, i := range rand.Perm(to - from) {
		h := &c.plan.Hosts[from+i]
		if d := h.demands[w.kind]; d.Refused != nil {
			w.note(refusedFault(hostName(h), d.Requirement))
			c.agent.observeRefused(c.plan, h, &d.Requirement)
			continue
		}
		if len(h.Addrs) == 0 {
			w.note(addresslessFault(&h.Host))
			continue
		}
		first := len(w.candidates)
		for _, addr := range h.Addrs {
			if w.takes(addr) {
				w.candidates = append(w.candidates, candidate{h, h.AddrPort(addr)})
			}
		}
		shuffleFamilies(w.candidates[first:])
	}
}

// shuffleFamilies changes the order of a host's addresses at random, but not
// which places belong to IPv6 and which to IPv4.
func shuffleFamilies(list []candidate) {
	for i := len(list) - 1; i > 0; i-- {
		j := rand.IntN(i + 1)
		if list[i].addr.Addr().Is4() == list[j].addr.Addr().Is4() {
			list[i], list[j] = list[j], list[i]
		}
	}
}

func hostName(h *PlannedHost) string {
	if h.Name == "" && len(h.Addrs) > 0 {
		return "[" + h.Addrs[0].String() + "]"
	}
	return h.Name
}

// open connects to one candidate and brings the session to where the demand is
// met. Level enable puts up with broken TLS: once more with old versions, then
// in clear, each on a new connection, as nothing of a session with a failed
// handshake can be trusted.
func (c *carrier) open(cand candidate) (*session, *fault) {
	a := c.agent
	level := cand.host.demands[c.walk.kind].Level
	mode, why := tlsNow, whyRemembered
	var known, broken verdict
	switch level {
	case tlspolicy.None:
		mode = tlsNever
	case tlspolicy.Enable:
		mode, known = a.tls.recall(cand.addr, time.Now())
	}
	first := mode
	for {
		t := try{carrier: c, candidate: cand, mode: mode, why: why, began: time.Now(), known: known, broken: broken}
		s, f := t.do()
		a.observe(&t, f)
		if s != nil {
			if level == tlspolicy.Enable && mode != first {
				a.tls.remember(cand.addr, mode, broken, time.Now())
			}
			return s, nil
		}
		c.logFault(f)
		if level != tlspolicy.Enable || !t.tlsBroke() || c.ctx.Err() != nil {
			return nil, f
		}
		mode, why, known, broken = t.fallback(), f.words(), verdict{}, t.verdict
	}
}

func (c *carrier) logFault(f *fault) {
	l := c.agent.o.Logger
	if !l.Enabled(c.ctx, slog.LevelDebug) {
		return
	}
	o := f.outcome(0, false)
	l.LogAttrs(c.ctx, slog.LevelDebug, "host failed", slog.String("domain", c.plan.Domain), slog.String("mx", o.Remote.Host),
		slog.Int("code", o.Code), slog.String("status", o.Status), slog.String("reply", o.Text))
}

// try is one connection to a candidate.
type try struct {
	*carrier
	candidate
	mode  tlsMode
	why   string // the mode is less than the best
	began time.Time

	known  verdict // of an earlier connection, for whose sake this one is in clear
	broken verdict // of the try before, which this one falls back from

	local    netip.Addr
	smtp     *smtpclient.Session
	remote   *queue.Remote
	less     string           // than TLS at its best, and why
	verdict                   // on TLS, for the domain that the connection is made for
	tlsStage smtpclient.Stage // where STARTTLS failed
}

func (t *try) demand() *demand { return &t.host.demands[t.walk.kind] }

// do carries the try out.
func (t *try) do() (*session, *fault) {
	a := t.agent
	label := hostLabel(t.host.Name, t.addr)
	t.remote = &queue.Remote{Host: hostName(t.host), IP: t.addr.Addr(), Demand: t.demand().String()}
	source, ok := t.source()
	if !ok {
		return nil, t.blame(&fault{stage: queue.StageConnect, status: "4.4.1", isUnreachable: true,
			text: fmt.Sprintf("%s cannot be reached: none of source_addresses is of its family", label)})
	}
	a.pool.makeRoom(t.addr.Addr())
	conn, err := t.dial(source)
	if err != nil {
		if t.ctx.Err() != nil {
			return nil, t.blame(&fault{stage: queue.StageConnect, isAborted: true, isOwn: true, text: "ended by us"})
		}
		return nil, t.blame(dialFault(label, err))
	}
	t.local = localAddr(conn)
	t.remote.HELO = a.o.HELO(t.local)
	t.smtp = smtpclient.New(conn, smtpclient.Options{
		LocalName: t.remote.HELO, Timeouts: a.o.Timeouts, InFlight: a.o.InFlight,
		NoChunking: t.plan.Session.NoChunking, NoPipelining: t.plan.Session.NoPipelining,
	})
	s := &session{smtp: t.smtp, label: label, local: t.local, pool: a.pool}
	s.key = t.key(t.host, t.demand(), t.addr)
	s.key.source = source
	if !a.pool.opened(s) {
		t.smtp.Close()
		return nil, t.blame(&fault{stage: queue.StageConnect, isAborted: true, isOwn: true, text: "ended by us"})
	}
	if err = t.smtp.Greet(t.ctx); err == nil {
		err = t.secure()
	}
	if err != nil {
		s.drop()
		var f *fault
		if !errors.As(err, &f) {
			f = sessionFault(label, err)
		}
		return nil, t.blame(f)
	}
	s.words = words{remote: t.remote, less: t.less, plan: t.plan, kind: t.walk.kind}
	s.counts = t.count()
	s.ext = t.smtp.Extensions()
	s.openedAt = time.Now()
	s.took = s.openedAt.Sub(t.began)
	return s, nil
}

func (t *try) blame(f *fault) *fault {
	f.remote = t.remote
	return f
}

// source chooses the local address; the zero one leaves it to the system.
func (t *try) source() (addr netip.Addr, ok bool) {
	sources := t.agent.o.Sources
	if len(sources) == 0 {
		return netip.Addr{}, true
	}
	n := 0
	for _, s := range sources {
		if s.Is4() != t.addr.Addr().Is4() {
			continue
		}
		n++
		if rand.IntN(n) == 0 {
			addr = s
		}
	}
	return addr, n > 0
}

func (t *try) dial(source netip.Addr) (net.Conn, error) {
	// Keep-alives would wake an idle host; every wait of a session has a
	// deadline of its own.
	d := net.Dialer{Timeout: t.agent.o.Connect, KeepAlive: -1}
	if source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	if !t.plan.Fixed {
		d.Control = t.agent.o.Guard.Control
	}
	t.work.Connecting(true)
	defer t.work.Connecting(false)
	return d.DialContext(t.ctx, "tcp", t.addr.String())
}

func localAddr(conn net.Conn) netip.Addr {
	if a, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().WithZone("").Unmap()
	}
	return netip.Addr{}
}

// observe tells the observer how a try ended.
func (a *Agent) observe(t *try, f *fault) {
	if a.o.Observer == nil {
		return
	}
	c := Connection{
		Domain: t.plan.Domain, Host: t.host.Name, Addr: t.addr, Local: t.local, Demand: t.demand().Requirement,
		Message: t.walk.kind, Stage: queue.StageMAIL, TLSResult: t.result, TLSErr: t.err, Took: time.Since(t.began),
	}
	if t.smtp != nil {
		c.TLS = t.smtp.TLS()
	}
	if f != nil {
		c.Stage, c.Text = f.stage, f.words()
	} else {
		c.Reached = reached(c.Demand.Level, c.TLS)
	}
	a.o.Observer.Connection(&c)
}

// observeRefused tells the observer of a host that is not connected to, because
// of what its side publishes.
func (a *Agent) observeRefused(p *Plan, h *PlannedHost, d *tlspolicy.Requirement) {
	if a.o.Observer == nil {
		return
	}
	c := Connection{Domain: p.Domain, Host: h.Name, Demand: *d, Stage: queue.StagePolicy, Text: d.Refused.Text}
	switch d.Source {
	case tlspolicy.FromSTS:
		c.TLSResult, c.TLSErr = TLSNotNamed, errNotNamed
	case tlspolicy.FromDANE:
		c.TLSResult, c.TLSErr = TLSNotKnown, errors.New(d.Refused.Text)
	}
	a.o.Observer.Connection(&c)
}
