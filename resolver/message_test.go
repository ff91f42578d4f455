package resolver

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/miekg/dns"
)

// reply packs an answer to q with the given records.
func packedReply(t testing.TB, q question, change func(*dns.Msg), answer ...string) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetReply(fuzzQuery(q))
	m.RecursionAvailable = true
	for _, text := range answer {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	if change != nil {
		change(m)
	}
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func fuzzQuery(q question) *dns.Msg {
	m := newQuery(q)
	m.Id = 0x1234
	return m
}

var fuzzTypes = []uint16{dns.TypeMX, dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeTLSA, dns.TypeCNAME, dns.TypePTR, dns.TypeSOA}

// FuzzAnswer reads any octets as the answer to a question of any type. What
// comes out must be bounded, of the type asked for, and safe to use further.
func FuzzAnswer(f *testing.F) {
	q := question{"d.test", dns.TypeMX}
	f.Add(uint8(0), packedReply(f, q, nil, "d.test. IN MX 10 a.test.", "d.test. IN MX 0 ."))
	f.Add(uint8(1), packedReply(f, question{"d.test", dns.TypeA}, nil, "d.test. IN CNAME e.test.", "e.test. IN A 192.0.2.1"))
	f.Add(uint8(1), packedReply(f, question{"d.test", dns.TypeA}, nil, "d.test. IN CNAME d.test."))
	f.Add(uint8(2), packedReply(f, question{"d.test", dns.TypeAAAA}, nil, "d.test. IN AAAA 2001:db8::1"))
	f.Add(uint8(3), packedReply(f, question{"d.test", dns.TypeTXT}, nil, `d.test. IN TXT "a\000\"b"`))
	f.Add(uint8(4), packedReply(f, question{"d.test", dns.TypeTLSA}, nil, "d.test. IN TLSA 3 1 1 00ff"))
	f.Add(uint8(6), packedReply(f, question{"d.test", dns.TypePTR}, func(m *dns.Msg) { m.Truncated = true }, `d.test. IN PTR a\.b\032.test.`))
	f.Add(uint8(7), packedReply(f, question{"d.test", dns.TypeSOA}, func(m *dns.Msg) {
		m.Rcode = dns.RcodeNameError
		m.SetEdns0(1232, true)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: 6, ExtraText: "x\r\n"})
	}))
	f.Fuzz(func(t *testing.T, kind uint8, wire []byte) {
		if len(wire) > maxTCP {
			return
		}
		q := question{"d.test", fuzzTypes[int(kind)%len(fuzzTypes)]}
		m, err := parse(fuzzQuery(q), wire)
		if err != nil {
			return
		}
		checkFinding(t, q, interpret(q, []string{"c.test"}, m))
	})
}

func checkFinding(t *testing.T, q question, f finding) {
	t.Helper()
	if len(f.chain) > maxChain+2 || f.chain[0] != "c.test" || f.chain[1] != q.name {
		t.Fatalf("chain %q", f.chain)
	}
	if (f.kind == KindNone) != (f.records != nil || f.next != "") {
		t.Fatalf("%+v is neither records nor a reason", f)
	}
	if f.records == nil {
		return
	}
	n := reflect.ValueOf(f.records).Len()
	if n == 0 || n > maxRecords || f.ttl < 0 {
		t.Fatalf("%d records, TTL %v", n, f.ttl)
	}
	switch q.qtype {
	case dns.TypeMX:
		_ = f.records.([]MX)
	case dns.TypeA, dns.TypeAAAA:
		for _, a := range f.records.([]netip.Addr) {
			if !a.IsValid() {
				t.Fatal("an invalid address")
			}
		}
	case dns.TypeTLSA:
		_ = f.records.([]TLSA)
	case dns.TypeSOA:
		_ = f.records.([]SOA)
	default:
		_ = f.records.([]string)
	}
}

func TestAddressRecordWithoutAddress(t *testing.T) {
	t.Parallel()
	q := question{"d.test", dns.TypeA}
	m := new(dns.Msg)
	m.SetReply(fuzzQuery(q))
	m.RecursionAvailable = true
	m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "d.test.", Rrtype: dns.TypeA, Class: dns.ClassINET}}}
	if f := interpret(q, nil, m); f.kind != Malformed {
		t.Errorf("%+v", f)
	}
}

func TestOtherClassIsNoAnswer(t *testing.T) {
	t.Parallel()
	q := question{"d.test", dns.TypeTXT}
	m := new(dns.Msg)
	m.SetReply(fuzzQuery(q))
	m.RecursionAvailable = true
	m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: "d.test.", Rrtype: dns.TypeTXT, Class: dns.ClassCHAOS}, Txt: []string{"a"}}}
	if f := interpret(q, nil, m); f.kind != Malformed {
		t.Errorf("%+v", f)
	}
}
