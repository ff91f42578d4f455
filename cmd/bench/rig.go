package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"postrider/mta/rehearsal"
)

// The addresses of the rig, all in its own network namespace.
const (
	dnsAddr        = "127.0.0.1:53"
	sinkHost       = "127.1.0.1" // the first of sinkHosts
	downHost       = "127.0.0.3" // nothing listens
	holeHost       = "127.0.0.4" // nothing answers, see blackHole
	submissionAddr = "127.0.0.1:2525"
)

// sinkHosts are the addresses of the receiving server, and each destination has
// one of them: some servers limit what they send to one address.
func sinkHosts() []netip.Addr {
	const count = 200
	hosts := make([]netip.Addr, count)
	for i := range hosts {
		hosts[i] = netip.MustParseAddr(sinkHost)
		for range i {
			hosts[i] = hosts[i].Next()
		}
	}
	return hosts
}

// Domains under these names are dead, each in its own way.
const (
	downSuffix   = "down.test"   // the host refuses connections
	holeSuffix   = "hole.test"   // the host does not answer at all
	silentSuffix = "silent.test" // the DNS does not answer at all
)

// options of a comparison.
type options struct {
	dir        string
	servers    []contestant
	rounds     int
	way        rehearsal.Way
	countSyncs bool
}

// rig runs rounds.
type rig struct {
	options
	report report
}

func newRig(o options) (*rig, error) {
	var err error
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return nil, err
	}
	if err := ownResolvConf(o.dir, "127.0.0.1"); err != nil {
		return nil, err
	}
	return &rig{options: o}, nil
}

// compare plays all rounds of all scenarios and prints the tables.
func (r *rig) compare(ctx context.Context, chosen []scenario) error {
	var versions []string
	for _, c := range r.servers {
		versions = append(versions, c.version())
	}
	r.report.Machine = describeMachine(versions, r.dir)
	fmt.Println(r.report.Machine)
	for _, s := range chosen {
		if err := r.playAll(ctx, s); err != nil {
			return err
		}
	}
	r.report.finish()
	fmt.Println()
	r.report.print(os.Stdout)
	if err := r.report.write(filepath.Join(r.dir, "results.json")); err != nil {
		return err
	}
	_, err := writePlots(r.dir, &r.report)
	return err
}

// playAll plays all rounds of a scenario.
func (r *rig) playAll(ctx context.Context, s scenario) error {
	fmt.Printf("\n%s: %s (%d messages)\n", s.key, s.title, s.messages)
	for round := 1; round <= r.rounds; round++ {
		for _, c := range r.servers {
			if !s.isFor(c) {
				continue
			}
			for _, v := range s.everyVariant() {
				res, err := r.round(ctx, s, v, c, nil)
				if err != nil {
					return fmt.Errorf("scenario %s, %s, round %d: %w", s.key, label(c.name(), v.name), round, err)
				}
				res.Round = round
				r.report.Rounds = append(r.report.Rounds, res)
				fmt.Printf("  round %d  %s\n", round, res.brief())
			}
		}
	}
	if s.signs() {
		costs, err := signatureCosts()
		if err != nil {
			return err
		}
		r.report.Signatures = costs
	}
	return r.syncRounds(ctx, s)
}

// turn is one server's part of a round.
type turn struct {
	scenario
	variant variant
	server  contestant
	dir     string
	wrap    []string
	way     rehearsal.Way
	sink    *rehearsal.Sink
	passage *rehearsal.Passage
}

// roundTimeout bounds a round, which has to fill a queue of a million at most.
const roundTimeout = 20 * time.Minute

// round starts a receiving server and the server under test afresh, and plays
// the scenario once. Behind the words of wrap, the server is not measured.
func (r *rig) round(ctx context.Context, s scenario, v variant, c contestant, wrap []string) (res result, err error) {
	dir, err := os.MkdirTemp(r.dir, c.name()+"-")
	if err != nil {
		return res, err
	}
	defer func() {
		if err == nil {
			err = os.RemoveAll(dir)
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil {
		return res, err
	}
	unix.Sync() // what a round before has left to write or to discard is not this one's
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	t := &turn{scenario: s, variant: v, server: c, dir: dir, wrap: wrap, way: r.way, passage: rehearsal.NewPassage(int64(s.messages))}
	g, gctx := errgroup.WithContext(ctx)
	sinkCtx, stopSink := context.WithCancel(gctx)
	defer stopSink()
	if t.sink, err = startSink(sinkCtx, g, s.latency, t.passage); err != nil {
		return res, err
	}
	play := s.play
	switch {
	case c.name() == straightName:
		play = playStraight
	case play == nil:
		play = playStream
	}
	res, err = play(gctx, r, t)
	res.Scenario, res.Server, res.Variant = s.key, c.name(), v.name
	stopSink()
	if werr := g.Wait(); err == nil && werr != nil && ctx.Err() == nil {
		err = werr
	}
	return res, err
}

// startSink opens the receiving server and the DNS that leads to it.
func startSink(ctx context.Context, g *errgroup.Group, latency time.Duration, passage *rehearsal.Passage) (*rehearsal.Sink, error) {
	sink, err := rehearsal.NewSink(rehearsal.SinkOptions{
		Verify:  true,
		Passage: passage,
		Manners: rehearsal.Manners{RoundTrip: latency},
	})
	if err != nil {
		return nil, err
	}
	at := func(host string) []netip.Addr { return []netip.Addr{netip.MustParseAddr(host)} }
	ns, err := rehearsal.NewNameserver(rehearsal.NameserverOptions{
		Addresses: sinkHosts(),
		Spread:    true,
		Elsewhere: map[string][]netip.Addr{downSuffix: at(downHost), holeSuffix: at(holeHost)},
		Silent:    []string{silentSuffix},
	})
	if err != nil {
		return nil, err
	}
	udp, tcp, err := rehearsal.ListenDNS(dnsAddr)
	if err != nil {
		return nil, err
	}
	var smtp []net.Listener
	for _, host := range sinkHosts() {
		l, err := net.Listen("tcp4", netip.AddrPortFrom(host, 25).String())
		if err != nil {
			udp.Close()
			tcp.Close()
			for _, l := range smtp {
				l.Close()
			}
			return nil, err
		}
		smtp = append(smtp, l)
	}
	g.Go(func() error { return ignoreEnd(ctx, sink.Run(ctx, smtp...)) })
	g.Go(func() error { return ignoreEnd(ctx, ns.Run(ctx, udp, tcp)) })
	return sink, nil
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// errStalled says that something has not arrived, and nothing comes any more.
var errStalled = errors.New("none for a minute")

// arrived waits until the sink has so many copies, or nothing more comes.
func arrived(ctx context.Context, sink *rehearsal.Sink, want int64) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	last, since := int64(-1), time.Now()
	for {
		n := sink.Stats().Copies
		if n >= want {
			return nil
		}
		if n != last {
			last, since = n, time.Now()
		}
		if time.Since(since) > time.Minute {
			return fmt.Errorf("%d of %d messages arrived, and %w", n, want, errStalled)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// label names a server in a variant.
func label(server, variant string) string {
	if variant == "" {
		return server
	}
	return server + ", " + strings.TrimSpace(variant)
}
