package mta

import (
	"context"
	"log/slog"
	"time"

	"postrider/config"
	"postrider/resolver"
)

// How soon the name servers are probed again: after a probe that got no
// answer, and to see whether they were exchanged for others.
const (
	probeRetry   = time.Minute
	probeRefresh = 10 * time.Minute
)

// probePatience is how long the start waits for the first probe.
const probePatience = 5 * time.Second

// trust finds out whether the AD bit of the name servers may be believed, on
// which DANE rests.
type trust struct {
	resolver *resolver.Resolver
	options  resolver.ProbeOptions
	log      *slog.Logger
	told     string
	wait     time.Duration
}

func newTrust(cfg *config.Config, r *resolver.Resolver, log *slog.Logger) *trust {
	return &trust{resolver: r, log: log, options: resolver.ProbeOptions{
		Signed: cfg.Resolver.ProbeSigned, Bogus: cfg.Resolver.ProbeBogus,
	}}
}

// begin probes before anything is sent: what waited for the start must not go
// out without DANE because nobody had asked yet.
func (t *trust) begin(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	t.probe(ctx)
}

// run probes whenever the servers have changed, until ctx ends.
func (t *trust) run(ctx context.Context) error {
	for {
		select {
		case <-time.After(t.wait):
		case <-ctx.Done():
			return nil
		}
		if t.resolver.NeedsProbe() {
			t.probe(ctx)
		}
	}
}

// probe tells what it finds when that differs from what was told last.
func (t *trust) probe(ctx context.Context) {
	t.wait = probeRetry
	result := t.resolver.Probe(ctx, t.options)
	if ctx.Err() != nil {
		return
	}
	if result.Validating {
		t.wait = probeRefresh
	}
	if words := t.words(result); words != t.told {
		t.tell(result)
		t.told = words
	}
}

func (t *trust) words(r resolver.ProbeResult) string {
	if r.Reason != nil {
		return r.Reason.Error()
	}
	return "trusted"
}

func (t *trust) tell(r resolver.ProbeResult) {
	switch {
	case r.Trusted && r.Validating:
		t.log.Info("DNSSEC: the name servers validate and are trusted, DANE is in use", "servers", r.Servers)
	case r.Trusted:
		t.log.Warn("DNSSEC: the name servers are trusted as configured, though the probe failed", "servers", r.Servers, "reason", r.Reason)
	default:
		t.log.Warn("DNSSEC: the name servers are not trusted, so there is no DANE", "servers", r.Servers, "reason", r.Reason)
	}
}
