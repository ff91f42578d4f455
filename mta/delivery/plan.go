package delivery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"postrider/mta/tlspolicy"
	"postrider/queue"
	"postrider/resolver"
)

// Resolver finds the hosts of a domain. *resolver.Resolver is one.
type Resolver interface {
	Route(ctx context.Context, domain string) (*resolver.Route, error)
	FixedRoute(ctx context.Context, hosts []string) (*resolver.Route, error)
}

// Policies finds what the recipient's side demands: MTA-STS and DANE.
type Policies interface {
	// Facts answers for each host of the route, in its order, which is dialled at
	// port (TLSA records are for one), with the fields STS, STSMatch, DANE, TLSA and TLSABase set, and until when that holds (zero: as
	// long as the route). An error is temporary: nothing is known.
	Facts(ctx context.Context, route *resolver.Route, port int) (facts []tlspolicy.Facts, until time.Time, err error)
}

// Destination is what the operator set for a recipient domain.
type Destination struct {
	TLS   tlspolicy.Level // none to verify
	Hosts []string        // in place of MX; empty: the MX of the domain
	Port  int             // where a host names none; 0: 25
	// MaxMessages is the most for one connection; 0: no limit.
	MaxMessages int
	Session     SessionSettings
}

func (d *Destination) port() int {
	if d.Port > 0 {
		return d.Port
	}
	return 25
}

// SessionSettings are what an operator set for the sessions with a domain's
// hosts. Sessions with other settings are not shared.
type SessionSettings struct {
	MinTLS uint16 // the lowest TLS version; 0: that of the Agent
	// For hosts that announce an extension and break it.
	NoChunking, NoPipelining bool
}

// key is empty for the zero value.
func (s SessionSettings) key() string {
	if s == (SessionSettings{}) {
		return ""
	}
	return fmt.Sprintf(" tls>=%x chunking=%t pipelining=%t", s.MinTLS, !s.NoChunking, !s.NoPipelining)
}

// Planner makes plans. Resolver and Destination are required. It is safe for
// concurrent use where they are.
type Planner struct {
	Resolver    Resolver
	Destination func(domain string) Destination
	Policies    Policies // nil: only what the operator set counts
}

// Plan is how mail to a domain goes: its hosts and the demand on each. It is
// shared and never changed.
type Plan struct {
	Domain string
	// Site names the set of hosts: the route's.
	Site string
	// Key is equal for plans whose attempts may share connections: the same
	// hosts in the same order of preference, ports and demands.
	Key         string
	Hosts       []PlannedHost // best preference first
	ExpiresAt   time.Time
	MaxMessages int
	// Fixed: the operator wrote the hosts, and may write any address.
	Fixed   bool
	Session SessionSettings
	// canonical is the domain after aliases; empty where that is not validated.
	canonical string
}

// PlannedHost is one host of a plan.
type PlannedHost struct {
	resolver.Host
	port    uint16
	demands [3]demand // by tlspolicy.Message
}

// demand is a requirement with its key at hand.
type demand struct {
	tlspolicy.Requirement
	key string
}

// Requirement is the demand on the host for a message.
func (h *PlannedHost) Requirement(m tlspolicy.Message) tlspolicy.Requirement {
	return h.demands[m].Requirement
}

// AddrPort is one of the host's addresses, with the port that is dialled.
func (h *PlannedHost) AddrPort(addr netip.Addr) netip.AddrPort {
	return netip.AddrPortFrom(addr, h.port)
}

// Plan finds the way to a domain (A-labels or an address literal). Errors: a
// *resolver.Error, what ctx ended with, or what Policies said; PlanOutcome
// judges them all.
func (p *Planner) Plan(ctx context.Context, domain string) (*Plan, error) {
	dest := p.Destination(domain)
	var route *resolver.Route
	var err error
	if len(dest.Hosts) > 0 {
		route, err = p.Resolver.FixedRoute(ctx, dest.Hosts)
	} else {
		route, err = p.Resolver.Route(ctx, domain)
	}
	if err != nil {
		return nil, err
	}
	return p.By(ctx, domain, route)
}

// By is the plan for a domain whose route is known. Errors: what ctx ended with,
// or what Policies said.
func (p *Planner) By(ctx context.Context, domain string, route *resolver.Route) (*Plan, error) {
	dest := p.Destination(domain)
	facts := make([]tlspolicy.Facts, len(route.Hosts))
	var until time.Time
	var err error
	// What an operator forbids, or writes hosts for, nobody else is asked about.
	if p.Policies != nil && dest.TLS != tlspolicy.None && !route.Fixed && !route.Literal {
		facts, until, err = p.Policies.Facts(ctx, route, dest.port())
		if err != nil {
			return nil, fmt.Errorf("finding the TLS policy of %s: %w", domain, err)
		}
		if len(facts) != len(route.Hosts) {
			return nil, fmt.Errorf("finding the TLS policy of %s: %d answers for %d hosts", domain, len(facts), len(route.Hosts))
		}
	}
	plan := &Plan{
		Domain: domain, Site: route.Site, ExpiresAt: route.ExpiresAt,
		MaxMessages: dest.MaxMessages, Fixed: route.Fixed, Session: dest.Session,
		Hosts: make([]PlannedHost, len(route.Hosts)),
	}
	if !until.IsZero() && until.Before(plan.ExpiresAt) {
		plan.ExpiresAt = until
	}
	if route.Secure {
		plan.canonical = route.Canonical
	}
	for i := range route.Hosts {
		f := facts[i]
		f.Configured, f.HostTrusted = dest.TLS, route.Secure || route.Fixed
		plan.Hosts[i] = planHost(domain, route.Hosts[i], f, &dest)
	}
	plan.Key = plan.key()
	return plan, nil
}

func planHost(domain string, host resolver.Host, facts tlspolicy.Facts, dest *Destination) PlannedHost {
	h := PlannedHost{Host: host, port: uint16(dest.port())}
	if host.Port > 0 {
		h.port = uint16(host.Port)
	}
	for m := range h.demands {
		facts.Message = tlspolicy.Message(m)
		r := tlspolicy.Join(facts)
		h.demands[m] = demand{r, demandKey(domain, r) + dest.Session.key()}
	}
	return h
}

// demandKey tells demands apart that must not share a connection. A
// certificate below an authority of the zone (usage 2) may bear the recipient
// domain's name instead of the host's, and is good for that domain alone.
func demandKey(domain string, r tlspolicy.Requirement) string {
	for _, record := range r.TLSA {
		if record.Usage == 2 {
			return r.Key() + " for " + domain
		}
	}
	return r.Key()
}

// key joins all that parts connections: also the demands that some messages
// have on top, which do not follow from the demand of the others.
func (p *Plan) key() string {
	var b strings.Builder
	b.WriteString(p.Site)
	if p.Fixed {
		b.WriteString(" fixed")
	}
	b.WriteString(" max=" + strconv.Itoa(p.MaxMessages))
	p.writeRanks(&b)
	last := ""
	for i := range p.Hosts {
		h := &p.Hosts[i]
		one := " " + strconv.Itoa(int(h.port))
		for m := range h.demands {
			one += " " + h.demands[m].key
			if r := h.demands[m].Refused; r != nil {
				one += "!" + r.Status
			}
		}
		if one != last {
			b.WriteString(" " + strconv.Itoa(i) + ":" + one)
			last = one
		}
	}
	return b.String()
}

// writeRanks tells apart what shares its hosts and not their order: mail does not
// ride to one domain's best host where that is another's last resort.
func (p *Plan) writeRanks(b *strings.Builder) {
	for from := 0; from < len(p.Hosts); {
		to := groupEnd(p.Hosts, from)
		if from == 0 && to == len(p.Hosts) {
			return // equals, all of which the site names
		}
		names := make([]string, 0, to-from)
		for i := from; i < to; i++ {
			names = append(names, p.Hosts[i].Name)
		}
		slices.Sort(names)
		b.WriteString(" " + strconv.Itoa(from) + "=" + strings.Join(names, ","))
		from = to
	}
}

// PlanOutcome is what becomes of mail for which there is no plan: for a
// proven fact of DNS Failed, for all else Deferred.
func PlanOutcome(err error) queue.Outcome {
	o := queue.Outcome{Verdict: queue.Deferred, Scope: queue.ScopeSite, Stage: queue.StageDNS, Status: "4.4.3", Text: oneLine(err.Error())}
	var e *resolver.Error
	if errors.As(err, &e) {
		if !e.Temporary() {
			o.Verdict = queue.Failed
		}
		if e.Status != "" {
			o.Status = e.Status
		}
	}
	if o.Verdict == queue.Deferred {
		o.Status = withClass(o.Status, '4')
	}
	classifyReason(&o)
	return o
}
