package dispatch

import (
	"slices"
	"strings"
	"time"

	"postrider/mta/throttle"
)

// Lane is the state of a destination domain for people.
type Lane struct {
	Domain string
	Site   string    // empty while no plan was found
	Hosts  []string  // of the plan, best first
	State  string    // empty, routing, resting, ready, held
	Why    string    // what it waits for; empty where nothing holds it
	Until  time.Time // when that ends; zero: not known, or nothing to wait for
	// Connections are the ones that carry it now.
	Connections int
	// SiteConnections are those of its site, and Window how many that may have
	// open at present; 0: no limit.
	SiteConnections, Window int

	PlanUntil   time.Time
	LastError   string
	LastErrorAt time.Time
}

// Site is the state of a site for people.
type Site struct {
	Name        string
	Domains     int
	Connections int
	Window      int // how many connections may be open at present; 0: no limit
	Why         string
	Until       time.Time
	DeadSince   time.Time // of the first of its hosts that do not answer; zero: none
}

// Figures count for the metrics.
type Figures struct {
	Lanes, Routing, Resting, Ready, Held int
	Sites, DeadPaths                     int
	Connections                          int // workers: connections in use or being made
	Lookups                              int // running
}

var stateWords = [...]string{
	laneEmpty: "empty", laneRouting: "routing", laneResting: "resting", laneReady: "ready", laneHeld: "held",
}

// Lane tells about one domain; false where nothing is known of it.
func (d *Dispatcher) Lane(domain string, now time.Time) (Lane, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lanes[domain]
	if l == nil {
		return Lane{}, false
	}
	return d.describe(l, now), true
}

// Lanes tells about all domains that have or lately had work, by name.
func (d *Dispatcher) Lanes(now time.Time) []Lane {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]Lane, 0, len(d.lanes))
	for _, l := range d.lanes {
		all = append(all, d.describe(l, now))
	}
	slices.SortFunc(all, func(a, b Lane) int { return strings.Compare(a.Domain, b.Domain) })
	return all
}

func (d *Dispatcher) describe(l *lane, now time.Time) Lane {
	v := Lane{Domain: l.domain, State: stateWords[l.state], Connections: l.workers,
		PlanUntil: l.planUntil, LastError: l.lastError, LastErrorAt: l.lastErrorAt}
	if l.path != nil {
		s := l.path.site
		v.Site, v.SiteConnections, v.Window = s.name, s.limit.InUse(), s.limit.Window()
		for i := range l.plan.Hosts {
			v.Hosts = append(v.Hosts, l.plan.Hosts[i].Name)
		}
	}
	switch l.state {
	case laneRouting:
		v.Why = "its mail hosts are being looked for"
	case laneResting:
		v.Why, v.Until = "its mail hosts could not be found", l.restUntil
	case laneHeld:
		v.Why, v.Until = l.hold.String(), l.hold.Until
	case laneReady:
		h := l.path.limit.Connection(now)
		for _, limit := range [...]*throttle.Limit{l.path.site.limit, d.total} {
			if !h.Holds() {
				h = firstHold(limit, now)
			}
		}
		v.Why, v.Until = h.String(), h.Until
	}
	if v.Why == "" && now.Before(l.paced.Until) { // some of its mail
		v.Why, v.Until = l.paced.String(), l.paced.Until
	}
	return v
}

// AllSites tells about all sites, by name.
func (d *Dispatcher) AllSites(now time.Time) []Site {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]Site, 0, len(d.sites))
	for _, s := range d.sites {
		h := s.limit.Connection(now)
		v := Site{Name: s.name, Connections: s.limit.InUse(), Window: s.limit.Window(), Why: h.String(), Until: h.Until}
		for _, p := range s.paths {
			v.Domains += p.lanes
			if since := p.limit.DeadSince(); !since.IsZero() && (v.DeadSince.IsZero() || since.Before(v.DeadSince)) {
				v.DeadSince = since
				h := p.limit.Connection(now)
				v.Why, v.Until = h.String(), h.Until
			}
		}
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b Site) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// DomainsOf names the domains that are known to belong to a site.
func (d *Dispatcher) DomainsOf(site string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var domains []string
	for _, l := range d.lanes {
		if l.path != nil && l.path.site.name == site {
			domains = append(domains, l.domain)
		}
	}
	slices.Sort(domains)
	return domains
}

// Figures counts.
func (d *Dispatcher) Figures() Figures {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := Figures{Lanes: len(d.lanes), Sites: len(d.sites), Connections: d.total.InUse(), Lookups: d.lookups.running}
	for _, l := range d.lanes {
		switch l.state {
		case laneRouting:
			f.Routing++
		case laneResting:
			f.Resting++
		case laneReady:
			f.Ready++
		case laneHeld:
			f.Held++
		}
	}
	for _, s := range d.sites {
		for _, p := range s.paths {
			if !p.limit.DeadSince().IsZero() {
				f.DeadPaths++
			}
		}
	}
	return f
}

// Wake ends what a domain waits for that we imposed ourselves: the rest after
// failures and pauses. Somebody wants it tried now. Rates and the number of
// connections still hold.
func (d *Dispatcher) Wake(domain string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.lanes[domain]
	if l == nil {
		return
	}
	now := time.Now()
	if l.state == laneResting {
		l.rest = 0
		d.route(l)
		return
	}
	if l.path == nil {
		return
	}
	l.path.limit.Wake()
	l.path.site.limit.Wake()
	d.offer(l.path)
	d.start(l.path.site, now)
}
