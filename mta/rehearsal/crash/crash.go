// Package crash kills the real server again and again while it takes and sends
// mail, and holds what its clients were told against what has arrived: a
// message that was answered with 250 must arrive, however often the server was
// killed; it may arrive twice where it was in flight at a kill.
//
// Both sides, the clients and the receiving server, are built on a library
// that shares no code with the server under test.
package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"postrider/mta/rehearsal/peers"
	"postrider/resolver/resolvertest"
)

// Options of a run.
type Options struct {
	Binary   string
	Dir      string // holds the server's state; on the file system to be tried
	Cycles   int    // kills
	Messages int    // to be accepted in all, at least; spread over the cycles
	Sessions int    // clients at once; 0: 20
	Domains  int    // recipient domains; 0: 20
	Seed     uint64 // of the moments of the kills
	Out      io.Writer
	Patience time.Duration // for what is still to arrive after the last start; 0: 60 s
}

// Report is what came of it.
type Report struct {
	Kills      int
	Accepted   int // messages answered with 250
	Arrived    int // of these
	Lost       []string
	Duplicates int      // arrivals beyond the first of a message
	Exposed    int      // deliveries in flight at the kills or in the last group of results before, summed
	Repeated   []string // arrived again without having been exposed
	Remaining  int      // messages that the server still holds at the end
	Reopen     time.Duration
}

// What may come of a run beside success.
var (
	// ErrLost: what was accepted has not arrived, or is stuck.
	ErrLost = errors.New("crash: accepted mail is lost or stuck")
	// ErrRepeated: mail was sent again although its delivery was over, and
	// written down, before the kill.
	ErrRepeated = errors.New("crash: mail was repeated that was not in flight")
)

const receiverHost = "127.0.0.41"

// run is the state of one run.
type run struct {
	Options
	receiver *receiver
	clients  *clients
	config   string
	submit   string
	http     string
	report   Report
	random   *rand.Rand
}

// Run kills and restarts, and answers with ErrLost where mail is missing, with
// ErrRepeated where too much of it came twice.
func Run(ctx context.Context, o Options) (Report, error) {
	if o.Sessions == 0 {
		o.Sessions = 20
	}
	if o.Domains == 0 {
		o.Domains = 20
	}
	if o.Patience == 0 {
		o.Patience = time.Minute
	}
	r := &run{Options: o, random: rand.New(rand.NewPCG(o.Seed, 0))}
	zone := resolvertest.New()
	if err := zone.Listen("127.0.0.1:0"); err != nil {
		return r.report, err
	}
	defer zone.Close()
	zone.Add("*.crash.test. 300 IN MX 10 mx.crash.test.", "mx.crash.test. 300 IN A "+receiverHost)
	var err error
	if r.receiver, err = newReceiver(receiverHost + ":0"); err != nil {
		return r.report, err
	}
	defer r.receiver.close()
	if err := r.configure(zone.Addr()); err != nil {
		return r.report, err
	}
	err = r.cycles(ctx)
	r.account()
	if err != nil {
		return r.report, err
	}
	if len(r.report.Lost) > 0 || r.report.Remaining > 0 {
		return r.report, ErrLost
	}
	if len(r.report.Repeated) > 0 {
		return r.report, ErrRepeated
	}
	return r.report, nil
}

func (r *run) configure(dns string) error {
	var err error
	if r.submit, err = freeAddr(); err != nil {
		return err
	}
	if r.http, err = freeAddr(); err != nil {
		return err
	}
	r.config = filepath.Join(r.Dir, "crash.toml")
	text := fmt.Sprintf(`hostname = "mta.sender.test"
state_dir = %q
shutdown_grace = "10s"
[submission]
listen = [%q]
[http]
listen = %q
[resolver]
servers = [%q]
[delivery]
port = %s
allow_networks = ["127.0.0.0/8"]
retry = ["1s"]
`, filepath.Join(r.Dir, "state"), r.submit, r.http, dns, r.receiver.port())
	return os.WriteFile(r.config, []byte(text), 0o600)
}

// cycles starts and kills while the clients go on, and at the end lets the
// server deliver what it has.
func (r *run) cycles(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.clients = newClients(r.submit, r.Sessions, r.Domains)
	defer r.clients.stop()
	share := max(r.Messages/max(r.Cycles, 1), 1)
	for kill := 1; kill <= r.Cycles; kill++ {
		server, err := r.start(ctx, kill)
		if err != nil {
			return err
		}
		r.clients.resume()
		// A kill comes once the cycle's share was accepted, and then at a random
		// moment: the start, the middle and the end of commits must all be hit.
		if err := r.clients.waitFor(ctx, kill*share, server.Done()); err != nil {
			return fmt.Errorf("cycle %d: %w (see %s)", kill, err, server.Log)
		}
		pause(ctx, time.Duration(r.random.IntN(60))*time.Millisecond)
		exposed, err := r.kill(ctx, server)
		if err != nil {
			return err
		}
		fmt.Fprintf(r.Out, "kill %d of %d: %d accepted, %d arrived, %d exposed\n",
			kill, r.Cycles, r.clients.accepted(), r.receiver.distinct(), exposed)
	}
	r.clients.stop()
	server, err := r.start(ctx, r.Cycles+1)
	if err != nil {
		return err
	}
	defer func() { _ = server.Terminate() }()
	return r.drain(ctx, server)
}

// kill ends the server, and tells how many deliveries were exposed to it: those
// that the receiving server answers from shortly before the kill on. "Shortly"
// is the time in which a result is on the disk for sure. A result waits for the
// group that is being written and then for its own, as an acceptance does: so
// it is twice the longest that a client of this cycle has waited for its 250.
func (r *run) kill(ctx context.Context, server *peers.Process) (exposed int, err error) {
	since := time.Now().Add(-2 * r.clients.slowest())
	server.Kill()
	r.report.Kills++
	r.clients.pause()
	// What is still in the sockets arrives yet.
	for deadline := time.Now().Add(r.Patience); r.receiver.open() > 0; pause(ctx, time.Millisecond) {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return 0, errors.New("the receiving server's sessions do not end after the kill")
		}
	}
	exposed = r.receiver.expose(since)
	r.report.Exposed += exposed
	return exposed, nil
}

// start runs the server and notes how long it takes until it greets.
func (r *run) start(ctx context.Context, n int) (*peers.Process, error) {
	began := time.Now()
	server, err := peers.Start(ctx, filepath.Join(r.Dir, fmt.Sprintf("serve-%03d.log", n)), r.Binary, "serve", "--config", r.config)
	if err != nil {
		return nil, err
	}
	if err := server.Greets(ctx, r.submit); err != nil {
		return nil, err
	}
	r.report.Reopen = max(r.report.Reopen, time.Since(began))
	return server, nil
}

// drain waits until the queue is empty.
func (r *run) drain(ctx context.Context, server *peers.Process) error {
	deadline := time.NewTimer(r.Patience)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		n, err := queued(r.http)
		if err == nil {
			if r.report.Remaining = n; n == 0 {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return err // with what remains in the report
		case <-server.Done():
			return fmt.Errorf("the server ended: %v (see %s)", server.Wait(), server.Log)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// account holds what was accepted against what has arrived.
func (r *run) account() {
	accepted, seen := r.clients.all(), r.receiver.all()
	r.report.Accepted = len(accepted)
	for id := range accepted {
		if seen[id] == 0 {
			r.report.Lost = append(r.report.Lost, id)
		} else {
			r.report.Arrived++
		}
	}
	for id, n := range seen {
		r.report.Duplicates += n - 1
		if n-1 > r.receiver.exposed[id] {
			r.report.Repeated = append(r.report.Repeated, id)
		}
	}
}

// String is the report for people.
func (r Report) String() string {
	return fmt.Sprintf("%d kills: %d accepted, %d arrived, %d lost, %d remain in the queue, %d duplicates of %d deliveries that were in flight or just over, %d of others, longest start %v",
		r.Kills, r.Accepted, r.Arrived, len(r.Lost), r.Remaining, r.Duplicates, r.Exposed, len(r.Repeated), r.Reopen.Round(time.Millisecond))
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// parseGauge finds the value of a gauge without labels in a scrape.
func parseGauge(scrape, name string) (int, error) {
	for line := range strings.Lines(scrape) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return int(f), err
		}
	}
	return 0, fmt.Errorf("no %s among the metrics", name)
}
