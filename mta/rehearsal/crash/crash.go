// Package crash kills the real server again and again while it takes and sends
// mail, and holds what its clients were told against what has arrived: a
// message that was answered with 250 must arrive, however often the server was
// killed; it may arrive twice where it was in flight at a kill (ledger tells
// how that is known). After each kill the store is checked as an operator would
// check it, with the server down and with it running.
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

	"postrider/mta/api"
	"postrider/mta/api/client"
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
	InFlight   int      // deliveries at the kills that had arrived and were not yet on record, summed
	Longest    int      // of these, most acceptances in a row that one of them was not on record for
	Repeated   []string // arrived again although its delivery was on record, or without a kill between
	Unordered  []string // was not on record when a later one of its connection was
	Late       []string // was not on record for too long
	Unrecorded []string // was delivered in the end, and no record says so
	Remaining  int      // messages that the server still holds at the end: stuck
	Checks     int      // "postrider queue check", with and without --offline
	Corrupt    []string // what they found
	Reopen     time.Duration
}

// What may come of a run beside success.
var (
	// ErrLost: what was accepted has not arrived, or is stuck.
	ErrLost = errors.New("crash: accepted mail is lost or stuck")
	// ErrRepeated: mail was sent again although its delivery was on record
	// before the kill, or was not on record although it should have been.
	ErrRepeated = errors.New("crash: mail was repeated, or could have been, that was not in flight")
	// ErrCorrupt: a check of the store has found something.
	ErrCorrupt = errors.New("crash: the store is not sound after a kill")
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
	ledger   ledger
	random   *rand.Rand
}

// Run kills and restarts, and answers with ErrLost where mail is missing, with
// ErrRepeated where too much of it came twice, with ErrCorrupt where the store
// was found damaged.
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
	r := &run{Options: o, random: rand.New(rand.NewPCG(o.Seed, 0)), ledger: newLedger()}
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
	return r.report, r.report.verdict()
}

func (r *Report) verdict() error {
	switch {
	case len(r.Lost) > 0 || r.Remaining > 0:
		return ErrLost
	case len(r.Corrupt) > 0:
		return ErrCorrupt
	case len(r.Repeated)+len(r.Unordered)+len(r.Late)+len(r.Unrecorded) > 0 || r.Duplicates > r.InFlight:
		return ErrRepeated
	}
	return nil
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
	server, err := r.start(ctx, 0)
	for kill := 1; kill <= r.Cycles; kill++ {
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
		before := r.report.InFlight
		server, err = r.kill(ctx, server)
		fmt.Fprintf(r.Out, "kill %d of %d: %d accepted, %d arrived, %d in flight\n",
			kill, r.Cycles, r.clients.accepted(), r.receiver.distinct(), r.report.InFlight-before)
	}
	if err != nil {
		return err
	}
	r.clients.stop()
	defer func() { _ = server.Terminate() }()
	if err := r.drain(ctx, server); err != nil || r.report.Remaining > 0 {
		return err
	}
	if err := r.check(ctx, false); err != nil {
		return err
	}
	return r.judge(ctx, r.receiver.take(), nil, time.Now())
}

// kill ends the server and starts the next, and finds out between and after
// how the one that was killed has left its store.
func (r *run) kill(ctx context.Context, server *peers.Process) (*peers.Process, error) {
	server.Kill()
	at := time.Now()
	r.report.Kills++
	rounds := r.clients.pause()
	// What is still in the sockets arrives yet.
	for deadline := time.Now().Add(r.Patience); r.receiver.open() > 0; pause(ctx, time.Millisecond) {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, errors.New("the receiving server's sessions do not end after the kill")
		}
	}
	arrivals := r.receiver.take()
	if err := r.check(ctx, true); err != nil {
		return nil, err
	}
	next, err := r.start(ctx, r.report.Kills)
	if err != nil {
		return nil, err
	}
	if err := r.judge(ctx, arrivals, rounds, at); err != nil {
		return next, err
	}
	return next, r.check(ctx, false)
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
	return server, r.answers(ctx, server)
}

// answers waits until the server's control socket is there, too.
func (r *run) answers(ctx context.Context, server *peers.Process) error {
	control := client.New(r.socket())
	defer control.Close()
	for {
		_, err := control.Info(ctx)
		var away *client.Unreachable
		if !errors.As(err, &away) {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-server.Done():
			return fmt.Errorf("the server ended: %v (see %s)", server.Wait(), server.Log)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *run) socket() string { return filepath.Join(r.Dir, "state", api.SocketName) }

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
	for _, n := range seen {
		r.report.Duplicates += n - 1
	}
}

// String is the report for people.
func (r Report) String() string {
	return fmt.Sprintf("%d kills: %d accepted, %d arrived, %d lost, %d stuck, %d corrupt in %d checks, "+
		"%d duplicates of %d deliveries in flight (at most %d acceptances in a row long), "+
		"%d of others, %d out of order, %d too late, %d without record; longest start %v",
		r.Kills, r.Accepted, r.Arrived, len(r.Lost), r.Remaining, len(r.Corrupt), r.Checks,
		r.Duplicates, r.InFlight, r.Longest,
		len(r.Repeated), len(r.Unordered), len(r.Late), len(r.Unrecorded), r.Reopen.Round(time.Millisecond))
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
