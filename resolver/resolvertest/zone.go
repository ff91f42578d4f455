// Package resolvertest is a DNS server for tests and rehearsals, named after
// net/http/httptest: it speaks the real protocol over UDP and TCP on loopback,
// answers from records given to it as a recursive resolver would (aliases
// followed, an AD bit where told to validate, SOA records in denials), and
// misbehaves on demand.
//
//	zone := resolvertest.Start(t)
//	zone.Add(
//		"example.test. 300 IN MX 10 mx.example.test.",
//		"mx.example.test. 300 IN A 127.0.0.1",
//	)
//	zone.Secure("example.test")
//	zone.Fail("broken.test", resolvertest.Fault{Rcode: dns.RcodeServerFailure})
//	r, err := resolver.New(resolver.Options{Servers: []string{zone.Addr()}})
//
// A name exists when it has records or when a name below it has. Wildcards
// (*.example.test., or *. for everything) work as in RFC 4592. It is imported
// by tests and by the rehearsal of the main job, never by what runs in
// production.
package resolvertest

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Zone is a set of records and the server that answers from it. All methods
// may be called at any time, by any goroutine.
type Zone struct {
	mu      sync.RWMutex
	records map[string][]dns.RR // by lower-case name with final dot
	below   map[string]int      // how many names with records lie below a name
	secure  map[string]bool     // names from where on down answers are validated, or not
	faults  map[string][]*plan
	queries map[key]int
	total   int
	denied  uint32 // TTL of denials without a SOA of their own
	plain   bool

	addr    string
	servers []*dns.Server
	serving sync.WaitGroup
}

type key struct {
	name  string
	qtype uint16
}

// New gives an empty zone that does not listen yet.
func New() *Zone {
	return &Zone{
		records: make(map[string][]dns.RR),
		below:   make(map[string]int),
		secure:  make(map[string]bool),
		faults:  make(map[string][]*plan),
		queries: make(map[key]int),
		denied:  60,
	}
}

// TB is what Start needs of a *testing.T.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Start gives a zone that listens on a free port of loopback until the test ends.
func Start(t TB) *Zone {
	t.Helper()
	z := New()
	if err := z.Listen("127.0.0.1:0"); err != nil {
		t.Fatalf("resolvertest: %v", err)
	}
	t.Cleanup(z.Close)
	return z
}

// Listen starts to answer on the same port of UDP and TCP. With port 0 a port
// is chosen that is free in both.
func (z *Zone) Listen(addr string) error {
	const tries = 20
	var failed error
	for range tries {
		var tcp net.Listener
		if tcp, failed = net.Listen("tcp", addr); failed != nil {
			return failed
		}
		var udp net.PacketConn
		if udp, failed = net.ListenPacket("udp", tcp.Addr().String()); failed == nil {
			z.serve(tcp, udp)
			return nil
		}
		tcp.Close()
		if !strings.HasSuffix(addr, ":0") {
			return failed
		}
	}
	return fmt.Errorf("no port that is free in both UDP and TCP: %w", failed)
}

func (z *Zone) serve(tcp net.Listener, udp net.PacketConn) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.addr = tcp.Addr().String()
	handler := dns.HandlerFunc(z.answer)
	for _, s := range []*dns.Server{{Listener: tcp, Handler: handler}, {PacketConn: udp, Handler: handler}} {
		ready := make(chan struct{})
		s.NotifyStartedFunc = func() { close(ready) }
		z.servers = append(z.servers, s)
		z.serving.Go(func() { s.ActivateAndServe() })
		<-ready
	}
}

// Addr is where the server listens, as host:port.
func (z *Zone) Addr() string {
	z.mu.RLock()
	defer z.mu.RUnlock()
	return z.addr
}

// Close stops the server and waits for its goroutines. Queries that a fault
// holds back are let go.
func (z *Zone) Close() {
	z.mu.Lock()
	servers := z.servers
	z.servers = nil
	for _, faults := range z.faults {
		for _, f := range faults {
			f.release()
		}
	}
	z.mu.Unlock()
	for _, s := range servers {
		s.Shutdown()
	}
	z.serving.Wait()
}

// Add puts records in, each in the form of a zone file with an absolute name:
// "example.test. 300 IN MX 10 mx.example.test.". It panics on one that cannot
// be read: the mistake is in the test.
func (z *Zone) Add(records ...string) {
	for _, text := range records {
		if err := z.AddRecord(text); err != nil {
			panic("resolvertest: " + err.Error())
		}
	}
}

// AddRecord puts one record in, and gives an error for one that cannot be read.
func (z *Zone) AddRecord(text string) error {
	rr, err := dns.NewRR(text)
	if err == nil && rr == nil {
		err = errors.New("no record")
	}
	if err != nil {
		return fmt.Errorf("record %q: %w", text, err)
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	name := strings.ToLower(rr.Header().Name)
	if len(z.records[name]) == 0 {
		z.countAbove(name, 1)
	}
	z.records[name] = append(z.records[name], rr)
	return nil
}

// Remove takes all records of a name away, or those of the given types.
func (z *Zone) Remove(name string, types ...uint16) {
	z.mu.Lock()
	defer z.mu.Unlock()
	name = canonical(name)
	had := len(z.records[name]) > 0
	var kept []dns.RR
	for _, rr := range z.records[name] {
		if len(types) > 0 && !contains(types, rr.Header().Rrtype) {
			kept = append(kept, rr)
		}
	}
	if len(kept) > 0 {
		z.records[name] = kept
		return
	}
	delete(z.records, name)
	if had {
		z.countAbove(name, -1)
	}
}

func (z *Zone) countAbove(name string, by int) {
	for p := parent(name); p != ""; p = parent(p) {
		if z.below[p] += by; z.below[p] == 0 {
			delete(z.below, p)
		}
	}
}

// Secure makes answers about a name and all names below it validated: they
// carry the AD bit. "." is everything.
func (z *Zone) Secure(name string) { z.setSecure(name, true) }

// Insecure takes a name and those below it out of what Secure covers.
func (z *Zone) Insecure(name string) { z.setSecure(name, false) }

func (z *Zone) setSecure(name string, secure bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.secure[canonical(name)] = secure
}

// NegativeTTL sets how long denials may be believed, in seconds, where no SOA
// record above the name says it. At first it is 60.
func (z *Zone) NegativeTTL(seconds uint32) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.denied = seconds
}

// WithoutEDNS makes the server one that predates EDNS: it answers queries with
// it by FORMERR.
func (z *Zone) WithoutEDNS() {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.plain = true
}

// Queries counts the queries for a name and type so far, over UDP and TCP, and
// those that were not answered included.
func (z *Zone) Queries(name string, qtype uint16) int {
	z.mu.RLock()
	defer z.mu.RUnlock()
	return z.queries[key{canonical(name), qtype}]
}

// Total counts all queries so far.
func (z *Zone) Total() int {
	z.mu.RLock()
	defer z.mu.RUnlock()
	return z.total
}

// Wait returns when there have been at least n queries for a name and type,
// or panics after ten seconds.
func (z *Zone) Wait(name string, qtype uint16, n int) {
	const patience, step = 10 * time.Second, time.Millisecond
	for range patience / step {
		if z.Queries(name, qtype) >= n {
			return
		}
		time.Sleep(step)
	}
	panic(fmt.Sprintf("resolvertest: no %d queries for %s %s came within %s", n, name, dns.TypeToString[qtype], patience))
}

func canonical(name string) string {
	return strings.ToLower(dns.Fqdn(name))
}

// parent is the name above, and "" above the root.
func parent(name string) string {
	if name == "." {
		return ""
	}
	if next, end := dns.NextLabel(name, 0); !end {
		return name[next:]
	}
	return "."
}

func contains(types []uint16, t uint16) bool {
	for _, have := range types {
		if have == t {
			return true
		}
	}
	return false
}
