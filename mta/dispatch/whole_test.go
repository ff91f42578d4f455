package dispatch

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postrider/mta/delivery"
	"postrider/mta/smtpclient"
	"postrider/mta/smtptest"
	"postrider/mta/tlspolicy"
	"postrider/queue"
	"postrider/resolver"
	"postrider/resolver/resolvertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// realRing is the real queue, resolver and agent around a dispatcher.
type realRing struct {
	t     testing.TB
	queue *queue.Queue
	zone  *resolvertest.Zone
	o     Options
	port  int
	stop  func()
}

func newRealRing(t testing.TB) *realRing {
	t.Helper()
	q, err := queue.Open(queue.Options{Dir: t.TempDir(), Schedule: func(string) *queue.Schedule {
		return &queue.Schedule{Retry: []time.Duration{20 * time.Millisecond}, ExpireAfter: time.Hour}
	}})
	if err != nil {
		t.Fatal(err)
	}
	return &realRing{t: t, queue: q, zone: resolvertest.Start(t)}
}

// run starts everything, and stops it in order at the end of the test.
func (r *realRing) run() *Dispatcher {
	r.t.Helper()
	found, err := resolver.New(resolver.Options{Servers: []string{r.zone.Addr()}})
	if err != nil {
		r.t.Fatal(err)
	}
	second := 10 * time.Second
	agent := delivery.NewAgent(delivery.Options{
		Timeouts: smtpclient.Timeouts{Greeting: second, Command: second, TLS: second, Data: second, Block: second, Final: second},
		HELO:     func(netip.Addr) string { return "out.test" },
		Guard:    &delivery.Guard{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
	})
	r.o.Source = FromQueue(r.queue)
	r.o.Deliverer = agent
	r.o.Planner = &delivery.Planner{Resolver: found, Destination: func(string) delivery.Destination {
		return delivery.Destination{TLS: tlspolicy.Enable, Port: r.port, MaxMessages: 100}
	}}
	d := New(r.o)
	keep, stopKeeping := context.WithCancel(context.Background())
	send, stopSending := context.WithCancel(context.Background())
	var keeping, sending sync.WaitGroup
	keeping.Go(func() { r.queue.Run(keep) })
	sending.Go(func() { d.Run(send) })
	r.stop = sync.OnceFunc(func() {
		stopSending()
		sending.Wait()
		stopKeeping()
		keeping.Wait()
		if err := r.queue.Close(); err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(r.stop)
	return d
}

func (r *realRing) listen(script smtptest.Script) *smtptest.Server {
	r.t.Helper()
	s, err := smtptest.Start(fmt.Sprintf("127.0.0.1:%d", r.port), script)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { s.Close() })
	r.port = s.Addr().(*net.TCPAddr).Port
	r.zone.Add("mx.test. 300 IN A 127.0.0.1")
	return s
}

func (r *realRing) submit(n int, to ...string) queue.ID {
	r.t.Helper()
	return r.submitFrom("s@from.test", n, to...)
}

func (r *realRing) submitFrom(sender string, n int, to ...string) queue.ID {
	r.t.Helper()
	now := time.Now()
	env := &queue.Envelope{ID: r.queue.NewID(now), Sender: sender, ArrivedAt: now}
	for _, a := range to {
		domain := a[len("r00@"):]
		env.Recipients = append(env.Recipients, queue.Recipient{Address: a, Domain: domain})
	}
	b := r.queue.NewBody()
	fmt.Fprintf(b, "Subject: message %d\r\n\r\nHello.\r\n", n)
	if err := r.queue.Submit(context.Background(), queue.Submission{Envelope: env, Body: b}); err != nil {
		r.t.Fatal(err)
	}
	return env.ID
}

var pipelining = []string{"PIPELINING", "CHUNKING", "8BITMIME", "SIZE 1000000"}

func TestEverythingArrivesOnce(t *testing.T) {
	t.Parallel()
	r := newRealRing(t)
	mx := r.listen(smtptest.Script{Extensions: pipelining, On: map[string][]smtptest.Step{
		// Every now and then somebody is told to come back, and a connection
		// ends after a message.
		"RCPT TO:<r07@": smtptest.Do(smtptest.Step{}, smtptest.Step{Reply: "451 4.3.0 later"}, smtptest.Step{}, smtptest.Step{}),
		smtptest.OnEnd:  smtptest.Do(repeat(smtptest.Step{Reply: "250 2.0.0 ok"}, 40, smtptest.Step{Reply: "250 2.0.0 ok", Then: smtptest.Close}, 20)...),
	}})
	for i := range 20 {
		r.zone.Add(fmt.Sprintf("d%02d.test. 300 IN MX 10 mx.test.", i))
	}
	d := r.run()
	const messages = 1000
	for i := range messages {
		r.submit(i, fmt.Sprintf("r%02d@d%02d.test", i%50, i%20), fmt.Sprintf("r%02d@d%02d.test", i%50, (i+1)%20))
	}
	if !mx.WaitTransactions(2*messages, 60*time.Second) {
		t.Errorf("%d transactions; %+v", len(mx.Transactions()), d.Figures())
	}
	waitEmpty(t, r.queue, d)
	r.stop()
	seen := map[string]int{}
	for _, tx := range mx.Transactions() {
		for _, rcpt := range tx.Rcpts {
			if tx.IsAccepted && rcpt.IsAccepted {
				seen[string(tx.Content)+rcpt.Address]++
			}
		}
	}
	if len(seen) != 2*messages {
		t.Errorf("%d of %d arrived", len(seen), 2*messages)
	}
	for what, n := range seen {
		if n != 1 {
			t.Errorf("%d times: %s", n, what)
		}
	}
	if v := mx.Violations(); len(v) > 0 {
		t.Errorf("violations: %v", v)
	}
}

// TestOneSendersFloodDoesNotDelayAnother: a single message to the destination
// of a flood goes among the next few, however many of the flood came before it.
func TestOneSendersFloodDoesNotDelayAnother(t *testing.T) {
	t.Parallel()
	r := newRealRing(t)
	r.o.Connections = 2
	mx := r.listen(smtptest.Script{Extensions: pipelining})
	r.zone.Add("a.test. 300 IN MX 10 mx.test.")
	const flood = 800
	for i := range flood {
		r.submit(i, "r00@a.test")
	}
	d := r.run()
	if !mx.WaitTransactions(100, 60*time.Second) {
		t.Fatalf("%d transactions; %+v", len(mx.Transactions()), d.Figures())
	}
	r.submitFrom("other@from.test", flood, "r00@a.test")
	before := len(mx.Transactions())
	waitEmpty(t, r.queue, d)
	r.stop()
	all := mx.Transactions()
	at := slices.IndexFunc(all, func(tx smtptest.Transaction) bool { return strings.Contains(tx.From, "other@from.test") })
	if len(all) != flood+1 || before > flood/2 {
		t.Fatalf("%d messages arrived, %d before the single one was queued: the test shows nothing", len(all), before)
	}
	if at > before+50 {
		t.Errorf("the single message was number %d to arrive, and %d had arrived when it was queued", at, before)
	}
}

// repeat makes n times (many usual steps and a special one).
func repeat(usual smtptest.Step, many int, special smtptest.Step, n int) []smtptest.Step {
	var steps []smtptest.Step
	for range n {
		for range many {
			steps = append(steps, usual)
		}
		steps = append(steps, special)
	}
	return append(steps, usual)
}

func waitEmpty(t testing.TB, q *queue.Queue, d *Dispatcher) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		depth := q.Depth(time.Now())
		if depth.Recipients == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still waiting: %+v, %+v", depth, d.Figures())
		}
		time.Sleep(time.Millisecond)
	}
}

func TestDestinationWithoutDNS(t *testing.T) {
	t.Parallel()
	r := newRealRing(t)
	r.o.BackoffFirst = 10 * time.Millisecond
	mx := r.listen(smtptest.Script{})
	r.zone.Add("ok.test. 300 IN MX 10 mx.test.")
	r.zone.Add("null.test. 300 IN MX 0 .")
	d := r.run()
	ids := map[string]queue.ID{"5.1.2": r.submit(1, "r00@none.test"), "5.1.10": r.submit(2, "r00@null.test"), "2.0.0": r.submit(3, "r00@ok.test")}
	waitEmpty(t, r.queue, d)
	for status, id := range ids {
		if last := lastOutcome(t, r.queue, id); last.Status != status {
			t.Errorf("want %s: %+v", status, last)
		}
	}
	if len(mx.Transactions()) != 1 {
		t.Errorf("%d messages arrived", len(mx.Transactions()))
	}
}

// lastOutcome waits until the history of a message has one.
func lastOutcome(t *testing.T, q *queue.Queue, id queue.ID) queue.Outcome {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		history, err := q.History(id)
		if err != nil {
			t.Fatal(err)
		}
		if last := history[len(history)-1]; last.Outcome != nil {
			return *last.Outcome
		}
	}
	t.Fatalf("no outcome of %s in its history", id)
	return queue.Outcome{}
}
