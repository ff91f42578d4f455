package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"postrider/mta/delivery"
	"postrider/mta/smtpwire"
	"postrider/resolver"
)

// WayOptions say how mail leaves, and whose mail hosts may be connected to.
type WayOptions struct {
	Domains []ProbeDomain
	Guard   *delivery.Guard
	Sources []netip.Addr
	// Hosts are the fixed ones of a domain, none: those of DNS. Port is where
	// hosts are dialled that name no port.
	Hosts func(domain string) []string
	Port  func(domain string) int
}

// ProbeDomain is a domain whose mail hosts are connected to.
type ProbeDomain struct {
	Name string
	Why  string // who named it: "--probe", "local_mail_to"
}

// MaxProbes is how many domains are taken, each of which costs a few
// connections.
const MaxProbes = 5

// Bounds on what is done for a domain and family: hosts tried one after the
// other, each within these times.
const (
	probeHosts      = 2
	probeConnect    = 7 * time.Second
	probeGreeting   = 4 * time.Second
	probeGreetBytes = 4096
)

// dialFunc connects from an address (the zero one: the system's choice) to a
// host, under the rule of the guard (nil: any address may be dialled).
type dialFunc func(ctx context.Context, from netip.Addr, to netip.AddrPort, guard *delivery.Guard) (net.Conn, error)

func dialTCP(ctx context.Context, from netip.Addr, to netip.AddrPort, guard *delivery.Guard) (net.Conn, error) {
	var d net.Dialer
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	if guard != nil {
		d.Control = guard.Control
	}
	return d.DialContext(ctx, "tcp", to.String())
}

// port looks whether mail hosts can be reached.
func (d *Doctor) port(ctx context.Context) []Finding {
	domains := d.o.Way.Domains
	if len(domains) == 0 {
		return []Finding{{Port, "mail hosts", NotDone, "no domain is named, and nobody is connected to unasked", "postrider doctor --probe DOMAIN, with one whose mail hosts you know to work"}}
	}
	found := make([][]Finding, len(domains))
	var wg sync.WaitGroup
	for i, p := range domains {
		wg.Go(func() { found[i] = d.probe(ctx, p) })
	}
	wg.Wait()
	var all []Finding
	for _, f := range found {
		all = append(all, f...)
	}
	return all
}

// probe tries the mail hosts of one domain over both families.
func (d *Doctor) probe(ctx context.Context, p ProbeDomain) []Finding {
	subject := fmt.Sprintf("%s (%s)", p.Name, p.Why)
	guard := d.o.Way.Guard
	var route *resolver.Route
	var err error
	if hosts := d.o.Way.Hosts(p.Name); len(hosts) > 0 {
		route, err = d.o.DNS.Resolver.FixedRoute(ctx, hosts)
		guard = nil // the operator has written them
	} else {
		route, err = d.o.DNS.Resolver.Route(ctx, p.Name)
	}
	var e *resolver.Error
	switch {
	case errors.As(err, &e) && !e.Temporary():
		return []Finding{{Port, subject, Failed, "it has no mail hosts: " + err.Error(), "name another domain"}}
	case err != nil:
		return []Finding{{Port, subject, NotDone, "its mail hosts are not found: " + err.Error(), seeNameServers}}
	}
	var tries [2]attempt
	var wg sync.WaitGroup
	for i := range tries {
		tries[i].v4 = i == 0
		wg.Go(func() { d.tryFamily(ctx, &tries[i], route, d.o.Way.Port(p.Name), guard) })
	}
	wg.Wait()
	return judgeAttempts(subject, &tries[0], &tries[1])
}

// attempt is how far we came over one family: with the first host that could be
// connected to, else with the last.
type attempt struct {
	v4       bool
	host     string // and address; empty: there is none of the family
	greeting string // of a connection
	code     int
	took     time.Duration // until the connection stood
	err      error         // no connection
	mute     error         // a connection, and no greeting
}

func (d *Doctor) tryFamily(ctx context.Context, a *attempt, route *resolver.Route, port int, guard *delivery.Guard) {
	tried := 0
	for _, h := range route.Hosts {
		for _, addr := range h.Addrs {
			if addr.Is4() != a.v4 {
				continue
			}
			if tried++; tried > probeHosts {
				return
			}
			to := netip.AddrPortFrom(addr, uint16(port))
			if h.Port != 0 {
				to = netip.AddrPortFrom(addr, uint16(h.Port))
			}
			a.host = to.String()
			if h.Name != "" {
				a.host = h.Name + " " + a.host
			}
			if d.try(ctx, a, to, guard); a.err == nil {
				return
			}
			break // another host rather than another address of this one
		}
	}
}

// try connects, reads the greeting and takes its leave.
func (d *Doctor) try(ctx context.Context, a *attempt, to netip.AddrPort, guard *delivery.Guard) {
	from, ok := d.source(a.v4)
	if !ok {
		a.err = errNoSource
		return
	}
	dialing, cancel := context.WithTimeout(ctx, probeConnect)
	defer cancel()
	began := time.Now()
	conn, err := d.dial(dialing, from, to, guard)
	a.took, a.err = time.Since(began), err
	if err != nil {
		return
	}
	defer conn.Close()
	if a.mute = conn.SetDeadline(time.Now().Add(probeGreeting)); a.mute != nil {
		return
	}
	reply, err := smtpwire.NewReplies(smtpwire.NewReader(conn, probeGreetBytes)).Next()
	if a.mute = err; err != nil {
		return
	}
	a.code, a.greeting = reply.Code, fmt.Sprintf("%d", reply.Code)
	if len(reply.Lines) > 0 {
		a.greeting += " " + reply.Lines[0]
	}
	// RFC 5321, section 4.1.1.10: nobody leaves without a word. The answer is
	// of no interest, nor is a failure to say it.
	_, _ = conn.Write([]byte("QUIT\r\n"))
}

var errNoSource = errors.New("delivery.source_addresses has none of this family")

// source is the address of a family to leave from.
func (d *Doctor) source(v4 bool) (netip.Addr, bool) {
	for _, s := range d.o.Way.Sources {
		if s.Unmap().Is4() == v4 {
			return s, true
		}
	}
	return netip.Addr{}, len(d.o.Way.Sources) == 0
}

// hasNoWay reports that the host, and not the network, lacks the family.
func (a *attempt) hasNoWay() bool {
	return errors.Is(a.err, errNoSource) || errors.Is(a.err, syscall.ENETUNREACH) || errors.Is(a.err, syscall.EADDRNOTAVAIL) || errors.Is(a.err, syscall.EAFNOSUPPORT)
}

// judgeAttempts: one family is enough for mail to flow.
func judgeAttempts(subject string, v4, v6 *attempt) []Finding {
	var all []Finding
	for _, a := range []*attempt{v4, v6} {
		other := v6
		if a == v6 {
			other = v4
		}
		reached := other.host != "" && other.err == nil
		switch {
		case a.host == "":
			continue // the domain has no host of this family
		case a.hasNoWay() && reached:
			all = append(all, Finding{Port, subject + " over " + a.family(), NotDone, fmt.Sprintf("this host has no %s: %v", a.family(), a.err), ""})
		default:
			f := a.finding(subject)
			if f.Verdict == Failed && reached {
				f.Verdict = Warning
			}
			all = append(all, f)
		}
	}
	return all
}

func (a *attempt) family() string {
	if a.v4 {
		return "IPv4"
	}
	return "IPv6"
}

// finding says what it means that we came so far and no farther.
func (a *attempt) finding(subject string) Finding {
	f := Finding{Port, subject + " over " + a.family(), Failed, "", ""}
	var guarded *delivery.GuardError
	switch {
	case errors.As(a.err, &guarded):
		f.Found = guarded.Error()
	case a.hasNoWay():
		f.Found = fmt.Sprintf("%s: this host has no way out over %s: %v", a.host, a.family(), a.err)
		f.Advice = "look at its network (ip address, ip route)"
	case isTimeout(a.err):
		f.Found = fmt.Sprintf("%s does not answer: the port is closed on the way; many providers keep it closed and open it on request", a.host)
		f.Advice = "ask the provider of this host to open port 25 outward, and look at its own firewall (nft list ruleset)"
	case errors.Is(a.err, syscall.ECONNREFUSED):
		f.Found = fmt.Sprintf("%s refuses the connection: no mail server is there, or a firewall turns it down", a.host)
		f.Advice = "try another domain; where all refuse, it is a firewall here or at the provider"
	case a.err != nil:
		f.Found = fmt.Sprintf("%s cannot be connected to: %v", a.host, a.err)
		f.Advice = "look at the network of this host, and ask its provider"
	default:
		a.judgeGreeting(&f)
	}
	return f
}

// judgeGreeting is for a port that is open.
func (a *attempt) judgeGreeting(f *Finding) {
	f.Verdict = Warning
	switch {
	case a.mute != nil && isTimeout(a.mute):
		f.Found = fmt.Sprintf("%s takes the connection and says nothing for %v: it lets strangers wait, or something on the way takes connections in its place", a.host, probeGreeting)
		f.Advice = "try another domain"
	case a.mute != nil:
		f.Found = fmt.Sprintf("%s takes the connection and does not greet: %v", a.host, a.mute)
		f.Advice = "try another domain; where none greets, something on the way stands in for them"
	case a.code != 220:
		f.Found = fmt.Sprintf("%s can be reached and does not want us: %q", a.host, a.greeting)
		f.Advice = "what it says is about the address of this host: its name, its reputation, a list that it is on"
	default:
		f.Verdict = OK
		f.Found = fmt.Sprintf("%s greets in %d ms: %q", a.host, a.took.Milliseconds(), a.greeting)
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}
