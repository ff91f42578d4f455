// Package mta builds the rooms of Postrider from its configuration, runs them,
// and stops them in the order that keeps accepted mail safe: first the ways in,
// then what sends and reports, then the queue.
//
// It holds the mapping from the configuration to the options of the rooms and
// no logic of mail. The way of a message is told in docs/architecture.md.
package mta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"postrider/config"
	"postrider/dkim"
	"postrider/mta/api"
	"postrider/mta/bounce"
	"postrider/mta/delivery"
	"postrider/mta/dispatch"
	"postrider/mta/intake"
	"postrider/mta/memory"
	"postrider/mta/metrics"
	"postrider/mta/mtasts"
	"postrider/mta/pickup"
	"postrider/mta/submission"
	"postrider/mta/suppress"
	"postrider/mta/tlsrpt"
	"postrider/queue"
	"postrider/resolver"
)

// Options of an MTA beside its configuration.
type Options struct {
	Logger  *slog.Logger // required
	Version string
	// Ready is called once everything runs; nil: nobody wants to know.
	Ready func()
}

// MTA is the whole server. It is used for one run.
type MTA struct {
	cfg   *config.Config
	opts  Options
	log   *slog.Logger
	state stateDir

	registry     *prometheus.Registry
	metrics      *metrics.Metrics
	resolver     *resolver.Resolver
	identity     *identity
	queue        *queue.Queue
	suppressed   *suppress.List
	keys         *dkim.Keys
	intake       *intake.Receiver
	listeners    []submission.Listener
	certificates []*certificate // of the listeners
	submission   *submission.Server
	pickup       *pickup.Watcher
	guard        *delivery.Guard
	sts          *mtasts.Policies
	planner      *delivery.Planner
	agent        *delivery.Agent
	tlsReporter  *tlsrpt.Reporter // nil: off
	dispatch     *dispatch.Dispatcher
	bounce       *bounce.Reporter
	api          *api.Server
}

// New opens what the server keeps and the addresses it listens on. It starts
// nothing that works by itself; Run does. After an error nothing is left open.
func New(ctx context.Context, cfg *config.Config, o Options) (*MTA, error) {
	m := &MTA{cfg: cfg, opts: o, log: o.Logger, state: stateDir(cfg.StateDir), registry: prometheus.NewRegistry()}
	for _, build := range []func(context.Context) error{
		m.openState, m.openResolver, m.openWaysIn, m.openWaysOut, m.openAPI,
	} {
		if err := build(ctx); err != nil {
			m.close()
			return nil, err
		}
	}
	return m, nil
}

// close gives back what New opened.
func (m *MTA) close() {
	for _, l := range m.listeners {
		l.Close()
	}
	if m.queue != nil {
		if err := m.queue.Close(); err != nil {
			m.log.Error("closing the queue", "error", err)
		}
	}
}

// openState opens the queue and the keys.
func (m *MTA) openState(context.Context) error {
	if err := m.state.prepare(); err != nil {
		return err
	}
	guard, limit, err := m.guardMemory()
	if err != nil {
		// Mail flows without it as well, until the day on which it does not.
		m.log.Warn("the memory limit of the control group is not known and not kept", "error", err)
	}
	began := time.Now()
	m.queue, err = queue.Open(queue.Options{
		Dir:         m.state.queue(),
		Logger:      m.log,
		BodyMemory:  m.cfg.BodyMemory,
		Schedule:    schedules(m.cfg),
		History:     m.cfg.History,
		HistorySize: m.cfg.HistorySize,
		MinFree:     m.cfg.MinFreeSpace,
		MemoryLimit: limit,
		Pressure:    guard.Check,
		GivenUp:     m.givenUp,
	})
	if err != nil {
		return err
	}
	m.suppressed, err = suppress.Open(suppress.Options{
		File: m.state.suppression(), Logger: m.log, After: m.cfg.Suppression.After,
		ExpireAfter: m.cfg.Suppression.ExpireAfter, MaxEntries: m.cfg.Suppression.MaxEntries,
	})
	if err != nil {
		return err
	}
	depth := m.queue.Depth(time.Now())
	m.log.Info("queue opened", "dir", m.state.queue(), "messages", depth.Messages, "recipients", depth.Recipients, "took", time.Since(began))
	sources, err := dkim.Sources(dkimSources(m.cfg), m.state.dkim())
	if err != nil {
		return err
	}
	m.keys, err = dkim.NewKeys(dkim.Options{
		Sources: sources, Logger: m.log,
		Unsigned: func(r dkim.Reason) { m.metrics.Unsigned(r) }, // made later, before the first message
	})
	return err
}

func (m *MTA) openResolver(ctx context.Context) error {
	var err error
	if m.resolver, err = resolver.New(resolverOptions(m.cfg)); err != nil {
		return err
	}
	m.identity, err = newIdentity(ctx, m.cfg, m.resolver, m.log)
	return err
}

func (m *MTA) openWaysIn(ctx context.Context) error {
	hostname := m.identity.hostname()
	var err error
	m.metrics, err = metrics.New(metrics.Options{
		Registerer: m.registry, Version: m.opts.Version,
		Depth: m.queue.Depth, StoreError: m.queue.Err,
		Connections: func() int { open, _ := m.agent.Connections(); return open },
	})
	if err != nil {
		return err
	}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	disabled := m.cfg.Mode == config.ModeDisabled
	systemName, _ := os.Hostname() // without one there is one local name less
	m.intake, err = intake.New(intake.Options{
		Queue:          m.queue,
		Signer:         intake.SignWith(m.keys.Signer),
		Logger:         m.log,
		Observer:       m.metrics,
		Hostname:       hostname,
		LocalNames:     shortName(systemName),
		LocalMailTo:    m.cfg.LocalMailTo,
		MaxMessageSize: m.cfg.Submission.MaxMessageSize,
		MaxRecipients:  m.cfg.Submission.MaxRecipients,
		HoldFor:        m.cfg.HoldFor,
		Disabled:       disabled,
	})
	if err != nil {
		return err
	}
	if m.listeners, m.certificates, err = listen(ctx, m.cfg); err != nil {
		return err
	}
	o := submission.Options{
		Hostname: hostname, Intake: submission.ToReceiver(m.intake), Observer: m.metrics, Logger: m.log,
		MaxConnections: m.cfg.Submission.MaxConnections, Grace: m.cfg.ShutdownGrace, Disabled: disabled,
	}
	users, err := authenticator(m.cfg.Users)
	if err != nil {
		return err
	}
	if users != nil {
		o.Users = users
	}
	if m.submission, err = submission.New(o, m.listeners...); err != nil {
		return err
	}
	var dirs []string
	for _, d := range m.cfg.Pickup.Directories() {
		dirs = append(dirs, d.Dir)
	}
	m.pickup, err = pickup.New(pickup.Options{
		Marks: m.queue, Intake: pickup.ToReceiver(m.intake), Logger: m.log, Dirs: dirs,
	})
	return err
}

func (m *MTA) openWaysOut(context.Context) error {
	m.guard = guardFor(m.cfg, m.listeners)
	store, err := newFileStore(m.state.sts())
	if err != nil {
		return err
	}
	dialer := guardedDialer{m.resolver, m.guard}
	stsOptions := mtasts.Options{
		DNS: policyTXT{m.resolver}, Store: store, Log: m.log,
		Fetcher: &mtasts.Fetcher{Dial: dialer.dial, UserAgent: "postrider"},
	}
	observers := connectionObservers{connectionCounter{m.metrics}}
	recorder := new(tlsRecorder)
	if m.cfg.TLSRPT.Enabled {
		if recorder.recorder, err = m.openTLSReports(dialer); err != nil {
			return err
		}
		stsOptions.Failed = recorder.fetchFailed
		observers = append(observers, recorder)
	}
	m.sts = mtasts.New(stsOptions)
	recorder.sts = m.sts
	m.planner = &delivery.Planner{
		Resolver: m.resolver, Destination: destination(m.cfg),
		Policies: &publishedPolicies{resolver: m.resolver, sts: m.sts},
	}
	o := agentOptions(m.cfg, m.identity, m.guard, m.log)
	o.Converter = converter{m.intake}
	o.Observer = observers
	m.agent = delivery.NewAgent(o)
	var deliverer dispatch.Deliverer = m.agent
	if m.cfg.Mode == config.ModeSilent {
		deliverer = silent{}
	}
	sites := dispatch.DefaultSites()
	files := fileLimit()
	m.dispatch = dispatch.New(dispatch.Options{
		Source:               m.source(),
		Planner:              sitedPlanner{m.planner, sites, m.queue},
		Sites:                sites,
		Deliverer:            deliverer,
		Limits:               limits(m.cfg),
		SenderRate:           m.cfg.SenderRate,
		Connections:          m.cfg.Delivery.MaxConnections,
		SiteConnections:      m.cfg.Delivery.MaxConnectionsPerSite,
		ConnectionsPerMinute: m.cfg.Delivery.MaxConnectionsPerMinute,
		MessagesPerMinute:    m.cfg.Delivery.MaxMessagesPerMinute,
		MaxRecipients:        m.cfg.Delivery.MaxRecipientsPerTransaction,
		BackoffFirst:         min(time.Minute, m.cfg.Delivery.Retry[0]),
		Aside:                min(8*m.cfg.Delivery.MaxConnections, files/4),
		HangingLookups:       min(maxHangingLookups, files/4),
		Grace:                m.cfg.ShutdownGrace,
		Observer:             attemptCounter{m.metrics},
		Logger:               m.log,
	})
	m.bounce, err = bounce.New(bounce.Options{
		Queue: m.queue, Intake: bounce.ToReceiver(m.intake), Logger: m.log,
		Hostname: m.identity.hostname(), Observer: m.metrics,
	})
	return err
}

// source is where dispatch gets mail from: the queue, behind the suppression
// list where that is on.
func (m *MTA) source() dispatch.Source {
	source := dispatch.FromQueue(m.queue)
	if !m.cfg.Suppression.Enabled {
		return source
	}
	return &suppress.Gate{Source: source, List: m.suppressed, Logger: m.log, Failed: func(outcomes []queue.Outcome, sinceArrival time.Duration) {
		m.metrics.Attempt(outcomes, queue.Timing{}, sinceArrival)
	}}
}

// openTLSReports makes what counts TLS sessions and reports about them.
func (m *MTA) openTLSReports(dialer guardedDialer) (*tlsrpt.Recorder, error) {
	store, err := newFileStore(m.state.tlsReports())
	if err != nil {
		return nil, err
	}
	recorder, err := tlsrpt.NewRecorder(m.cfg.TLSRPT.Interval, store, m.log)
	if err != nil {
		return nil, err
	}
	postmaster := m.cfg.PostmasterAt(m.identity.hostname())
	from := cmp.Or(m.cfg.TLSRPT.From, postmaster)
	_, domain, _ := strings.Cut(from, "@")
	m.tlsReporter = &tlsrpt.Reporter{
		Recorder: recorder, DNS: policyTXT{m.resolver}, Log: m.log, From: from,
		Mailer: reportMailer{m.intake},
		Poster: &tlsrpt.Poster{Dial: dialer.dial},
		Sender: tlsrpt.Sender{Organization: domain, Domain: domain, Contact: postmaster},
	}
	return recorder, nil
}

func (m *MTA) openAPI(context.Context) error {
	var err error
	m.api, err = api.New(api.Options{
		Logger:         m.log,
		StateDir:       m.cfg.StateDir,
		Listen:         m.cfg.HTTP.Listen,
		Hosts:          m.cfg.HTTP.Hosts,
		Hostname:       m.identity.hostname(),
		Version:        m.opts.Version,
		Mode:           string(m.cfg.Mode),
		MaxMessageSize: m.cfg.Submission.MaxMessageSize,
		Queue:          m.queue,
		Begin: func(now time.Time, meta intake.Meta) (api.Draft, error) {
			draft, err := m.intake.Begin(now, meta)
			if err != nil {
				return nil, err // not draft: a nil pointer would be no nil Draft
			}
			return draft, nil
		},
		Metrics:         http.Handler(promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})),
		Lanes:           lanes{m.dispatch},
		Suspensions:     suspensions{m.queue},
		Suppressed:      m.suppressed,
		Suppressing:     m.cfg.Suppression.Enabled,
		Wake:            m.dispatch.Wake,
		LocalSubmission: trustsLoopback(m.cfg),
		Destinations:    &destinations{mta: m},
	})
	return err
}

// Run works until ctx ends or a room fails, then stops in order and closes the
// queue. It returns when everything has ended.
func (m *MTA) Run(ctx context.Context) error {
	failed := make(chan error, 1)
	keeping, sending, taking := newCrew(ctx, failed), newCrew(ctx, failed), newCrew(ctx, failed)
	keeping.add("garbage", memory.LimitGarbage)
	keeping.add("queue", m.queue.Run)
	keeping.add("suppression list", m.suppressed.Run)
	trust := newTrust(m.cfg, m.resolver, m.log)
	trust.begin(ctx)
	if m.cfg.Mode != config.ModeDisabled {
		sending.add("dispatch", m.dispatch.Run)
		taking.add("bounce", m.bounce.Run)
		taking.add("pickup", m.pickup.Run)
	}
	taking.add("submission", m.submission.Run)
	taking.add("http", m.api.Run)
	taking.add("identity", m.identity.run)
	taking.add("DNSSEC probe", trust.run)
	sending.add("MTA-STS", m.sts.Run)
	if m.tlsReporter != nil && m.cfg.Mode == config.ModeLive {
		taking.add("TLS reports", m.tlsReporter.Run)
	}

	if m.opts.Ready != nil {
		m.opts.Ready()
	}
	m.log.Info("ready", "version", m.opts.Version, "mode", string(m.cfg.Mode))
	var cause error
	select {
	case <-ctx.Done():
		m.log.Info("stopping", "grace", m.cfg.ShutdownGrace)
	case cause = <-failed:
		m.log.Error("stopping, because a part of the server failed", "error", cause)
	}
	taking.stop()
	sending.stop()
	m.agent.Close()
	keeping.stop()
	err := m.queue.Close()
	if err != nil {
		err = fmt.Errorf("closing the queue: %w", err)
	}
	m.log.Info("stopped")
	return errors.Join(cause, err)
}
