package rehearsal

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"postrider/mta/smtpserver"
)

// SinkOptions configure a sink. The zero value takes everything at once.
type SinkOptions struct {
	Hostname string       // default mx.sink.test
	Logger   *slog.Logger // default: none
	TLS      *tls.Config  // nil: no STARTTLS; see [SelfSigned]
	Without  smtpserver.Extension
	// MaxMessageSize in octets and MaxRecipients of a transaction; 0: no limit.
	MaxMessageSize int64
	MaxRecipients  int
	MaxConnections int // default 100,000

	Manners
	Keep   Keep
	Verify bool // tell what came twice, see Stats
	// Passage notes what arrived when; nil: none.
	Passage *Passage
}

// Sink is a receiving server. It takes responsibility for nothing: its 250
// means that the message was seen.
type Sink struct {
	opts     SinkOptions
	server   *smtpserver.Server
	refusals []refusal
	greylist greylist
	tally    *tally // nil: nothing is verified
	kept     kept
	domains  domainCounts

	messages, recipients, octets   atomic.Int64
	refused, greylisted, withoutID atomic.Int64
	first, last                    atomic.Int64 // Unix nanoseconds of the first and last message
}

// NewSink checks the options; it starts nothing.
func NewSink(o SinkOptions) (*Sink, error) {
	o.Hostname = cmp.Or(o.Hostname, "mx.sink.test")
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	o.MaxConnections = cmp.Or(o.MaxConnections, 100_000)
	s := &Sink{opts: o, kept: kept{Keep: o.Keep}}
	s.greylist.after = o.Greylist
	var err error
	if s.refusals, err = compile(o.Refuse); err != nil {
		return nil, err
	}
	if err := s.kept.open(); err != nil {
		return nil, err
	}
	if o.Verify {
		s.tally = newTally()
	}
	s.server, err = smtpserver.New(smtpserver.Options{
		Hostname: o.Hostname, Backend: s, Logger: o.Logger, TLS: o.TLS, Without: o.Without,
		MaxMessageSize: o.MaxMessageSize, MaxRecipients: o.MaxRecipients,
		Slots: smtpserver.NewSlots(o.MaxConnections, 0),
		// A rehearsal is stopped to end, not to be waited for.
		Grace: time.Second, MaxErrors: 1000, BufferSize: 64 << 10,
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// looksAtIDs tells whether somebody wants to know each message's Message-ID.
func (s *Sink) looksAtIDs() bool { return s.tally != nil || s.opts.Passage != nil }

// Run serves until ctx ends, and closes the listeners.
func (s *Sink) Run(ctx context.Context, listeners ...net.Listener) error {
	if s.opts.RoundTrip > 0 {
		listeners = slices.Clone(listeners)
		far := make([]*distantListener, len(listeners))
		for i, l := range listeners {
			far[i] = newDistantListener(l, s.opts.RoundTrip)
			listeners[i] = far[i]
		}
		defer func() {
			for _, l := range far {
				l.wait()
			}
		}()
	}
	return s.server.Run(ctx, listeners...)
}

// Stats are what came until now.
type Stats struct {
	Messages   int64     `json:"messages"`   // transactions that ended in a 250
	Recipients int64     `json:"recipients"` // of these
	Octets     int64     `json:"octets"`     // of their content
	Refused    int64     `json:"refused"`    // recipients refused, greylisted ones included
	Greylisted int64     `json:"greylisted"`
	Domains    int       `json:"domains"` // recipient domains
	First      time.Time `json:"first,omitzero"`
	Last       time.Time `json:"last,omitzero"`

	// Where Verify is set. A copy is one message (by its Message-ID) for one
	// recipient. Copies beyond those that can be remembered are Unverified.
	Copies     int64 `json:"copies"`
	Duplicates int64 `json:"duplicates"`
	Unverified int64 `json:"unverified"`
	WithoutID  int64 `json:"without_id"` // messages without a Message-ID

	Connections    int64 `json:"connections"`
	Open           int64 `json:"open"`
	TLS            int64 `json:"tls"`
	ProtocolErrors int64 `json:"protocol_errors"` // commands that RFC 5321 does not allow
}

// PerSecond is the rate between the first message and the last.
func (s Stats) PerSecond() float64 {
	if took := s.Last.Sub(s.First).Seconds(); took > 0 && s.Messages > 1 {
		return float64(s.Messages-1) / took
	}
	return 0
}

// Stats may be called at any time.
func (s *Sink) Stats() Stats {
	server := s.server.Stats()
	st := Stats{
		Messages: s.messages.Load(), Recipients: s.recipients.Load(), Octets: s.octets.Load(),
		Refused: s.refused.Load(), Greylisted: s.greylisted.Load(), Domains: s.domains.len(),
		WithoutID:   s.withoutID.Load(),
		Connections: server.Connections, Open: int64(server.Open), TLS: server.TLS, ProtocolErrors: server.ProtocolErrors,
	}
	if n := s.first.Load(); n != 0 {
		st.First, st.Last = time.Unix(0, n), time.Unix(0, s.last.Load())
	}
	if s.tally != nil {
		st.Copies, st.Duplicates, st.Unverified = s.tally.counts()
	}
	return st
}

// ServeHTTP answers with the Stats as JSON.
func (s *Sink) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(s.Stats())
}

// Domains tells how many recipients each domain had.
func (s *Sink) Domains() map[string]int64 { return s.domains.all() }

// Messages are those that are kept in memory, oldest first.
func (s *Sink) Messages() []Message { return s.kept.list() }

// maxDomains bounds the counts per domain; the rest is counted together, under
// the name "".
const maxDomains = 100_000

// domainCounts count recipients by domain.
type domainCounts struct {
	mu     sync.RWMutex
	counts map[string]*atomic.Int64
}

func (d *domainCounts) add(domain []byte) {
	d.mu.RLock()
	n := d.counts[string(domain)]
	d.mu.RUnlock()
	if n == nil {
		n = d.insert(string(domain))
	}
	n.Add(1)
}

func (d *domainCounts) insert(domain string) *atomic.Int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.counts == nil {
		d.counts = map[string]*atomic.Int64{}
	}
	if len(d.counts) >= maxDomains {
		domain = ""
	}
	n := d.counts[domain]
	if n == nil {
		n = new(atomic.Int64)
		d.counts[domain] = n
	}
	return n
}

func (d *domainCounts) len() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.counts)
}

func (d *domainCounts) all() map[string]int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make(map[string]int64, len(d.counts))
	for domain, n := range d.counts {
		all[domain] = n.Load()
	}
	return all
}

// errNothingKept says that a message could not be kept.
var errNothingKept = errors.New("message was not kept")
