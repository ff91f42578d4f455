package mta

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"postrider/config"
	"postrider/dkim"
	"postrider/mta/delivery"
	"postrider/mta/dispatch"
	"postrider/mta/smtpclient"
	"postrider/mta/submission"
	"postrider/mta/tlspolicy"
	"postrider/queue"
	"postrider/resolver"
)

// This file maps the configuration to what each room wants to know. Nobody
// else reads config.Config.

func resolverOptions(cfg *config.Config) resolver.Options {
	o := resolver.Options{
		Servers:     cfg.Resolver.Servers,
		TrustAD:     cfg.Resolver.TrustAD == config.TrustADYes,
		AutoTrustAD: cfg.Resolver.TrustAD == config.TrustADAuto,
		Timeout:     cfg.Resolver.Timeout,
		Hanging:     min(maxHangingLookups, fileLimit()/4),
		OwnAddrs:    cfg.PublicAddresses,
	}
	if cfg.Hostname != "" {
		o.OwnNames = []string{cfg.Hostname}
	}
	return o
}

// schedules gives queue.Options.Schedule: one schedule per [[destination]],
// made once, because it is asked for with the queue's lock held.
func schedules(cfg *config.Config) func(domain string) *queue.Schedule {
	scheduleOf := func(d config.Destination) *queue.Schedule {
		s := &queue.Schedule{
			Retry: d.Retry, Jitter: retryJitter,
			ExpireAfter: d.ExpireAfter, DelayNoticeAfter: d.DelayNoticeAfter,
		}
		if len(d.RetryFor) > 0 {
			s.RetryFor = make(map[queue.Class][]time.Duration, len(d.RetryFor))
		}
		for class, waits := range d.RetryFor {
			s.RetryFor[queue.Class(class)] = waits
		}
		return s
	}
	general := scheduleOf(cfg.DestinationFor("."))
	special := map[string]*queue.Schedule{}
	for _, d := range cfg.Destinations {
		special[d.Domain] = scheduleOf(d)
	}
	if len(special) == 0 {
		return func(string) *queue.Schedule { return general }
	}
	return func(domain string) *queue.Schedule {
		if s, ok := special[cfg.DestinationFor(domain).Domain]; ok {
			return s
		}
		return general
	}
}

// retryJitter spreads retries by this fraction either way, so that what was
// deferred together does not come back together.
const retryJitter = 0.2

// listen opens the submission listeners, with the certificates that they show.
func listen(ctx context.Context, cfg *config.Config) (all []submission.Listener, shown []*certificate, err error) {
	defer func() {
		if err != nil {
			for _, l := range all {
				l.Close()
			}
		}
	}()
	var lc net.ListenConfig
	for _, configured := range cfg.Submission.Listeners() {
		cert, err := loadCertificate(&configured)
		if err != nil {
			return all, nil, err
		}
		policy := listenerPolicy(&configured)
		if cert != nil {
			shown = append(shown, cert)
			policy.TLS = &tls.Config{GetCertificate: cert.get, MinVersion: tls.VersionTLS12}
		}
		for _, addr := range configured.Listen {
			l, err := lc.Listen(ctx, "tcp", addr)
			if err != nil {
				return all, nil, fmt.Errorf("submission.listen: %w; is another mail server running there?", err)
			}
			all = append(all, submission.Listener{Listener: l, Policy: policy})
		}
	}
	return all, shown, nil
}

func listenerPolicy(l *config.Listener) submission.Policy {
	p := submission.Policy{
		TrustedNetworks: l.TrustedNetworks,
		MaxMessageSize:  l.MaxMessageSize,
		MaxRecipients:   l.MaxRecipients,
		ImplicitTLS:     l.ImplicitTLS,
	}
	switch l.Auth {
	case config.AuthNone:
		p.Auth = submission.AuthNone
	case config.AuthRequired:
		p.Auth = submission.AuthRequired
	default:
		p.Auth = submission.AuthOptional
	}
	return p
}

// authenticator answers nil where there are no users.
func authenticator(all []config.User) (*submission.Users, error) {
	if len(all) == 0 {
		return nil, nil
	}
	hashes := make(map[string]string, len(all))
	for _, u := range all {
		hashes[u.Name] = u.PasswordHash
	}
	return submission.NewUsers(hashes)
}

// guardFor lists what must not be dialled. Without listeners, which know the
// port they got, those that are configured count.
func guardFor(cfg *config.Config, listeners []submission.Listener) *delivery.Guard {
	g := &delivery.Guard{Allow: cfg.Delivery.AllowNetworks, Public: cfg.PublicAddresses}
	for _, l := range listeners {
		if a, err := netip.ParseAddrPort(l.Addr().String()); err == nil {
			g.Listen = append(g.Listen, a)
		}
	}
	if listeners == nil {
		for _, l := range cfg.Submission.Listeners() {
			for _, addr := range l.Listen {
				if a, err := netip.ParseAddrPort(addr); err == nil {
					g.Listen = append(g.Listen, a)
				}
			}
		}
	}
	if a, err := netip.ParseAddrPort(cfg.HTTP.Listen); err == nil {
		g.Listen = append(g.Listen, a)
	}
	return g
}

func agentOptions(cfg *config.Config, id *identity, guard *delivery.Guard, log *slog.Logger) delivery.Options {
	t := cfg.Delivery.Timeouts
	return delivery.Options{
		Timeouts: smtpclient.Timeouts{
			Greeting: t.Greeting, Command: t.Command, TLS: t.TLS,
			Data: t.Data, Block: t.Block, Final: t.Final,
		},
		Connect:                  t.Connect,
		HELO:                     id.helo,
		Sources:                  cfg.Delivery.SourceAddresses,
		Guard:                    guard,
		VerifyDANE:               verifyDANE,
		Rules:                    ReplyRules(cfg),
		Site:                     dispatch.DefaultSites().Site,
		MinTLS:                   cfg.Delivery.TLSMinVersion,
		MaxConnections:           cfg.Delivery.MaxConnections,
		MaxConnectionsPerAddress: cfg.Delivery.MaxConnectionsPerSite,
		IdleFor:                  cfg.Delivery.ConnectionIdle,
		Life:                     cfg.Delivery.ConnectionMaxAge,
		Logger:                   log,
	}
}

var tlsLevels = map[config.TLS]tlspolicy.Level{
	config.TLSNone: tlspolicy.None, config.TLSEnable: tlspolicy.Enable,
	config.TLSRequire: tlspolicy.Require, config.TLSVerify: tlspolicy.Verify,
}

// destination is what delivery needs to know of a domain.
func destination(cfg *config.Config) func(domain string) delivery.Destination {
	return func(domain string) delivery.Destination {
		d := cfg.DestinationFor(domain)
		return delivery.Destination{
			TLS: tlsLevels[d.TLS], Hosts: d.Hosts, Port: d.Port,
			MaxMessages: d.MaxMessagesPerConnection,
			Session: delivery.SessionSettings{
				MinTLS: d.TLSMinVersion, NoChunking: !d.Chunking, NoPipelining: !d.Pipelining,
			},
		}
	}
}

// limits is what dispatch needs to know of a domain.
func limits(cfg *config.Config) func(domain string) dispatch.Limits {
	return func(domain string) dispatch.Limits {
		d := cfg.DestinationFor(domain)
		return dispatch.Limits{
			Connections:              d.MaxConnections,
			ConnectionsPerMinute:     d.MaxConnectionsPerMinute,
			MessagesPerMinute:        d.MaxMessagesPerMinute,
			SiteConnections:          d.MaxConnectionsPerSite,
			SiteConnectionsPerMinute: d.MaxConnectionsPerMinutePerSite,
			SiteMessagesPerMinute:    d.MaxMessagesPerMinutePerSite,
			MaxRecipients:            d.MaxRecipientsPerTransaction,
		}
	}
}

func dkimSources(cfg *config.Config) []dkim.Source {
	sources := make([]dkim.Source, len(cfg.DKIM))
	for i, k := range cfg.DKIM {
		sources[i] = dkim.Source(k)
	}
	return sources
}

// trustsLoopback reports whether programs of this host may submit without a
// password: then every user of it may, over the submission socket.
func trustsLoopback(cfg *config.Config) bool {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	for _, l := range cfg.Submission.Listeners() {
		if l.Auth == config.AuthRequired {
			continue
		}
		for _, n := range l.TrustedNetworks {
			if n.Contains(loopback) {
				return true
			}
		}
	}
	return false
}
