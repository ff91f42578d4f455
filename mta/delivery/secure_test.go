package delivery

import (
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postrider/mta/smtptest"
	"postrider/mta/tlspolicy"
	"postrider/queue"
	"postrider/resolver"
)

// tlsKinds are servers by what their TLS is like.
func tlsKinds(t *testing.T, ca *smtptest.CA, name string) map[string]smtptest.Script {
	t.Helper()
	good := must(ca.TLS(name))(t)
	stranger := must(smtptest.NewCA())(t)
	expired := must(ca.IssueUntil(time.Now().Add(-time.Hour), name))(t)
	starttls := []string{"STARTTLS", "PIPELINING"}
	return map[string]smtptest.Script{
		"none":      {},
		"refused":   {Extensions: starttls, TLS: good, On: map[string][]smtptest.Step{"STARTTLS": smtptest.Say("454 4.7.0 not now")}},
		"broken":    {Extensions: starttls, TLS: good, On: map[string][]smtptest.Step{smtptest.OnTLS: smtptest.Do(smtptest.Step{Raw: "this is no TLS record at all\r\n", Then: smtptest.Close})}},
		"injected":  {Extensions: starttls, TLS: good, On: map[string][]smtptest.Step{"STARTTLS": smtptest.Do(smtptest.Step{Raw: "220 go\r\n250 injected\r\n"})}},
		"old":       {Extensions: starttls, TLS: must(ca.OldTLS(name))(t)},
		"untrusted": {Extensions: starttls, TLS: must(stranger.TLS(name))(t)},
		"misnamed":  {Extensions: starttls, TLS: must(ca.TLS("other.test"))(t)},
		"expired":   {Extensions: starttls, TLS: &tls.Config{Certificates: []tls.Certificate{expired}}},
		"good":      {Extensions: starttls, TLS: good},
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestTLS is every level before every kind of server. A cell says how the
// message was delivered, "clear" or "tls", or with what status it waits; and how
// many connections that took.
func TestTLS(t *testing.T) {
	t.Parallel()
	kinds := []string{"none", "refused", "broken", "injected", "old", "untrusted", "misnamed", "expired", "good"}
	for level, row := range map[tlspolicy.Level]string{
		tlspolicy.None:    "clear/1  clear/1  clear/1  clear/1  clear/1  clear/1  clear/1  clear/1  clear/1",
		tlspolicy.Enable:  "clear/1  clear/2  clear/3  4.5.0/1  tls/2    tls/1    tls/1    tls/1    tls/1",
		tlspolicy.Require: "4.7.4/1  4.7.0/1  4.7.5/1  4.5.0/1  4.7.5/1  tls/1    tls/1    tls/1    tls/1",
		tlspolicy.Verify:  "4.7.4/1  4.7.0/1  4.7.5/1  4.5.0/1  4.7.5/1  4.7.5/1  4.7.5/1  4.7.5/1  tls/1",
		tlspolicy.DANE:    "4.7.4/1  4.7.0/1  4.7.5/1  4.5.0/1  4.7.5/1  tls/1    tls/1    tls/1    tls/1",
	} {
		for i, cell := range strings.Fields(row) {
			t.Run(level.String()+" "+kinds[i], func(t *testing.T) {
				t.Parallel()
				ca := must(smtptest.NewCA())(t)
				s := newScene(t)
				s.options.Roots = ca.Pool()
				mx := s.host("mx1.a.test", tlsKinds(t, ca, "mx1.a.test")[kinds[i]])
				s.mx("a.test", "mx1.a.test")
				s.dest.TLS = min(level, tlspolicy.Verify)
				if level == tlspolicy.DANE {
					s.policy = facts{DANE: tlspolicy.DANEUsable, TLSA: []tlspolicy.TLSA{{Usage: 3, Selector: 1, MatchingType: 1, Data: []byte{1}}}}
					s.options.VerifyDANE = func(tls.ConnectionState, []tlspolicy.TLSA, []string) error { return nil }
				}
				o := s.one("r@a.test")
				how, sessions, _ := strings.Cut(cell, "/")
				if n := mx.Sessions(); string(rune('0'+n)) != sessions {
					t.Errorf("%d connections, want %s", n, sessions)
				}
				switch got := mx.Transactions(); {
				case how == "clear" || how == "tls":
					checkDelivered(t, o)
					if len(got) != 1 || got[0].IsTLS != (how == "tls") || (o.Remote.TLS != "") != (how == "tls") {
						t.Errorf("received %+v, remote %+v", got, o.Remote)
					}
				default:
					if o.Verdict != queue.Deferred || o.Status != how || o.Scope != queue.ScopeSite || len(got) != 0 {
						t.Errorf("want deferred %s: %s; received %+v", how, show(o), got)
					}
				}
			})
		}
	}
}

// facts answers the same for every host.
type facts tlspolicy.Facts

func (f facts) Facts(_ context.Context, route *resolver.Route, _ int) ([]tlspolicy.Facts, time.Time, error) {
	all := make([]tlspolicy.Facts, len(route.Hosts))
	for i := range all {
		all[i] = tlspolicy.Facts(f)
	}
	return all, time.Time{}, nil
}

func TestTLSFallsBackToClearOnNewConnection(t *testing.T) {
	t.Parallel()
	ca := must(smtptest.NewCA())(t)
	s := newScene(t)
	mx := s.host("mx1.a.test", tlsKinds(t, ca, "mx1.a.test")["broken"])
	s.mx("a.test", "mx1.a.test")
	s.dest.MaxMessages = 1
	for i, sessions := range []int{3, 4, 5} { // what did not work is remembered
		checkDelivered(t, s.one("r@a.test"))
		if n := mx.Sessions(); n != sessions {
			t.Errorf("message %d: %d connections so far, want %d", i, n, sessions)
		}
	}
	for i, tx := range mx.Transactions() {
		if want := []int{3, 4, 5}[i]; tx.Session != want || tx.IsTLS {
			t.Errorf("message %d came on connection %d, TLS %v", i, tx.Session, tx.IsTLS)
		}
	}
	addr := netip.MustParseAddrPort(mx.Addr().String())
	if m, _ := s.agent.tls.recall(addr, time.Now().Add(61*time.Minute)); m != tlsNow {
		t.Errorf("still remembered after an hour: %v", m)
	}
}

func TestOldTLSIsRemembered(t *testing.T) {
	t.Parallel()
	ca := must(smtptest.NewCA())(t)
	s := newScene(t)
	mx := s.host("mx1.a.test", tlsKinds(t, ca, "mx1.a.test")["old"])
	s.mx("a.test", "mx1.a.test")
	s.dest.MaxMessages = 1
	for range 3 {
		o := s.one("r@a.test")
		checkDelivered(t, o)
		if !strings.HasPrefix(o.Remote.TLS, "TLS1.0 ") {
			t.Errorf("TLS %q", o.Remote.TLS)
		}
	}
	if n := mx.Sessions(); n != 4 {
		t.Errorf("%d connections for three messages", n)
	}
}

// TestRememberedFailureCounts: a host whose TLS is broken must not look better in
// the reports for our not trying it again with each message.
func TestRememberedFailureCounts(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]string{
		"broken":  "validation-failure validation-failure not-tried, validation-failure, validation-failure",
		"refused": "starttls-not-supported not-tried, starttls-not-supported, starttls-not-supported",
		"old":     "validation-failure successful, successful, successful",
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ca := must(smtptest.NewCA())(t)
			s := newScene(t)
			s.dest.MaxMessages = 1
			s.host("mx1.a.test", tlsKinds(t, ca, "mx1.a.test")[kind])
			s.mx("a.test", "mx1.a.test")
			var messages []string
			for seen := 0; len(messages) < 3; {
				checkDelivered(t, s.one("r@a.test"))
				var results []string
				for _, c := range s.events.list()[seen:] {
					results = append(results, c.TLSResult.String())
				}
				seen += len(results)
				messages = append(messages, strings.Join(results, " "))
			}
			if got := strings.Join(messages, ", "); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestWhatIsRememberedOfTLSDoesNotWeakenADemand(t *testing.T) {
	t.Parallel()
	ca := must(smtptest.NewCA())(t)
	s := newScene(t)
	mx := s.host("mx1.a.test", tlsKinds(t, ca, "mx1.a.test")["broken"])
	s.mx("a.test", "mx1.a.test")
	checkDelivered(t, s.one("r@a.test"))
	s.dest.TLS = tlspolicy.Require
	if o := s.one("r@a.test"); o.Verdict != queue.Deferred || o.Status != "4.7.5" {
		t.Errorf("got %s", show(o))
	}
	if n := len(mx.Transactions()); n != 1 {
		t.Errorf("%d messages arrived", n)
	}
}

// The demand belongs to the recipient domain, also where a connection to the
// same host lies idle.
func TestDemandHoldsOnSharedHosts(t *testing.T) {
	t.Parallel()
	ca := must(smtptest.NewCA())(t)
	s := newScene(t)
	s.options.Roots = ca.Pool()
	mx := s.host("mx1.a.test", tlsKinds(t, ca, "mx1.a.test")["untrusted"])
	s.mx("a.test", "mx1.a.test")
	s.mx("b.test", "mx1.a.test")
	checkDelivered(t, s.one("r@a.test"))
	s.dest.TLS = tlspolicy.Verify
	if o := s.one("r@b.test"); o.Verdict != queue.Deferred || o.Status != "4.7.5" {
		t.Errorf("got %s", show(o))
	}
	if n := len(mx.Transactions()); n != 1 {
		t.Errorf("%d messages arrived", n)
	}
}

func TestVerifiedConnectionsAreKeptApartByName(t *testing.T) {
	t.Parallel()
	ca := must(smtptest.NewCA())(t)
	s := newScene(t)
	s.options.Roots = ca.Pool()
	s.dest.TLS = tlspolicy.Verify
	mx, addr := s.listen(smtptest.Script{Extensions: []string{"STARTTLS"}, TLS: must(ca.TLS("mx1.a.test", "mx2.a.test"))(t)})
	for _, h := range []string{"mx1.a.test", "mx2.a.test"} {
		s.zone.Add(h + ". 300 IN A " + addr.String())
	}
	s.mx("a.test", "mx1.a.test")
	s.mx("b.test", "mx2.a.test")
	for _, to := range []string{"r@a.test", "r@b.test", "r@a.test", "r@b.test"} {
		checkDelivered(t, s.one(to))
	}
	if n := mx.Sessions(); n != 2 {
		t.Errorf("%d connections, want one for each name", n)
	}
}

func TestDANE(t *testing.T) {
	t.Parallel()
	record := tlspolicy.TLSA{Usage: 2, Selector: 0, MatchingType: 1, Data: []byte{7}}
	for name, tt := range map[string]struct {
		facts  facts
		verify func(t *testing.T) func(tls.ConnectionState, []tlspolicy.TLSA, []string) error
		want   string // empty: delivered
		text   string
		result TLSResult
	}{
		"matches": {facts{DANE: tlspolicy.DANEUsable, TLSA: []tlspolicy.TLSA{record}}, func(t *testing.T) func(tls.ConnectionState, []tlspolicy.TLSA, []string) error {
			return func(state tls.ConnectionState, records []tlspolicy.TLSA, names []string) error {
				if len(state.PeerCertificates) == 0 || len(records) != 1 || records[0].Usage != 2 || strings.Join(names, " ") != "mx1.a.test a.test" {
					t.Errorf("asked about %v, %v", records, names)
				}
				return nil
			}
		}, "", "", TLSOK},
		"does not match": {facts{DANE: tlspolicy.DANEUsable, TLSA: []tlspolicy.TLSA{record}}, func(*testing.T) func(tls.ConnectionState, []tlspolicy.TLSA, []string) error {
			return func(tls.ConnectionState, []tlspolicy.TLSA, []string) error { return errors.New("none of 1") }
		}, "4.7.5", "no TLSA record matches: none of 1", TLSInvalid},
		"nothing can check them": {facts{DANE: tlspolicy.DANEUsable, TLSA: []tlspolicy.TLSA{record}}, func(*testing.T) func(tls.ConnectionState, []tlspolicy.TLSA, []string) error {
			return nil
		}, "4.7.5", "nothing here can check them", TLSNotTried},
		"lookup failed": {facts{DANE: tlspolicy.DANEFailed}, func(*testing.T) func(tls.ConnectionState, []tlspolicy.TLSA, []string) error {
			return nil
		}, "4.4.3", "TLSA", TLSNotKnown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := must(smtptest.NewCA())(t)
			s := newScene(t)
			s.policy = tt.facts
			s.options.VerifyDANE = tt.verify(t)
			s.host("mx1.a.test", tlsKinds(t, ca, "mx1.a.test")["untrusted"])
			s.mx("a.test", "mx1.a.test")
			o := s.one("r@a.test")
			if tt.want == "" {
				checkDelivered(t, o)
			} else if o.Verdict != queue.Deferred || o.Status != tt.want || !strings.Contains(o.Text, tt.text) {
				t.Errorf("got %s", show(o))
			}
			if got := s.events.list(); len(got) > 0 && got[0].TLSResult != tt.result {
				t.Errorf("TLS result %v, want %v", got[0].TLSResult, tt.result)
			}
		})
	}
}

func TestTLSResultsAreObserved(t *testing.T) {
	t.Parallel()
	want := map[string]TLSResult{"none": TLSNotSupported, "refused": TLSNotSupported, "broken": TLSFailed, "old": TLSFailed,
		"untrusted": TLSNotTrusted, "misnamed": TLSHostMismatch, "expired": TLSExpired, "good": TLSOK}
	for _, mode := range []string{"enforced", "watched"} {
		for kind, result := range want {
			t.Run(mode+" "+kind, func(t *testing.T) {
				t.Parallel()
				ca := must(smtptest.NewCA())(t)
				s := newScene(t)
				s.options.Roots = ca.Pool()
				s.policy = facts{STS: tlspolicy.STSEnforce, STSMatch: true}
				if mode == "watched" {
					s.policy = facts{STS: tlspolicy.STSTesting, STSMatch: true}
				}
				s.host("mx1.a.test", tlsKinds(t, ca, "mx1.a.test")[kind])
				s.mx("a.test", "mx1.a.test")
				o := s.one("r@a.test")
				if delivered := o.Verdict == queue.Delivered; delivered != (mode == "watched" || kind == "good") {
					t.Errorf("got %s", show(o))
				}
				got := s.events.list()
				first := got[0]
				if first.TLSResult != result || first.Domain != "a.test" || first.Host != "mx1.a.test" || !first.Addr.IsValid() {
					t.Errorf("observed %+v, want %v", first, result)
				}
				if bad := result != TLSOK && result != TLSNotSupported; bad != (first.TLSErr != nil) && result != TLSNotSupported {
					t.Errorf("cause: %v", first.TLSErr)
				}
				last := got[len(got)-1]
				if isReady := last.Stage == queue.StageMAIL; isReady != (o.Verdict == queue.Delivered) {
					t.Errorf("last event: %+v", last)
				}
			})
		}
	}
}

func TestHostsThatTheSTSPolicyDoesNotName(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	mx := s.host("mx1.a.test", smtptest.Script{})
	s.mx("a.test", "mx1.a.test")
	s.policy = facts{STS: tlspolicy.STSEnforce}
	m := mail("r@a.test")
	s.deliver(m)
	check(t, m.outcome(t), want{queue.Deferred, queue.ScopeSite, queue.StagePolicy, 0, "4.7.0", "MTA-STS"})
	if mx.Sessions() != 0 || m.report.Site != SiteFailed {
		t.Errorf("%d connections, news %v", mx.Sessions(), m.report.Site)
	}
	// RFC 8689, section 3: this sender would rather have it delivered.
	free := mail("r@a.test")
	free.attempt.Envelope.TLSIgnored = true
	s.deliver(free)
	checkDelivered(t, free.outcome(t))
}

func TestREQUIRETLS(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		kind       string
		extensions []string
		isSecure   bool
		status     string // empty: delivered
		verdict    queue.Verdict
	}{
		"offered":            {"good", []string{"STARTTLS", "REQUIRETLS"}, true, "", queue.Delivered},
		"not offered":        {"good", []string{"STARTTLS"}, true, "5.7.30", queue.Failed},
		"no STARTTLS":        {"none", nil, true, "4.7.4", queue.Deferred},
		"unverified":         {"untrusted", []string{"STARTTLS", "REQUIRETLS"}, true, "4.7.5", queue.Deferred},
		"host not authentic": {"good", []string{"STARTTLS", "REQUIRETLS"}, false, "5.7.30", queue.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := must(smtptest.NewCA())(t)
			s := newScene(t)
			s.options.Roots = ca.Pool()
			script := tlsKinds(t, ca, "mx1.a.test")[tt.kind]
			script.Extensions = tt.extensions
			mx := s.host("mx1.a.test", script)
			s.mx("a.test", "mx1.a.test")
			if tt.isSecure {
				s.zone.Secure(".")
			}
			plain, strict, plainToo := mail("r@a.test"), mail("r@a.test"), mail("r@a.test")
			strict.attempt.Envelope.RequireTLS = true
			s.deliver(plain, strict, plainToo)
			checkDelivered(t, plain.outcome(t))
			checkDelivered(t, plainToo.outcome(t))
			o := strict.outcome(t)
			if o.Verdict != tt.verdict || tt.status != "" && o.Status != tt.status {
				t.Errorf("got %s", show(o))
			}
			if strict.report.Site == SiteFailed {
				t.Error("the message's own demand is held against the site")
			}
			n := 0
			for _, tx := range mx.Transactions() {
				if strings.Contains(tx.FromParams, "REQUIRETLS") {
					n++
				}
			}
			if want := map[bool]int{true: 1, false: 0}[tt.verdict == queue.Delivered]; n != want {
				t.Errorf("%d messages with REQUIRETLS arrived, want %d", n, want)
			}
		})
	}
}

func TestPolicyLookupFailureLeavesNoPlan(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.host("mx1.a.test", smtptest.Script{})
	s.mx("a.test", "mx1.a.test")
	s.policy = noPolicies{}
	s.start()
	_, err := s.planner.Plan(t.Context(), "a.test")
	if err == nil {
		t.Fatal("a plan without knowing the policy")
	}
	check(t, PlanOutcome(err), want{queue.Deferred, queue.ScopeSite, queue.StageDNS, 0, "4.4.3", "finding the TLS policy of a.test: out of order"})
}

type noPolicies struct{}

func (noPolicies) Facts(context.Context, *resolver.Route, int) ([]tlspolicy.Facts, time.Time, error) {
	return nil, time.Time{}, errors.New("out of order")
}

func TestTLSMemoryIsBounded(t *testing.T) {
	t.Parallel()
	var m tlsMemory
	now := time.Now()
	for i := range maxRemembered + 500 {
		m.remember(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 25), tlsNever, verdict{}, now)
	}
	if len(m.modes) != maxRemembered {
		t.Errorf("%d entries", len(m.modes))
	}
}
