package mta

import (
	"context"
	"net/netip"
	"time"

	"postrider/config"
	"postrider/mta/api/wire"
	"postrider/mta/delivery"
	"postrider/mta/dispatch"
	"postrider/mta/metrics"
	"postrider/mta/tlspolicy"
	"postrider/queue"
	"postrider/resolver"
)

// destinations answers the API's questions about how mail to a domain would
// go, with the same rooms that would send it.
type destinations struct{ mta *MTA }

func (d *destinations) Route(ctx context.Context, domain string) (*resolver.Route, error) {
	if hosts := d.mta.cfg.DestinationFor(domain).Hosts; len(hosts) > 0 {
		return d.mta.resolver.FixedRoute(ctx, hosts)
	}
	return d.mta.resolver.Route(ctx, domain)
}

func (d *destinations) Demands(ctx context.Context, domain string, route *resolver.Route) []wire.Demand {
	demands := make([]wire.Demand, len(route.Hosts))
	plan, err := d.mta.planner.By(ctx, domain, route)
	for i := range demands {
		if err != nil {
			demands[i].Error = err.Error()
			continue
		}
		r := plan.Hosts[i].Requirement(tlspolicy.MessageDefault)
		demands[i] = wire.Demand{Level: r.Level.String(), Source: r.Source.String()}
		if r.Refused != nil {
			demands[i].Error = r.Refused.Text
		}
	}
	return demands
}

func (d *destinations) Dialable(addr netip.AddrPort) error { return d.mta.guard.Check(addr) }

func (d *destinations) Settings(domain string) (wire.Settings, int) {
	s := d.mta.cfg.DestinationFor(domain)
	var retry []string
	for _, wait := range s.Retry {
		retry = append(retry, config.FormatDuration(wait))
	}
	return wire.Settings{
		Retry:                 retry,
		ExpireAfter:           config.FormatDuration(s.ExpireAfter),
		DelayNoticeAfter:      config.FormatDuration(s.DelayNoticeAfter),
		MaxConnections:        s.MaxConnectionsPerSite,
		MaxMessagesPerMinute:  s.MaxMessagesPerMinute,
		MaxMessagesPerConn:    s.MaxMessagesPerConnection,
		MaxRecipientsPerTrans: s.MaxRecipientsPerTransaction,
	}, s.Port
}

func (d *destinations) Local(domain string) bool { return d.mta.intake.IsLocal(domain) }

// lanes shows the dispatcher's lanes to the API.
type lanes struct{ *dispatch.Dispatcher }

func (l lanes) Lane(now time.Time, domain string) (wire.Lane, bool) {
	lane, ok := l.Dispatcher.Lane(domain, now)
	if !ok {
		return wire.Lane{}, false
	}
	shown := wire.Lane{
		Site: lane.Site, Waits: lane.Why, Until: lane.Until,
		LastError: lane.LastError, LastErrorAt: lane.LastErrorAt, Connections: lane.Connections,
	}
	if lane.Site != "" {
		shown.Connections, shown.Window = lane.SiteConnections, lane.Window
	}
	return shown, true
}

// SiteDomains names the domains of a site that have or lately had mail.
func (l lanes) SiteDomains(site string) []string { return l.DomainsOf(site) }

// attemptCounter hands what became of attempts to the metrics.
type attemptCounter struct{ *metrics.Metrics }

// Attempt implements dispatch.Observer.
func (c attemptCounter) Attempt(a *dispatch.Attempt) {
	c.Metrics.Attempt(a.Outcomes, a.Timing, a.At.Sub(a.Envelope.ArrivedAt))
}

// givenUp counts and logs a recipient that failed in the queue. The queue tells
// of none before Run, when the metrics are there.
func (m *MTA) givenUp(now time.Time, env *queue.Envelope, r *queue.Recipient, o *queue.Outcome) {
	m.metrics.GivenUp(o)
	m.log.Info("failed", "id", env.ID.String(), "from", env.Sender, "to", r.Address, "domain", r.Domain,
		"status", o.Status, "reply", o.Text, "class", string(o.Class), "delay", now.Sub(env.ArrivedAt).Round(time.Millisecond))
}

// connectionObservers all learn of every connection.
type connectionObservers []delivery.Observer

// Connection implements delivery.Observer.
func (all connectionObservers) Connection(c *delivery.Connection) {
	for _, o := range all {
		o.Connection(c)
	}
}

// connectionCounter hands what connections came to to the metrics.
type connectionCounter struct{ *metrics.Metrics }

// Connection implements delivery.Observer.
func (m connectionCounter) Connection(c *delivery.Connection) {
	if c.IsShared {
		return // counted when it was made
	}
	m.Metrics.Connection(c.Demand.Level.String(), c.Demand.Source.String(), c.Reached.String())
	if c.TLSResult != delivery.TLSNotTried && c.TLSResult != delivery.TLSOK {
		m.TLSFailed(c.TLSResult.String())
	}
}
