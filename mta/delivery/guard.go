package delivery

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// Guard refuses addresses that must not be dialled because a stranger's DNS
// says so: a recipient domain's MX may point anywhere, at 169.254.169.254 too.
// It judges the address that is about to be dialled, never the one looked up.
// The zero value allows public addresses that are not our own. It is safe for
// concurrent use.
type Guard struct {
	// Allow are networks that may be dialled all the same (allow_networks).
	Allow []netip.Prefix
	// Public are the addresses that the world sees us at, behind NAT.
	Public []netip.Addr
	// Listen are the addresses and ports that we listen on; an unspecified
	// address stands for every own one. They are refused whatever Allow says:
	// mail sent there would come back to us.
	Listen []netip.AddrPort
	// Interfaces lists the host's own addresses; nil: net.InterfaceAddrs.
	Interfaces func() ([]netip.Addr, error)

	own atomic.Pointer[ownAddrs]
}

// ownAddrs are the host's addresses as they were listed last.
type ownAddrs struct {
	set   map[netip.Addr]bool
	until time.Time
}

// GuardError is an address that is not dialled.
type GuardError struct {
	Addr   netip.AddrPort
	Reason string // what is wrong with it, and what to do
	isLoop bool
}

func (e *GuardError) Error() string { return fmt.Sprintf("%v is not dialled: %s", e.Addr, e.Reason) }

// status: X.4.6 is a routing loop, X.4.4 unable to route (RFC 3463, section 3.5).
func (e *GuardError) status() string {
	if e.isLoop {
		return "5.4.6"
	}
	return "5.4.4"
}

// ownFor is how long the list of the host's own addresses is believed.
const ownFor = time.Minute

// Forbidden networks beside those that netip names.
var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")      // RFC 1122, section 3.2.1.3
	carrierNAT  = netip.MustParsePrefix("100.64.0.0/10")  // RFC 6598
	protocolNet = netip.MustParsePrefix("192.0.0.0/24")   // RFC 6890
	benchmarks  = netip.MustParsePrefix("198.18.0.0/15")  // RFC 2544
	reserved    = netip.MustParsePrefix("240.0.0.0/4")    // RFC 1112, with broadcast
	nat64       = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052: an IPv4 address inside
	localNAT64  = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215
	compatible  = netip.MustParsePrefix("::/96")          // RFC 4291, section 2.5.5.1: an IPv4 address inside
	sixToFour   = netip.MustParsePrefix("2002::/16")      // RFC 3056: an IPv4 address inside
	siteLocal   = netip.MustParsePrefix("fec0::/10")      // RFC 3879
)

// Check says why an address must not be dialled; nil where it may.
func (g *Guard) Check(addr netip.AddrPort) error {
	ip := addr.Addr().WithZone("").Unmap()
	if g.isListening(ip, addr.Port()) {
		return &GuardError{addr, "it is ourselves, so the mail would come back", true}
	}
	for _, p := range g.Allow {
		if p.Contains(ip) {
			return nil
		}
	}
	if inner, ok := embedded(ip); ok {
		return g.Check(netip.AddrPortFrom(inner, addr.Port()))
	}
	if kind := forbidden(ip); kind != "" {
		return &GuardError{addr, fmt.Sprintf("it is a %s address, which strangers must not make us dial; where this is wanted, name its network in allow_networks", kind), false}
	}
	if g.isOwn(ip) {
		return &GuardError{addr, "it is an address of this host, so the mail would come back; where this is wanted, name it in allow_networks", true}
	}
	return nil
}

// Control is for net.Dialer.
func (g *Guard) Control(_, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("dialling %q: %w", address, err)
	}
	return g.Check(addr)
}

// forbidden names the kind of an address that is not public; empty where it is.
func forbidden(ip netip.Addr) string {
	switch {
	case ip.IsUnspecified(), thisNetwork.Contains(ip):
		return "unspecified"
	case ip.IsLoopback():
		return "loopback"
	case ip.IsPrivate(), siteLocal.Contains(ip):
		return "private"
	case ip.IsLinkLocalUnicast():
		return "link-local"
	case ip.IsMulticast():
		return "multicast"
	case carrierNAT.Contains(ip), localNAT64.Contains(ip):
		return "shared (carrier NAT)"
	case protocolNet.Contains(ip), benchmarks.Contains(ip), reserved.Contains(ip):
		return "reserved"
	}
	return ""
}

// embedded gives the IPv4 address that an IPv6 address leads to.
func embedded(ip netip.Addr) (netip.Addr, bool) {
	if !ip.Is6() {
		return netip.Addr{}, false
	}
	b := ip.As16()
	switch {
	case nat64.Contains(ip):
		return netip.AddrFrom4([4]byte(b[12:])), true
	case sixToFour.Contains(ip):
		return netip.AddrFrom4([4]byte(b[2:6])), true
	case compatible.Contains(ip) && !ip.IsUnspecified() && !ip.IsLoopback():
		return netip.AddrFrom4([4]byte(b[12:])), true
	}
	return netip.Addr{}, false
}

func (g *Guard) isListening(ip netip.Addr, port uint16) bool {
	for _, l := range g.Listen {
		if l.Port() != port {
			continue
		}
		at := l.Addr().WithZone("").Unmap()
		if at == ip || at.IsUnspecified() && (ip.IsLoopback() || ip.IsUnspecified() || g.isOwn(ip)) {
			return true
		}
	}
	return false
}

// isOwn reports whether ip is one of this host's, or the one that the world
// sees.
func (g *Guard) isOwn(ip netip.Addr) bool {
	for _, p := range g.Public {
		if p.Unmap() == ip {
			return true
		}
	}
	own := g.own.Load()
	if now := time.Now(); own == nil || !now.Before(own.until) {
		own = g.listOwn(own, now)
		g.own.Store(own)
	}
	return own.set[ip]
}

// listOwn lists the host's addresses anew. Where that fails, the last list is
// the best there is.
func (g *Guard) listOwn(last *ownAddrs, now time.Time) *ownAddrs {
	list := g.Interfaces
	if list == nil {
		list = interfaceAddrs
	}
	own := &ownAddrs{until: now.Add(ownFor)}
	addrs, err := list()
	if err != nil {
		if last != nil {
			own.set = last.set
		}
		return own
	}
	own.set = make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		own.set[a.WithZone("").Unmap()] = true
	}
	return own
}

func interfaceAddrs() ([]netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("listing the addresses of this host: %w", err)
	}
	list := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			list = append(list, p.Addr())
		}
	}
	return list, nil
}
