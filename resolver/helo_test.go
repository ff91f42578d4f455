package resolver

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"postrider/resolver/resolvertest"
)

// fakeSystem is a host with the given addresses and name.
func fakeSystem(v4, v6, hostname string) system {
	return system{
		sourceToward: func(to netip.Addr) (netip.Addr, error) {
			s := v4
			if to.Is6() {
				s = v6
			}
			if s == "" {
				return netip.Addr{}, errors.New("network is unreachable")
			}
			return netip.MustParseAddr(s), nil
		},
		hostname: func() (string, error) {
			if hostname == "" {
				return "", errors.New("no host name")
			}
			return hostname, nil
		},
	}
}

func TestHELO(t *testing.T) {
	t.Parallel()
	addrs := func(s string) (all []netip.Addr) {
		for _, a := range strings.Fields(s) {
			all = append(all, netip.MustParseAddr(a))
		}
		return all
	}
	const (
		ptr  = "1.2.0.192.in-addr.arpa. IN PTR mail.test."
		mail = "mail.test. IN A 192.0.2.1"
		six  = "mail.test. IN AAAA 2001:db8::1"
		ptr6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. IN PTR mail.test."
	)
	tests := []struct {
		name    string
		records []string
		fail    map[string]resolvertest.Fault
		hosts   string // the hosts file
		options HELOOptions
		system  system
		want    []string // "source public name origin confirmed unsure"
		warn    []string // part of each warning of the first
		step    string   // part of one step of the first: tried: found
	}{
		{
			name: "confirmed", records: []string{ptr, mail}, system: fakeSystem("192.0.2.1", "", "x"),
			want: []string{"192.0.2.1 192.0.2.1 mail.test reverse DNS confirmed"},
			step: "IPv4 addresses of mail.test: 192.0.2.1",
		},
		{
			name: "both families", records: []string{ptr, mail, ptr6, six}, system: fakeSystem("192.0.2.1", "2001:db8::1", "x"),
			want: []string{"192.0.2.1 192.0.2.1 mail.test reverse DNS confirmed", "2001:db8::1 2001:db8::1 mail.test reverse DNS confirmed"},
		},
		{
			name: "both families, one without a name", records: []string{ptr, mail}, system: fakeSystem("192.0.2.1", "2001:db8::1", "x"),
			want: []string{"192.0.2.1 192.0.2.1 mail.test reverse DNS confirmed", "2001:db8::1 2001:db8::1 [IPv6:2001:db8::1] address literal"},
		},
		{
			name: "the system has the same name", records: []string{ptr, mail}, system: fakeSystem("192.0.2.1", "", "mail.test"),
			want: []string{"192.0.2.1 192.0.2.1 mail.test reverse DNS confirmed"},
		},
		{
			name: "the name leads elsewhere", records: []string{ptr, "mail.test. IN A 192.0.2.2"}, system: fakeSystem("192.0.2.1", "", "x"),
			want: []string{"192.0.2.1 192.0.2.1 mail.test reverse DNS"}, warn: []string{"does not lead to 192.0.2.1"},
		},
		{
			name: "several names, one is confirmed", records: []string{ptr, mail, "1.2.0.192.in-addr.arpa. IN PTR a.test."}, system: fakeSystem("192.0.2.1", "", "x"),
			want: []string{"192.0.2.1 192.0.2.1 mail.test reverse DNS confirmed"},
		},
		{
			name: "names that say nothing", records: []string{"1.2.0.192.in-addr.arpa. IN PTR localhost.", "1.2.0.192.in-addr.arpa. IN PTR localhost.localdomain.", `1.2.0.192.in-addr.arpa. IN PTR a\032b.test.`, "1.2.0.192.in-addr.arpa. IN PTR 1.2.0.192.in-addr.arpa."},
			system: fakeSystem("192.0.2.1", "", "localhost.localdomain"),
			want:   []string{"192.0.2.1 192.0.2.1 [192.0.2.1] address literal"}, warn: []string{"no name that could be found"},
		},
		{
			name: "the system's name leads here", records: []string{"sys.test. IN A 192.0.2.1"}, system: fakeSystem("192.0.2.1", "", "Sys.test"),
			want: []string{"192.0.2.1 192.0.2.1 sys.test system host name"}, warn: []string{"reverse DNS of 192.0.2.1 does not say sys.test"},
		},
		{
			name: "the system's name leads here, that of reverse DNS does not", records: []string{ptr, "sys.test. IN A 192.0.2.1"}, system: fakeSystem("192.0.2.1", "", "sys.test"),
			want: []string{"192.0.2.1 192.0.2.1 sys.test system host name"}, warn: []string{"reverse DNS"},
		},
		{
			name: "the hosts file completes the system's name", hosts: "127.0.1.1 sys.test sys\n", records: []string{"sys.test. IN A 192.0.2.1"}, system: fakeSystem("192.0.2.1", "", "sys"),
			want: []string{"192.0.2.1 192.0.2.1 sys.test system host name"}, warn: []string{"reverse DNS"},
		},
		{
			name: "a local name", system: fakeSystem("192.0.2.1", "", "sys.lan"),
			want: []string{"192.0.2.1 192.0.2.1 sys.lan system host name"}, warn: []string{"reverse DNS", "local network"},
		},
		{
			name: "a container", records: []string{"2.0.17.172.in-addr.arpa. IN PTR app.my_net."}, system: fakeSystem("172.17.0.2", "", "3f0a1b2c4d5e"),
			want: []string{"172.17.0.2 - [172.17.0.2] address literal"}, warn: []string{"set public_addresses", "no name"},
			step: "the system's host name: 3f0a1b2c4d5e, which has no domain",
		},
		{
			name: "behind NAT", records: []string{ptr, mail}, options: HELOOptions{Public: addrs("192.0.2.1")}, system: fakeSystem("10.0.0.5", "", "x"),
			want: []string{"10.0.0.5 192.0.2.1 mail.test reverse DNS confirmed"},
			step: "the address that the world sees: public_addresses has 192.0.2.1",
		},
		{
			name: "behind a carrier's NAT", system: fakeSystem("100.64.0.1", "", "x"),
			want: []string{"100.64.0.1 - [100.64.0.1] address literal"}, warn: []string{"set public_addresses", "no name"},
		},
		{
			name: "several sources behind NAT", options: HELOOptions{Sources: addrs("10.0.0.5 10.0.0.6 192.0.2.9"), Public: addrs("2001:db8::1 192.0.2.1 192.0.2.2")},
			records: []string{ptr, mail, "2.2.0.192.in-addr.arpa. IN PTR two.test.", "two.test. IN A 192.0.2.2", "9.2.0.192.in-addr.arpa. IN PTR nine.test.", "nine.test. IN A 192.0.2.9"},
			system:  fakeSystem("", "", "x"),
			want:    []string{"10.0.0.5 192.0.2.1 mail.test reverse DNS confirmed", "10.0.0.6 192.0.2.2 two.test reverse DNS confirmed", "192.0.2.9 192.0.2.9 nine.test reverse DNS confirmed"},
		},
		{
			name: "configured and confirmed", records: []string{ptr, mail}, options: HELOOptions{Hostname: "Mail.test."}, system: fakeSystem("192.0.2.1", "", "x"),
			want: []string{"192.0.2.1 192.0.2.1 mail.test configured confirmed"},
		},
		{
			name: "configured, reverse DNS says another", records: []string{ptr, mail, "conf.test. IN A 192.0.2.1"}, options: HELOOptions{Hostname: "conf.test"}, system: fakeSystem("192.0.2.1", "", "x"),
			want: []string{"192.0.2.1 192.0.2.1 conf.test configured"}, warn: []string{"reverse DNS of 192.0.2.1 does not say conf.test"},
		},
		{
			name: "configured behind NAT", options: HELOOptions{Hostname: "mail.test"}, system: fakeSystem("10.0.0.5", "", "x"),
			want: []string{"10.0.0.5 - mail.test configured"}, warn: []string{"set public_addresses"},
		},
		{
			name: "a provider's name", records: []string{"1.2.0.192.in-addr.arpa. IN PTR host-192-0-2-1.isp.test.", "host-192-0-2-1.isp.test. IN A 192.0.2.1"}, system: fakeSystem("192.0.2.1", "", "x"),
			want: []string{"192.0.2.1 192.0.2.1 host-192-0-2-1.isp.test reverse DNS confirmed"}, warn: []string{"provider's name"},
		},
		{
			name: "reverse DNS fails", fail: map[string]resolvertest.Fault{"1.2.0.192.in-addr.arpa": {Rcode: dns.RcodeServerFailure}}, records: []string{"sys.test. IN A 192.0.2.1"}, system: fakeSystem("192.0.2.1", "", "sys.test"),
			want: []string{"192.0.2.1 192.0.2.1 sys.test system host name unsure"}, warn: []string{"is not known"},
		},
		{
			name: "the way back fails", fail: map[string]resolvertest.Fault{"mail.test": {Rcode: dns.RcodeServerFailure}}, records: []string{ptr}, system: fakeSystem("192.0.2.1", "", ""),
			want: []string{"192.0.2.1 192.0.2.1 mail.test reverse DNS unsure"}, warn: []string{"is not known"},
		},
		{
			name: "no way out", system: fakeSystem("", "", "sys.test"),
			want: []string{"- - sys.test system host name"}, warn: []string{"no way out"},
		},
		{
			name: "no way out and no name", system: fakeSystem("", "", ""),
			want: []string{"- - [127.0.0.1] address literal"}, warn: []string{"no way out", "no name"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			hosts := filepath.Join(t.TempDir(), "hosts")
			if err := os.WriteFile(hosts, []byte(tt.hosts), 0o600); err != nil {
				t.Fatal(err)
			}
			r, zone := newPair(t, Options{HostsFile: hosts})
			zone.Add(tt.records...)
			for n, f := range tt.fail {
				zone.Fail(n, f)
			}
			got, err := r.helo(t.Context(), tt.options, tt.system)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, n := range got.Names {
				names = append(names, describeHELO(n))
			}
			if !slices.Equal(names, tt.want) {
				t.Errorf("%q, want %q", names, tt.want)
			}
			first := got.Names[0]
			if len(first.Warnings) != len(tt.warn) {
				t.Errorf("warnings %q, want %q", first.Warnings, tt.warn)
			}
			for i, w := range tt.warn {
				if i < len(first.Warnings) && !strings.Contains(first.Warnings[i], w) {
					t.Errorf("the warning %q does not say %q", first.Warnings[i], w)
				}
			}
			told := map[Step]bool{}
			for _, s := range first.Steps {
				if told[s] {
					t.Errorf("%v is told twice", s)
				}
				told[s] = true
			}
			if !slices.ContainsFunc(first.Steps, func(s Step) bool { return strings.Contains(s.Tried+": "+s.Found, tt.step) }) {
				t.Errorf("no step %q in %v", tt.step, first.Steps)
			}
		})
	}
}

func describeHELO(n HELOName) string {
	show := func(a netip.Addr) string {
		if !a.IsValid() {
			return "-"
		}
		return a.String()
	}
	s := fmt.Sprintf("%s %s %s %s", show(n.Source), show(n.Public), n.Name, n.Origin)
	if n.Confirmed {
		s += " confirmed"
	}
	if n.Unsure {
		s += " unsure"
	}
	return s
}

func TestHELOOptions(t *testing.T) {
	t.Parallel()
	r, _ := newPair(t, Options{})
	for _, name := range []string{"localhost", "a b.test", "192.0.2.1", "a..test"} {
		if got, err := r.helo(t.Context(), HELOOptions{Hostname: name}, fakeSystem("192.0.2.1", "", "x")); err == nil {
			t.Errorf("%q is taken as a host name: %+v", name, got)
		}
	}
}

func TestHELOFor(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	h := HELOResult{Names: []HELOName{
		{Source: addr("192.0.2.1"), Name: "one.test"},
		{Source: addr("192.0.2.2"), Name: "two.test"},
		{Source: addr("2001:db8::1"), Name: "six.test"},
	}}
	for source, want := range map[string]string{
		"192.0.2.2":        "two.test",
		"::ffff:192.0.2.2": "two.test",
		"192.0.2.9":        "one.test",
		"2001:db8::9":      "six.test",
	} {
		if got := h.For(addr(source)); got != want {
			t.Errorf("%s: %s, want %s", source, got, want)
		}
	}
	if got := (HELOResult{Names: []HELOName{{Name: "only.test"}}}).For(addr("192.0.2.1")); got != "only.test" {
		t.Error(got)
	}
}

func TestNamesAddress(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr("203.0.113.7")
	for name, want := range map[string]bool{
		"203-0-113-7.isp.test":           true,
		"ec2-203-0-113-7.cloud.test":     true,
		"static.7.113.0.203.isp.test":    true,
		"ip203.0.113.7.isp.test":         true,
		"cb007107.isp.test":              true,
		"mail.example.test":              false,
		"mail7.example.test":             false,
		"203-0-113-8.isp.test":           false,
		"a203-0-x.113.example.test":      false,
		"99999999999999999999.0.113.7.t": false,
	} {
		if got := namesAddress(name, addr); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// The kernel's choice is the host's own matter; this only shows that the
// question costs no error on loopback and sends nothing.
func TestSourceToward(t *testing.T) {
	t.Parallel()
	to := netip.MustParseAddr("127.0.0.1")
	if got, err := sourceToward(to); err != nil || got != to {
		t.Errorf("%v, %v", got, err)
	}
}
