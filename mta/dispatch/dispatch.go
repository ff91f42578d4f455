package dispatch

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"postrider/mta/throttle"
)

// Options configure a Dispatcher. Source, Planner and Deliverer are required.
type Options struct {
	Source    Source
	Planner   Planner
	Deliverer Deliverer
	// Limits gives the limits of a destination; nil: only those below.
	Limits func(domain string) Limits
	// SenderRate gives the most messages a minute of those that share a key with
	// this sender, and the key, for people; 0: no limit. Nil: none has one.
	SenderRate func(sender string) (key string, perMinute int)
	Sites      SiteTable // nil: DefaultSites
	// Connections is the most open at once, in all; 0: 1000.
	Connections int
	// SiteConnections is the most to one site; 0: 20. StartConnections is with
	// how many a site begins; 0: 5.
	SiteConnections, StartConnections int
	ConnectionsPerMinute              int // in all; 0: no limit
	MessagesPerMinute                 int // in all; 0: no limit
	// MaxRecipients is the most in one transaction; 0: 100.
	MaxRecipients int
	// Lookups is how many plans are looked for at once; 0: 200. LookupTime is
	// the time for one; 0: 2 min.
	Lookups    int
	LookupTime time.Duration
	// Aside is how many connections may be waited for that do not answer,
	// beside Connections; 0: eight times as many. HangingLookups is the same for
	// Lookups; 0: 25 times as many.
	Aside, HangingLookups int
	// BackoffFirst is how long dead hosts, or a failing DNS, are left alone at
	// first; 0: 1 min. It doubles up to BackoffLongest; 0: 30 min.
	BackoffFirst, BackoffLongest time.Duration
	// Grace is how long attempts on the wire may go on after the stop; 0: 30 s.
	Grace    time.Duration
	Observer Observer     // nil: nobody
	Logger   *slog.Logger // nil: none
}

// Limits are those of one destination domain, and what it says about its site,
// where the smallest of all its domains holds. 0: no limit, or the general one.
type Limits struct {
	Connections, ConnectionsPerMinute, MessagesPerMinute             int
	SiteConnections, SiteConnectionsPerMinute, SiteMessagesPerMinute int
	MaxRecipients                                                    int // in one transaction
}

func (o *Options) setDefaults() {
	setDefault(&o.Connections, 1000)
	setDefault(&o.SiteConnections, 20)
	setDefault(&o.StartConnections, 5)
	setDefault(&o.MaxRecipients, 100)
	setDefault(&o.Lookups, 200)
	setDefault(&o.LookupTime, 2*time.Minute)
	setDefault(&o.Aside, 8*o.Connections)
	setDefault(&o.HangingLookups, 25*o.Lookups)
	setDefault(&o.BackoffFirst, time.Minute)
	setDefault(&o.BackoffLongest, 30*time.Minute)
	setDefault(&o.Grace, 30*time.Second)
	if o.Sites == nil {
		o.Sites = DefaultSites()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Dispatcher is the scheduler. Its methods but Run are safe for concurrent use.
type Dispatcher struct {
	o    Options
	wake chan struct{} // the loop is to look at its timers again

	mu        sync.Mutex
	ctx       context.Context // of Run; set while it runs
	lanes     map[string]*lane
	sites     map[string]*site
	senders   map[string]*throttle.Limit // by key, those that have a rate
	total     *throttle.Limit
	aside     int         // workers whose connection is being made for long; total does not count them
	waiting   ring[*site] // for what the total allows
	roomAlarm alarm       // when the total may allow more
	idle      ring[*lane] // empty lanes, the one that is idle for longest first
	idleAlarm alarm       // when to forget some of them
	alarms    alarms
	wakeAt    time.Time // when the loop wakes by itself; zero: never
	lookups   lookups
	stopping  bool
	running   sync.WaitGroup // open workers and lookups
	crew      sync.WaitGroup // goroutines of workers, open or spare
	spare     []*worker
}

// New makes a dispatcher. It starts nothing.
func New(o Options) *Dispatcher {
	o.setDefaults()
	d := &Dispatcher{
		o:       o,
		wake:    make(chan struct{}, 1),
		lanes:   make(map[string]*lane),
		sites:   make(map[string]*site),
		senders: make(map[string]*throttle.Limit),
		total: throttle.New(throttle.Options{
			Name: "all destinations", Connections: o.Connections,
			ConnectionsPerMinute: o.ConnectionsPerMinute, MessagesPerMinute: o.MessagesPerMinute,
		}),
	}
	d.roomAlarm.ring = d.startWaiting
	d.idleAlarm.ring = d.forgetIdle
	return d
}

// Run schedules until ctx ends, and returns when every attempt has ended: those
// on the wire have the grace period for that. It is called once.
func (d *Dispatcher) Run(ctx context.Context) error {
	d.mu.Lock()
	d.ctx = ctx
	d.mu.Unlock()
	d.loop(ctx)
	d.stop()
	return nil
}

// loop starts workers for what becomes due.
func (d *Dispatcher) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	sweeper := newSweeper(d.o.Source)
	var buf []string
	for {
		now := time.Now()
		domains, nextDue := d.o.Source.Due(now, buf[:0])
		buf = domains
		next := earliest(nextDue, sweeper.sweep(now))
		timer.Reset(d.tick(domains, now, next))
		select {
		case <-ctx.Done():
			return
		case <-d.o.Source.Changed():
			sweeper.changed()
		case <-d.wake:
		case <-timer.C:
		}
	}
}

// never is the wait of a loop that only a change can wake.
const never = 1<<63 - 1

// tick takes in what is due and what the alarms say, and answers how long the
// loop may sleep.
func (d *Dispatcher) tick(domains []string, now, next time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wakeAt = now // it is awake: alarms need not wake it
	for _, domain := range domains {
		d.named(domain, now)
	}
	for a := d.alarms.due(now); a != nil; a = d.alarms.due(now) {
		a.ring(now)
	}
	d.wakeAt = earliest(next, d.alarms.next())
	if d.wakeAt.IsZero() {
		return never
	}
	return d.wakeAt.Sub(now)
}

// named takes in that a domain has work due.
func (d *Dispatcher) named(domain string, now time.Time) {
	l := d.lanes[domain]
	if l == nil {
		l = d.newLane(domain)
	}
	l.named++
	if l.state != laneEmpty {
		return
	}
	l.idleTurn.leave()
	if l.plan == nil || !now.Before(l.planUntil) {
		d.route(l)
		return
	}
	d.ready(l, now)
}

func (d *Dispatcher) newLane(domain string) *lane {
	o := d.limits(domain)
	l := &lane{domain: domain, maxRecipients: o.MaxRecipients}
	l.turn.value, l.idleTurn.value = l, l
	l.alarm.ring = func(now time.Time) { d.wakeLane(l, now) }
	if o.Connections > 0 || o.ConnectionsPerMinute > 0 || o.MessagesPerMinute > 0 {
		l.limit = throttle.New(throttle.Options{Name: domain, Connections: o.Connections,
			ConnectionsPerMinute: o.ConnectionsPerMinute, MessagesPerMinute: o.MessagesPerMinute})
	}
	d.lanes[domain] = l
	return l
}

// wakeLane is the end of a lane's wait.
func (d *Dispatcher) wakeLane(l *lane, now time.Time) {
	switch l.state {
	case laneRouting:
		d.hang(l)
	case laneResting:
		d.route(l)
	case laneHeld:
		d.release(l)
		d.start(l.path.site, now)
	}
}

// ready lets workers have the lane.
func (d *Dispatcher) ready(l *lane, now time.Time) {
	l.state = laneReady
	l.path.ready.push(&l.turn)
	d.offer(l.path)
	d.start(l.path.site, now)
}

func (d *Dispatcher) limits(domain string) Limits {
	var l Limits
	if d.o.Limits != nil {
		l = d.o.Limits(domain)
	}
	setDefault(&l.SiteConnections, d.o.SiteConnections)
	setDefault(&l.MaxRecipients, d.o.MaxRecipients)
	return l
}

// Idle lanes are kept for a while for their plans, and for what people ask.
const (
	keepIdle    = 10 * time.Minute
	maxIdle     = 20_000
	forgetEvery = time.Minute
)

// forgetIdle drops lanes that had nothing to do for long, and what was there
// for them alone.
func (d *Dispatcher) forgetIdle(now time.Time) {
	for n := d.idle.count; n > 0; n-- {
		l := d.idle.first.value
		if now.Sub(l.idleSince) < keepIdle && d.idle.count <= maxIdle {
			break
		}
		d.forget(l, now)
	}
	if d.idle.count > 0 {
		next, soonest := d.idle.first.value.idleSince.Add(keepIdle), now.Add(forgetEvery)
		if next.Before(soonest) {
			next = soonest
		}
		d.set(&d.idleAlarm, next)
	}
}

func (d *Dispatcher) forget(l *lane, now time.Time) {
	l.idleTurn.leave()
	if l.workers > 0 || l.limit != nil && !l.limit.Idle(now) {
		l.idleSince = now
		d.idle.push(&l.idleTurn)
		return
	}
	d.part(l, now)
	delete(d.lanes, l.domain)
}

// set sets an alarm, and wakes the loop where that is earlier than it would
// wake by itself. A zero at takes the alarm back.
func (d *Dispatcher) set(a *alarm, at time.Time) {
	d.alarms.set(a, at)
	if !at.IsZero() && (d.wakeAt.IsZero() || at.Before(d.wakeAt)) {
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
}

// earliest of the times that are not zero.
func earliest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// stop takes no more, waits for what is on the wire, and ends it when the grace
// period is over.
func (d *Dispatcher) stop() {
	d.mu.Lock()
	d.stopping = true
	d.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		d.running.Wait()
		close(ended)
	}()
	grace := time.NewTimer(d.o.Grace)
	defer grace.Stop()
	select {
	case <-ended:
	case <-grace.C:
	}
	d.o.Deliverer.Close()
	<-ended
	d.dismissSpare()
}

// dismissSpare ends the workers that wait for a connection.
func (d *Dispatcher) dismissSpare() {
	d.mu.Lock()
	spare := d.spare
	d.spare = nil
	d.mu.Unlock()
	for _, w := range spare {
		w.dismiss()
	}
	d.crew.Wait()
}
