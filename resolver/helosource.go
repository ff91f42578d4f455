package resolver

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// What the way out is looked for toward: the addresses of a root name server,
// which no network has as its own. Nothing is sent there.
var (
	publicIPv4 = netip.AddrFrom4([4]byte{198, 41, 0, 4})
	publicIPv6 = netip.MustParseAddr("2001:503:ba3e::2:30")
)

// sourceToward asks the kernel which address a connection would leave from. To
// connect a UDP socket chooses the way and sends nothing.
func sourceToward(to netip.Addr) (netip.Addr, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 53)))
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// findSources gives the addresses that connections leave from, each with what
// the world sees of it.
func findSources(o HELOOptions, sys system) []HELOName {
	var all []HELOName
	for _, a := range o.Sources {
		all = append(all, HELOName{
			Source: a.Unmap(),
			Steps:  []Step{{"the configuration", "source address " + a.String(), true}},
		})
	}
	if len(all) == 0 {
		all = kernelSources(sys)
	}
	next := map[bool]int{}
	for i := range all {
		n := &all[i]
		if !n.Source.IsValid() {
			continue
		}
		v4 := n.Source.Is4()
		n.Public = n.Source
		if isPublic(n.Source) {
			continue
		}
		public, used := ofFamily(o.Public, v4), next[v4]
		next[v4]++
		if len(public) == 0 {
			n.Public = netip.Addr{}
			n.Steps = append(n.Steps, Step{"the address that the world sees", fmt.Sprintf("%s is not public, and public_addresses is empty", n.Source), false})
			n.Warnings = append(n.Warnings, fmt.Sprintf("%s is not an address that the world can see: set public_addresses to the one it sees (that of the router or host), or hostname to its name", n.Source))
			continue
		}
		n.Public = public[min(used, len(public)-1)]
		n.Steps = append(n.Steps, Step{"the address that the world sees", "public_addresses has " + n.Public.String(), true})
	}
	return all
}

func kernelSources(sys system) []HELOName {
	var all []HELOName
	var missing []Step
	for _, to := range []netip.Addr{publicIPv4, publicIPv6} {
		family := "IPv4"
		if to.Is6() {
			family = "IPv6"
		}
		tried := "the address that " + family + " connections leave from"
		source, err := sys.sourceToward(to)
		if err != nil {
			missing = append(missing, Step{tried, "none: " + err.Error(), false})
			continue
		}
		all = append(all, HELOName{Source: source, Steps: []Step{{tried, source.String(), true}}})
	}
	if len(all) == 0 {
		return []HELOName{{
			Steps:    missing,
			Warnings: []string{"this host has no way out: no connection can be made; check its network (ip route)"},
		}}
	}
	all[0].Steps = append(missing, all[0].Steps...)
	return all
}

func ofFamily(addrs []netip.Addr, v4 bool) []netip.Addr {
	var all []netip.Addr
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() == v4 {
			all = append(all, a)
		}
	}
	return all
}

// sharedSpace is that of carriers' NAT (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

// isPublic reports whether others can see an address as the source of ours.
func isPublic(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.IsPrivate() && !sharedSpace.Contains(a)
}

// unusableName says why a name cannot be that of a mail host; empty where it can.
func unusableName(name string) string {
	switch {
	case checkHostName(name) != nil:
		return "is no host name"
	case !strings.Contains(name, "."):
		return "has no domain"
	case strings.HasPrefix(name, "localhost."), strings.HasSuffix(name, ".localhost"), strings.HasSuffix(name, ".localdomain"):
		return "every host has"
	case strings.HasSuffix(name, ".arpa"):
		return "is a name for addresses"
	}
	return ""
}

func isLocalName(name string) bool {
	for _, suffix := range []string{".local", ".internal", ".lan", ".home", ".intranet", ".corp"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// namesAddress reports whether a name spells the address out, as providers
// name what has no name: all four octets of an IPv4 address in decimal (joined
// by any one character, in either order) or all in hexadecimal.
func namesAddress(name string, addr netip.Addr) bool {
	if !addr.Is4() {
		return false
	}
	o := addr.As4()
	numbers := strings.FieldsFunc(name, func(c rune) bool { return c < '0' || c > '9' })
	for i := 0; i+4 <= len(numbers); i++ {
		forward, backward := true, true
		for k := range 4 {
			n, err := strconv.Atoi(numbers[i+k])
			forward = forward && err == nil && n == int(o[k])
			backward = backward && err == nil && n == int(o[3-k])
		}
		if forward || backward {
			return true
		}
	}
	return strings.Contains(name, fmt.Sprintf("%02x%02x%02x%02x", o[0], o[1], o[2], o[3]))
}
