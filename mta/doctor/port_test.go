package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postrider/mta/delivery"
	"postrider/mta/smtptest"
)

// mailHost starts a scripted one, and gives its port.
func mailHost(t *testing.T, address string, script smtptest.Script) (*smtptest.Server, int) {
	t.Helper()
	s, err := smtptest.Start(address, script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, s.Addr().(*net.TCPAddr).Port
}

// probing makes a doctor who may look at example.test, whose mail host is on
// loopback.
func probing(t *testing.T, port int, records ...string) *Doctor {
	t.Helper()
	if records == nil {
		records = []string{"example.test. IN MX 10 mx.example.test.", "mx.example.test. IN A 127.0.0.1"}
	}
	d, _ := newDoctor(t, records, func(o *Options) {
		o.Way.Domains = []ProbeDomain{{"example.test", "--probe"}}
		o.Way.Port = func(string) int { return port }
		o.Way.Guard.Interfaces = func() ([]netip.Addr, error) { return nil, nil }
	})
	return d
}

func TestGreeting(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		step smtptest.Step
		want string
	}{
		"greets":           {smtptest.Step{}, `port ok mx.example.test 127.0.0.1:`},
		"does not want us": {smtptest.Step{Reply: "554 5.7.1 bad reputation", Then: smtptest.Close}, `port warning "554 5.7.1 bad reputation"`},
		"no mail server":   {smtptest.Step{Raw: "HTTP/1.1 400 Bad Request\r\n\r\n", Then: smtptest.Close}, "port warning does not greet"},
		"hangs up":         {smtptest.Step{Then: smtptest.Close}, "port warning does not greet"},
		"says nothing":     {smtptest.Step{Then: smtptest.Hang}, "port warning says nothing"},
		"never ends":       {smtptest.Step{Endless: "220-x\r\n"}, "port warning does not greet"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			script := smtptest.Script{Name: "mx.example.test"}
			if c.step != (smtptest.Step{}) {
				script.On = map[string][]smtptest.Step{smtptest.OnConnect: smtptest.Do(c.step)}
			}
			s, port := mailHost(t, "127.0.0.1:0", script)
			d := probing(t, port)
			expect(t, d.port(t.Context()), c.want)
			if name == "greets" && (!s.WaitCommand("QUIT", 10*time.Second) || s.Sessions() != 1 || len(s.Violations()) != 0) {
				t.Errorf("%d sessions, no QUIT, or %v", s.Sessions(), s.Violations())
			}
		})
	}
}

// TestWaysThatAreClosed dials nobody: what the kernel says is given.
func TestWaysThatAreClosed(t *testing.T) {
	t.Parallel()
	both := []string{
		"example.test. IN MX 10 mx.example.test.", "mx.example.test. IN A 192.0.2.7", "mx.example.test. IN AAAA 2001:db8::7",
		"example.test. IN MX 20 mx2.example.test.", "mx2.example.test. IN A 192.0.2.8",
		"example.test. IN MX 30 mx3.example.test.", "mx3.example.test. IN A 192.0.2.9",
	}
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	noWay := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}
	for name, c := range map[string]struct {
		v4, v6 error
		want   []string
		dials  int // over IPv4
	}{
		"closed":            {context.DeadlineExceeded, noWay, []string{"port failed many providers keep it closed and open it on request", "port failed no way out over IPv6"}, 2},
		"refused":           {refused, refused, []string{"port failed over IPv4: mx2.example.test 192.0.2.8:25 refuses", "port failed over IPv6"}, 2},
		"no way out at all": {noWay, noWay, []string{"port failed ip route", "port failed "}, 2},
		"only IPv4":         {nil, noWay, []string{"port ok 192.0.2.7:25", "port not done this host has no IPv6"}, 1},
		"IPv6 closed":       {nil, context.DeadlineExceeded, []string{"port ok ", "port warning open port 25 outward"}, 1},
		"only IPv6":         {context.DeadlineExceeded, nil, []string{"port warning ", "port ok [2001:db8::7]:25"}, 2},
		"something else":    {syscall.EPERM, noWay, []string{"port failed operation not permitted", "port failed "}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := probing(t, 25, both...)
			host := smtptest.New(smtptest.Script{})
			t.Cleanup(func() { host.Close() })
			var mu sync.Mutex
			dials := 0
			d.dial = func(_ context.Context, _ netip.Addr, to netip.AddrPort, _ *delivery.Guard) (net.Conn, error) {
				err := c.v6
				if to.Addr().Is4() {
					mu.Lock()
					dials++
					mu.Unlock()
					err = c.v4
				}
				if err != nil {
					return nil, err
				}
				return host.Pipe(), nil
			}
			expect(t, d.port(t.Context()), c.want...)
			if dials != c.dials {
				t.Errorf("%d connections over IPv4, not %d", dials, c.dials)
			}
		})
	}
}

// TestPortKeepsTheGuard: what a stranger's DNS says is not dialled.
func TestPortKeepsTheGuard(t *testing.T) {
	t.Parallel()
	s, port := mailHost(t, "127.0.0.1:0", smtptest.Script{})
	d := probing(t, port)
	d.o.Way.Guard.Allow = nil
	expect(t, d.port(t.Context()), "port failed allow_networks")
	if s.Sessions() != 0 {
		t.Error("it was connected to")
	}
	// Hosts that the operator has written are dialled without it.
	d.o.Way.Hosts = func(string) []string { return []string{fmt.Sprintf("127.0.0.1:%d", port)} }
	expect(t, d.port(t.Context()), "port ok 127.0.0.1:")
}

func TestPortOfDomains(t *testing.T) {
	t.Parallel()
	d := probing(t, 25, "other.test. IN A 192.0.2.1")
	expect(t, d.port(t.Context()), "port failed it has no mail hosts")
	d.o.Way.Domains = nil
	expect(t, d.port(t.Context()), "port not done --probe DOMAIN")
}

// TestPortLeavesFromTheConfiguredAddress where there is one of the family.
func TestPortLeavesFromTheConfiguredAddress(t *testing.T) {
	t.Parallel()
	d := probing(t, 25, "example.test. IN A 192.0.2.7", "example.test. IN AAAA 2001:db8::7")
	d.o.Way.Sources = addrs("192.0.2.44")
	var mu sync.Mutex
	var from []string
	d.dial = func(_ context.Context, source netip.Addr, to netip.AddrPort, _ *delivery.Guard) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		from = append(from, source.String()+" "+to.Addr().String())
		return nil, syscall.ECONNREFUSED
	}
	expect(t, d.port(t.Context()), "port failed refuses", "port failed delivery.source_addresses has none of this family")
	if got := strings.Join(from, ", "); got != "192.0.2.44 192.0.2.7" {
		t.Error(got)
	}
}
