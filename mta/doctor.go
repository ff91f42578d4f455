package mta

import (
	"cmp"
	"path/filepath"
	"strings"

	"postrider/config"
	"postrider/dkim"
	"postrider/mta/api"
	"postrider/mta/api/client"
	"postrider/mta/doctor"
	"postrider/resolver"
)

// DoctorOptions are what the doctor is told beside the configuration.
type DoctorOptions struct {
	Configuration doctor.ConfigurationOptions
	Probes        []string // domains whose mail hosts may be connected to
	Socket        string   // of the running server; empty: that of state_dir
	Version       string
}

// NewDoctor makes the checks of this host, as the server would work on it.
func NewDoctor(cfg *config.Config, o DoctorOptions) (*doctor.Doctor, error) {
	r, err := resolver.New(resolverOptions(cfg))
	if err != nil {
		return nil, err
	}
	state := stateDir(cfg.StateDir)
	keys, keysErr := dkim.Sources(dkimSources(cfg), state.dkim())
	if keysErr != nil {
		keys = dkimSources(cfg)
	}
	return doctor.New(doctor.Options{
		Configuration: o.Configuration,
		State:         doctorState(cfg, state),
		Limits: doctor.LimitOptions{
			MaxConnections: cfg.Delivery.MaxConnections, Submissions: cfg.Submission.MaxConnections, BodyMemory: cfg.BodyMemory,
		},
		DNS: doctor.DNSOptions{
			Resolver: r, TrustAD: string(cfg.Resolver.TrustAD),
			Probe: resolver.ProbeOptions{Signed: cfg.Resolver.ProbeSigned, Bogus: cfg.Resolver.ProbeBogus},
			HELO:  heloOptions(cfg),
		},
		Way: doctor.WayOptions{
			Domains: probeDomains(cfg, o.Probes),
			Guard:   guardFor(cfg, nil),
			Sources: cfg.Delivery.SourceAddresses,
			Hosts:   func(domain string) []string { return cfg.DestinationFor(domain).Hosts },
			Port:    func(domain string) int { return cfg.DestinationFor(domain).Port },
		},
		Senders: doctor.SenderOptions{
			LocalMailTo: cfg.LocalMailTo, LocalMailDomain: domainOf(cfg.LocalMailTo), Keys: keys, KeysError: keysErr,
		},
		Running:    client.New(cmp.Or(o.Socket, filepath.Join(cfg.StateDir, api.SocketName))),
		Version:    o.Version,
		DelayAfter: cfg.Delivery.DelayNoticeAfter,
	}), nil
}

func doctorState(cfg *config.Config, state stateDir) doctor.StateOptions {
	o := doctor.StateOptions{
		Dir: string(state), Queue: state.queue(), MinFree: cfg.MinFreeSpace,
		Parts:   []string{state.queue(), state.dkim(), state.tlsReports(), state.sts()},
		Files:   []string{state.suppression()},
		Secrets: []string{filepath.Join(string(state), api.TokenName)},
	}
	for _, d := range cfg.Pickup.Directories() {
		o.Pickup = append(o.Pickup, d.Dir)
	}
	return o
}

// probeDomains are those that the operator has named: on the command line, and
// where nothing has to stay on the host, in the settings that send mail there.
func probeDomains(cfg *config.Config, named []string) (all []doctor.ProbeDomain) {
	add := func(domain, why string) {
		for _, had := range all {
			if had.Name == domain {
				return
			}
		}
		if domain != "" {
			all = append(all, doctor.ProbeDomain{Name: domain, Why: why})
		}
	}
	for _, domain := range named {
		add(domain, "--probe")
	}
	if cfg.Mode == config.ModeLive {
		add(domainOf(cfg.LocalMailTo), "local_mail_to")
		add(domainOf(cfg.Postmaster), "postmaster")
	}
	return all
}

// domainOf is the domain of a configured address, which was checked.
func domainOf(address string) string {
	domain, err := resolver.ASCIIDomain(address[strings.LastIndexByte(address, '@')+1:])
	if err != nil {
		return address[strings.LastIndexByte(address, '@')+1:] // a literal in brackets
	}
	return domain
}
