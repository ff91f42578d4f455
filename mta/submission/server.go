package submission

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"postrider/mta/intake"
	"postrider/mta/smtpserver"
)

// Intake takes the messages; see [ToReceiver].
type Intake interface {
	CheckRecipient(address string) error
	Begin(now time.Time, m intake.Meta) (Message, error)
}

// Observer is told what was refused before intake was asked. It must not block.
type Observer interface {
	Refused(via string, err *intake.Error)
}

// Options configure a server. Hostname and Intake are required.
type Options struct {
	Hostname string // how clients are greeted
	Intake   Intake
	Users    smtpserver.Authenticator // nil: nobody can authenticate
	Observer Observer                 // may be nil
	Logger   *slog.Logger             // nil: none
	// MaxConnections bounds those of all listeners together; 0: 1,000.
	MaxConnections int
	// MaxConnectionsPerClient bounds those of one address beyond loopback; 0:
	// half of MaxConnections, so that one broken host does not shut out the others.
	MaxConnectionsPerClient int
	// Grace is what sessions in the midst of content have to end in when the
	// server stops; 0: 30 s; negative: none.
	Grace time.Duration
	// Disabled turns every client away (mode = "disabled").
	Disabled bool
}

// Auth says who must authenticate.
type Auth uint8

const (
	AuthNone     Auth = iota // nobody can
	AuthOptional             // whoever is in no trusted network
	AuthRequired             // everyone
)

// Policy is what holds for the clients of one listener.
type Policy struct {
	TrustedNetworks []netip.Prefix // may submit without AUTH, unless it is required
	Auth            Auth
	MaxMessageSize  int64       // octets; 0: 50 MB
	MaxRecipients   int         // of a message; 0: 10,000
	TLS             *tls.Config // nil: no STARTTLS
	ImplicitTLS     bool        // TLS from the first octet (RFC 8314) instead of STARTTLS
}

// Listener is where clients come in, and what holds for them.
type Listener struct {
	net.Listener
	Policy
}

// Server takes mail from listeners.
type Server struct {
	slots     *smtpserver.Slots
	servers   []*smtpserver.Server
	listeners []net.Listener
}

const (
	defaultConnections = 1000
	defaultMessageSize = 50_000_000
	defaultRecipients  = 10_000
)

// New checks that nothing is open to strangers; it starts nothing. After an
// error the listeners are the caller's to close.
func New(o Options, listeners ...Listener) (*Server, error) {
	if o.Intake == nil {
		return nil, errors.New("submission: no intake")
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	o.MaxConnections = cmp.Or(o.MaxConnections, defaultConnections)
	o.MaxConnectionsPerClient = cmp.Or(o.MaxConnectionsPerClient, (o.MaxConnections+1)/2)
	s := &Server{slots: smtpserver.NewSlots(o.MaxConnections, o.MaxConnectionsPerClient)}
	for _, l := range listeners {
		if err := l.check(o.Users != nil); err != nil {
			return nil, fmt.Errorf("submission: listener %v: %w", l.Addr(), err)
		}
		if err := s.add(&o, l); err != nil {
			return nil, fmt.Errorf("submission: listener %v: %w", l.Addr(), err)
		}
	}
	return s, nil
}

// add makes a server for a listener.
func (s *Server) add(o *Options, l Listener) error {
	p := l.Policy
	p.MaxMessageSize = cmp.Or(p.MaxMessageSize, defaultMessageSize)
	p.MaxRecipients = cmp.Or(p.MaxRecipients, defaultRecipients)
	so := smtpserver.Options{
		Hostname: o.Hostname, Backend: &backend{opts: o, policy: p}, Logger: o.Logger,
		MaxMessageSize: p.MaxMessageSize, MaxRecipients: p.MaxRecipients,
		Slots: s.slots, Grace: o.Grace,
	}
	listener := l.Listener
	if p.TLS != nil {
		cfg := p.TLS.Clone()
		// Some senders break off when tickets come right after the handshake.
		// Clients of a submission server stay connected, or send one message:
		// resumption would gain them little.
		cfg.SessionTicketsDisabled = true
		if p.ImplicitTLS {
			listener = tls.NewListener(listener, cfg)
		} else {
			so.TLS = cfg
		}
	}
	if p.Auth != AuthNone {
		so.Auth = o.Users
	}
	server, err := smtpserver.New(so)
	if err != nil {
		return err
	}
	s.servers = append(s.servers, server)
	s.listeners = append(s.listeners, listener)
	return nil
}

// check refuses what would let strangers in, or nobody.
func (l *Listener) check(hasUsers bool) error {
	for _, p := range l.TrustedNetworks {
		// 10.0.0.0/8 and fc00::/7 are the widest networks that are anybody's own.
		if p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 7 {
			return fmt.Errorf("trusted network %v is a good part of the internet: that would be an open relay", p)
		}
	}
	if l.ImplicitTLS && l.TLS == nil {
		return errors.New("TLS from the first octet needs a certificate")
	}
	authenticates := l.Auth != AuthNone && hasUsers
	if l.Auth == AuthRequired && !authenticates {
		return errors.New("AUTH is required, and there are no users who could pass")
	}
	if l.onLoopback() {
		return nil
	}
	trusts := l.Auth != AuthRequired && slices.ContainsFunc(l.TrustedNetworks, func(p netip.Prefix) bool { return !p.Addr().IsLoopback() })
	if !trusts && (!authenticates || l.TLS == nil) {
		return errors.New("is reached from beyond this host, and nobody there could submit: name trusted networks, or users and a certificate")
	}
	return nil
}

// onLoopback tells whether only this host can reach the listener.
func (l *Listener) onLoopback() bool {
	switch a := l.Addr().(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}

// Run serves until ctx ends or a listener breaks. Then no transaction is begun
// any more, content under way may finish within Options.Grace, and Run returns
// when the last session has ended. The error is nil where ctx ended it.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(s.servers))
	var wg sync.WaitGroup
	for i, server := range s.servers {
		wg.Go(func() {
			if errs[i] = server.Run(ctx, s.listeners[i]); errs[i] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Open is how many connections there are.
func (s *Server) Open() int { return s.slots.Open() }

// Stats are those of all listeners together.
func (s *Server) Stats() smtpserver.Stats {
	var sum smtpserver.Stats
	for _, server := range s.servers {
		sum.Add(server.Stats())
	}
	return sum
}
