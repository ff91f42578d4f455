package main

import (
	"context"
	"maps"
	"path/filepath"

	"postrider/mta/rehearsal/peers"
)

const postfixName = "postfix"

// postfixServer is Postfix with the defaults of its package, but for where
// things are and what settings say.
type postfixServer struct {
	label    string
	settings map[string]string
}

// postfixTuned is what an expert sets on a machine that does nothing but send:
// more processes, more connections to a destination from the start, no
// pause when mail comes in faster than it goes out, room in the active queue,
// and none of the lookups that nothing here needs. No durability is traded.
var postfixTuned = map[string]string{
	"default_process_limit":                 "200",
	"in_flow_delay":                         "0s",
	"qmgr_message_active_limit":             "100000",
	"qmgr_message_recipient_limit":          "100000",
	"initial_destination_concurrency":       "20",
	"default_destination_concurrency_limit": "100",
	"smtp_address_preference":               "ipv4",
	"smtpd_peername_lookup":                 "no",
	"smtpd_client_connection_count_limit":   "0",
	"receive_override_options":              "no_address_mappings, no_header_body_checks, no_milters",
}

func (p *postfixServer) name() string    { return p.label }
func (p *postfixServer) version() string { return "Postfix " + peers.PostfixVersion() }
func (p *postfixServer) missing() error  { return peers.PostfixMissing() }

func (p *postfixServer) instance(l launch) *peers.Postfix {
	settings := map[string]string{
		"myhostname":         "mta.bench.test",
		"smtp_host_lookup":   "dns",
		"message_size_limit": "50000000",
	}
	maps.Copy(settings, p.settings)
	return &peers.Postfix{Dir: l.dir, Listen: submissionAddr, Wrap: l.wrap, Main: settings}
}

func (p *postfixServer) start(ctx context.Context, l launch) (*peers.Process, error) {
	proc, err := p.instance(l).Start(ctx)
	if err != nil {
		return nil, err
	}
	return proc, proc.Greets(ctx, submissionAddr)
}

func (p *postfixServer) stop(proc *peers.Process, dir string) error {
	return p.instance(launch{dir: dir}).Stop(proc)
}

// openSMTPDServer is OpenSMTPD with the settings of its package, but for where
// things are, and that it relays for loopback.
type openSMTPDServer struct{}

func (openSMTPDServer) name() string    { return "opensmtpd" }
func (openSMTPDServer) version() string { return "OpenSMTPD " + openSMTPD().Version() }
func (openSMTPDServer) missing() error  { return openSMTPD().Missing() }

// openSMTPD is the unpacked package, where it is, else the system's own.
func openSMTPD() *peers.OpenSMTPD {
	root, err := filepath.Abs(filepath.Join("bench-out", "opensmtpd"))
	if err != nil {
		root = "/"
	}
	return peers.FindOpenSMTPD(root, "/")
}

func (openSMTPDServer) start(ctx context.Context, l launch) (*peers.Process, error) {
	s := openSMTPD()
	s.Dir, s.Listen, s.Hostname, s.Wrap = l.dir, submissionAddr, "mta.bench.test", l.wrap
	proc, err := s.Start(ctx)
	if err != nil {
		return nil, err
	}
	return proc, proc.Greets(ctx, submissionAddr)
}

func (openSMTPDServer) stop(proc *peers.Process, dir string) error {
	s := openSMTPD()
	s.Dir = dir
	return s.Stop(proc)
}
