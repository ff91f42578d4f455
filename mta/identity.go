package mta

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"postrider/config"
	"postrider/mta/mailaddr"
	"postrider/resolver"
)

// How long the start waits for reverse DNS, and how soon it is asked again
// when it did not answer.
const (
	identityPatience = 5 * time.Second
	identityRetry    = time.Minute
	identityRefresh  = time.Hour
)

// identity is what this host calls itself: found at the start, looked at
// again while it is unsure, and once an hour, because addresses move.
type identity struct {
	resolver *resolver.Resolver
	options  resolver.HELOOptions
	log      *slog.Logger
	current  atomic.Pointer[resolver.HELOResult]
}

func newIdentity(ctx context.Context, cfg *config.Config, r *resolver.Resolver, log *slog.Logger) (*identity, error) {
	id := &identity{
		resolver: r, log: log,
		options: heloOptions(cfg),
	}
	ctx, cancel := context.WithTimeout(ctx, identityPatience)
	defer cancel()
	found, err := r.HELO(ctx, id.options)
	if err != nil && ctx.Err() == nil {
		return nil, err
	}
	if err != nil {
		// DNS hangs: begin with what the host itself knows; run asks again.
		found = id.withoutDNS()
	}
	id.current.Store(&found)
	id.tell(found)
	return id, nil
}

func heloOptions(cfg *config.Config) resolver.HELOOptions {
	return resolver.HELOOptions{
		Hostname: cfg.Hostname,
		Sources:  cfg.Delivery.SourceAddresses,
		Public:   cfg.PublicAddresses,
	}
}

// withoutDNS is the name that is known without asking anybody.
func (id *identity) withoutDNS() resolver.HELOResult {
	name, origin := id.options.Hostname, resolver.HELOConfigured
	if name == "" {
		origin = resolver.HELOSystem
		name, _ = os.Hostname()
	}
	if name == "" {
		name = "localhost"
	}
	return resolver.HELOResult{Names: []resolver.HELOName{{
		Name: name, Origin: origin, Unsure: true,
		Warnings: []string{"DNS did not answer in time, so it is not known whether " + name + " is our name in reverse DNS; it is asked again, see `postrider helo`"},
	}}}
}

// hostname is the one name for greetings, trace fields and Message-IDs.
func (id *identity) hostname() string { return id.current.Load().Names[0].Name }

// helo is the name to greet with from a local address.
func (id *identity) helo(local netip.Addr) string { return id.current.Load().For(local) }

func (id *identity) unsure() bool {
	for _, n := range id.current.Load().Names {
		if n.Unsure {
			return true
		}
	}
	return false
}

// run asks again until ctx ends. Only the names we greet with follow; what is
// in trace fields stays as it was at the start.
func (id *identity) run(ctx context.Context) error {
	for {
		wait := identityRefresh
		if id.unsure() {
			wait = identityRetry
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		found, err := id.resolver.HELO(ctx, id.options)
		if err != nil {
			continue
		}
		before := fmt.Sprint(id.current.Load().Names)
		id.current.Store(&found)
		if fmt.Sprint(found.Names) != before {
			id.tell(found)
		}
	}
}

// own makes the names and addresses that were found ours: a route that leads
// back to them is cut (RFC 5321, section 5.1).
func (id *identity) own(found resolver.HELOResult) {
	var names []string
	addrs := slices.Clone(id.options.Public)
	for _, n := range found.Names {
		if n.Origin != resolver.HELOLiteral {
			names = append(names, n.Name)
		}
		for _, a := range []netip.Addr{n.Source, n.Public} {
			if a.IsValid() {
				addrs = append(addrs, a)
			}
		}
	}
	if err := id.resolver.SetOwn(names, addrs); err != nil {
		id.log.Warn("our own name cannot be used to cut routes that lead back to us", "error", err)
	}
}

func (id *identity) tell(found resolver.HELOResult) {
	id.own(found)
	for _, n := range found.Names {
		id.log.Info("we greet as", "name", n.Name, "source", n.Source, "origin", string(n.Origin), "confirmed", n.Confirmed)
		for _, w := range n.Warnings {
			id.log.Warn(w)
		}
	}
}

// shortName is the host's name as the operating system knows it, up to the
// first dot: cron writes to root@web1. The whole name is not taken for ours
// unless it is the HELO name: a host may be called like a domain whose mail is
// somewhere else.
func shortName(systemName string) []string {
	name, _, _ := strings.Cut(systemName, ".")
	if _, err := mailaddr.Parse("root@" + name); err != nil {
		return nil
	}
	return []string{name}
}
