package smtpserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Options configure a server. Hostname and Backend are required; a zero field
// means its default where one is given.
type Options struct {
	Hostname string // how the server greets
	Backend  Backend
	Logger   *slog.Logger // default: none
	TLS      *tls.Config  // nil: no STARTTLS. A listener may as well hand out *tls.Conn (RFC 8314)
	Auth     Authenticator
	Without  Extension // what is not offered

	MaxMessageSize int64  // octets; 0: no limit
	MaxRecipients  int    // of a transaction; 0: no limit
	MaxErrors      int    // mistakes of a client before it is sent away; default 20
	Slots          *Slots // may be shared by several servers; default 1,000 connections

	CommandTimeout time.Duration // for a whole command line; default 5 minutes (RFC 5321, section 4.5.3.2.7)
	BlockTimeout   time.Duration // for the next octets of content; default 5 minutes
	MinRate        int64         // octets of content a second on average, after BlockTimeout; default 200
	TLSTimeout     time.Duration // for the handshake; default 1 minute
	Grace          time.Duration // for sessions that take content when the server stops; default 30 s; negative: none
	BufferSize     int           // octets of input buffered for each connection; default 16 KiB
}

func (o *Options) setDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Slots == nil {
		o.Slots = NewSlots(1000, 0)
	}
	setDefault(&o.MaxErrors, 20)
	setDefault(&o.CommandTimeout, 5*time.Minute)
	setDefault(&o.BlockTimeout, 5*time.Minute)
	setDefault(&o.MinRate, 200)
	setDefault(&o.TLSTimeout, time.Minute)
	setDefault(&o.Grace, 30*time.Second)
	setDefault(&o.BufferSize, 16<<10)
	o.BufferSize = max(o.BufferSize, maxCommandLine)
}

func setDefault[T ~int | ~int64](v *T, to T) {
	if *v == 0 {
		*v = to
	}
}

// Server serves SMTP on listeners. One Run at a time.
type Server struct {
	opts     Options
	stats    counters
	stopping atomic.Bool
	pool     sync.Pool // of *buffers

	mu    sync.Mutex
	conns map[*Conn]struct{}
	wg    sync.WaitGroup
}

// New checks the options; it starts nothing.
func New(opts Options) (*Server, error) {
	if opts.Backend == nil {
		return nil, errors.New("smtpserver: no backend")
	}
	if !isHostname(opts.Hostname) {
		return nil, fmt.Errorf("smtpserver: %q is no host name to greet with", opts.Hostname)
	}
	opts.setDefaults()
	return &Server{opts: opts, conns: map[*Conn]struct{}{}}, nil
}

func isHostname(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 255
}

// Run serves until ctx ends or a listener breaks, and closes the listeners.
// Then clients that wait for nothing are told 421, those in the midst of
// content have Options.Grace to finish it, and Run returns when the last
// session has ended. The error is nil where ctx ended it.
func (s *Server) Run(ctx context.Context, listeners ...net.Listener) error {
	s.stopping.Store(false)
	// Sessions outlive ctx by the grace period.
	sessions, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	accepting, stop := context.WithCancelCause(ctx)
	var accepts sync.WaitGroup
	for _, l := range listeners {
		accepts.Go(func() {
			if err := s.accept(accepting, sessions, l); err != nil {
				stop(err)
			}
		})
	}
	<-accepting.Done()
	err := context.Cause(accepting)
	if ctx.Err() != nil {
		err = nil
	}
	stop(nil)
	for _, l := range listeners {
		l.Close()
	}
	accepts.Wait()
	s.drain(kill)
	return err
}

// drain ends the sessions.
func (s *Server) drain(kill func()) {
	s.stopping.Store(true)
	s.each((*Conn).wake)
	ended := make(chan struct{})
	go func() { s.wg.Wait(); close(ended) }()
	grace := time.NewTimer(s.opts.Grace)
	defer grace.Stop()
	select {
	case <-ended:
		return
	case <-grace.C:
	}
	kill()
	s.each((*Conn).kill)
	<-ended
}

func (s *Server) each(do func(*Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		do(c)
	}
}

// Pauses after an Accept that failed, as when no file descriptor is free.
const (
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

func (s *Server) accept(ctx, sessions context.Context, l net.Listener) error {
	pause := minAcceptPause
	for {
		nc, err := l.Accept()
		if err == nil {
			pause = minAcceptPause
			s.admit(sessions, nc)
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("listener %v: %w", l.Addr(), err)
		}
		s.opts.Logger.Error("cannot accept connections, trying again", "listener", l.Addr(), "err", err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		pause = min(2*pause, maxAcceptPause)
	}
}

// admit starts a session, or turns the connection away.
func (s *Server) admit(sessions context.Context, nc net.Conn) {
	s.stats.connections.Add(1)
	c := newConn(s, nc)
	if r := s.opts.Slots.take(c.remote.Addr()); r != nil {
		s.turnAway(c, r)
		return
	}
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.wg.Go(func() {
		c.serve(sessions)
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		s.opts.Slots.give(c.remote.Addr())
	})
}

func (s *Server) turnAway(c *Conn, r *Reply) {
	s.stats.refused.Add(1)
	s.opts.Logger.Warn("connection turned away", "ip", c.remote.Addr(), "reason", r.Text)
	// The reply fits into an empty send buffer, so nobody waits; inside TLS it
	// could not be read before a handshake.
	if c.conn == c.raw {
		c.raw.SetWriteDeadline(time.Now().Add(time.Second))
		c.raw.Write(appendRefusal(nil, r))
	}
	c.raw.Close()
}

// counters are what Stats tells.
type counters struct {
	connections, refused, protocolErrors, timeouts atomic.Int64
	tls, tlsFailed, authenticated, authFailed      atomic.Int64
}

// Stats are counts since the server was made.
type Stats struct {
	Open           int   // connections at present
	Connections    int64 // accepted from the listeners
	Refused        int64 // of these turned away by a limit
	ProtocolErrors int64 // commands that RFC 5321 does not allow
	Timeouts       int64 // clients that were sent away for their silence
	TLS, TLSFailed int64 // handshakes
	Authenticated  int64
	AuthFailed     int64
}

// Stats may be called at any time.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	open := len(s.conns)
	s.mu.Unlock()
	n := &s.stats
	return Stats{
		Open: open, Connections: n.connections.Load(), Refused: n.refused.Load(),
		ProtocolErrors: n.protocolErrors.Load(), Timeouts: n.timeouts.Load(),
		TLS: n.tls.Load(), TLSFailed: n.tlsFailed.Load(),
		Authenticated: n.authenticated.Load(), AuthFailed: n.authFailed.Load(),
	}
}

// Add adds another server's counts.
func (s *Stats) Add(t Stats) {
	s.Open += t.Open
	s.Connections += t.Connections
	s.Refused += t.Refused
	s.ProtocolErrors += t.ProtocolErrors
	s.Timeouts += t.Timeouts
	s.TLS += t.TLS
	s.TLSFailed += t.TLSFailed
	s.Authenticated += t.Authenticated
	s.AuthFailed += t.AuthFailed
}
