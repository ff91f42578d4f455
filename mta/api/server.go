package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"postrider/mta/api/wire"
	"postrider/mta/intake"
	"postrider/mta/suppress"
	"postrider/queue"
	"postrider/resolver"
)

// Queue is what the API needs of the queue.
type Queue interface {
	Reader
	Figures
	Steering
}

// Reader shows messages.
type Reader interface {
	Find(prefix string) (queue.ID, error)
	Message(id queue.ID) (*queue.Message, error)
	Walk(ctx context.Context, now time.Time, s queue.Selector, after queue.ID, visit func(*queue.Message) bool) error
	Count(ctx context.Context, now time.Time, s queue.Selector) (messages, recipients int, err error)
	History(id queue.ID) ([]queue.Event, error)
	OpenMessage(id queue.ID) (*queue.Content, error)
	Check(ctx context.Context) (queue.Report, error)
}

// Figures count what is in the queue.
type Figures interface {
	Depth(now time.Time) queue.Depth
	Domains(now time.Time, limit int) []queue.DomainDepth
	Err() error
}

// Steering changes what happens to open recipients.
type Steering interface {
	Hold(ctx context.Context, now time.Time, s queue.Selector, reason string) (int, error)
	Unhold(ctx context.Context, now time.Time, s queue.Selector, reason string) (int, error)
	Retry(ctx context.Context, now time.Time, s queue.Selector, reason string) (int, error)
	Cancel(ctx context.Context, now time.Time, s queue.Selector, reason string) (int, error)
	Fail(ctx context.Context, now time.Time, s queue.Selector, reason string) (int, error)
}

// Draft is a message on its way in: *intake.Message.
type Draft interface {
	Write(p []byte) (int, error)
	Commit(ctx context.Context) (queue.ID, error)
	Abort()
}

// Lanes tells what the dispatcher knows of destinations.
type Lanes interface {
	// Lane answers false where there is no lane for the domain at present.
	Lane(now time.Time, domain string) (wire.Lane, bool)
	// SiteDomains names the domains that are known to be served by a site.
	SiteDomains(site string) []string
}

// Suspensions keeps mail from being sent for a time, also what comes later.
type Suspensions interface {
	Suspend(ctx context.Context, now time.Time, s wire.Suspension) error
	// Resume ends the suspensions that name the same domain, site, sender and
	// tag (all of them where everything is empty) and answers which they were.
	Resume(ctx context.Context, now time.Time, s wire.Suspension) ([]wire.Suspension, error)
	Suspensions(now time.Time) []wire.Suspension
}

// Destinations tells how mail to a domain would go, without sending any.
type Destinations interface {
	Route(ctx context.Context, domain string) (*resolver.Route, error)
	// Demands are what would be asked of a session's TLS with each host of the
	// domain's route.
	Demands(ctx context.Context, domain string, route *resolver.Route) []wire.Demand
	// Dialable is nil where a connection to the address is allowed.
	Dialable(addr netip.AddrPort) error
	Settings(domain string) (wire.Settings, int) // and the port to dial
	Local(domain string) bool                    // mail for this host itself
}

// Options make a Server. StateDir, Queue and Begin are required.
type Options struct {
	Logger   *slog.Logger
	StateDir string // holds the control socket and the token
	// Listen is the TCP address, "127.0.0.1:8025"; empty: the control socket alone.
	Listen string
	Hosts  []string // further names that a request's Host may have
	// LocalSubmission opens a second socket that every user of this host may
	// use, to hand messages in and for nothing else: for sendmail(8). It is
	// as open as a trusted loopback address, and nobody else can sit on it.
	LocalSubmission bool

	Hostname, Version, Mode string // as GET /v1/info tells them

	// MaxMessageSize is in octets; 0: 50 MB.
	MaxMessageSize int64

	Queue Queue
	// Begin starts a message: intake.Receiver.Begin.
	Begin func(now time.Time, m intake.Meta) (Draft, error)
	// Ready tells why the server should get no work at present; nil: the
	// queue's word is enough.
	Ready func() error
	// Metrics serves GET /metrics; nil: 404.
	Metrics http.Handler

	// What is nil below is answered with 501.
	Lanes        Lanes
	Suspensions  Suspensions
	Destinations Destinations

	// Suppressed is the suppression list; nil: 501. Suppressing tells whether
	// it is in force.
	Suppressed  *suppress.List
	Suppressing bool

	// Wake ends the rest that a destination was given after failures, because
	// somebody wants its mail tried now; nil: retries wait for it.
	Wake func(domain string)

	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// The names inside StateDir.
const (
	SocketName       = "control.sock"
	SubmitSocketName = "submit.sock"
	TokenName        = "api-token"
)

// Limits that protect the server from its clients.
const (
	maxConnections       = 256
	maxHeader            = 64 << 10
	maxSocketHeader      = 1 << 20 // thousands of recipients in a query, from this host's commands
	maxJSON              = 1 << 20 // of everything but a message
	maxWaiters           = 200     // requests with wait=
	headerTimeout        = 10 * time.Second
	requestTimeout       = 30 * time.Second // to read or to write, where nothing else is said
	messageTimeout       = 10 * time.Minute // to read or to write a message
	checkTimeout         = 6 * time.Hour    // to read the whole store
	idleTimeout          = 2 * time.Minute
	shutdownTimeout      = 5 * time.Second // for answers under way; submissions in flight are on disk long before
	defaultMaxMessage    = 50_000_000
	defaultDomainsInGrid = 100
)

// Server is the HTTP interface. It is safe for concurrent use.
type Server struct {
	opts     Options
	log      *slog.Logger
	token    string
	jsonRoom *semaphore.Weighted // octets of JSON messages held in memory
	waiters  chan struct{}
	stopping chan struct{}
	paced    chan pacedAction
	checking chan struct{}

	mu        sync.Mutex
	listeners []listener
	tcp       net.Listener
}

type listener struct {
	net.Listener
	server *http.Server
}

// New makes a server and reads the token, or makes one at the first start. It
// listens nowhere yet.
func New(opts Options) (*Server, error) {
	if opts.Queue == nil || opts.Begin == nil || opts.StateDir == "" {
		return nil, errors.New("api: Queue, Begin and StateDir are required")
	}
	opts.Logger = cmp.Or(opts.Logger, slog.New(slog.DiscardHandler))
	opts.MaxMessageSize = cmp.Or(opts.MaxMessageSize, defaultMaxMessage)
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Ready == nil {
		opts.Ready = opts.Queue.Err
	}
	s := &Server{
		opts:     opts,
		log:      opts.Logger,
		jsonRoom: semaphore.NewWeighted(2 * jsonMessageLimit(opts.MaxMessageSize)),
		waiters:  make(chan struct{}, maxWaiters),
		stopping: make(chan struct{}),
		paced:    make(chan pacedAction),
		checking: make(chan struct{}, 1),
	}
	if opts.Listen != "" {
		token, err := loadToken(filepath.Join(opts.StateDir, TokenName))
		if err != nil {
			return nil, err
		}
		s.token = token
	}
	return s, nil
}

// Listen opens the sockets and the TCP listener, so that a failure is known
// before anything else starts. Run does it where it was not done.
func (s *Server) Listen() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.listeners) > 0 {
		return nil
	}
	defer func() {
		if err != nil {
			for _, l := range s.listeners {
				l.Close()
			}
			s.listeners = nil
		}
	}()
	add := func(l net.Listener, h http.Handler, header int) {
		s.listeners = append(s.listeners, listener{l, s.httpServer(h, header)})
	}
	control, err := listenSocket(filepath.Join(s.opts.StateDir, SocketName), 0o660)
	if err != nil {
		return err
	}
	handler := s.routes()
	add(control, onSocket(handler), maxSocketHeader)
	if s.opts.LocalSubmission {
		submission, err := listenSocket(filepath.Join(s.opts.StateDir, SubmitSocketName), 0o666)
		if err != nil {
			return err
		}
		add(submission, onSocket(submitOnly(handler)), maxSocketHeader)
	}
	if s.opts.Listen == "" {
		return nil
	}
	s.tcp, err = net.Listen("tcp", s.opts.Listen)
	if err != nil {
		return fmt.Errorf("http.listen: %w", err)
	}
	add(s.tcp, s.guard(handler), maxHeader)
	return nil
}

// Addr is the TCP listener's address; nil where there is none.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tcp == nil {
		return nil
	}
	return s.tcp.Addr()
}

func (s *Server) httpServer(h http.Handler, header int) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    header,
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// Run serves until ctx ends, then lets answers under way be finished. It is
// called once.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	failed := make(chan error, len(s.listeners))
	for _, l := range s.listeners {
		s.log.Info("listening for http", "address", l.Addr().String())
		wg.Go(func() {
			if err := l.server.Serve(limit(l.Listener, maxConnections)); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("http: %w", err)
				cancel()
			}
		})
	}
	wg.Go(func() { s.pace(ctx) })
	<-ctx.Done()
	close(s.stopping)
	s.shutdown()
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func (s *Server) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	for _, l := range s.listeners {
		if err := l.server.Shutdown(ctx); err != nil {
			s.log.Warn("answers were cut off at the stop", "address", l.Addr().String(), "error", err)
			l.server.Close()
		}
	}
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	if s.opts.Metrics != nil {
		mux.Handle("GET /metrics", s.opts.Metrics)
	}
	mux.HandleFunc("GET /{$}", servePage)
	mux.HandleFunc("GET /page/{name}", servePage)

	handle := func(pattern string, h func(w http.ResponseWriter, r *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				s.fail(w, r, err)
			}
		})
	}
	handle("GET /v1/info", s.info)
	handle("POST /v1/messages", s.inject)
	handle("GET /v1/messages/{id}", s.message)
	handle("GET /v1/messages/{id}/content", s.content)
	handle("GET /v1/messages/{id}/history", s.history)
	handle("GET /v1/messages/{id}/export", s.export)
	handle("GET /v1/check", s.check)
	handle("GET /v1/queue", s.list)
	handle("POST /v1/queue/{action}", s.act)
	handle("GET /v1/suppressions", s.suppressions)
	handle("POST /v1/suppressions", s.suppress)
	handle("POST /v1/suppressions/remove", s.unsuppress)
	handle("GET /v1/stats", s.stats)
	handle("GET /v1/explain", s.explain)
	handle("/v1/", func(_ http.ResponseWriter, r *http.Request) error {
		return problem(http.StatusNotFound, "%s %s is not a part of this interface, see docs/api.md", r.Method, r.URL.Path)
	})
	return mux
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintln(w, "ok")
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := s.opts.Ready(); err != nil {
		// Whoever reaches this may be anybody: the reason is in the log and
		// in GET /v1/stats.
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

func (s *Server) info(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, http.StatusOK, wire.Info{
		Hostname: s.opts.Hostname, Version: s.opts.Version, Mode: cmp.Or(s.opts.Mode, "live"), MaxMessageSize: s.opts.MaxMessageSize,
	})
}

// hostName takes the port off a Host header.
func hostName(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.Trim(strings.TrimSuffix(host, "."), "[]"))
}
