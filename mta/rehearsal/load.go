package rehearsal

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// LoadOptions configure a load. Target is required.
type LoadOptions struct {
	Target   string // host:port
	Sessions int    // at once; default 20
	Messages int64  // in all; default 10,000
	Size     int    // octets of each, header and body; default 4,096
	// Domains is how many recipient domains take turns: d0.load.test and so
	// on; default 100. DomainSuffix replaces "load.test".
	Domains      int
	DomainSuffix string
	Recipients   int    // of each message, at as many domains; default 1
	Sender       string // default load@sender.test
	Way          Way
	// PerConnection is how many messages go over a connection; 0: all.
	PerConnection  int64
	TLS            bool   // STARTTLS, whatever the certificate
	User, Password string // AUTH PLAIN, where User is not empty
	// AllowNetworks are those beyond loopback that may be loaded.
	AllowNetworks []netip.Prefix
	Timeout       time.Duration // for a reply; default 5 minutes
	Logger        *slog.Logger  // nil: none
	// Pause is how long a session waits between the end of one message and the
	// next. It goes with every Way but WayOverlapped, which begins the next
	// message before the end of the last.
	Pause time.Duration
	// Passage notes what was accepted when; made for as many messages. nil: none.
	Passage *Passage
}

// Way is how a message travels. Whichever it is, a session has the content of
// one message under way, and sends the next content when it was answered. Where
// the server does not offer PIPELINING, WayPipelined and WayOverlapped become
// WaySequential.
type Way uint8

const (
	// WayPipelined: the envelope with DATA in one write, then the content in
	// one write: two round trips, as RFC 2920 has it.
	WayPipelined Way = iota
	// WayChunked: envelope and content (BDAT LAST) in one write: one round trip.
	WayChunked
	// WayOverlapped: the content and the next envelope with its DATA in one
	// write: one round trip, without CHUNKING.
	WayOverlapped
	// WaySequential: each command waits for the reply to the one before.
	WaySequential
)

var wayNames = []string{WayPipelined: "pipelined", WayChunked: "chunked", WayOverlapped: "overlapped", WaySequential: "sequential"}

func (w Way) String() string { return wayNames[w] }

// ParseWay reads a Way's name.
func ParseWay(s string) (Way, error) {
	if i := slices.Index(wayNames, s); i >= 0 {
		return Way(i), nil
	}
	return 0, fmt.Errorf("way %q is none of %s", s, strings.Join(wayNames, ", "))
}

// maxSize bounds a message: each session holds one.
const maxSize = 1 << 30

func (o *LoadOptions) setDefaults() error {
	o.Sessions = cmp.Or(o.Sessions, 20)
	o.Messages = cmp.Or(o.Messages, 10_000)
	o.Size = cmp.Or(o.Size, 4096)
	o.Domains = cmp.Or(o.Domains, 100)
	o.DomainSuffix = cmp.Or(o.DomainSuffix, "load.test")
	o.Recipients = cmp.Or(o.Recipients, 1)
	o.Sender = cmp.Or(o.Sender, "load@sender.test")
	o.Timeout = cmp.Or(o.Timeout, 5*time.Minute)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	for name, v := range map[string]int64{"sessions": int64(o.Sessions), "messages": o.Messages, "size": int64(o.Size), "domains": int64(o.Domains), "recipients": int64(o.Recipients), "messages per connection": o.PerConnection + 1} {
		if v < 1 {
			return fmt.Errorf("load: %s must not be negative", name)
		}
	}
	if o.Size > maxSize || o.Sessions > 100_000 || o.Recipients > 10_000 {
		return errors.New("load: more than 1 GiB a message, 100,000 sessions or 10,000 recipients a message")
	}
	if o.Pause < 0 || o.Pause > 0 && o.Way == WayOverlapped {
		return errors.New("load: a pause must not be negative, nor go with overlapped messages")
	}
	if o.Passage != nil && int64(len(o.Passage.accepted)) != o.Messages {
		return fmt.Errorf("load: a passage for %d messages does not fit %d", len(o.Passage.accepted), o.Messages)
	}
	if strings.ContainsAny(o.Sender+o.DomainSuffix, "\r\n<> ") {
		return errors.New("load: sender or domain with blanks, brackets or line ends")
	}
	return nil
}

// Load sends messages and measures how long each is waited for.
type Load struct {
	opts     LoadOptions
	run      string // names this run in each Message-ID
	date     string
	filler   []byte
	taken    atomic.Int64 // messages given to sessions
	accepted atomic.Int64
	refused  atomic.Int64
	failed   atomic.Int64
}

// NewLoad checks the options; it starts nothing.
func NewLoad(o LoadOptions) (*Load, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	if _, _, err := net.SplitHostPort(o.Target); err != nil {
		return nil, fmt.Errorf("load: target %q is no host:port", o.Target)
	}
	l := &Load{opts: o, run: newRun(), date: time.Now().Format(time.RFC1123Z)}
	if o.Passage != nil {
		l.run = o.Passage.run
	}
	l.filler = filler(o.Size)
	if least := len(l.appendMessage(nil, o.Messages-1)); least > o.Size {
		return nil, fmt.Errorf("load: a message of %d octets has no room for its header: %d is the least", o.Size, least)
	}
	return l, nil
}

// fillerAlphabet has no dot: no line needs stuffing, so what the server reads
// is as long as was asked for.
const fillerAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// filler is text in lines of 76, as base64 looks: content that hardly
// compresses, so that no store looks better than it is.
func filler(size int) []byte {
	source := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 0, size+78)
	for len(text) < size {
		for range 76 {
			text = append(text, fillerAlphabet[source.IntN(len(fillerAlphabet))])
		}
		text = append(text, '\r', '\n')
	}
	return text
}

// Progress is how many messages were accepted, and how many came to another end.
func (l *Load) Progress() (accepted, lost int64) {
	return l.accepted.Load(), l.refused.Load() + l.failed.Load()
}

// Result is what came of a load.
type Result struct {
	Accepted   int64         `json:"accepted"` // messages that were answered with 250
	Refused    int64         `json:"refused"`  // with 4xx or 5xx to any command
	Failed     int64         `json:"failed"`   // with nothing: the connection was lost
	Rejected   int64         `json:"rejected"` // recipients refused, of accepted messages
	Copies     int64         `json:"copies"`   // accepted messages times their accepted recipients
	Connects   int64         `json:"connects"`
	Octets     int64         `json:"octets"` // of accepted messages
	Took       time.Duration `json:"took_ns"`
	CPU        time.Duration `json:"cpu_ns"`                // of this process meanwhile, user and system
	Wait       Percentiles   `json:"wait_ns"`               // from the last octet of the content to the 250
	FirstError string        `json:"first_error,omitempty"` // empty: there was none
}

// PerSecond is the rate of accepted messages.
func (r *Result) PerSecond() float64 {
	if r.Took <= 0 {
		return 0
	}
	return float64(r.Accepted) / r.Took.Seconds()
}

// Run sends all messages, and returns when each was answered, ctx ends or no
// connection can be made any more. A message is never sent twice: one that was
// refused or lost is counted as that.
func (l *Load) Run(ctx context.Context) (*Result, error) {
	addr, err := l.target(ctx)
	if err != nil {
		return nil, err
	}
	sessions := make([]*loadSession, l.opts.Sessions)
	cpu, began := processTime(), time.Now()
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for i := range sessions {
		s := newLoadSession(l, addr)
		sessions[i] = s
		wg.Go(func() {
			if err := s.run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	r := &Result{Took: time.Since(began), CPU: processTime() - cpu}
	waits := new(histogram)
	for _, s := range sessions {
		s.addTo(r)
		waits.merge(&s.waits)
	}
	r.Accepted, r.Refused, r.Failed = l.accepted.Load(), l.refused.Load(), l.failed.Load()
	r.Wait = waits.percentiles()
	return r, context.Cause(ctx)
}

// target is the address to dial: on loopback, or in a network that is allowed.
// The address that was checked is the one that is dialled.
func (l *Load) target(ctx context.Context) (string, error) {
	host, port, _ := net.SplitHostPort(l.opts.Target)
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return "", fmt.Errorf("load: target: %w", err)
	}
	for _, ip := range addrs {
		ip = ip.Unmap()
		if ip.IsLoopback() || slices.ContainsFunc(l.opts.AllowNetworks, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			return net.JoinHostPort(ip.String(), port), nil
		}
	}
	return "", fmt.Errorf("load: target %s is not on this host: a load elsewhere is an attack unless its network is allowed", l.opts.Target)
}

// take gives out the next message's number.
func (l *Load) take() (n int64, ok bool) {
	n = l.taken.Add(1) - 1
	return n, n < l.opts.Messages
}

// appendMessage appends message n in wire form, without the final dot.
func (l *Load) appendMessage(dst []byte, n int64) []byte {
	start := len(dst)
	dst = append(append(dst, "From: <"...), l.opts.Sender...)
	dst = append(dst, ">\r\nTo: <"...)
	dst = l.appendRecipient(dst, n, 0)
	dst = append(append(dst, ">\r\nDate: "...), l.date...)
	dst = append(append(dst, "\r\nSubject: Load "...), l.run...)
	dst = append(append(dst, "\r\nMessage-ID: <"...), l.run...)
	dst = appendPadded(append(dst, '.'), n)
	dst = append(dst, "@load.test>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"...)
	rest := max(0, l.opts.Size-(len(dst)-start)-2)
	dst = append(dst, l.filler[:rest]...)
	// The cut may leave half a line end.
	if dst[len(dst)-1] == '\r' {
		dst[len(dst)-1] = '='
	}
	return append(dst, '\r', '\n')
}

// appendRecipient appends recipient k of message n.
func (l *Load) appendRecipient(dst []byte, n int64, k int) []byte {
	dst = appendPadded(append(dst, 'r'), int64(k))
	dst = append(dst, "@d"...)
	dst = appendNumber(dst, (n+int64(k))%int64(l.opts.Domains))
	return append(append(dst, '.'), l.opts.DomainSuffix...)
}

func appendNumber(dst []byte, n int64) []byte {
	if n >= 10 {
		dst = appendNumber(dst, n/10)
	}
	return append(dst, byte('0'+n%10))
}

// appendPadded appends n in ten digits, so that messages are all of a size.
func appendPadded(dst []byte, n int64) []byte {
	for at := int64(1_000_000_000); at > n && at > 1; at /= 10 {
		dst = append(dst, '0')
	}
	return appendNumber(dst, n)
}

// dial makes a connection.
func (l *Load) dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 30 * time.Second}
	return d.DialContext(ctx, "tcp", addr)
}

// tlsConfig trusts anything: a rehearsal's certificates are self-made.
var tlsConfig = &tls.Config{InsecureSkipVerify: true}
