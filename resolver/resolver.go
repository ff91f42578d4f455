// Package resolver asks DNS and says exactly what is known.
//
// It is a stub resolver: it asks recursive servers (those of /etc/resolv.conf,
// or given ones) and believes their word, with the DNSSEC verdict that they put
// into the AD bit only where they are trusted to. It adds what a mail server
// needs over that of the standard library: the TTL, the difference between "no
// such domain", "no such record" and "could not find out", and the verdict.
//
// From the outside in:
//
//   - [Resolver.Route] goes from a mail domain to an ordered list of hosts with
//     their addresses (RFC 5321, section 5.1), [Resolver.FixedRoute] does so for
//     hosts that the operator named, and [Resolver.HELO] finds the name of this
//     host as the world sees it.
//   - [Resolver.MX], [Resolver.TXT] and their like look up records of one type.
//     They give an [Answer] or an [*Error], whose Kind tells facts (no such
//     domain) from failures (no answer in time). Unknown is never a fact: a
//     failure is temporary.
//   - A lookup takes what is cached, joins one that is under way for the same
//     question, or asks the servers in the order of their manners (servers.go,
//     exchange.go) and reads what comes back as from a stranger (message.go).
//
// Cached answers live for their TTL within bounds, absences as RFC 2308 says,
// failures for seconds (RFC 9520). While the servers fail, an answer past its
// end stands in for up to a day (RFC 8767), except where that would weaken
// what DNSSEC had shown.
//
// Left out on purpose: recursion, validation (a local resolver such as unbound
// does both), search lists, and DNS over TLS or HTTPS.
package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	defaultTimeout = 2 * time.Second
	// maxTries is how many queries one question costs at most; a lone server
	// is asked three times, several of them twice each.
	maxTries       = 6
	triesOfOne     = 3
	roundsOfMany   = 2
	maxInFlight    = 256              // queries at one time that are being answered
	defaultHanging = 4000             // queries at one time that nobody answers
	maxLookup      = 20 * time.Second // of one question with all its aliases
	dockerResolver = "127.0.0.11"     // of container networks: a forwarder, whatever it says
)

// Options configure a resolver. The zero value uses /etc/resolv.conf.
type Options struct {
	Servers []string // "127.0.0.1:53", "[::1]:53", or an address without a port (53); at most 8
	TrustAD bool     // believe the AD bit of these servers
	// AutoTrustAD believes the AD bit when all servers are on loopback, 127.0.0.11
	// excepted, from the moment on that Probe has found them to validate.
	AutoTrustAD    bool
	Timeout        time.Duration // of one try at one server; 0: 2s
	MinTTL, MaxTTL time.Duration // clamps of the cache; 0: 5 s and 24 h
	CacheSize      int           // answers of up to 512 octets, longer ones count as several; 0: 100,000
	Order          FamilyOrder   // of the addresses of a host
	OwnNames       []string      // the names that are ourselves: they cut an MX list (RFC 5321, section 5.1)
	OwnAddrs       []netip.Addr  // our addresses, those that the world sees included: likewise
	Hanging        int           // queries at one time that nobody answers, each with a socket; 0: 4,000
	HostsFile      string        // asked before DNS for fixed hosts; empty: /etc/hosts
}

// Resolver is safe for concurrent use. It starts no goroutine that outlives a call.
type Resolver struct {
	servers  *serverList
	options  Options // with defaults
	own      atomic.Pointer[ownHost]
	cache    *cache
	flights  flights
	inFlight places
	now      func() time.Time
}

// New makes a resolver. It asks nothing; the error is about the options.
func New(o Options) (*Resolver, error) {
	if err := o.setDefaults(); err != nil {
		return nil, fmt.Errorf("resolver: %w", err)
	}
	r := &Resolver{
		options:  o,
		servers:  &serverList{conf: resolvConf},
		inFlight: newPlaces(maxInFlight, o.Hanging),
		now:      time.Now,
	}
	var err error
	if len(o.Servers) > 0 {
		if r.servers, err = fixedServers(o.Servers); err != nil {
			return nil, fmt.Errorf("resolver: %w", err)
		}
	}
	if err := r.SetOwn(o.OwnNames, o.OwnAddrs); err != nil {
		return nil, fmt.Errorf("resolver: %w", err)
	}
	if r.cache, err = newCache(o.CacheSize, o.MinTTL, o.MaxTTL); err != nil {
		return nil, fmt.Errorf("resolver: %w", err)
	}
	return r, nil
}

func (o *Options) setDefaults() error {
	if o.Timeout < 0 || o.MinTTL < 0 || o.MaxTTL < 0 || o.CacheSize < 0 {
		return errors.New("times and sizes cannot be negative")
	}
	setDefault(&o.Timeout, defaultTimeout)
	setDefault(&o.MinTTL, defaultMinTTL)
	setDefault(&o.MaxTTL, defaultMaxTTL)
	setDefault(&o.CacheSize, defaultCacheSize)
	setDefault(&o.Hanging, defaultHanging)
	setDefault(&o.HostsFile, "/etc/hosts")
	if o.MaxTTL < o.MinTTL {
		return fmt.Errorf("the longest life in the cache (%s) is shorter than the shortest (%s)", o.MaxTTL, o.MinTTL)
	}
	if o.Order > OnlyIPv6 {
		return fmt.Errorf("unknown order of address families %d", o.Order)
	}
	return nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// SetOwn replaces what the options said of our own names and addresses, for
// those that are found out later (HELO). Routes made before stay as they are.
func (r *Resolver) SetOwn(names []string, addrs []netip.Addr) error {
	own, err := newOwnHost(names, addrs)
	if err != nil {
		return fmt.Errorf("own names: %w", err)
	}
	r.own.Store(own)
	return nil
}

// Servers are those in use, in the order in which they would be asked now.
func (r *Resolver) Servers() []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, s := range r.servers.ordered(r.now()) {
		addrs = append(addrs, s.addr)
	}
	return addrs
}

// lookup gives an answer, or an *Error; where the caller's context ended, its cause.
func lookup[R any](ctx context.Context, r *Resolver, name string, qtype uint16) (Answer[R], error) {
	q := question{qtype: qtype}
	if name != "." || qtype != dns.TypeSOA {
		ascii, err := asciiDomain(name)
		if err != nil {
			return Answer[R]{}, failure(Malformed, name, q.typeName(), "", err)
		}
		q.name = ascii
	}
	now := r.now()
	e := r.cache.get(q)
	if e == nil || !e.fresh(now) && !now.Before(e.retryAt) {
		var err error
		if e, err = r.flights.do(ctx, q, func(ctx context.Context) *entry { return r.ask(ctx, q) }); err != nil {
			return Answer[R]{}, fmt.Errorf("looking up %s of %s: %w", q.typeName(), q.name, err)
		}
		now = r.now()
	}
	return judge[R](q, e, now)
}

// judge turns an entry into what the caller gets.
func judge[R any](q question, e *entry, now time.Time) (Answer[R], error) {
	stale := false
	if e.failure != nil && !e.fresh(now) {
		if q.qtype == dns.TypeTLSA || !e.mayStandIn(now) {
			return Answer[R]{}, e.failure
		}
		stale = true
	}
	f := &e.found
	if f.kind != KindNone {
		err := failure(f.kind, q.name, q.typeName(), f.server, nil)
		err.Secure, err.expiresAt = f.secure, e.expiresAt
		if f.canonical != q.name {
			err.Err = fmt.Errorf("it is an alias of %s", quoteName(f.canonical))
		}
		return Answer[R]{}, err
	}
	records := f.records.([]R)
	a := Answer[R]{Records: slices.Clone(records), Canonical: f.canonical, ExpiresAt: e.expiresAt, Secure: f.secure}
	if stale {
		a.Stale, a.Secure, a.ExpiresAt = true, false, now.Add(staleTTL)
	}
	return a, nil
}

// ask finds out and remembers. What an ended context cut short is not kept.
func (r *Resolver) ask(ctx context.Context, q question) *entry {
	limited, cancel := context.WithTimeout(ctx, maxLookup)
	defer cancel()
	f, failed := r.followAliases(limited, q)
	if failed != nil && ctx.Err() != nil {
		return &entry{failure: failed}
	}
	return r.cache.store(q, f, failed, r.now())
}

// followAliases asks until the end of a chain of CNAMEs; a recursive server
// gives it whole, but not every forwarder does.
func (r *Resolver) followAliases(ctx context.Context, q question) (finding, *Error) {
	var seen []string
	ttl, secure := time.Duration(-1), true
	at := q
	for {
		f, failed := r.askServers(ctx, at, seen)
		if failed != nil {
			failed.Name = q.name
			return finding{}, failed
		}
		if ttl >= 0 && (f.ttl < 0 || ttl < f.ttl) {
			f.ttl = ttl
		}
		ttl = f.ttl
		secure = secure && f.secure
		if f.next == "" {
			f.secure = secure
			f.chain = nil
			return f, nil
		}
		// The target is asked for next and enters the chain then.
		seen = f.chain[:len(f.chain)-1]
		at.name = f.next
	}
}

// askServers puts one question to the servers until one gives an answer or the
// tries are used up. Of several failures it reports the one that says most.
func (r *Resolver) askServers(ctx context.Context, q question, seen []string) (finding, *Error) {
	order := r.servers.ordered(r.now())
	rounds := roundsOfMany
	if len(order) == 1 {
		rounds = triesOfOne
	}
	var worst *Error
	spoken := make(map[*server]bool, len(order)) // their word stands: no use to ask again
	for try := range min(rounds*len(order), maxTries) {
		s := order[try%len(order)]
		if spoken[s] {
			continue
		}
		f, failed := r.askServer(ctx, s, q, seen)
		if failed == nil {
			return f, nil
		}
		worst = moreTelling(worst, failed.Error)
		if failed.Kind == Bogus || ctx.Err() != nil {
			// One that does not validate must not get to overrule one that does.
			break
		}
		spoken[s] = failed.spoken
	}
	return finding{}, worst
}

// tryError is the failure of one try; spoken when the server did answer.
type tryError struct {
	*Error
	spoken bool
}

func (r *Resolver) askServer(ctx context.Context, s *server, q question, seen []string) (finding, *tryError) {
	at := s.addr.String()
	leave, err := r.inFlight.enter(ctx)
	if err != nil {
		return finding{}, &tryError{Error: failure(Timeout, q.name, q.typeName(), at, err)}
	}
	defer leave()
	startedAt := r.now()
	m, qerr := query(ctx, s.addr, q, r.options.Timeout)
	now := r.now()
	if qerr != nil {
		if ctx.Err() == nil {
			s.failed(now)
		}
		return finding{}, &tryError{Error: failure(qerr.kind, q.name, q.typeName(), at, qerr.err)}
	}
	if m.Rcode == dns.RcodeRefused {
		s.failed(now) // it is about us, not about the name
	} else {
		s.answered(now.Sub(startedAt), now)
	}
	f := interpret(q, seen, m)
	if f.kind != KindNone && f.kind != NoSuchDomain && f.kind != NoData {
		return finding{}, &tryError{failure(f.kind, q.name, q.typeName(), at, f.detail), true}
	}
	f.secure = f.secure && r.trusts(s)
	f.server = at
	return f, nil
}

// trusts reports whether the AD bit of a server is believed.
func (r *Resolver) trusts(s *server) bool {
	return r.options.TrustAD || r.options.AutoTrustAD && onThisHost(s.addr.Addr()) && r.servers.validating()
}

// onThisHost reports whether a server's answers reach us without a wire that
// someone could sit on. A container's forwarder listens on loopback, but what
// it forwards went over one.
func onThisHost(addr netip.Addr) bool {
	return addr.Unmap().IsLoopback() && addr.Unmap() != netip.MustParseAddr(dockerResolver)
}

var errBusy = errors.New("too many queries are under way, or the lookup took too long")

// moreTelling picks the failure to report: an answer over silence.
func moreTelling(a, b *Error) *Error {
	weight := func(e *Error) int {
		switch e.Kind {
		case Bogus:
			return 3
		case ServerFailure:
			return 2
		case Malformed:
			return 1
		default:
			return 0
		}
	}
	if a == nil || weight(b) >= weight(a) {
		return b
	}
	return a
}
