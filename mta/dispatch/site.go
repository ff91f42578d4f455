package dispatch

import (
	"time"

	"postrider/mta/delivery"
	"postrider/mta/throttle"
)

// site is a provider: paths that share limits.
type site struct {
	name    string
	limit   *throttle.Limit
	ready   ring[*path] // paths that may get a worker
	paths   map[string]*path
	waiting node[*site] // in Dispatcher.waiting while a limit of the total holds
	alarm   alarm
}

// path is lanes whose attempts may share connections.
type path struct {
	key  string
	plan *delivery.Plan // one of its lanes'
	site *site
	// limit knows whether the hosts are dead; it limits nothing else.
	limit   *throttle.Limit
	lanes   int
	ready   ring[*lane]
	turn    node[*path] // in site.ready while it has ready lanes and is not dead
	workers int
	aside   int // of them; see aside.go
	alarm   alarm
}

// shortestPlan is how long a plan is used at least: one that is over as soon as
// it was found would be looked for without end.
const shortestPlan = 5 * time.Second

// join gives a lane its plan, and the path and site that belong to it.
func (d *Dispatcher) join(l *lane, plan *delivery.Plan, now time.Time) {
	l.plan, l.planUntil = plan, plan.ExpiresAt
	if soonest := now.Add(shortestPlan); l.planUntil.Before(soonest) {
		l.planUntil = soonest
	}
	if l.path != nil && l.path.key == plan.Key && l.path.site.name == d.o.Sites.site(plan) {
		l.path.plan = plan
		return
	}
	d.part(l, now)
	limits := d.limits(l.domain)
	s := d.site(d.o.Sites.site(plan), limits)
	p := s.paths[plan.Key]
	if p == nil {
		p = &path{key: plan.Key, plan: plan, site: s}
		p.limit = throttle.New(throttle.Options{Name: "hosts of " + plan.Domain, BackoffFirst: d.o.BackoffFirst, BackoffLongest: d.o.BackoffLongest})
		p.turn.value = p
		p.alarm.ring = func(now time.Time) {
			d.offer(p)
			d.start(p.site, now)
		}
		s.paths[plan.Key] = p
	}
	p.lanes++
	l.path = p
}

// part takes a lane off its path.
func (d *Dispatcher) part(l *lane, now time.Time) {
	p := l.path
	if p == nil {
		return
	}
	l.path = nil
	l.turn.leave()
	if p.lanes--; p.lanes > 0 || p.workers > 0 {
		return
	}
	d.forgetPath(p, now)
}

// forgetPath drops a path that has neither lanes nor workers. That its hosts
// were dead is found out again by the next attempt.
func (d *Dispatcher) forgetPath(p *path, now time.Time) {
	p.turn.leave()
	d.set(&p.alarm, time.Time{})
	delete(p.site.paths, p.key)
	d.forgetSite(p.site, now)
}

// forgetSite drops a site without paths, once its limits have nothing to
// remember.
func (d *Dispatcher) forgetSite(s *site, now time.Time) {
	if len(s.paths) > 0 {
		return
	}
	if !s.limit.Idle(now) {
		d.set(&s.alarm, now.Add(keepIdle))
		return
	}
	s.waiting.leave()
	d.set(&s.alarm, time.Time{})
	delete(d.sites, s.name)
}

// site finds a site, or makes it. The smallest setting of its domains holds.
func (d *Dispatcher) site(name string, limits Limits) *site {
	o := throttle.Options{
		Name: "site " + name, Connections: limits.SiteConnections, Start: d.o.StartConnections,
		ConnectionsPerMinute: limits.SiteConnectionsPerMinute, MessagesPerMinute: limits.SiteMessagesPerMinute,
	}
	s := d.sites[name]
	if s == nil {
		s = &site{name: name, limit: throttle.New(o), paths: make(map[string]*path)}
		s.waiting.value = s
		s.alarm.ring = func(now time.Time) {
			d.start(s, now)
			d.forgetSite(s, now)
		}
		d.sites[name] = s
		return s
	}
	s.limit.Tighten(o)
	return s
}

// offer puts a path that has work among those that may get a worker.
func (d *Dispatcher) offer(p *path) {
	if p.ready.count == 0 {
		return
	}
	p.site.ready.push(&p.turn)
}

// rest takes a dead path out until it is to be probed.
func (d *Dispatcher) rest(p *path, h throttle.Hold) {
	p.turn.leave()
	d.set(&p.alarm, h.Until)
}

// revive lets all go that waited for dead hosts: as many connections as at first,
// and no other path to the same hosts sits out its own wait. A provider's limit
// stays as it is where it has other hosts: they tell what the provider bears.
func (d *Dispatcher) revive(p *path) {
	d.offer(p)
	isAlone := true
	for _, other := range p.site.paths {
		switch {
		case other.plan.Site != p.plan.Site:
			isAlone = false
		case !other.limit.DeadSince().IsZero():
			other.limit.Wake()
			d.set(&other.alarm, time.Time{})
			d.offer(other)
		}
	}
	if isAlone {
		p.site.limit.Restart()
	}
}
