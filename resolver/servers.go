package resolver

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	resolvConf = "/etc/resolv.conf"
	// confCheck is how often that file is looked at for changes.
	confCheck  = 10 * time.Second
	maxServers = 8

	// A server that failed is asked last for a second, doubling to a minute.
	minPenalty = time.Second
	maxPenalty = time.Minute
	// rttHalfLife forgets what was measured, so that a server that was slow
	// once is tried again.
	rttHalfLife = time.Minute
)

// server is one that we ask, with what is known of its manners.
type server struct {
	addr netip.AddrPort

	mu       sync.Mutex
	rtt      time.Duration // smoothed; 0: not known
	usedAt   time.Time
	failures int // in a row
	lastTill time.Time
}

// answered records a reply, whatever it said.
func (s *server) answered(took time.Duration, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	took = max(took, 1)
	if s.rtt == 0 {
		s.rtt = took
	} else {
		s.rtt += (took - s.rtt) / 8 // RFC 6298, section 2.3
	}
	s.usedAt, s.failures, s.lastTill = now, 0, time.Time{}
}

// failed records that no usable reply came.
func (s *server) failed(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	penalty := minPenalty << min(s.failures, 6)
	s.failures++
	s.lastTill = now.Add(min(penalty, maxPenalty))
}

// rank orders servers: those without a fault by how fast they answer, unknown
// ones first so that they become known; then those with one.
type rank struct {
	lastTill time.Time
	rtt      time.Duration
}

func (s *server) rank(now time.Time) rank {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := rank{rtt: s.rtt}
	if s.lastTill.After(now) {
		k.lastTill = s.lastTill
	}
	if idle := now.Sub(s.usedAt); s.rtt > 0 && idle > 0 {
		k.rtt >>= min(idle/rttHalfLife, 40)
	}
	return k
}

// serverList is the servers in use: fixed ones, or those of resolv.conf, which
// is read again when it changes.
type serverList struct {
	conf string // empty: fixed

	mu        sync.Mutex
	list      []*server
	checkedAt time.Time
	modTime   time.Time
	size      int64
	probedAt  time.Time // when this very list was last probed, and answered
	validates bool      // and all of it is on this host and validates
}

func fixedServers(addrs []string) (*serverList, error) {
	l := &serverList{}
	for _, a := range addrs {
		addr, err := parseServer(a)
		if err != nil {
			return nil, err
		}
		l.list = append(l.list, &server{addr: addr})
	}
	if len(l.list) > maxServers {
		return nil, fmt.Errorf("%d name servers are given, at most %d are used", len(l.list), maxServers)
	}
	return l, nil
}

func parseServer(s string) (netip.AddrPort, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil && ap.Port() != 0 {
		return ap, nil
	}
	bare := s
	if n := len(s); n > 2 && s[0] == '[' && s[n-1] == ']' {
		bare = s[1 : n-1]
	}
	addr, err := netip.ParseAddr(bare)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("name server %s: an address is needed, as in 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53", quoted(s))
	}
	return netip.AddrPortFrom(addr, 53), nil
}

// ordered gives the servers in the order in which to ask them.
func (l *serverList) ordered(now time.Time) []*server {
	list := l.current(now)
	if len(list) < 2 {
		return list
	}
	ranks := make(map[*server]rank, len(list))
	for _, s := range list {
		ranks[s] = s.rank(now)
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b *server) int {
		ra, rb := ranks[a], ranks[b]
		return cmp.Or(ra.lastTill.Compare(rb.lastTill), cmp.Compare(ra.rtt, rb.rtt))
	})
	return list
}

func (l *serverList) current(now time.Time) []*server {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conf != "" && (l.list == nil || now.Sub(l.checkedAt) >= confCheck) {
		l.checkedAt = now
		l.reload()
	}
	return l.list
}

// reload keeps what it has when the file cannot be read for the moment. Without
// any server it is as for the C library: the one on this host.
func (l *serverList) reload() {
	info, err := os.Stat(l.conf)
	if err == nil && l.list != nil && info.ModTime().Equal(l.modTime) && info.Size() == l.size {
		return
	}
	var addrs []netip.AddrPort
	if err == nil {
		l.modTime, l.size = info.ModTime(), info.Size()
		addrs = readResolvConf(l.conf)
	}
	if len(addrs) == 0 {
		if l.list != nil {
			return
		}
		addrs = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53"), netip.MustParseAddrPort("[::1]:53")}
	}
	if slices.EqualFunc(l.list, addrs, func(s *server, a netip.AddrPort) bool { return s.addr == a }) {
		return
	}
	l.list = nil
	for _, a := range addrs {
		l.list = append(l.list, &server{addr: a})
	}
	l.probedAt, l.validates = time.Time{}, false
}

func readResolvConf(path string) []netip.AddrPort {
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil
	}
	var addrs []netip.AddrPort
	for _, s := range conf.Servers {
		if a, err := parseServer(s); err == nil && len(addrs) < maxServers {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// setProbed notes the result of a probe of these servers, unless they have
// changed meanwhile.
func (l *serverList) setProbed(list []*server, validates bool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Equal(l.list, list) {
		l.probedAt, l.validates = now, validates
	}
}

func (l *serverList) lastProbe() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.probedAt
}

func (l *serverList) validating() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.validates
}
