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

// trust finds out whether the AD bit of the name servers may be believed, on
// which DANE rests.
type trust struct {
	resolver *resolver.Resolver
	options  resolver.ProbeOptions
	log      *slog.Logger
}

func newTrust(cfg *config.Config, r *resolver.Resolver, log *slog.Logger) *trust {
	return &trust{resolver: r, log: log, options: resolver.ProbeOptions{
		Signed: cfg.Resolver.ProbeSigned, Bogus: cfg.Resolver.ProbeBogus,
	}}
}

// run probes at once and whenever the servers have changed, until ctx ends.
// What it finds is told when it differs from what was told last.
func (t *trust) run(ctx context.Context) error {
	told := ""
	for {
		wait := probeRefresh
		if t.resolver.NeedsProbe() || told == "" {
			result := t.resolver.Probe(ctx, t.options)
			if ctx.Err() != nil {
				return nil
			}
			if words := t.words(result); words != told {
				t.tell(result)
				told = words
			}
			if !result.Validating {
				wait = probeRetry
			}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

func (t *trust) words(r resolver.ProbeResult) string {
	if r.Reason != nil {
		return r.Reason.Error()
	}
	return "trusted"
}

func (t *trust) tell(r resolver.ProbeResult) {
	if r.Trusted {
		t.log.Info("DNSSEC: the name servers validate and are trusted, DANE is in use", "servers", r.Servers)
		return
	}
	t.log.Warn("DNSSEC: the name servers are not trusted, so there is no DANE", "reason", r.Reason)
}
