package dispatch

import (
	"context"
	"fmt"
	"net/netip"
	"sort"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postrider/mta/delivery"
	"postrider/mta/tlspolicy"
	"postrider/queue"
	"postrider/resolver"
)

// fakeQueue keeps Due, Take and Settle as queue.Queue documents them.
type fakeQueue struct {
	t          *testing.T
	retryAfter time.Duration

	mu       sync.Mutex
	messages map[string][]*message // by domain, in the order of submission
	done     map[string]int        // how many of them, from the first, are final
	named    map[string]bool
	changes  chan struct{}
	open     int // claims taken and not ended
	dueCalls int
	takes    int
	sweeps   []time.Time
	sweepAt  func(now time.Time) time.Time
	// onTake is called before each Take, onEmpty before one answers that there
	// is nothing more: where a slow disk would hold it up.
	onTake, onEmpty func(take int)
}

type message struct {
	number     int
	domain     string
	due        time.Time
	recipients []queue.Recipient
	envelope   *queue.Envelope
	attempts   int
	taken      bool
	postponed  int
	reserved   bool
	settledAt  time.Time
	outcomes   []queue.Outcome // last, by recipient; Delivered and Failed are final
}

func newFakeQueue(t *testing.T) *fakeQueue {
	return &fakeQueue{t: t, retryAfter: 5 * time.Minute, messages: make(map[string][]*message), done: make(map[string]int),
		named: make(map[string]bool), changes: make(chan struct{}, 1)}
}

func (q *fakeQueue) submit(domain string, recipients int) *message {
	return q.submitFrom("s@from.test", domain, recipients)
}

func (q *fakeQueue) submitFrom(sender, domain string, recipients int) *message {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := &message{domain: domain, due: time.Now(), number: len(q.messages[domain]), outcomes: make([]queue.Outcome, recipients)}
	for i := range recipients {
		m.recipients = append(m.recipients, queue.Recipient{Address: fmt.Sprintf("r%d@%s", i, domain), Domain: domain})
	}
	m.envelope = &queue.Envelope{Sender: sender, Recipients: m.recipients, ArrivedAt: m.due}
	q.messages[domain] = append(q.messages[domain], m)
	q.changed()
	return m
}

func (q *fakeQueue) changed() {
	select {
	case q.changes <- struct{}{}:
	default:
	}
}

func (q *fakeQueue) Changed() <-chan struct{} { return q.changes }

func (m *message) final() bool {
	for _, o := range m.outcomes {
		if o.Verdict != queue.Delivered && o.Verdict != queue.Failed {
			return false
		}
	}
	return true
}

func (q *fakeQueue) Due(now time.Time, buf []string) ([]string, time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dueCalls++
	var next time.Time
	for domain, list := range q.messages {
		due := false
		for _, m := range list[q.done[domain]:] {
			if m.taken || m.final() {
				continue
			}
			if !now.Before(m.due) {
				due = true
			} else if next.IsZero() || m.due.Before(next) {
				next = m.due
			}
		}
		if due && !q.named[domain] {
			q.named[domain] = true
			buf = append(buf, domain)
		}
	}
	sort.Strings(buf)
	return buf, next
}

func (q *fakeQueue) Take(now time.Time, domain string, maxRecipients int) (Claim, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.takes++
	if q.onTake != nil {
		q.unlocked(q.onTake)
	}
	list := q.messages[domain]
	for q.done[domain] < len(list) && list[q.done[domain]].final() {
		q.done[domain]++
	}
	for _, m := range list[q.done[domain]:] {
		if m.taken || m.final() || now.Before(m.due) {
			continue
		}
		c := &claim{q: q, m: m}
		for i, o := range m.outcomes {
			if o.Verdict != queue.Delivered && o.Verdict != queue.Failed && len(c.who) < maxRecipients {
				c.who = append(c.who, i)
			}
		}
		var recipients []queue.Recipient
		for _, i := range c.who {
			recipients = append(recipients, m.recipients[i])
		}
		m.taken = true
		q.open++
		return Claim{Envelope: m.envelope, Recipients: recipients, Attempts: m.attempts, DueAt: m.due, Reserved: m.reserved, Handle: c}, true
	}
	delete(q.named, domain)
	if q.onEmpty != nil {
		q.unlocked(q.onEmpty)
	}
	return Claim{}, false
}

func (q *fakeQueue) unlocked(hook func(int)) {
	n := q.takes
	q.mu.Unlock()
	hook(n)
	q.mu.Lock()
}

func (q *fakeQueue) Sweep(now time.Time) time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sweeps = append(q.sweeps, now)
	if q.sweepAt == nil {
		return time.Time{}
	}
	return q.sweepAt(now)
}

// delivered counts messages that are Delivered to all.
func (q *fakeQueue) count(domain string, v queue.Verdict) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for _, m := range q.messages[domain] {
		is := true
		for _, o := range m.outcomes {
			is = is && o.Verdict == v
		}
		if is {
			n++
		}
	}
	return n
}

type claim struct {
	q     *fakeQueue
	m     *message
	who   []int
	ended bool
}

func (c *claim) Content() (*queue.Content, error) { return nil, fmt.Errorf("no content in this test") }

func (c *claim) Settle(now time.Time, outcomes []queue.Outcome, _ queue.Timing) {
	c.end()
	defer c.q.mu.Unlock()
	if len(outcomes) != len(c.who) {
		c.q.t.Errorf("%d outcomes for %d recipients", len(outcomes), len(c.who))
		return
	}
	c.m.settledAt = now
	c.m.due = now
	for i, o := range outcomes {
		c.m.outcomes[c.who[i]] = o
		if o.Verdict == queue.Deferred {
			c.m.attempts++
			c.m.due = now.Add(c.q.retryAfter)
		}
	}
	if !c.m.final() { // else Due has nothing new to say
		c.q.changed()
	}
}

func (c *claim) Release(time.Time) {
	c.end()
	defer c.q.mu.Unlock()
	c.q.changed()
}

func (c *claim) Postpone(_, until time.Time, isReserved bool) {
	c.end()
	defer c.q.mu.Unlock()
	c.m.due, c.m.reserved = until, isReserved
	c.m.postponed++
	c.q.changed()
}

func (c *claim) end() {
	c.q.mu.Lock()
	if c.ended {
		c.q.t.Error("a claim was ended twice")
	}
	c.ended, c.m.taken = true, false
	c.q.open--
}

// fakePlanner gives every domain a host of its own, mx.<domain>, unless told
// otherwise.
type fakePlanner struct {
	mu     sync.Mutex
	answer func(ctx context.Context, domain string) (*delivery.Plan, error)
	calls  map[string]int
	now    int // running
	most   int
}

func (p *fakePlanner) Plan(ctx context.Context, domain string) (*delivery.Plan, error) {
	p.mu.Lock()
	if p.calls == nil {
		p.calls = make(map[string]int)
	}
	p.calls[domain]++
	p.now++
	p.most = max(p.most, p.now)
	answer := p.answer
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.now--
		p.mu.Unlock()
	}()
	if answer != nil {
		if plan, err := answer(ctx, domain); plan != nil || err != nil {
			return plan, err
		}
	}
	return plan(domain, "mx."+domain), nil
}

func (p *fakePlanner) asked(domain string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[domain]
}

func (p *fakePlanner) mostAtOnce() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.most
}

func (p *fakePlanner) forgetMost() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.most = 0
}

// plan is a real one, made by delivery.
func plan(domain string, hosts ...string) *delivery.Plan {
	p := delivery.Planner{
		Resolver:    route(hosts),
		Destination: func(string) delivery.Destination { return delivery.Destination{TLS: tlspolicy.Enable} },
	}
	made, err := p.Plan(context.Background(), domain)
	if err != nil {
		panic(err)
	}
	return made
}

type route []string

func (r route) Route(_ context.Context, domain string) (*resolver.Route, error) {
	out := &resolver.Route{Domain: domain, ExpiresAt: time.Now().Add(time.Hour)}
	for i, h := range r {
		out.Hosts = append(out.Hosts, resolver.Host{Name: h, Preference: uint16(i), Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
		out.Site += h + ","
	}
	return out, nil
}

func (r route) FixedRoute(context.Context, []string) (*resolver.Route, error) {
	panic("not in these tests")
}

// fakeDeliverer plays hosts by script, and watches how many connections each
// has.
type fakeDeliverer struct {
	connects func(*delivery.Plan) time.Duration // how long a connection takes to be made; nil: no time
	t        *testing.T
	takes    time.Duration // per message
	script   func(plan *delivery.Plan, a *delivery.Attempt) delivery.Report

	mu       sync.Mutex
	open     map[string]int // by site, and "" for all
	most     map[string]int
	attempts map[string]int // by domain
	deliver  int            // calls
	isClosed bool
	closed   chan struct{}
}

func newFakeDeliverer(t *testing.T) *fakeDeliverer {
	return &fakeDeliverer{t: t, takes: 10 * time.Millisecond, open: make(map[string]int), most: make(map[string]int),
		attempts: make(map[string]int), closed: make(chan struct{})}
}

func (f *fakeDeliverer) Deliver(ctx context.Context, plan *delivery.Plan, first *delivery.Attempt, work delivery.Work) {
	f.mu.Lock()
	f.deliver++
	for _, key := range []string{"", plan.Site} {
		f.open[key]++
		f.most[key] = max(f.most[key], f.open[key])
	}
	f.mu.Unlock()
	if f.connects != nil {
		if took := f.connects(plan); took > 0 {
			work.Connecting(true)
			time.Sleep(took)
			work.Connecting(false)
		}
	}
	for a, ok := first, true; ok; a, ok = work.Next() {
		if a.Plan == nil || a.Plan.Key != plan.Key || a.Plan.Domain != a.Recipients[0].Domain {
			f.t.Errorf("an attempt for %s came without its plan, beside that of %s", a.Recipients[0].Domain, plan.Domain)
		}
		r := f.attempt(ctx, plan, a)
		work.Done(a, &r)
		if r.Site == delivery.SiteFailed || ctx.Err() != nil {
			break
		}
	}
	f.mu.Lock()
	for _, key := range []string{"", plan.Site} {
		f.open[key]--
	}
	f.mu.Unlock()
}

func (f *fakeDeliverer) attempt(ctx context.Context, plan *delivery.Plan, a *delivery.Attempt) delivery.Report {
	began := time.Now()
	if ctx.Err() != nil {
		return delivery.Report{Outcomes: make([]queue.Outcome, len(a.Recipients)), StartedAt: began, EndedAt: began}
	}
	f.mu.Lock()
	f.attempts[a.Recipients[0].Domain]++
	script := f.script
	f.mu.Unlock()
	select {
	case <-time.After(f.takes):
	case <-f.closed:
		return delivery.Report{Outcomes: make([]queue.Outcome, len(a.Recipients)), StartedAt: began, EndedAt: time.Now()}
	}
	r := delivery.Report{Site: delivery.SiteAlive}
	if script != nil {
		r = script(plan, a)
	}
	if r.Outcomes == nil {
		r.Outcomes = all(a, queue.Outcome{Verdict: queue.Delivered, Code: 250, Status: "2.0.0", Text: "ok"})
	}
	r.StartedAt, r.EndedAt = began, time.Now()
	return r
}

func (f *fakeDeliverer) attempted(domain string) int { return f.read(f.attempts, domain) }
func (f *fakeDeliverer) nowOpen(site string) int     { return f.read(f.open, site) }
func (f *fakeDeliverer) mostOpen(site string) int    { return f.read(f.most, site) }

func (f *fakeDeliverer) read(counts map[string]int, key string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return counts[key]
}

func (f *fakeDeliverer) forgetMost() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.most)
}

func (f *fakeDeliverer) connections() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.deliver
}

func (f *fakeDeliverer) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.isClosed {
		close(f.closed)
	}
	f.isClosed = true
}

func all(a *delivery.Attempt, o queue.Outcome) []queue.Outcome {
	outcomes := make([]queue.Outcome, len(a.Recipients))
	for i := range outcomes {
		outcomes[i] = o
	}
	return outcomes
}

// siteFailed is the report of hosts that do not answer.
func siteFailed(a *delivery.Attempt) delivery.Report {
	return delivery.Report{Site: delivery.SiteFailed,
		Outcomes: all(a, queue.Outcome{Verdict: queue.Deferred, Scope: queue.ScopeSite, Status: "4.4.1", Text: "connection refused"})}
}

// world is a dispatcher with fakes around it.
type world struct {
	*Dispatcher
	queue   *fakeQueue
	planner *fakePlanner
	deliver *fakeDeliverer
}

// run plays in fake time: setup before the dispatcher starts, then play; the
// dispatcher is stopped at the end, and nothing may be left.
func run(t *testing.T, setup func(*Options, *world), play func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{queue: newFakeQueue(t), planner: &fakePlanner{}, deliver: newFakeDeliverer(t)}
		o := Options{Source: w.queue, Planner: w.planner, Deliverer: w.deliver}
		if setup != nil {
			setup(&o, w)
		}
		w.Dispatcher = New(o)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		synctest.Wait()
		play(w)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if w.queue.open != 0 {
			t.Errorf("%d claims were neither settled nor released", w.queue.open)
		}
		if !w.deliver.isClosed {
			t.Error("the deliverer was not closed")
		}
		if n := w.total.InUse(); n != 0 {
			t.Errorf("%d slots were not given back", n)
		}
	})
}

// pass lets time pass, and everything that is due in it happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
