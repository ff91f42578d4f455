package delivery

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"postrider/mta/smtptest"
	"postrider/mta/tlspolicy"
	"postrider/queue"
)

// handshakes keeps what a server saw of its clients' TLS: "name" or "-" where
// they sent none, with a "+" where the session was resumed.
type handshakes struct {
	mu   sync.Mutex
	seen []string
}

// config is for a server with a certificate for mx1.a.test and the address
// that the client connected to.
func (h *handshakes) config(ca *smtptest.CA) *tls.Config {
	return &tls.Config{
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			at := netip.MustParseAddrPort(hello.Conn.LocalAddr().String())
			cert, err := ca.Issue("mx1.a.test", at.Addr().String())
			return &cert, err
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			seen := cmp.Or(state.ServerName, "-")
			if state.DidResume {
				seen += "+"
			}
			h.seen = append(h.seen, seen)
			return nil
		},
	}
}

func (h *handshakes) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.seen, " ")
}

// TestServerNameIndication: the host's name, or the name that has the TLSA
// records (RFC 7672, section 8.1), and nothing for an address (RFC 6066,
// section 3).
func TestServerNameIndication(t *testing.T) {
	t.Parallel()
	dane := func(base string) facts {
		return facts{DANE: tlspolicy.DANEUsable, TLSABase: base, TLSA: []tlspolicy.TLSA{{Usage: 3, Selector: 1, MatchingType: 1, Data: []byte{1}}}}
	}
	for name, tt := range map[string]struct {
		facts   facts
		literal bool
		level   tlspolicy.Level
		want    string
	}{
		"enable":                    {level: tlspolicy.Enable, want: "mx1.a.test"},
		"verify":                    {level: tlspolicy.Verify, want: "mx1.a.test"},
		"literal":                   {level: tlspolicy.Enable, literal: true, want: "-"},
		"verified literal":          {level: tlspolicy.Verify, literal: true, want: "-"},
		"DANE at the host's name":   {level: tlspolicy.Enable, facts: dane("mx1.a.test"), want: "mx1.a.test"},
		"DANE at an alias's target": {level: tlspolicy.Enable, facts: dane("real.test"), want: "real.test"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := must(smtptest.NewCA())(t)
			s := newScene(t)
			s.options.Roots = ca.Pool()
			s.options.VerifyDANE = func(tls.ConnectionState, []tlspolicy.TLSA, []string) error { return nil }
			s.policy, s.dest.TLS = tt.facts, tt.level
			var saw handshakes
			_, addr := s.listen(smtptest.Script{Extensions: []string{"STARTTLS"}, TLS: saw.config(ca)})
			s.zone.Add("mx1.a.test. 300 IN A " + addr.String())
			s.mx("a.test", "mx1.a.test")
			domain := "a.test"
			if tt.literal {
				domain = fmt.Sprintf("[%s]", addr)
			}
			checkDelivered(t, s.one("r@"+domain))
			if got := saw.String(); got != tt.want {
				t.Errorf("SNI %s, want %s", got, tt.want)
			}
		})
	}
}

// A session is resumed where that skips nothing that was demanded: one that was
// never verified does not stand in for one that is, and under DANE the
// certificate is held against the records of today.
func TestSessionsAreResumed(t *testing.T) {
	t.Parallel()
	ca := must(smtptest.NewCA())(t)
	s := newScene(t)
	s.options.Roots = ca.Pool()
	verified := 0
	s.options.VerifyDANE = func(tls.ConnectionState, []tlspolicy.TLSA, []string) error { verified++; return nil }
	s.dest.MaxMessages = 1 // no connection is kept
	var saw handshakes
	s.host("mx1.a.test", smtptest.Script{Extensions: []string{"STARTTLS"}, TLS: saw.config(ca)})
	s.mx("a.test", "mx1.a.test")
	s.start()
	dane := facts{DANE: tlspolicy.DANEUsable, TLSA: []tlspolicy.TLSA{{Usage: 3, Selector: 1, MatchingType: 1, Data: []byte{1}}}}
	for _, step := range []struct {
		level tlspolicy.Level
		facts Policies
		text  string
	}{
		{tlspolicy.Enable, nil, " unverified"}, {tlspolicy.Enable, nil, " unverified"}, {tlspolicy.Require, nil, " unverified"},
		{tlspolicy.Verify, nil, " verified"}, {tlspolicy.Verify, nil, " verified"},
		{tlspolicy.Enable, dane, " dane"}, {tlspolicy.Enable, dane, " dane"},
	} {
		s.dest.TLS, s.planner.Policies = step.level, step.facts
		o := s.one("r@a.test")
		checkDelivered(t, o)
		if !strings.HasPrefix(o.Remote.TLS, "TLS1.3 ") || !strings.HasSuffix(o.Remote.TLS, step.text) {
			t.Errorf("%v: TLS %q, want %q", step.level, o.Remote.TLS, step.text)
		}
	}
	const m = "mx1.a.test"
	if got, want := saw.String(), strings.Join([]string{m, m + "+", m + "+", m, m + "+", m, m}, " "); got != want || verified != 2 {
		t.Errorf("handshakes %s, want %s; %d held against TLSA records", got, want, verified)
	}
}

// TestWhyLessThanTLSAtItsBest: what the trace and the log say where enable had
// to put up with less.
func TestWhyLessThanTLSAtItsBest(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string][2]string{ // of a first connection and a second one
		"none":    {"enable; in clear: it does not offer STARTTLS", "enable; in clear: it does not offer STARTTLS"},
		"refused": {"enable; in clear: 454 4.7.0 not now", "enable; in clear: TLS failed with it less than an hour ago"},
		"broken":  {"enable; in clear: the TLS handshake with mx1.a.test ", "enable; in clear: TLS failed with it less than an hour ago"},
		"old":     {"enable; from TLS 1.0 up: the TLS handshake with mx1.a.test ", "enable; from TLS 1.0 up: TLS failed with it less than an hour ago"},
		"good":    {"enable", "enable"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ca := must(smtptest.NewCA())(t)
			s := newScene(t)
			s.dest.MaxMessages = 1
			s.host("mx1.a.test", tlsKinds(t, ca, "mx1.a.test")[kind])
			s.mx("a.test", "mx1.a.test")
			for i := range want {
				o := s.one("r@a.test")
				checkDelivered(t, o)
				if !strings.HasPrefix(o.Remote.Demand, want[i]) || want[i] == "enable" && o.Remote.Demand != want[i] {
					t.Errorf("connection %d: %q, want %q", i, o.Remote.Demand, want[i])
				}
			}
		})
	}
}

// What a connection reached is told beside what was demanded of it and by whom.
func TestReachedIsObserved(t *testing.T) {
	t.Parallel()
	record := tlspolicy.TLSA{Usage: 3, Selector: 1, MatchingType: 1, Data: []byte{1}}
	for name, tt := range map[string]struct {
		kind  string
		level tlspolicy.Level
		facts facts
		want  string // demand, and what each connection reached
	}{
		"none":                  {"good", tlspolicy.None, facts{}, "none: clear"},
		"enable":                {"untrusted", tlspolicy.Enable, facts{}, "enable: unverified"},
		"enable, in clear":      {"none", tlspolicy.Enable, facts{}, "enable: clear"},
		"enable, after failure": {"broken", tlspolicy.Enable, facts{}, "enable: nothing nothing clear"},
		"require":               {"untrusted", tlspolicy.Require, facts{}, "require: unverified"},
		"require, in vain":      {"none", tlspolicy.Require, facts{}, "require: nothing"},
		"verify":                {"good", tlspolicy.Verify, facts{}, "verify: verified"},
		"MTA-STS":               {"good", tlspolicy.Enable, facts{STS: tlspolicy.STSEnforce, STSMatch: true}, "verify (MTA-STS): verified"},
		"MTA-STS testing":       {"good", tlspolicy.Enable, facts{STS: tlspolicy.STSTesting, STSMatch: true}, "enable (MTA-STS only testing): unverified"},
		"MTA-STS, other host":   {"good", tlspolicy.Enable, facts{STS: tlspolicy.STSEnforce}, "enable (MTA-STS): nothing"},
		"DANE":                  {"untrusted", tlspolicy.Enable, facts{DANE: tlspolicy.DANEUsable, TLSA: []tlspolicy.TLSA{record}}, "dane (DANE): dane"},
		"DANE unusable":         {"untrusted", tlspolicy.Enable, facts{DANE: tlspolicy.DANEUnusable}, "require (DANE): unverified"},
		"DANE unknown":          {"good", tlspolicy.Enable, facts{DANE: tlspolicy.DANEFailed}, "enable (DANE): nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := must(smtptest.NewCA())(t)
			s := newScene(t)
			s.options.Roots = ca.Pool()
			s.options.VerifyDANE = func(tls.ConnectionState, []tlspolicy.TLSA, []string) error { return nil }
			s.policy, s.dest.TLS = tt.facts, tt.level
			s.host("mx1.a.test", tlsKinds(t, ca, "mx1.a.test")[tt.kind])
			s.mx("a.test", "mx1.a.test")
			o := s.one("r@a.test")
			demand, reached := "", ""
			for _, c := range s.events.list() {
				demand, reached = c.Demand.String(), reached+" "+c.Reached.String()
			}
			if got := demand + ":" + reached; got != tt.want || !strings.HasPrefix(o.Remote.Demand, demand) {
				t.Errorf("got %s, want %s; the outcome says %q", got, tt.want, o.Remote.Demand)
			}
			if isReady := !strings.HasSuffix(reached, "nothing"); isReady != (o.Verdict == queue.Delivered) {
				t.Errorf("%s, %s", reached, show(o))
			}
		})
	}
}

// A certificate below an authority of the zone may be good for one recipient
// domain and not for the next, though both have the same host and records.
func TestDANEAuthorityJudgesEachDomain(t *testing.T) {
	t.Parallel()
	ca := must(smtptest.NewCA())(t)
	s := newScene(t)
	s.policy = facts{DANE: tlspolicy.DANEUsable, TLSABase: "mx1.a.test", TLSA: []tlspolicy.TLSA{{Usage: 2, Selector: 0, MatchingType: 1, Data: []byte{7}}}}
	s.options.VerifyDANE = func(_ tls.ConnectionState, _ []tlspolicy.TLSA, names []string) error {
		for _, n := range names {
			if n == "a.test" {
				return nil
			}
		}
		return errBroken
	}
	mx := s.host("mx1.a.test", tlsKinds(t, ca, "mx1.a.test")["good"])
	s.mx("a.test", "mx1.a.test")
	s.mx("b.test", "mx1.a.test")
	checkDelivered(t, s.one("r@a.test"))
	if o := s.one("r@b.test"); o.Verdict != queue.Deferred || o.Status != "4.7.5" {
		t.Errorf("got %s", show(o))
	}
	checkDelivered(t, s.one("r@a.test"))
	if s.plan("a.test").Key == s.plan("b.test").Key {
		t.Error("the plans share their connections")
	}
	if n := len(mx.Transactions()); n != 2 {
		t.Errorf("%d messages arrived", n)
	}
}

// The names that a certificate below an authority of the zone may bear are those
// of the host and of the domain, this one also after aliases where its MX answer is
// validated (RFC 7672, section 3.2.2).
func TestNamesForDANEAuthority(t *testing.T) {
	t.Parallel()
	for isSecure, want := range map[bool]string{true: "base.test mx1.b.test a.test b.test", false: "base.test mx1.b.test a.test"} {
		ca := must(smtptest.NewCA())(t)
		s := newScene(t)
		if isSecure {
			s.zone.Secure(".")
		}
		s.policy = facts{DANE: tlspolicy.DANEUsable, TLSABase: "base.test", TLSA: []tlspolicy.TLSA{{Usage: 2, Selector: 0, MatchingType: 1, Data: []byte{7}}}}
		var got string
		s.options.VerifyDANE = func(_ tls.ConnectionState, _ []tlspolicy.TLSA, names []string) error {
			got = strings.Join(names, " ")
			return nil
		}
		s.host("mx1.b.test", tlsKinds(t, ca, "mx1.b.test")["good"])
		s.zone.Add("a.test. 300 IN CNAME b.test.")
		s.mx("b.test", "mx1.b.test")
		checkDelivered(t, s.one("r@a.test"))
		if got != want {
			t.Errorf("validated %v: looked for %q, want %q", isSecure, got, want)
		}
	}
}
