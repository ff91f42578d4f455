package mta

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postrider/mta/delivery"
	"postrider/mta/mtasts"
	"postrider/mta/smtpclient"
	"postrider/mta/smtptest"
	"postrider/mta/tlspolicy"
	"postrider/queue"
	"postrider/resolver"
	"postrider/resolver/resolvertest"
)

// internet is a small one, with DNSSEC, mail hosts and a server of MTA-STS
// policies, before the rooms that find out about it.
type internet struct {
	t        *testing.T
	zone     *resolvertest.Zone
	ca       *smtptest.CA
	resolver *resolver.Resolver
	guard    *delivery.Guard
	sts      *mtasts.Policies
	policies *publishedPolicies
	port     int // of all mail hosts
	webPort  string
	web      netip.Addr
	observer delivery.Observer
	webCA    *smtptest.CA // of the policies' server

	mu       sync.Mutex
	policyOf map[string]string // by domain
}

// nextAddr numbers the addresses of 127.78.0.0/16.
var nextAddr atomic.Uint32

func freshAddr() netip.Addr {
	n := nextAddr.Add(1)
	return netip.AddrFrom4([4]byte{127, 78, byte(n >> 8), byte(n)})
}

func newInternet(t *testing.T) *internet {
	t.Helper()
	n := &internet{t: t, zone: resolvertest.Start(t), policyOf: make(map[string]string)}
	n.zone.Secure(".")
	var err error
	if n.ca, err = smtptest.NewCA(); err != nil {
		t.Fatal(err)
	}
	n.webCA = n.ca
	n.guard = &delivery.Guard{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	n.serveWeb()
	n.openSTS(t.TempDir(), nil)
	return n
}

// openSTS begins with what dir remembers, as a start of the server does.
func (n *internet) openSTS(dir string, failed func(*mtasts.Error)) {
	n.t.Helper()
	store, err := newFileStore(dir)
	if err != nil {
		n.t.Fatal(err)
	}
	n.resolver, err = resolver.New(resolver.Options{Servers: []string{n.zone.Addr()}, TrustAD: true, Timeout: 5 * time.Second})
	if err != nil {
		n.t.Fatal(err)
	}
	dialer := guardedDialer{n.resolver, n.guard}
	n.sts = mtasts.New(mtasts.Options{DNS: policyTXT{n.resolver}, Store: store, Failed: failed, Fetcher: &mtasts.Fetcher{
		RootCAs: n.ca.Pool(),
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			host, port, _ := net.SplitHostPort(address)
			if port != "443" {
				return nil, fmt.Errorf("a policy was looked for at port %s", port)
			}
			return dialer.dial(ctx, network, net.JoinHostPort(host, n.webPort))
		},
	}})
	n.policies = &publishedPolicies{resolver: n.resolver, sts: n.sts}
}

// serveWeb serves the MTA-STS policies, with a certificate for each name.
func (n *internet) serveWeb() {
	n.web = freshAddr()
	l, err := net.Listen("tcp", n.web.String()+":0")
	if err != nil {
		n.t.Fatal(err)
	}
	_, n.webPort, _ = net.SplitHostPort(l.Addr().String())
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := strings.Cut(r.Host, ":")
		n.mu.Lock()
		policy, ok := n.policyOf[strings.TrimPrefix(host, "mta-sts.")]
		n.mu.Unlock()
		if !ok || r.URL.Path != "/.well-known/mta-sts.txt" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		w.Write([]byte(policy))
	}))
	server.Listener.Close()
	server.Listener = l
	server.TLS = &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := n.webCA.Issue(hello.ServerName)
		return &cert, err
	}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that leave are part of the tests
	server.StartTLS()
	n.t.Cleanup(server.Close)
}

// publishSTS gives a domain an MTA-STS policy.
func (n *internet) publishSTS(domain, mode string, mx ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	policy := "version: STSv1\nmode: " + mode + "\nmax_age: 86400\n"
	for _, h := range mx {
		policy += "mx: " + h + "\n"
	}
	n.policyOf[domain] = policy
	n.zone.Add("_mta-sts."+domain+`. 300 IN TXT "v=STSv1; id=1;"`, "mta-sts."+domain+". 300 IN A "+n.web.String())
}

// host starts a scripted server for the given names, at an address of its own.
func (n *internet) host(script smtptest.Script, names ...string) *smtptest.Server {
	n.t.Helper()
	for range 100 {
		addr := freshAddr()
		server, err := smtptest.Start(netip.AddrPortFrom(addr, uint16(n.port)).String(), script)
		if err != nil {
			continue
		}
		n.t.Cleanup(func() { server.Close() })
		if n.port == 0 {
			n.port = server.Addr().(*net.TCPAddr).Port
		}
		for _, name := range names {
			n.zone.Add(name + ". 300 IN A " + addr.String())
		}
		return server
	}
	n.t.Fatal("no free address")
	return nil
}

func (n *internet) tlsaName(host string) string { return fmt.Sprintf("_%d._tcp.%s", n.port, host) }

// keyDigest is the data of a TLSA record 3 1 1.
func keyDigest(t *testing.T, c *tls.Config) string {
	t.Helper()
	leaf, err := x509.ParseCertificate(c.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// send carries one message to a domain over connections of its own.
func (n *internet) send(domain string, level tlspolicy.Level) queue.Outcome {
	n.t.Helper()
	agent := n.agent()
	defer agent.Close()
	plan, err := n.plan(domain, level)
	if err != nil {
		return delivery.PlanOutcome(err)
	}
	m := &oneMessage{t: n.t}
	agent.Deliver(n.t.Context(), plan, m.attempt(domain), m)
	return m.outcome
}

func (n *internet) agent() *delivery.Agent {
	patience := time.Minute // no cell waits for it
	return delivery.NewAgent(delivery.Options{
		Timeouts: smtpclient.Timeouts{Greeting: patience, Command: patience, TLS: patience, Data: patience, Block: patience, Final: patience},
		HELO:     func(netip.Addr) string { return "out.test" },
		Guard:    n.guard, Roots: n.ca.Pool(), VerifyDANE: verifyDANE, Observer: n.observer,
	})
}

func (n *internet) plan(domain string, level tlspolicy.Level) (*delivery.Plan, error) {
	planner := &delivery.Planner{Resolver: n.resolver, Policies: n.policies, Destination: func(string) delivery.Destination {
		return delivery.Destination{TLS: level, Port: n.port}
	}}
	return planner.Plan(n.t.Context(), domain)
}

const oneContent = "Subject: hello\r\n\r\nHello.\r\n"

// oneMessage is all the work there is.
type oneMessage struct {
	t       *testing.T
	outcome queue.Outcome
}

// attempt is the message to one recipient of a domain.
func (m *oneMessage) attempt(domain string) *delivery.Attempt {
	to := []queue.Recipient{{Address: "r@" + domain, Domain: domain}}
	env := &queue.Envelope{Sender: "s@from.test", Recipients: to, Size: int64(len(oneContent))}
	return &delivery.Attempt{Envelope: env, Recipients: to, Content: m}
}

func (m *oneMessage) Content() (*queue.Content, error) {
	return &queue.Content{Data: []byte(oneContent), Size: int64(len(oneContent))}, nil
}
func (m *oneMessage) Next() (*delivery.Attempt, bool) { return nil, false }
func (m *oneMessage) Connecting(bool)                 {}
func (m *oneMessage) Done(_ *delivery.Attempt, r *delivery.Report) {
	m.outcome = r.Outcomes[0]
}

// serverKinds are what a mail host may do with TLS, in the order of the table.
var serverKinds = []string{"no STARTTLS", "good", "wrong name", "self-signed", "TLS 1.0", "broken", "454"}

// serverOf makes the script of a kind; the certificate is for names where it is
// to be.
func (n *internet) serverOf(kind string, names ...string) smtptest.Script {
	n.t.Helper()
	must := func(c *tls.Config, err error) *tls.Config {
		if err != nil {
			n.t.Fatal(err)
		}
		return c
	}
	s := smtptest.Script{Extensions: []string{"STARTTLS", "PIPELINING"}}
	switch kind {
	case "no STARTTLS":
		s.Extensions = nil
		s.TLS = must(n.ca.TLS(names...))
	case "good":
		s.TLS = must(n.ca.TLS(names...))
	case "wrong name":
		s.TLS = must(n.ca.TLS("elsewhere.test"))
	case "self-signed":
		stranger, err := smtptest.NewCA()
		if err != nil {
			n.t.Fatal(err)
		}
		s.TLS = must(stranger.TLS(names...))
	case "TLS 1.0":
		s.TLS = must(n.ca.OldTLS(names...))
	case "broken":
		s.TLS = must(n.ca.TLS(names...))
		s.On = map[string][]smtptest.Step{smtptest.OnTLS: smtptest.Do(smtptest.Step{Raw: "this is no TLS record at all\r\n", Then: smtptest.Close})}
	case "454":
		s.TLS = must(n.ca.TLS(names...))
		s.On = map[string][]smtptest.Step{"STARTTLS": smtptest.Say("454 4.7.0 TLS not available due to temporary reason")}
	}
	return s
}

// The ways in which a host's TLSA records, and a domain's MTA-STS policy, may
// stand.
var (
	daneKinds = []string{"no TLSA", "match", "mismatch", "unusable", "failed"}
	stsKinds  = []string{"no policy", "testing", "testing another", "enforce", "enforce another"}
)

// publishTLSA gives a host, which has the certificate of c, its TLSA records.
func (n *internet) publishTLSA(kind, host string, c *tls.Config) {
	name := n.tlsaName(host) + ". 300 IN TLSA "
	switch kind {
	case "match":
		n.zone.Add(name + "3 1 1 " + keyDigest(n.t, c))
	case "mismatch":
		n.zone.Add(name + "3 1 1 " + strings.Repeat("ab", 32))
	case "authority": // may stand for any of its certificates, by name
		n.zone.Add(name + "2 0 0 " + hex.EncodeToString(n.ca.Certificate.Raw))
	case "unusable":
		n.zone.Add(name+"1 1 1 "+keyDigest(n.t, c), name+"3 1 9 "+keyDigest(n.t, c))
	case "failed":
		n.zone.Fail(n.tlsaName(host), resolvertest.Fault{Rcode: dns.RcodeServerFailure})
	}
}

func (n *internet) publishSTSKind(kind, domain, host string) {
	switch kind {
	case "testing", "enforce":
		n.publishSTS(domain, kind, host)
	case "testing another", "enforce another":
		n.publishSTS(domain, strings.TrimSuffix(kind, " another"), "mx.another.test")
	}
}

// label makes a kind a part of a name.
func label(kind string) string {
	return strings.NewReplacer(" ", "-", ".", "-").Replace(strings.ToLower(kind))
}

// TestTransportSecurity is the whole table: what the operator wants, what the
// recipient's side publishes, and what its server does.
//
// A cell is how the message got there: in clear, over TLS 1.0 (old), over TLS
// that was not judged (tls), with a certificate valid for the host (valid) or one
// that matches a TLSA record (dane); or the status with which it waits. "host"
// and "dns" are hosts that were not connected to: not one of the policy's, and
// one whose TLSA records could not be looked up.
func TestTransportSecurity(t *testing.T) {
	t.Parallel()
	const (
		any      = "*"
		noTLSA   = "no TLSA"
		noDANE   = "no TLSA|unusable"
		harmless = "no policy|testing|testing another"
	)
	rows := []struct {
		levels, sts, dane string
		//    no STARTTLS, good, wrong name, self-signed, TLS 1.0, broken, 454
		want string
	}{
		{"none", any, any, "clear clear clear clear clear clear clear"},
		{"enable", harmless, noTLSA, "clear tls tls tls old clear clear"},
		{"enable", harmless, "unusable", "4.7.4 tls tls tls 4.7.5 4.7.5 4.7.0"},
		{"require", harmless, noDANE, "4.7.4 tls tls tls 4.7.5 4.7.5 4.7.0"},
		{"verify", harmless, noDANE, "4.7.4 valid 4.7.5 4.7.5 4.7.5 4.7.5 4.7.0"},
		{"enable|require|verify", "enforce", noDANE, "4.7.4 valid 4.7.5 4.7.5 4.7.5 4.7.5 4.7.0"},
		{"enable|require|verify", "enforce another", noDANE, "host host host host host host host"},
		{"enable|require|verify", any, "match", "4.7.4 dane dane dane 4.7.5 4.7.5 4.7.0"},
		{"enable|require|verify", any, "mismatch", "4.7.4 4.7.5 4.7.5 4.7.5 4.7.5 4.7.5 4.7.0"},
		{"enable|require|verify", any, "failed", "dns dns dns dns dns dns dns"},
	}
	has := func(set, word string) bool { return set == any || strings.Contains("|"+set+"|", "|"+word+"|") }
	n := newInternet(t)
	for _, kind := range serverKinds {
		var hosts []string
		for _, dane := range daneKinds {
			hosts = append(hosts, fmt.Sprintf("mx.%s.%s.test", label(dane), label(kind)))
		}
		script := n.serverOf(kind, hosts...)
		n.host(script, hosts...)
		for i, dane := range daneKinds {
			n.publishTLSA(dane, hosts[i], script.TLS)
			for _, sts := range stsKinds {
				domain := label(sts) + "." + hosts[i][len("mx."):]
				n.zone.Add(domain + ". 300 IN MX 10 " + hosts[i] + ".")
				n.publishSTSKind(sts, domain, hosts[i])
			}
		}
	}
	for level := tlspolicy.None; level <= tlspolicy.Verify; level++ {
		for _, sts := range stsKinds {
			for _, dane := range daneKinds {
				var want []string
				for _, r := range rows {
					if has(r.levels, level.String()) && has(r.sts, sts) && has(r.dane, dane) {
						want = append(want, r.want)
					}
				}
				if len(want) != 1 {
					t.Fatalf("%v, %s, %s: %d rows of the table", level, sts, dane, len(want))
				}
				t.Run(fmt.Sprintf("%v, %s, %s", level, sts, dane), func(t *testing.T) {
					t.Parallel()
					for i, cell := range strings.Fields(want[0]) {
						domain := fmt.Sprintf("%s.%s.%s.test", label(sts), label(dane), label(serverKinds[i]))
						if o := n.send(domain, level); cellOf(o) != cell {
							t.Errorf("%s: got %s, want %s: %+v, %+v", serverKinds[i], cellOf(o), cell, o, o.Remote)
						}
					}
				})
			}
		}
	}
}

// Without a validated MX answer the name of the host may be an attacker's, and
// TLSA records of his own prove nothing: there is no DANE (RFC 7672, section
// 2.2.1), as there is none where the addresses, or the records themselves, are not
// validated.
func TestDANENeedsAValidatedWay(t *testing.T) {
	t.Parallel()
	for insecure, want := range map[string]string{
		"nothing": "4.7.5", "a.test": "tls", "mx.b.test": "tls", "_tcp.mx.b.test": "tls",
	} {
		t.Run(insecure, func(t *testing.T) {
			t.Parallel()
			n := newInternet(t)
			script := n.serverOf("good", "mx.b.test")
			n.host(script, "mx.b.test")
			n.zone.Add("a.test. 300 IN MX 10 mx.b.test.")
			n.publishTLSA("mismatch", "mx.b.test", script.TLS)
			n.zone.Insecure(insecure)
			if insecure == "mx.b.test" { // its addresses alone
				n.zone.Secure("_tcp.mx.b.test")
			}
			if o := n.send("a.test", tlspolicy.Enable); cellOf(o) != want {
				t.Errorf("got %s, want %s: %+v", cellOf(o), want, o)
			}
		})
	}
}

// TLSA records are for a port: where a destination has one of its own, those of
// that port count.
func TestTLSAOfThePortThatIsDialled(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	script := n.serverOf("good", "mx.a.test")
	n.host(script, "mx.a.test")
	n.zone.Add("a.test. 300 IN MX 10 mx.a.test.")
	n.publishTLSA("match", "mx.a.test", script.TLS)
	n.zone.Add("_25._tcp.mx.a.test. 300 IN TLSA 3 1 1 " + strings.Repeat("ab", 32))
	cfg := parsed(t, fmt.Sprintf("[delivery]\nport = 25\n[[destination]]\ndomain = \"a.test\"\nport = %d\n", n.port))
	planner := &delivery.Planner{Resolver: n.resolver, Policies: n.policies, Destination: destination(cfg)}
	plan, err := planner.Plan(t.Context(), "a.test")
	if err != nil {
		t.Fatal(err)
	}
	agent := n.agent()
	defer agent.Close()
	m := &oneMessage{t: t}
	agent.Deliver(t.Context(), plan, m.attempt("a.test"), m)
	if cellOf(m.outcome) != "dane" {
		t.Errorf("%+v", m.outcome)
	}
}

// A host that must not be used is skipped, and the next one gets the mail: its
// TLSA records could not be looked up (RFC 7672, section 2.1.2), or the MTA-STS
// policy does not name it (RFC 8461, section 5).
func TestSkippedHostLeavesTheMailToTheNext(t *testing.T) {
	t.Parallel()
	for why, prepare := range map[string]func(n *internet){
		"TLSA lookup failed":         func(n *internet) { n.publishTLSA("failed", "mx1.a.test", nil) },
		"not named":                  func(n *internet) { n.publishSTS("a.test", "enforce", "mx2.a.test") },
		"TLSA records do not match":  func(n *internet) { n.publishTLSA("mismatch", "mx1.a.test", nil) },
		"certificate is not trusted": func(n *internet) { n.publishSTS("a.test", "enforce", "*.a.test") },
	} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			n := newInternet(t)
			first := n.host(n.serverOf("self-signed", "mx1.a.test"), "mx1.a.test")
			n.host(n.serverOf("good", "mx2.a.test"), "mx2.a.test")
			n.zone.Add("a.test. 300 IN MX 10 mx1.a.test.", "a.test. 300 IN MX 20 mx2.a.test.")
			prepare(n)
			o := n.send("a.test", tlspolicy.Enable)
			if o.Verdict != queue.Delivered || o.Remote.Host != "mx2.a.test" || o.Remote.TLS == "" {
				t.Errorf("%+v, %+v", o, o.Remote)
			}
			isSkipped := why == "TLSA lookup failed" || why == "not named"
			if (first.Sessions() == 0) != isSkipped || len(first.Transactions()) != 0 {
				t.Errorf("%d connections to the first host, with %d messages", first.Sessions(), len(first.Transactions()))
			}
		})
	}
}

// cellOf is an outcome in the words of the table.
func cellOf(o queue.Outcome) string {
	switch {
	case o.Verdict != queue.Delivered && o.Verdict != queue.Deferred:
		return fmt.Sprintf("verdict %d", o.Verdict)
	case o.Verdict == queue.Deferred && o.Stage == queue.StagePolicy:
		return map[string]string{"4.7.0": "host", "4.4.3": "dns"}[o.Status]
	case o.Verdict == queue.Deferred:
		return o.Status
	case o.Remote.TLS == "":
		return "clear"
	case strings.HasPrefix(o.Remote.TLS, "TLS1.0 ") && strings.HasSuffix(o.Remote.TLS, " unverified"):
		return "old"
	}
	words := strings.Fields(o.Remote.TLS) // version, cipher, reached
	if len(words) != 3 || words[0] != "TLS1.3" {
		return o.Remote.TLS
	}
	return map[string]string{"unverified": "tls", "verified": "valid", "dane": "dane"}[words[2]]
}
