package rehearsal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// hostZone is where the names of addresses are: 192-0-2-1.host.test is
// 192.0.2.1, and the other way round.
const hostZone = "host.test."

// NameserverOptions configure a nameserver. Addresses is required.
type NameserverOptions struct {
	// Addresses are those of the mail hosts.
	Addresses []netip.Addr
	// MX are the mail hosts of every domain, the first with the preference 10,
	// the next 20 and so on; the first has the first address, the second the
	// second, around. Empty: each domain has its own host, mx.<domain>, with
	// all the addresses.
	MX  []string
	TTL time.Duration // default 5 minutes
	// Records are one's own, in the syntax of zone files:
	// "example.test. 60 IN TXT \"v=spf1 -all\"". A name that has some is not
	// made up, whatever is asked.
	Records []string
	// Missing are domains that do not exist, Failing those that the server
	// fails for; each with what is below it.
	Missing, Failing []string
	// Silent are domains, with what is below them, for which no answer ever comes.
	Silent []string
	// Spread gives each mail host one of the Addresses instead of all of them:
	// mx.d17.load.test the one at 17, counted around; it does not go with MX.
	Spread bool
	// Elsewhere are domains whose mail hosts, with all else below them, have
	// other addresses.
	Elsewhere map[string][]netip.Addr
	// Authentic sets the AD bit in every answer, as a validating resolver does
	// for signed zones.
	Authentic bool
	Logger    *slog.Logger // nil: none
}

// Nameserver answers for every domain: it has mail hosts, and they have the
// given addresses. Names with a label that begins with "_" (_dmarc, _mta-sts,
// TLSA) do not exist unless there is a record of one's own.
type Nameserver struct {
	opts    NameserverOptions
	ttl     uint32
	records map[string][]dns.RR // own ones, by lower-case owner
	hosts   map[string][]netip.Addr
	queries atomic.Int64
}

// NewNameserver checks the options; it starts nothing.
func NewNameserver(o NameserverOptions) (*Nameserver, error) {
	if len(o.Addresses) == 0 {
		return nil, errors.New("nameserver: no addresses for the mail hosts")
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	o.TTL = cmp.Or(o.TTL, 5*time.Minute)
	n := &Nameserver{opts: o, ttl: uint32(o.TTL / time.Second), records: map[string][]dns.RR{}, hosts: map[string][]netip.Addr{}}
	for _, text := range o.Records {
		rr, err := dns.NewRR(text)
		if err != nil || rr == nil {
			return nil, fmt.Errorf("nameserver: record %q: %w", text, cmp.Or(err, errors.New("empty")))
		}
		owner := strings.ToLower(rr.Header().Name)
		n.records[owner] = append(n.records[owner], rr)
	}
	n.opts.MX = slices.Clone(o.MX)
	for i, host := range o.MX {
		host = canonical(host)
		n.opts.MX[i] = host
		n.hosts[host] = append(n.hosts[host], o.Addresses[i%len(o.Addresses)])
	}
	return n, nil
}

func canonical(name string) string { return strings.ToLower(dns.Fqdn(name)) }

// ListenDNS listens on one port of addr for both UDP and TCP. Port 0 means one
// that is free for both.
func ListenDNS(addr string) (net.PacketConn, net.Listener, error) {
	const tries = 20
	for try := 1; ; try++ {
		udp, err := net.ListenPacket("udp", addr)
		if err != nil {
			return nil, nil, err
		}
		tcp, err := net.Listen("tcp", udp.LocalAddr().String())
		if err == nil {
			return udp, tcp, nil
		}
		udp.Close()
		if !strings.HasSuffix(addr, ":0") || try == tries {
			return nil, nil, err
		}
	}
}

// Queries is how many were answered.
func (n *Nameserver) Queries() int64 { return n.queries.Load() }

// Run answers over UDP and TCP until ctx ends, and closes both.
func (n *Nameserver) Run(ctx context.Context, udp net.PacketConn, tcp net.Listener) error {
	servers := []*dns.Server{
		{PacketConn: udp, Handler: n, UDPSize: dns.DefaultMsgSize},
		{Listener: tcp, Handler: n},
	}
	ended := make(chan error, len(servers))
	started := make(chan struct{}, len(servers))
	for _, s := range servers {
		s.NotifyStartedFunc = func() { started <- struct{}{} }
		go func() { ended <- s.ActivateAndServe() }()
	}
	var err error
	running := len(servers)
	for range servers {
		select {
		case <-started:
		case err = <-ended:
			running--
		}
	}
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-ended:
			running--
		}
	}
	for _, s := range servers {
		_ = s.Shutdown() // an error means that it did not run
	}
	for range running {
		<-ended
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("nameserver: %w", err)
	}
	return nil
}

// ServeDNS implements [dns.Handler].
func (n *Nameserver) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	n.queries.Add(1)
	if len(q.Question) == 1 && isBelow(strings.ToLower(q.Question[0].Name), n.opts.Silent) {
		return
	}
	m := n.answer(q)
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		size := dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
		m.Truncate(size)
	}
	if err := w.WriteMsg(m); err != nil {
		n.opts.Logger.Debug("answer not sent", "to", w.RemoteAddr(), "err", err)
	}
}

// answer is what is said to a query.
func (n *Nameserver) answer(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	m.AuthenticatedData = n.opts.Authentic
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(dns.DefaultMsgSize, opt.Do())
	}
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery || q.Question[0].Qclass != dns.ClassINET {
		m.Rcode = dns.RcodeRefused
		return m
	}
	question := q.Question[0]
	name := strings.ToLower(question.Name)
	switch {
	case isBelow(name, n.opts.Failing):
		m.Rcode = dns.RcodeServerFailure
		m.AuthenticatedData = false
		return m
	case isBelow(name, n.opts.Missing):
		m.Rcode = dns.RcodeNameError
	default:
		n.answerName(m, name, question.Qtype)
	}
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{n.soa(name)}
	}
	return m
}

func isBelow(name string, domains []string) bool {
	for _, d := range domains {
		if dns.IsSubDomain(canonical(d), name) {
			return true
		}
	}
	return false
}

// maxChain bounds the aliases that are followed.
const maxChain = 8

// answerName fills in the answer for a name, along its aliases.
func (n *Nameserver) answerName(m *dns.Msg, name string, qtype uint16) {
	for range maxChain {
		own, ok := n.records[name]
		if !ok {
			answers, exists := n.madeUp(name, qtype)
			m.Answer = append(m.Answer, answers...)
			if !exists {
				m.Rcode = dns.RcodeNameError
			}
			return
		}
		alias := ""
		for _, rr := range own {
			if c, ok := rr.(*dns.CNAME); ok {
				alias = strings.ToLower(c.Target)
			}
			if t := rr.Header().Rrtype; t == qtype || t == dns.TypeCNAME || qtype == dns.TypeANY {
				m.Answer = append(m.Answer, rr)
			}
		}
		if alias == "" || qtype == dns.TypeCNAME || qtype == dns.TypeANY {
			return
		}
		name = alias
	}
}

// madeUp is what is said about a name without records of its own.
func (n *Nameserver) madeUp(name string, qtype uint16) (answers []dns.RR, exists bool) {
	switch {
	case name == ".":
		if qtype == dns.TypeSOA {
			return []dns.RR{n.soa(".")}, true
		}
		return nil, true
	case strings.HasPrefix(name, "_") || strings.Contains(name, "._"):
		return nil, false
	case dns.IsSubDomain("in-addr.arpa.", name) || dns.IsSubDomain("ip6.arpa.", name):
		ip, ok := reversed(name)
		if !ok {
			return nil, false
		}
		if qtype != dns.TypePTR {
			return nil, true
		}
		return []dns.RR{&dns.PTR{Hdr: n.header(name, dns.TypePTR), Ptr: hostName(ip)}}, true
	case dns.IsSubDomain(hostZone, name):
		ip, ok := hostAddr(name)
		return n.addressRecords(name, qtype, []netip.Addr{ip}), ok
	}
	if addrs, ok := n.hosts[name]; ok {
		return n.addressRecords(name, qtype, addrs), true
	}
	if qtype == dns.TypeMX && !strings.HasPrefix(name, "mx.") {
		return n.mx(name), true
	}
	return n.addressRecords(name, qtype, n.addressesOf(name)), true
}

// addressesOf are the addresses of a mail host.
func (n *Nameserver) addressesOf(name string) []netip.Addr {
	for domain, addrs := range n.opts.Elsewhere {
		if isBelow(name, []string{domain}) {
			return addrs
		}
	}
	if !n.opts.Spread {
		return n.opts.Addresses
	}
	i := 0
	for _, c := range []byte(name) {
		if c >= '0' && c <= '9' {
			i = (i*10 + int(c-'0')) % len(n.opts.Addresses)
		}
	}
	return n.opts.Addresses[i : i+1]
}

func (n *Nameserver) header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: n.ttl}
}

func (n *Nameserver) mx(domain string) []dns.RR {
	if len(n.opts.MX) == 0 {
		return []dns.RR{&dns.MX{Hdr: n.header(domain, dns.TypeMX), Preference: 10, Mx: "mx." + domain}}
	}
	all := make([]dns.RR, len(n.opts.MX))
	for i, host := range n.opts.MX {
		all[i] = &dns.MX{Hdr: n.header(domain, dns.TypeMX), Preference: uint16(10 * (i + 1)), Mx: host}
	}
	return all
}

func (n *Nameserver) addressRecords(name string, qtype uint16, addrs []netip.Addr) []dns.RR {
	var all []dns.RR
	for _, ip := range addrs {
		switch {
		case qtype == dns.TypeA && ip.Is4():
			all = append(all, &dns.A{Hdr: n.header(name, dns.TypeA), A: ip.AsSlice()})
		case qtype == dns.TypeAAAA && ip.Is6():
			all = append(all, &dns.AAAA{Hdr: n.header(name, dns.TypeAAAA), AAAA: ip.AsSlice()})
		}
	}
	return all
}

// soa tells how long a "no" holds (RFC 2308, section 5).
func (n *Nameserver) soa(name string) dns.RR {
	zone := name
	if labels := dns.SplitDomainName(name); len(labels) > 2 {
		zone = dns.Fqdn(strings.Join(labels[len(labels)-2:], "."))
	}
	return &dns.SOA{
		Hdr: n.header(zone, dns.TypeSOA), Ns: "ns." + hostZone, Mbox: "hostmaster." + hostZone,
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: n.ttl,
	}
}

// hostName is the name of an address.
func hostName(ip netip.Addr) string {
	if ip.Is4() {
		return strings.ReplaceAll(ip.String(), ".", "-") + "." + hostZone
	}
	return "v6-" + strings.ReplaceAll(ip.StringExpanded(), ":", "-") + "." + hostZone
}

// hostAddr is the address of a name that hostName made.
func hostAddr(name string) (netip.Addr, bool) {
	label := strings.TrimSuffix(name, "."+hostZone)
	if v6, ok := strings.CutPrefix(label, "v6-"); ok {
		ip, err := netip.ParseAddr(strings.ReplaceAll(v6, "-", ":"))
		return ip, err == nil
	}
	ip, err := netip.ParseAddr(strings.ReplaceAll(label, "-", "."))
	return ip, err == nil
}

// reversed is the address that a name under in-addr.arpa or ip6.arpa means.
func reversed(name string) (netip.Addr, bool) {
	labels := dns.SplitDomainName(name)
	var b strings.Builder
	switch {
	case len(labels) == 6 && labels[4] == "in-addr":
		b.WriteString(labels[3] + "." + labels[2] + "." + labels[1] + "." + labels[0])
	case len(labels) == 34 && labels[32] == "ip6":
		for i := 31; i >= 0; i-- {
			if b.WriteString(labels[i]); i > 0 && i%4 == 0 {
				b.WriteByte(':')
			}
		}
	default:
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(b.String())
	return ip, err == nil
}
