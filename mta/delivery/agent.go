package delivery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"postrider/mta/smtpclient"
	"postrider/mta/tlspolicy"
	"postrider/queue"
)

// Options configure an Agent. Timeouts, HELO and Guard are required.
type Options struct {
	Timeouts smtpclient.Timeouts
	// Connect is the time for one connection to be made; 0: 30 s.
	Connect time.Duration
	// HELO gives the name to greet with from a local address.
	HELO func(local netip.Addr) string
	// Sources are the local addresses to send from, one at random for each
	// connection; a host's address without a source of its family is left out.
	// Empty: the system chooses.
	Sources []netip.Addr
	Guard   *Guard
	// MinTLS is the lowest TLS version; 0: 1.2. The level "enable" falls back
	// below it.
	MinTLS uint16
	Roots  *x509.CertPool // for the level "verify"; nil: the system's
	// VerifyDANE holds a connection against TLSA records; names are those that
	// usage 2 may find in the certificate. Nil: hosts with records are not used.
	VerifyDANE func(state tls.ConnectionState, records []tlspolicy.TLSA, names []string) error
	Rules      Rules // nil: DefaultRules
	// Site names the site of a plan, for rules that are for one; nil: Plan.Site.
	Site      func(*Plan) string
	Converter Converter // nil: what a host cannot take as it is fails
	Observer  Observer  // nil: nobody
	// MaxConnections bounds open connections, idle ones included, as far as
	// closing idle ones can; MaxConnectionsPerAddress likewise for one address.
	// 0: no limit.
	MaxConnections, MaxConnectionsPerAddress int
	// IdleFor is how long a connection waits for the next message; 0: 5 s.
	IdleFor time.Duration
	// Life is how old a connection may become; 0: 300 s. A limit by time keeps
	// a slow host from attracting the traffic, as one by count would not.
	Life time.Duration
	// InFlight is smtpclient.Options.InFlight.
	InFlight int
	Logger   *slog.Logger // nil: none
}

// Observer learns what connections came to.
type Observer interface {
	// Connection is called once for each connection that was tried, and for
	// each host that its side's policy kept us from connecting to, by the
	// goroutine that tried it; and once for each further domain whose mail
	// a connection carries, with IsShared. The value is valid until it returns.
	Connection(c *Connection)
}

// Connection is what trying to connect came to.
type Connection struct {
	Domain string // of the recipients it was made for, or is shared by
	// IsShared: the connection was made for another domain, and is told of
	// once more for what this one demands.
	IsShared bool
	Host     string         // empty for an address literal
	Addr     netip.AddrPort // zero where the host was not connected to
	Local    netip.Addr
	Demand   tlspolicy.Requirement
	// Message is what the message that it was made for asks of TLS.
	Message tlspolicy.Message
	// Stage is how far it came: StageMAIL when it is ready for mail.
	Stage queue.Stage
	// Reached is ReachedNothing where it did not become ready.
	Reached Reached
	// TLS is nil in clear.
	TLS *tls.ConnectionState
	// TLSResult says what TLS came to, also where its failure was put up with:
	// the demand was watched only, or fell back.
	TLSResult TLSResult
	TLSErr    error // the cause, where TLSResult is a failure
	Text      string
	Took      time.Duration
}

// Converter makes a message fit for a host that cannot take it as it is. It
// may be called by many goroutines.
type Converter interface {
	// Convert gives the content with the changes that need asks for, signed
	// anew; the closer gives back what it holds. An *Unconvertible is for good:
	// the message cannot be converted, or would break. ErrFits: it can go as it
	// is. Any other error is trouble of our own that may pass.
	Convert(content Opener, need Need) (smtpclient.Body, io.Closer, error)
}

// Unconvertible says that a message cannot be made to fit.
type Unconvertible struct {
	Status string // 5.6.3 or 5.6.7 (RFC 3463, section 3.7; RFC 6531, section 4.4)
	Reason string
}

func (e *Unconvertible) Error() string { return e.Reason }

// ErrFits is what a Converter says of a message that needs no conversion.
var ErrFits = errors.New("the message needs no conversion")

// Need is what may keep a message from being sent as it is.
type Need struct {
	SevenBit     bool // the host lacks 8BITMIME: header and body
	ASCIIHeaders bool // the host lacks SMTPUTF8: the header, and those of its parts
}

// Agent carries attempts out. It is safe for concurrent use; each Deliver is
// one connection at a time.
type Agent struct {
	o        Options
	pool     *pool
	tls      tlsMemory
	resumed  [2]tls.ClientSessionCache // unverified, verified
	rules    atomic.Pointer[Rules]
	carriers sync.Pool
}

// SetRules takes other rules for the replies from now on.
func (a *Agent) SetRules(r Rules) { a.rules.Store(&r) }

// NewAgent makes an agent. It starts nothing.
func NewAgent(o Options) *Agent {
	if o.Connect <= 0 {
		o.Connect = 30 * time.Second
	}
	if o.MinTLS == 0 {
		o.MinTLS = tls.VersionTLS12
	}
	if o.Rules == nil {
		o.Rules = DefaultRules()
	}
	if o.Site == nil {
		o.Site = func(p *Plan) string { return p.Site }
	}
	if o.IdleFor <= 0 {
		o.IdleFor = 5 * time.Second
	}
	if o.Life <= 0 {
		o.Life = 300 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	const resumable = 256 // sessions; each keeps its server's certificates in memory
	a := &Agent{o: o, pool: newPool(o.MaxConnections, o.MaxConnectionsPerAddress, o.IdleFor)}
	a.SetRules(o.Rules)
	for i := range a.resumed {
		a.resumed[i] = tls.NewLRUClientSessionCache(resumable)
	}
	a.carriers.New = func() any { return newCarrier(a) }
	return a
}

// Deliver carries first, and what work has for the same plan key after it, and
// returns when there is no more for this connection or no connection can be
// had. When ctx ends no connection is made and no further attempt begun; what is
// on the wire goes on until Close.
func (a *Agent) Deliver(ctx context.Context, plan *Plan, first *Attempt, work Work) {
	c := a.carriers.Get().(*carrier)
	c.begin(ctx, plan, first, work)
	c.run()
	c.end()
	a.carriers.Put(c)
}

// Close ends all connections. Attempts on the wire end with them: what was not
// sent is Untried, what was sent without a reply in doubt. Deliver may be
// called no more.
func (a *Agent) Close() { a.pool.close() }

// Connections are how many are open, and how many of them idle.
func (a *Agent) Connections() (open, idle int) { return a.pool.counts() }
