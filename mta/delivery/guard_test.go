package delivery

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestGuard(t *testing.T) {
	t.Parallel()
	g := &Guard{
		Allow:  []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32"), netip.MustParsePrefix("127.0.0.1/32")},
		Public: []netip.Addr{netip.MustParseAddr("198.51.100.7")},
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:2525"), netip.MustParseAddrPort("[::]:587"), netip.MustParseAddrPort("0.0.0.0:465")},
		Interfaces: func() ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("2001:db8::5"), netip.MustParseAddr("10.1.0.1")}, nil
		},
	}
	for _, tt := range []struct{ addr, reason string }{
		{"192.0.2.1:25", ""},
		{"8.8.8.8:25", ""},
		{"[2a00::1]:25", ""},
		{"127.0.0.2:25", "loopback"},
		{"127.0.0.1:25", ""}, // allowed
		{"127.0.0.1:2525", "ourselves"},
		{"[::ffff:127.0.0.1]:2525", "ourselves"},
		{"[::1]:25", "loopback"},
		{"0.0.0.0:25", "unspecified"},
		{"0.1.2.3:25", "unspecified"},
		{"[::]:25", "unspecified"},
		{"10.0.0.1:25", "private"},
		{"10.1.2.3:25", ""}, // allowed
		{"10.1.0.1:25", ""}, // allowed, though our own
		{"10.1.0.1:587", "ourselves"},
		{"172.16.0.1:25", "private"},
		{"192.168.1.1:25", "private"},
		{"[fd00::1]:25", "private"},
		{"[fd00:1::1]:25", ""}, // allowed
		{"[fec0::1]:25", "private"},
		{"169.254.169.254:25", "link-local"},
		{"[fe80::1]:25", "link-local"},
		{"[fe80::1%eth0]:25", "link-local"},
		{"100.64.0.1:25", "carrier NAT"},
		{"100.128.0.1:25", ""},
		{"192.0.0.8:25", "reserved"},
		{"198.18.0.1:25", "reserved"},
		{"240.0.0.1:25", "reserved"},
		{"255.255.255.255:25", "reserved"},
		{"224.0.0.1:25", "multicast"},
		{"[ff02::1]:25", "multicast"},
		{"[::ffff:10.0.0.1]:25", "private"},
		{"[::ffff:192.0.2.1]:25", ""},
		{"[64:ff9b::a00:1]:25", "private"}, // 10.0.0.1 behind NAT64
		{"[64:ff9b::a01:203]:25", ""},      // 10.1.2.3, allowed
		{"[64:ff9b::7f00:2]:25", "loopback"},
		{"[64:ff9b::c000:201]:25", ""},
		{"[64:ff9b:1::1]:25", "carrier NAT"},
		{"[2002:a00:1::1]:25", "private"}, // 10.0.0.1 behind 6to4
		{"[2002:7f00:2::1]:25", "loopback"},
		{"[::7f00:2]:25", "loopback"}, // 127.0.0.2, IPv4-compatible
		{"198.51.100.7:25", "address of this host"},
		{"203.0.113.5:25", "address of this host"},
		{"[2001:db8::5]:25", "address of this host"},
		{"[64:ff9b::cb00:7105]:25", "address of this host"},
		{"203.0.113.5:465", "ourselves"},
		{"[2001:db8::5]:587", "ourselves"},
	} {
		err := g.Check(netip.MustParseAddrPort(tt.addr))
		var refused *GuardError
		switch {
		case tt.reason == "" && err != nil:
			t.Errorf("%s is refused: %v", tt.addr, err)
		case tt.reason != "" && !errors.As(err, &refused):
			t.Errorf("%s is allowed", tt.addr)
		case tt.reason != "" && !strings.Contains(refused.Reason, tt.reason):
			t.Errorf("%s: %q, want %q in it", tt.addr, refused.Reason, tt.reason)
		case tt.reason != "" && (refused.status() == "5.4.6") != (tt.reason == "ourselves" || tt.reason == "address of this host"):
			t.Errorf("%s: status %s", tt.addr, refused.status())
		}
	}
}

func TestGuardKeepsTheLastListOfOwnAddresses(t *testing.T) {
	t.Parallel()
	fails := false
	g := &Guard{Interfaces: func() ([]netip.Addr, error) {
		if fails {
			return nil, errors.New("no netlink")
		}
		return []netip.Addr{netip.MustParseAddr("203.0.113.5")}, nil
	}}
	addr := netip.MustParseAddrPort("203.0.113.5:25")
	if g.Check(addr) == nil {
		t.Fatal("allowed")
	}
	fails = true
	g.own.Load().until = g.own.Load().until.Add(-2 * ownFor)
	if g.Check(addr) == nil {
		t.Error("allowed once the list could not be read")
	}
}

func FuzzGuardControl(f *testing.F) {
	for _, s := range []string{"127.0.0.1:25", "[::ffff:10.0.0.1]:25", "[64:ff9b::a00:1]:25", "x", "[fe80::1%25eth0]:25"} {
		f.Add(s)
	}
	g := &Guard{Interfaces: func() ([]netip.Addr, error) { return nil, nil }}
	f.Fuzz(func(t *testing.T, address string) {
		err := g.Control("tcp", address, nil)
		ap, bad := netip.ParseAddrPort(address)
		if bad != nil {
			if err == nil {
				t.Errorf("%q passed", address)
			}
			return
		}
		// Whatever the form, an address that means a forbidden one is refused.
		if ip := ap.Addr().WithZone("").Unmap(); forbidden(ip) != "" && err == nil {
			t.Errorf("%q passed", address)
		}
	})
}
