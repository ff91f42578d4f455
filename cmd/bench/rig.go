package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/mta/rehearsal"
)

// The addresses of the rig, all in its own network namespace.
const (
	dnsAddr        = "127.0.0.1:53"
	sinkHost       = "127.0.0.2"
	submissionAddr = "127.0.0.1:2525"
)

// rig runs rounds.
type rig struct {
	dir        string
	servers    []contestant
	rounds     int
	countSyncs bool
	results    []result
}

func newRig(dir, bin string) (*rig, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := ownResolvConf(dir, "127.0.0.1"); err != nil {
		return nil, err
	}
	r := &rig{dir: dir}
	for _, c := range []contestant{&postriderServer{bin: bin}, &postfixServer{}} {
		if err := c.missing(); err != nil {
			fmt.Printf("left out: %s: %v\n", c.name(), err)
			continue
		}
		r.servers = append(r.servers, c)
	}
	return r, nil
}

// compare plays all rounds of all scenarios and prints the table.
func (r *rig) compare(ctx context.Context, chosen []scenario) error {
	var versions []string
	for _, c := range r.servers {
		versions = append(versions, c.version())
	}
	m := describeMachine(versions, r.dir)
	fmt.Printf("%d CPUs, Linux %s, %s, %s\n", m.CPUs, m.Kernel, m.Disk, strings.Join(m.Servers, ", "))
	for _, s := range chosen {
		fmt.Printf("\n%s: %s (%d messages)\n", s.key, s.title, s.messages)
		for round := 1; round <= r.rounds; round++ {
			for _, c := range r.servers {
				if s.only != "" && s.only != c.name() {
					continue
				}
				if err := r.play(ctx, s, c, round); err != nil {
					return fmt.Errorf("scenario %s, %s, round %d: %w", s.key, c.name(), round, err)
				}
			}
		}
		if err := r.syncRounds(ctx, s); err != nil {
			return err
		}
	}
	fmt.Println()
	printTable(os.Stdout, r.results)
	return writeJSON(filepath.Join(r.dir, "results.json"), m, r.results)
}

// play runs one round and keeps its result.
func (r *rig) play(ctx context.Context, s scenario, c contestant, round int) error {
	res, err := r.round(ctx, s, c, nil)
	if err != nil {
		return err
	}
	res.Round = round
	r.results = append(r.results, res)
	fmt.Printf("  round %d  %-10s %8.0f messages/s  %.3f ms CPU  %4d MB\n", round, c.name(), res.Rate, ms(res.CPU), res.PeakRSS/1e6)
	return nil
}

// round starts a receiving server and the server under test afresh, loads it,
// and waits until everything has arrived.
func (r *rig) round(ctx context.Context, s scenario, c contestant, wrap []string) (res result, err error) {
	dir, err := os.MkdirTemp(r.dir, c.name()+"-")
	if err != nil {
		return res, err
	}
	defer func() {
		if err == nil {
			os.RemoveAll(dir)
		}
	}()
	if err := os.Chmod(dir, 0o755); err != nil {
		return res, err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	sinkCtx, stopSink := context.WithCancel(gctx)
	sink, err := r.startSink(sinkCtx, g, s)
	if err != nil {
		stopSink()
		return res, err
	}
	res, err = r.measured(gctx, s, c, dir, wrap, sink)
	stopSink()
	if werr := g.Wait(); err == nil && werr != nil && ctx.Err() == nil {
		err = werr
	}
	return res, err
}

// startSink opens the receiving server and the DNS that leads to it.
func (r *rig) startSink(ctx context.Context, g *errgroup.Group, s scenario) (*rehearsal.Sink, error) {
	sink, err := rehearsal.NewSink(rehearsal.SinkOptions{
		Verify:  true,
		Manners: rehearsal.Manners{RoundTrip: s.latency},
	})
	if err != nil {
		return nil, err
	}
	ns, err := rehearsal.NewNameserver(rehearsal.NameserverOptions{Addresses: []netip.Addr{netip.MustParseAddr(sinkHost)}})
	if err != nil {
		return nil, err
	}
	smtp, err := net.Listen("tcp4", sinkHost+":25")
	if err != nil {
		return nil, err
	}
	udp, err := net.ListenPacket("udp4", dnsAddr)
	if err != nil {
		smtp.Close()
		return nil, err
	}
	tcp, err := net.Listen("tcp4", dnsAddr)
	if err != nil {
		smtp.Close()
		udp.Close()
		return nil, err
	}
	g.Go(func() error { return ignoreEnd(ctx, sink.Run(ctx, smtp)) })
	g.Go(func() error { return ignoreEnd(ctx, ns.Run(ctx, udp, tcp)) })
	return sink, nil
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// arrived waits until the sink has so many messages, or nothing more comes.
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
			return fmt.Errorf("%d of %d messages arrived, and none for a minute", n, want)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fileSystemOf names the file system that holds a directory, and its options:
// with discard each unlink costs a TRIM.
func fileSystemOf(dir string) string {
	out, err := exec.Command("findmnt", "-n", "-o", "FSTYPE,OPTIONS", "-T", dir).Output()
	if err != nil {
		return "unknown file system"
	}
	return strings.Join(strings.Fields(string(out)), " ")
}
