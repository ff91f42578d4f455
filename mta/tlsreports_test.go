package mta

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/mta/delivery"
	"postrider/mta/mtasts"
	"postrider/mta/smtptest"
	"postrider/mta/tlspolicy"
	"postrider/mta/tlsrpt"
	"postrider/queue"
)

// reporting has the internet's connections counted.
func (n *internet) reporting() *tlsrpt.Recorder {
	n.t.Helper()
	store, err := newFileStore(n.t.TempDir())
	if err != nil {
		n.t.Fatal(err)
	}
	recorder, err := tlsrpt.NewRecorder(24*time.Hour, store, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	counter := &tlsRecorder{recorder: recorder}
	n.openSTS(n.t.TempDir(), counter.fetchFailed)
	counter.sts = n.sts
	n.observer = connectionObservers{counter}
	return recorder
}

// counted are the tallies of a domain: "sts 1/2 a-failure:1 another:1" is an
// MTA-STS policy with one success and two failures.
func counted(r *tlsrpt.Recorder, domain string) string {
	var all []string
	for _, tally := range r.Due(time.Now().Add(10 * 24 * time.Hour)) {
		if tally.Domain != domain {
			continue
		}
		for _, p := range tally.Policies {
			s := fmt.Sprintf("%s %d/%d", p.Policy.Type, p.Successes, p.Failures)
			for _, d := range p.Details {
				s += fmt.Sprintf(" %s:%d", d.Result, d.Count)
			}
			all = append(all, s)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// TestTLSIsCountedForEveryPolicy: what a domain will read in its report, of
// one message to it.
func TestTLSIsCountedForEveryPolicy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		server, sts, dane string
		level             tlspolicy.Level
		want              string
	}{
		{"good", "no policy", "no TLSA", tlspolicy.Enable, "no-policy-found 1/0"},
		{"good", "no policy", "no TLSA", tlspolicy.None, ""},
		{"no STARTTLS", "no policy", "no TLSA", tlspolicy.Enable, "no-policy-found 0/1 starttls-not-supported:1"},
		// The handshake of today's versions fails, then one from TLS 1.0 up.
		{"broken", "no policy", "no TLSA", tlspolicy.Enable, "no-policy-found 0/2 validation-failure:2"},
		{"good", "enforce", "no TLSA", tlspolicy.Enable, "sts 1/0"},
		{"good", "enforce", "no TLSA", tlspolicy.Verify, "sts 1/0"},
		{"no STARTTLS", "enforce", "no TLSA", tlspolicy.Enable, "sts 0/1 starttls-not-supported:1"},
		{"454", "enforce", "no TLSA", tlspolicy.Enable, "sts 0/1 starttls-not-supported:1"},
		{"wrong name", "enforce", "no TLSA", tlspolicy.Enable, "sts 0/1 certificate-host-mismatch:1"},
		{"self-signed", "enforce", "no TLSA", tlspolicy.Enable, "sts 0/1 certificate-not-trusted:1"},
		{"TLS 1.0", "enforce", "no TLSA", tlspolicy.Enable, "sts 0/1 validation-failure:1"},
		{"good", "enforce another", "no TLSA", tlspolicy.Enable, "sts 0/1 validation-failure:1"},
		// Mode testing: delivered, and reported all the same.
		{"good", "testing", "no TLSA", tlspolicy.Enable, "sts 1/0"},
		{"good", "testing", "no TLSA", tlspolicy.Verify, "sts 1/0"},
		{"wrong name", "testing", "no TLSA", tlspolicy.Enable, "sts 0/1 certificate-host-mismatch:1"},
		{"self-signed", "testing", "no TLSA", tlspolicy.Enable, "sts 0/1 certificate-not-trusted:1"},
		{"no STARTTLS", "testing", "no TLSA", tlspolicy.Enable, "sts 0/1 starttls-not-supported:1"},
		{"good", "testing another", "no TLSA", tlspolicy.Enable, "sts 0/1 validation-failure:1"},
		// DANE wins over MTA-STS: its records alone were held to.
		{"self-signed", "enforce", "match", tlspolicy.Enable, "tlsa 1/0"},
		{"good", "enforce", "mismatch", tlspolicy.Enable, "tlsa 0/1 tlsa-invalid:1"},
		{"good", "no policy", "authority", tlspolicy.Enable, "tlsa 1/0"},
		{"wrong name", "no policy", "authority", tlspolicy.Enable, "tlsa 0/1 certificate-host-mismatch:1"},
		{"self-signed", "no policy", "authority", tlspolicy.Enable, "tlsa 0/1 certificate-not-trusted:1"},
		{"good", "no policy", "failed", tlspolicy.Enable, "tlsa 0/1 dnssec-invalid:1"},
		{"self-signed", "no policy", "unusable", tlspolicy.Enable, "tlsa 0/1 tlsa-invalid:1"},
		{"good", "no policy", "unusable", tlspolicy.Require, "tlsa 0/1 tlsa-invalid:1"},
		{"good", "enforce", "unusable", tlspolicy.Enable, "sts 1/0, tlsa 0/1 tlsa-invalid:1"},
		{"good", "enforce another", "unusable", tlspolicy.Enable, "sts 0/1 validation-failure:1, tlsa 0/1 tlsa-invalid:1"},
	} {
		t.Run(fmt.Sprintf("%s, %s, %s, %v", tt.server, tt.sts, tt.dane, tt.level), func(t *testing.T) {
			t.Parallel()
			n := newInternet(t)
			recorder := n.reporting()
			script := n.serverOf(tt.server, "mx.a.test")
			n.host(script, "mx.a.test")
			n.zone.Add("a.test. 300 IN MX 10 mx.a.test.")
			n.publishTLSA(tt.dane, "mx.a.test", script.TLS)
			n.publishSTSKind(tt.sts, "a.test", "mx.a.test")
			n.send("a.test", tt.level)
			if got := counted(recorder, "a.test"); got != tt.want {
				t.Errorf("counted %q, want %q", got, tt.want)
			}
		})
	}
}

// manyMessages are attempts for one connection.
type manyMessages struct {
	oneMessage
	left     []*delivery.Attempt
	outcomes map[string]queue.Outcome // by domain, of the last message
}

func (m *manyMessages) Next() (*delivery.Attempt, bool) {
	if len(m.left) == 0 {
		return nil, false
	}
	a := m.left[0]
	m.left = m.left[1:]
	return a, true
}

func (m *manyMessages) Done(a *delivery.Attempt, r *delivery.Report) {
	m.outcomes[a.Recipients[0].Domain] = r.Outcomes[0]
}

// sendShared carries one message to each of the domains, which must share their
// connections.
func (n *internet) sendShared(agent *delivery.Agent, level tlspolicy.Level, domains ...string) map[string]queue.Outcome {
	n.t.Helper()
	m := &manyMessages{outcomes: make(map[string]queue.Outcome)}
	for _, domain := range domains {
		plan, err := n.plan(domain, level)
		if err != nil {
			n.t.Fatal(err)
		}
		a := m.attempt(domain)
		if a.Plan = plan; len(m.left) > 0 && m.left[0].Plan.Key != plan.Key {
			n.t.Fatalf("%s: %q, %s: %q", domains[0], m.left[0].Plan.Key, domain, plan.Key)
		}
		m.left = append(m.left, a)
	}
	first := m.left[0]
	m.left = m.left[1:]
	agent.Deliver(n.t.Context(), first.Plan, first, m)
	return m.outcomes
}

// A session counts once for each domain whose mail it carries, by that domain's
// own policy: while it lasts, and when it comes out of the pool.
func TestSharedSessionCountsForEachDomain(t *testing.T) {
	t.Parallel()
	for server, want := range map[string]map[string]string{
		"good":         {"plain.test": "no-policy-found 1/0", "testing.test": "sts 1/0", "another.test": "sts 0/1 validation-failure:1"},
		"wrong name":   {"plain.test": "no-policy-found 1/0", "testing.test": "sts 0/1 certificate-host-mismatch:1", "another.test": "sts 0/1 validation-failure:1"},
		"no STARTTLS":  {"plain.test": "no-policy-found 0/1 starttls-not-supported:1", "testing.test": "sts 0/1 starttls-not-supported:1", "another.test": "sts 0/1 starttls-not-supported:1"},
		"no STARTTLS!": {"plain.test": "no-policy-found 0/1 starttls-not-supported:1", "testing.test": "sts 0/1 starttls-not-supported:1", "another.test": "sts 0/1 starttls-not-supported:1"},
	} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			n := newInternet(t)
			recorder := n.reporting()
			mx := n.host(n.serverOf(strings.TrimSuffix(server, "!"), "mx.shared.test"), "mx.shared.test")
			for domain, sts := range map[string]string{"plain.test": "no policy", "testing.test": "testing", "another.test": "testing another"} {
				n.zone.Add(domain + ". 300 IN MX 10 mx.shared.test.")
				n.publishSTSKind(sts, domain, "mx.shared.test")
			}
			agent := n.agent()
			defer agent.Close()
			if strings.HasSuffix(server, "!") { // each domain finds the connection in the pool
				for _, domain := range []string{"plain.test", "testing.test", "another.test", "testing.test"} {
					n.sendShared(agent, tlspolicy.Enable, domain)
				}
			} else {
				n.sendShared(agent, tlspolicy.Enable, "plain.test", "testing.test", "another.test", "plain.test", "testing.test")
				n.sendShared(agent, tlspolicy.Enable, "another.test", "testing.test")
			}
			if mx.Sessions() != 1 {
				t.Fatalf("%d connections, want one that all share", mx.Sessions())
			}
			for domain, tally := range want {
				if got := counted(recorder, domain); got != tally {
					t.Errorf("%s: counted %q, want %q", domain, got, tally)
				}
			}
		})
	}
}

// The trace of each domain's mail tells its own reason for the demand, and what
// the session got by with.
func TestSharedSessionIsTracedInEachDomainsWords(t *testing.T) {
	t.Parallel()
	for server, less := range map[string]string{"good": "", "no STARTTLS": "; in clear: it does not offer STARTTLS"} {
		n := newInternet(t)
		n.host(n.serverOf(server, "mx.shared.test"), "mx.shared.test")
		n.zone.Add("plain.test. 300 IN MX 10 mx.shared.test.", "testing.test. 300 IN MX 10 mx.shared.test.")
		n.publishSTS("testing.test", "testing", "mx.shared.test")
		agent := n.agent()
		defer agent.Close()
		for _, domains := range [][]string{{"plain.test", "testing.test"}, {"testing.test", "plain.test"}, {"plain.test"}} {
			for domain, o := range n.sendShared(agent, tlspolicy.Enable, domains...) {
				want := map[string]string{"plain.test": "enable", "testing.test": "enable (MTA-STS only testing)"}[domain] + less
				if o.Remote == nil || o.Remote.Demand != want {
					t.Errorf("%s, %s: %+v, want the demand %q", server, domain, o.Remote, want)
				}
			}
		}
	}
}

func TestFailureInAReportNamesTheHost(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	recorder := n.reporting()
	n.host(n.serverOf("wrong name"), "mx.a.test")
	n.zone.Add("a.test. 300 IN MX 10 mx.a.test.")
	n.publishSTS("a.test", "enforce", "mx.a.test", "*.b.test")
	n.send("a.test", tlspolicy.Enable)
	due := recorder.Due(time.Now().Add(48 * time.Hour))
	if len(due) != 1 || len(due[0].Policies) != 1 || len(due[0].Policies[0].Details) != 1 {
		t.Fatalf("%+v", due)
	}
	p := due[0].Policies[0]
	if got := strings.Join(p.Policy.Lines, "; "); got != "version: STSv1; mode: enforce; mx: mx.a.test; mx: *.b.test; max_age: 86400" || len(p.Policy.MXHosts) != 2 {
		t.Errorf("policy: %+v", p.Policy)
	}
	d := p.Details[0]
	if d.ReceivingMX != "mx.a.test" || !d.ReceivingIP.IsLoopback() || !d.SendingIP.IsLoopback() || !strings.Contains(d.Reason, "elsewhere.test") {
		t.Errorf("detail: %+v", d)
	}
}

// stranger is an authority that nobody trusts.
func stranger(t *testing.T) *smtptest.CA {
	t.Helper()
	ca, err := smtptest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// A policy that cannot be had is told of, and mail flows as without one.
func TestPolicyThatCannotBeFetchedIsReported(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		records      []string
		policy, want string
	}{
		"no policy there":    {[]string{"v=STSv1; id=1;"}, "", "sts 0/1 sts-policy-fetch-error:1"},
		"not a policy":       {[]string{"v=STSv1; id=1;"}, "hello", "sts 0/1 sts-policy-invalid:1"},
		"two records":        {[]string{"v=STSv1; id=1;", "v=STSv1; id=2;"}, "", "sts 0/1 sts-policy-invalid:1"},
		"certificate":        {[]string{"v=STSv1; id=1;"}, "certificate", "sts 0/1 sts-webpki-invalid:1"},
		"something else":     {[]string{"v=spf1 -all"}, "", ""},
		"server of policies": {[]string{"v=STSv1; id=1;"}, "down", "sts 0/1 sts-policy-fetch-error:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newInternet(t)
			recorder := n.reporting()
			n.host(n.serverOf("self-signed", "mx.a.test"), "mx.a.test")
			n.zone.Add("a.test. 300 IN MX 10 mx.a.test.")
			for _, text := range tt.records {
				n.zone.Add(`_mta-sts.a.test. 300 IN TXT "` + text + `"`)
			}
			web := n.web.String()
			switch tt.policy {
			case "":
			case "down":
				web = freshAddr().String()
			case "certificate":
				n.webCA = stranger(t)
			default:
				n.policyOf["a.test"] = tt.policy
			}
			n.zone.Add("mta-sts.a.test. 300 IN A " + web)
			for range 2 { // the second message does not ask again
				if o := n.send("a.test", tlspolicy.Enable); cellOf(o) != "tls" {
					t.Errorf("%+v", o)
				}
			}
			all := strings.Split(counted(recorder, "a.test"), ", ")
			if all[0] != "no-policy-found 2/0" || strings.Join(all[1:], ", ") != tt.want {
				t.Errorf("counted %q, want %q", all, tt.want)
			}
		})
	}
}

// Two hosts whose TLS is broken would report to each other about their reports
// for ever.
func TestReportsAreNotReportedAbout(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	recorder := n.reporting()
	for _, c := range []delivery.Connection{
		{Domain: "a.test", Message: tlspolicy.MessageTLSIgnored, TLSResult: delivery.TLSNotSupported},
		{Domain: "a.test", Message: tlspolicy.MessageRequireTLS, TLSResult: delivery.TLSNoRequire},
		{Domain: "a.test", TLSResult: delivery.TLSNotTried},
	} {
		n.observer.Connection(&c)
	}
	if got := counted(recorder, "a.test"); got != "" {
		t.Errorf("counted %q", got)
	}
}

// The policy that is remembered holds after a restart, while its server is
// away; and nobody gets around it by making the server fail.
func TestPolicySurvivesARestart(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	n.host(n.serverOf("self-signed", "mx.a.test"), "mx.a.test")
	n.zone.Add("a.test. 300 IN MX 10 mx.a.test.")
	n.publishSTS("a.test", "enforce", "mx.a.test")
	dir := t.TempDir()
	n.openSTS(dir, nil)
	if o := n.send("a.test", tlspolicy.Enable); cellOf(o) != "4.7.5" {
		t.Fatalf("%+v", o)
	}
	n.mu.Lock()
	delete(n.policyOf, "a.test")
	n.mu.Unlock()
	n.zone.Remove("_mta-sts.a.test")
	n.zone.Remove("mta-sts.a.test")
	n.openSTS(dir, nil)
	if o := n.send("a.test", tlspolicy.Enable); cellOf(o) != "4.7.5" {
		t.Errorf("after the restart: %+v", o)
	}
	if p, state, _ := n.sts.Lookup(t.Context(), "a.test"); state != mtasts.Cached || p.Mode != mtasts.Enforce {
		t.Errorf("%v %v", p, state)
	}
	n.openSTS(t.TempDir(), nil)
	if o := n.send("a.test", tlspolicy.Enable); cellOf(o) != "tls" {
		t.Errorf("without what is remembered: %+v", o)
	}
}

// Web servers of strangers are dialled under the rules of mail hosts.
func TestPolicyServerInsideIsNotAsked(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	n.host(n.serverOf("good", "mx.a.test"), "mx.a.test")
	n.publishSTS("a.test", "enforce", "mx.a.test")
	n.guard.Allow = nil
	_, state, err := n.sts.Lookup(t.Context(), "a.test")
	if state != mtasts.Absent || err == nil || !strings.Contains(err.Error(), "loopback address") {
		t.Errorf("%v, %v", state, err)
	}
	n.zone.Add("_mta-sts.b.test. 300 IN TXT \"v=STSv1; id=1;\"", "mta-sts.b.test. 300 IN AAAA 64:ff9b::a00:1")
	if _, _, err := n.sts.Lookup(t.Context(), "b.test"); err == nil || !strings.Contains(err.Error(), "private address") {
		t.Errorf("behind NAT64: %v", err)
	}
}
