package resolver

import (
	"bufio"
	"io"
	"iter"
	"net/netip"
	"os"
	"strings"
)

// maxHostsFile bounds what is read of /etc/hosts.
const maxHostsFile = 1 << 20

// hostsLines goes through a file as hosts(5) describes it, an address and its
// names at a time. A file that cannot be read has no lines: DNS is asked then.
func hostsLines(path string) iter.Seq2[netip.Addr, []string] {
	return func(yield func(netip.Addr, []string) bool) {
		f, err := os.Open(path)
		if err != nil {
			return
		}
		defer f.Close()
		lines := bufio.NewScanner(io.LimitReader(f, maxHostsFile))
		for lines.Scan() {
			line, _, _ := strings.Cut(lines.Text(), "#")
			fields := strings.Fields(line)
			if len(fields) < 2 {
				continue
			}
			addr, err := netip.ParseAddr(fields[0])
			if err != nil || addr.Zone() != "" {
				continue
			}
			if !yield(addr.Unmap(), fields[1:]) {
				return
			}
		}
	}
}

// fromHostsFile gives the addresses that the hosts file has for a name, and
// for localhost those of loopback where it has none (RFC 6761, section 6.3).
func fromHostsFile(path, name string) []netip.Addr {
	var found []netip.Addr
	for addr, names := range hostsLines(path) {
		for _, n := range names {
			if strings.EqualFold(strings.TrimSuffix(n, "."), name) && len(found) < maxAddrs {
				found = append(found, addr)
				break
			}
		}
	}
	if len(found) == 0 && (name == "localhost" || strings.HasSuffix(name, ".localhost")) {
		found = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	return found
}

// fullName is the first name with a dot on a line of the hosts file that has
// the short one: what hostname -f prints. Empty where there is none.
func fullName(path, short string) string {
	for _, names := range hostsLines(path) {
		full, has := "", false
		for _, n := range names {
			has = has || strings.EqualFold(n, short)
			if full == "" && strings.Contains(n, ".") {
				full = n
			}
		}
		if has && full != "" {
			return full
		}
	}
	return ""
}
