// Package demo is the main job, seen working: it starts a small internet on
// loopback (DNS and receiving servers with different manners), runs the real
// binary with an otherwise default configuration, hands it the sample
// messages through the pickup directory and further ones over SMTP, and holds
// what arrives against what is expected.
//
// The receiving servers and the DKIM verifier come from libraries that share
// no code with what sends to them. It leaves out what needs a clock of days
// (expiry, delay notices): the tests of the queue show those.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"postrider/mta/rehearsal"
	"postrider/mta/rehearsal/peers"
)

// Options of a demo.
type Options struct {
	Binary   string // the postrider to run
	Spool    string // the directory with the sample messages and their table
	Injected int    // further messages over SMTP
	Keep     bool   // leave everything running until ctx ends
	Out      io.Writer
	Terminal bool // Out is one: show a progress line
	Limit    time.Duration
}

// ErrUnexpected says that something did not meet what was expected of it; the
// table on Out says what.
var ErrUnexpected = errors.New("demo: not every message met what was expected of it")

// Run plays the demo and removes what it made.
func Run(ctx context.Context, o Options) error {
	expected, err := rehearsal.LoadExpected(filepath.Join(o.Spool, rehearsal.ExpectedFile))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "postrider-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	var verifier dkimVerifier
	l := newLedger(func(message []byte) (int, error) { return verifier.verify(message) })
	w, err := newWorld(expected.Servers, l)
	if err != nil {
		return err
	}
	verifier.server = w.dns.Addr()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.run(ctx) })
	g.Go(func() error {
		defer cancel()
		d := &play{Options: o, dir: dir, world: w, ledger: l, expected: expected}
		return d.run(ctx)
	})
	return g.Wait()
}

// play is one performance.
type play struct {
	Options
	dir      string
	world    *world
	ledger   *ledger
	expected *rehearsal.Expected

	submission, http string
	started          time.Time // when the first message was handed in
	injectionRate    float64   // messages/s accepted over SMTP
}

func (p *play) run(ctx context.Context) error {
	if err := p.configure(); err != nil {
		return err
	}
	daemon, err := peers.Start(ctx, filepath.Join(p.dir, "postrider.log"), p.Binary, "serve", "--config", p.configFile())
	if err != nil {
		return err
	}
	defer func() { _ = daemon.Terminate() }()
	if err := daemon.Greets(ctx, p.submission); err != nil {
		return p.withLog(err)
	}
	p.announce()
	p.foretell()
	p.started = time.Now()
	if err := p.feed(ctx); err != nil {
		return p.withLog(err)
	}
	if err := p.watch(ctx, daemon); err != nil {
		return p.withLog(err)
	}
	account := p.ledger.account()
	p.table(account)
	if p.Keep {
		p.invite()
		select {
		case <-ctx.Done():
		case <-daemon.Done():
		}
	}
	if err := daemon.Terminate(); err != nil {
		return p.withLog(fmt.Errorf("postrider did not stop cleanly: %w", err))
	}
	if len(account.faults) > 0 {
		return ErrUnexpected
	}
	return nil
}

// foretell enters into the ledger what is expected of the sample messages.
func (p *play) foretell() {
	for i := range p.expected.Messages {
		m := &p.expected.Messages[i]
		if m.Rejected != "" {
			p.ledger.expectRejection(m.File, m.Rejected)
			continue
		}
		for _, r := range m.Delivered {
			p.ledger.expect(m.File, m.Sender, r, rehearsal.FateDelivered)
		}
		for _, r := range m.Deferred {
			p.ledger.expect(m.File, m.Sender, r, rehearsal.FateDeferred)
		}
		for _, r := range m.Bounced {
			p.ledger.expect(m.File, m.Sender, r, rehearsal.FateBounced)
		}
	}
}

// watch shows how it goes until nothing more is expected, or the time is over.
func (p *play) watch(ctx context.Context, daemon *peers.Process) error {
	limit := time.NewTimer(p.Limit)
	defer limit.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := p.readRejections(); err != nil {
			return err
		}
		a := p.ledger.account()
		p.progress(a)
		if a.open == 0 {
			p.clearProgress()
			return nil
		}
		select {
		case <-tick.C:
		case <-limit.C:
			p.clearProgress()
			return nil // the table will name what is missing
		case <-daemon.Done():
			return fmt.Errorf("postrider ended: %w", daemon.Wait())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// readRejections looks for files that were put aside, with the reason beside them.
func (p *play) readRejections() error {
	p.ledger.mu.Lock()
	defer p.ledger.mu.Unlock()
	for file, r := range p.ledger.rejected {
		if r.got != "" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(p.pickup(), "bad", file+".error"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		r.got = string(text)
	}
	return nil
}

// withLog adds the end of the daemon's log to an error, before the log goes.
func (p *play) withLog(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	log, readErr := os.ReadFile(filepath.Join(p.dir, "postrider.log"))
	if readErr != nil || len(log) == 0 {
		return err
	}
	if len(log) > 4000 {
		log = log[len(log)-4000:]
	}
	return fmt.Errorf("%w; the end of its log:\n%s", err, log)
}
