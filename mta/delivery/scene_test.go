package delivery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postrider/mta/smtpclient"
	"postrider/mta/smtptest"
	"postrider/mta/tlspolicy"
	"postrider/queue"
	"postrider/resolver"
	"postrider/resolver/resolvertest"
)

// scene is an agent before a small internet: a zone, and scripted mail servers
// that all listen on one port of addresses of their own.
type scene struct {
	t       *testing.T
	zone    *resolvertest.Zone
	port    int
	options Options
	dest    Destination
	fixed   map[string][]string // hosts of a domain
	policy  Policies
	events  *events

	once    sync.Once
	agent   *Agent
	planner *Planner
}

// nextAddr numbers the addresses of 127.0.0.0/8, so that tests can run side by
// side.
var nextAddr atomic.Uint32

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{t: t, zone: resolvertest.Start(t), events: &events{}, fixed: make(map[string][]string)}
	second := 5 * time.Second
	s.options = Options{
		Timeouts: smtpclient.Timeouts{Greeting: second, Command: second, TLS: second, Data: second, Block: second, Final: second},
		Connect:  second,
		HELO:     func(netip.Addr) string { return "out.test" },
		Guard:    &Guard{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}},
		Observer: s.events,
	}
	s.dest.TLS = tlspolicy.Enable
	return s
}

// listen starts a scripted server at an address of its own.
func (s *scene) listen(script smtptest.Script) (*smtptest.Server, netip.Addr) {
	s.t.Helper()
	for range 100 {
		n := nextAddr.Add(1)
		addr := netip.AddrFrom4([4]byte{127, 77, byte(n >> 8), byte(n)})
		server, err := smtptest.Start(netip.AddrPortFrom(addr, uint16(s.port)).String(), script)
		if err != nil {
			continue
		}
		if s.port == 0 {
			s.port = server.Addr().(*net.TCPAddr).Port
		}
		s.t.Cleanup(func() { server.Close() })
		return server, addr
	}
	s.t.Fatal("no free address for a scripted server")
	return nil, netip.Addr{}
}

// host is a scripted server with a name.
func (s *scene) host(name string, script smtptest.Script) *smtptest.Server {
	s.t.Helper()
	script.Name = name
	server, addr := s.listen(script)
	s.zone.Add(fmt.Sprintf("%s. 300 IN A %s", name, addr))
	return server
}

// down gives a name an address where nothing listens.
func (s *scene) down(name string) {
	n := nextAddr.Add(1)
	s.zone.Add(fmt.Sprintf("%s. 300 IN A 127.77.%d.%d", name, n>>8, n&255))
}

// mx gives a domain its hosts, the best first.
func (s *scene) mx(domain string, hosts ...string) {
	for i, h := range hosts {
		s.zone.Add(fmt.Sprintf("%s. 300 IN MX %d %s.", domain, 10*(i+1), h))
	}
}

func (s *scene) start() {
	s.once.Do(func() {
		r, err := resolver.New(resolver.Options{Servers: []string{s.zone.Addr()}, TrustAD: true, Timeout: time.Second})
		if err != nil {
			s.t.Fatal(err)
		}
		s.agent = NewAgent(s.options)
		s.t.Cleanup(s.agent.Close)
		s.planner = &Planner{Resolver: r, Policies: s.policy, Destination: func(domain string) Destination {
			d := s.dest
			d.Port, d.Hosts = s.port, s.fixed[domain]
			if s.port == 0 {
				d.Port = 1 // where nothing listens
			}
			return d
		}}
	})
}

func (s *scene) plan(domain string) *Plan {
	s.t.Helper()
	s.start()
	p, err := s.planner.Plan(context.Background(), domain)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// deliver carries messages that are all for one domain, and answers their
// outcomes in order.
func (s *scene) deliver(messages ...*letter) {
	s.t.Helper()
	s.deliverCtx(context.Background(), messages...)
}

func (s *scene) deliverCtx(ctx context.Context, messages ...*letter) {
	s.t.Helper()
	plan := s.plan(messages[0].attempt.Recipients[0].Domain)
	for len(messages) > 0 { // as a dispatcher does while it has work
		w := &workList{t: s.t, left: messages[1:]}
		s.agent.Deliver(ctx, plan, &messages[0].attempt, w)
		if w.open() != 0 {
			s.t.Errorf("%d attempts were given and not reported", w.open())
		}
		messages = w.left
	}
}

// one carries one message with one recipient, and answers its outcome.
func (s *scene) one(to string) queue.Outcome {
	s.t.Helper()
	m := mail(to)
	s.deliver(m)
	return m.outcome(s.t)
}

// workList gives out letters and takes their reports.
type workList struct {
	t     *testing.T
	left  []*letter
	given int
	done  int
}

func (w *workList) Connecting(bool) {}

func (w *workList) Next() (*Attempt, bool) {
	if len(w.left) == 0 {
		return nil, false
	}
	m := w.left[0]
	w.left = w.left[1:]
	w.given++
	return &m.attempt, true
}

func (w *workList) Done(a *Attempt, r *Report) {
	w.done++
	m := a.Value.(*letter)
	if m.reported {
		w.t.Errorf("%s was reported twice", a.Envelope.Sender)
	}
	m.reported = true
	if len(r.Outcomes) != len(a.Recipients) {
		w.t.Errorf("%d outcomes for %d recipients", len(r.Outcomes), len(a.Recipients))
	}
	for _, o := range r.Outcomes {
		if o.Verdict != queue.Untried && (o.Status == "" || o.Text == "") {
			w.t.Errorf("an outcome without status or text: %+v", o)
		}
	}
	m.report = *r
}

// open counts the attempts without a report; the first was not asked for.
func (w *workList) open() int { return w.given + 1 - w.done }

// letter is a message with its report.
type letter struct {
	attempt  Attempt
	content  string
	openErr  error
	opened   int
	report   Report
	reported bool
}

const hello = "From: <s@from.test>\r\nSubject: hello\r\n\r\nHello.\r\n"

// mail is a small message to recipients of one domain.
func mail(to ...string) *letter {
	m := &letter{content: hello}
	env := &queue.Envelope{Sender: "s@from.test", Size: int64(len(hello)), ArrivedAt: time.Now()}
	for _, a := range to {
		_, domain, _ := strings.Cut(a, "@")
		env.Recipients = append(env.Recipients, queue.Recipient{Address: a, Domain: domain})
	}
	m.attempt = Attempt{Envelope: env, Recipients: env.Recipients, Content: m, Value: m}
	return m
}

func (m *letter) Content() (*queue.Content, error) {
	m.opened++
	if m.openErr != nil {
		return nil, m.openErr
	}
	return &queue.Content{Data: []byte(m.content), Size: int64(len(m.content))}, nil
}

// outcome is that of a message with one recipient.
func (m *letter) outcome(t *testing.T) queue.Outcome {
	t.Helper()
	if !m.reported || len(m.report.Outcomes) != 1 {
		t.Fatalf("no report, or not one outcome: %+v", m.report)
	}
	return m.report.Outcomes[0]
}

// want is what an outcome must be; empty fields are not looked at, and text is a
// part of it.
type want struct {
	verdict queue.Verdict
	scope   queue.Scope
	stage   queue.Stage
	code    int
	status  string
	text    string
}

func check(t *testing.T, o queue.Outcome, w want) {
	t.Helper()
	if o.Verdict != w.verdict || o.Scope != w.scope || o.Stage != w.stage || o.Code != w.code || o.Status != w.status || !strings.Contains(o.Text, w.text) {
		t.Errorf("outcome %s\n   want %+v", show(o), w)
	}
}

func show(o queue.Outcome) string {
	return fmt.Sprintf("verdict %d scope %d stage %d code %d status %s in doubt %v retry %v text %q", o.Verdict, o.Scope, o.Stage, o.Code, o.Status, o.InDoubt, o.RetryAfter, o.Text)
}

func checkDelivered(t *testing.T, o queue.Outcome) {
	t.Helper()
	if o.Verdict != queue.Delivered || o.Code != 250 || o.Stage != queue.StageFinal || o.Status[0] != '2' {
		t.Errorf("not delivered: %s", show(o))
	}
}

// events keeps what the observer was told.
type events struct {
	mu  sync.Mutex
	all []Connection
}

func (e *events) Connection(c *Connection) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, *c)
}

func (e *events) list() []Connection {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Connection(nil), e.all...)
}

var errBroken = errors.New("checksum does not match")
