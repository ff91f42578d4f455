package resolvertest

import (
	"net"
	"strings"

	"github.com/miekg/dns"
)

const (
	ednsSize = 4096
	maxChain = 12 // aliases followed in one answer
)

// answer serves one query.
func (z *Zone) answer(w dns.ResponseWriter, q *dns.Msg) {
	if len(q.Question) != 1 {
		m := new(dns.Msg)
		w.WriteMsg(m.SetRcode(q, dns.RcodeFormatError))
		return
	}
	name, qtype := strings.ToLower(q.Question[0].Name), q.Question[0].Qtype
	z.mu.Lock()
	z.queries[key{name, qtype}]++
	z.total++
	fault := z.fault(name, qtype)
	plain := z.plain
	z.mu.Unlock()
	fault.wait()
	if plain && q.IsEdns0() != nil {
		m := new(dns.Msg)
		w.WriteMsg(m.SetRcode(q, dns.RcodeFormatError))
		return
	}
	z.mu.RLock()
	m := z.reply(q, name, qtype, &fault.Fault)
	z.mu.RUnlock()
	z.send(w, q, m, &fault.Fault)
}

// reply makes the answer with what a fault changes in its meaning; z.mu is held.
func (z *Zone) reply(q *dns.Msg, name string, qtype uint16, fault *Fault) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	if q.IsEdns0() != nil {
		m.SetEdns0(ednsSize, false)
		if fault.Extended != nil {
			opt := m.IsEdns0()
			opt.Option = append(opt.Option, fault.Extended)
		}
	}
	switch {
	case fault.Rcode != 0:
		m.Rcode = fault.Rcode
		return m
	case fault.Lame:
		m.RecursionAvailable = false
		m.Ns = []dns.RR{&dns.NS{Hdr: header(name, dns.TypeNS, 300), Ns: "ns.elsewhere.test."}}
		return m
	case fault.Silent:
		m.RecursionAvailable = false
		return m
	}
	secure := z.resolve(m, name, qtype, fault)
	m.AuthenticatedData = secure && !fault.Clear && (q.AuthenticatedData || dnssecOK(q))
	return m
}

// resolve follows aliases to the records, or to their denial, and reports
// whether all of it is validated.
func (z *Zone) resolve(m *dns.Msg, name string, qtype uint16, fault *Fault) (secure bool) {
	secure = true
	for range maxChain {
		secure = secure && z.isSecure(name)
		own, exists := z.lookup(name)
		found := false
		var alias *dns.CNAME
		for _, rr := range own {
			if rr.Header().Rrtype == qtype {
				m.Answer = append(m.Answer, owned(rr, name))
				found = true
			}
			if c, ok := rr.(*dns.CNAME); ok {
				alias = c
			}
		}
		if found {
			break
		}
		if alias == nil {
			if !exists {
				m.Rcode = dns.RcodeNameError
			}
			if !fault.NoSOA {
				m.Ns = append(m.Ns, z.denial(name))
			}
			break
		}
		m.Answer = append(m.Answer, owned(alias, name))
		if fault.Partial {
			break
		}
		name = strings.ToLower(alias.Target)
	}
	if fault.Unrelated {
		for i, rr := range m.Answer {
			m.Answer[i] = owned(rr, "unrelated.invalid.")
		}
	}
	return secure
}

// lookup gives the records of a name, those of a wildcard if need be, and
// whether the name exists.
func (z *Zone) lookup(name string) (own []dns.RR, exists bool) {
	if own = z.records[name]; len(own) > 0 || z.below[name] > 0 {
		return own, true
	}
	for p := parent(name); p != ""; p = parent(p) {
		star := "*." + strings.TrimPrefix(p, ".")
		if own = z.records[star]; len(own) > 0 {
			return own, true
		}
		if len(z.records[p]) > 0 || z.below[p] > 0 {
			return nil, false // the closest encloser has no wildcard
		}
	}
	return nil, false
}

func (z *Zone) isSecure(name string) bool {
	for p := name; p != ""; p = parent(p) {
		if secure, told := z.secure[p]; told {
			return secure
		}
	}
	return false
}

// denial is the SOA record that tells how long an absence may be believed.
func (z *Zone) denial(name string) dns.RR {
	for p := name; p != ""; p = parent(p) {
		for _, rr := range z.records[p] {
			if rr.Header().Rrtype == dns.TypeSOA {
				return rr
			}
		}
	}
	return &dns.SOA{
		Hdr: header(".", dns.TypeSOA, z.denied),
		Ns:  "ns.invalid.", Mbox: "hostmaster.invalid.",
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: z.denied,
	}
}

// send writes a reply with what a fault changes in its octets.
func (z *Zone) send(w dns.ResponseWriter, q, m *dns.Msg, fault *Fault) {
	_, udp := w.RemoteAddr().(*net.UDPAddr)
	switch {
	case fault.Drop:
		return
	case fault.Hangup && !udp:
		w.Close()
		return
	case fault.TruncateTCP, fault.Truncate && udp:
		m.Answer, m.Ns, m.Truncated = nil, nil, true
	case udp:
		m.Truncate(udpLimit(q))
	}
	if fault.WrongID {
		m.Id ^= 0x5555
	}
	if fault.WrongQuestion {
		m.Question = []dns.Question{{Name: "unrelated.invalid.", Qtype: q.Question[0].Qtype, Qclass: dns.ClassINET}}
	}
	if fault.NoQuestion {
		m.Question = nil
	}
	wire, err := m.Pack()
	if err != nil {
		m = new(dns.Msg)
		wire, _ = m.SetRcode(q, dns.RcodeServerFailure).Pack()
	}
	if fault.Garbage {
		const header = 12
		for i := header; i < len(wire); i++ {
			wire[i] = 0xff
		}
	}
	w.Write(wire)
}

func udpLimit(q *dns.Msg) int {
	if opt := q.IsEdns0(); opt != nil {
		return max(int(opt.UDPSize()), dns.MinMsgSize)
	}
	return dns.MinMsgSize
}

func dnssecOK(q *dns.Msg) bool {
	opt := q.IsEdns0()
	return opt != nil && opt.Do()
}

// owned is a record as the answer for a name shows it: with that very name.
func owned(rr dns.RR, name string) dns.RR {
	c := dns.Copy(rr)
	c.Header().Name = name
	return c
}

func header(name string, rrtype uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}
