package delivery

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"postrider/mta/smtptest"
	"postrider/queue"
)

func TestBrokenFirstMX(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]smtptest.Script{
		"refuses at greeting":   {On: map[string][]smtptest.Step{smtptest.OnConnect: smtptest.Do(smtptest.Step{Reply: "554 go away", Then: smtptest.Close})}},
		"busy at greeting":      {On: map[string][]smtptest.Step{smtptest.OnConnect: smtptest.Do(smtptest.Step{Reply: "421 busy", Then: smtptest.Close})}},
		"hangs up at greeting":  {On: map[string][]smtptest.Step{smtptest.OnConnect: smtptest.Do(smtptest.Step{Then: smtptest.Close})}},
		"talks nonsense":        {On: map[string][]smtptest.Step{smtptest.OnConnect: smtptest.Do(smtptest.Step{Raw: "hello?\r\n", Then: smtptest.Close})}},
		"refuses EHLO and HELO": {On: map[string][]smtptest.Step{"EHLO": smtptest.Say("550 no"), "HELO": smtptest.Say("550 no")}},
		"hangs up at MAIL":      {On: map[string][]smtptest.Step{"MAIL": smtptest.Do(smtptest.Step{Then: smtptest.Close})}},
		"421 at MAIL":           {On: map[string][]smtptest.Step{"MAIL": smtptest.Do(smtptest.Step{Reply: "421 too busy", Then: smtptest.Close})}},
		"hangs up at RCPT":      {On: map[string][]smtptest.Step{"RCPT": smtptest.Do(smtptest.Step{Then: smtptest.Close})}},
		"421 at RCPT":           {On: map[string][]smtptest.Step{"RCPT": smtptest.Do(smtptest.Step{Reply: "421 too busy", Then: smtptest.Close})}},
		"hangs up at DATA":      {On: map[string][]smtptest.Step{"DATA": smtptest.Do(smtptest.Step{Then: smtptest.Close})}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.host("mx1.a.test", script)
			s.host("mx2.a.test", smtptest.Script{})
			s.mx("a.test", "mx1.a.test", "mx2.a.test")
			o := s.one("r@a.test")
			checkDelivered(t, o)
			if o.Remote.Host != "mx2.a.test" {
				t.Errorf("delivered to %s", o.Remote.Host)
			}
		})
	}
	t.Run("is down", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		s.down("mx1.a.test")
		s.host("mx2.a.test", smtptest.Script{})
		s.mx("a.test", "mx1.a.test", "mx2.a.test")
		checkDelivered(t, s.one("r@a.test"))
	})
	t.Run("has no address", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		s.host("mx2.a.test", smtptest.Script{})
		s.mx("a.test", "mx1.a.test", "mx2.a.test")
		checkDelivered(t, s.one("r@a.test"))
	})
}

// A host that takes part and refuses has spoken for the domain: no other one
// is asked.
func TestRefusalIsNotTakenToTheNextHost(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		key  string
		say  string
		want want
	}{
		"recipient unknown":  {"RCPT", "550 5.1.1 no such user", want{queue.Failed, queue.ScopeRecipient, queue.StageRCPT, 550, "5.1.1", "5.1.1 no such user"}},
		"recipient for now":  {"RCPT", "450 mailbox busy", want{queue.Deferred, queue.ScopeRecipient, queue.StageRCPT, 450, "4.2.0", "mailbox busy"}},
		"domain takes none":  {"RCPT", "556 no mail here", want{queue.Failed, queue.ScopeRecipient, queue.StageRCPT, 556, "5.1.10", "no mail here"}},
		"sender":             {"MAIL", "550 5.7.1 not you", want{queue.Failed, queue.ScopeMessage, queue.StageMAIL, 550, "5.7.1", "not you"}},
		"sender for now":     {"MAIL", "451 local error", want{queue.Deferred, queue.ScopeMessage, queue.StageMAIL, 451, "4.3.0", "local error"}},
		"DATA":               {"DATA", "554 no", want{queue.Failed, queue.ScopeMessage, queue.StageDATA, 554, "5.0.0", "no"}},
		"content":            {smtptest.OnEnd, "554 5.7.1 spam\nsee http://x.test", want{queue.Failed, queue.ScopeMessage, queue.StageFinal, 554, "5.7.1", "5.7.1 spam see http://x.test"}},
		"content for now":    {smtptest.OnEnd, "452 4.3.1 disk full", want{queue.Deferred, queue.ScopeMessage, queue.StageFinal, 452, "4.3.1", "disk full"}},
		"class does not fit": {"RCPT", "450 5.1.1 confused", want{queue.Deferred, queue.ScopeRecipient, queue.StageRCPT, 450, "4.2.0", "confused"}},
		"421 after content":  {smtptest.OnEnd, "421 4.3.2 going down", want{queue.Deferred, queue.ScopeMessage, queue.StageFinal, 421, "4.3.2", "going down"}},
		"several lines":      {"RCPT", "550 5.1.1 no\n5.1.1 such\n5.1.1 user", want{queue.Failed, queue.ScopeRecipient, queue.StageRCPT, 550, "5.1.1", "5.1.1 no such user"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.host("mx1.a.test", smtptest.Script{On: map[string][]smtptest.Step{tt.key: smtptest.Say(tt.say)}})
			second := s.host("mx2.a.test", smtptest.Script{})
			s.mx("a.test", "mx1.a.test", "mx2.a.test")
			m := mail("r@a.test")
			s.deliver(m)
			check(t, m.outcome(t), tt.want)
			if m.report.Site != SiteAlive {
				t.Errorf("news of the site: %v", m.report.Site)
			}
			if second.Sessions() != 0 {
				t.Error("the second host was asked")
			}
		})
	}
}

func TestAllHostsFailed(t *testing.T) {
	t.Parallel()
	greet := func(reply string) smtptest.Script {
		return smtptest.Script{On: map[string][]smtptest.Step{smtptest.OnConnect: smtptest.Do(smtptest.Step{Reply: reply, Then: smtptest.Close})}}
	}
	for name, tt := range map[string]struct {
		first, second *smtptest.Script // nil: down
		want          want
		site          SiteNews
	}{
		"all down": {nil, nil,
			want{queue.Deferred, queue.ScopeSite, queue.StageConnect, 0, "4.4.1", "connection refused (as did 1 more"}, SiteFailed},
		"554 in place of a greeting is not for ever": {ptr(greet("554 5.7.1 you are listed")), nil,
			want{queue.Deferred, queue.ScopeSite, queue.StageGreeting, 554, "4.7.1", "you are listed"}, SiteFailed},
		"nor where all hosts say so": {ptr(greet("554 5.7.1 you are listed")), ptr(greet("550 you too")),
			want{queue.Deferred, queue.ScopeSite, queue.StageGreeting, 550, "4.7.1", "you too"}, SiteFailed},
		"521 from all is (RFC 7504)": {ptr(greet("521 never")), ptr(greet("521 never ever")),
			want{queue.Failed, queue.ScopeSite, queue.StageGreeting, 521, "5.3.2", "never"}, SiteUnknown},
		"521 from one is not": {ptr(greet("521 never")), nil,
			want{queue.Deferred, queue.ScopeSite, queue.StageGreeting, 521, "4.3.2", "never"}, SiteFailed},
		"what a host said tells more": {ptr(greet("421 4.3.2 busy")), nil,
			want{queue.Deferred, queue.ScopeSite, queue.StageGreeting, 421, "4.3.2", "busy"}, SiteFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			for host, script := range map[string]*smtptest.Script{"mx1.a.test": tt.first, "mx2.a.test": tt.second} {
				if script == nil {
					s.down(host)
				} else {
					s.host(host, *script)
				}
			}
			s.mx("a.test", "mx1.a.test", "mx2.a.test")
			m := mail("r@a.test")
			s.deliver(m)
			check(t, m.outcome(t), tt.want)
			if m.report.Site != tt.site {
				t.Errorf("news of the site: %v", m.report.Site)
			}
			if o := m.outcome(t); o.Remote == nil || o.Remote.Host == "" {
				t.Error("no host is named")
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

func TestIPv6AndIPv4FallBackBothWays(t *testing.T) {
	t.Parallel()
	if server, err := smtptest.Start("[::1]:0", smtptest.Script{}); err != nil {
		t.Skipf("no IPv6 on this host: %v", err)
	} else {
		server.Close()
	}
	t.Run("IPv6 is down", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		s.host("mx1.a.test", smtptest.Script{})
		s.zone.Add("mx1.a.test. 300 IN AAAA ::1") // nothing listens there on this port
		s.mx("a.test", "mx1.a.test")
		o := s.one("r@a.test")
		checkDelivered(t, o)
		if !o.Remote.IP.Is4() {
			t.Errorf("delivered to %v", o.Remote.IP)
		}
	})
	t.Run("IPv4 is down", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		server, err := smtptest.Start("[::1]:0", smtptest.Script{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		s.port = int(netip.MustParseAddrPort(server.Addr().String()).Port())
		s.down("mx1.a.test")
		s.zone.Add("mx1.a.test. 300 IN AAAA ::1")
		s.mx("a.test", "mx1.a.test")
		o := s.one("r@a.test")
		checkDelivered(t, o)
		if !o.Remote.IP.Is6() {
			t.Errorf("delivered to %v", o.Remote.IP)
		}
	})
}

func TestEqualHostsAreTakenAtRandom(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	one, two := s.host("mx1.a.test", smtptest.Script{}), s.host("mx2.a.test", smtptest.Script{})
	s.zone.Add("a.test. 300 IN MX 10 mx1.a.test.", "a.test. 300 IN MX 10 mx2.a.test.")
	s.dest.MaxMessages = 1   // no connection is kept
	plan := s.plan("a.test") // one and the same, as for all messages of a lane
	const n = 60
	for range n {
		m := mail("r@a.test")
		s.agent.Deliver(t.Context(), plan, &m.attempt, &workList{t: t})
		checkDelivered(t, m.outcome(t))
	}
	// Either host gets fewer than 10 of 60 about once in 10^8 runs.
	if a, b := one.Sessions(), two.Sessions(); a+b != n || a < 10 || b < 10 {
		t.Errorf("%d and %d sessions", a, b)
	}
}

func TestAddressLiteral(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, s *scene, domain, host string) {
		t.Helper()
		m := mail("r@" + domain)
		s.deliver(m)
		o := m.outcome(t)
		checkDelivered(t, o)
		if o.Remote.Host != host {
			t.Errorf("remote: %+v", o.Remote)
		}
	}
	t.Run("IPv4", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		_, addr := s.listen(smtptest.Script{Extensions: modern})
		check(t, s, "["+addr.String()+"]", "["+addr.String()+"]")
	})
	t.Run("IPv6", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		server, err := smtptest.Start("[::1]:0", smtptest.Script{Extensions: modern})
		if err != nil {
			t.Skipf("no IPv6 on this host: %v", err)
		}
		t.Cleanup(func() { server.Close() })
		s.port = int(netip.MustParseAddrPort(server.Addr().String()).Port())
		check(t, s, "[IPv6:::1]", "[::1]")
		if tx := server.Transactions(); len(tx) != 1 || tx[0].Rcpts[0].Address != "r@[IPv6:::1]" {
			t.Errorf("transactions: %+v", tx)
		}
	})
}

// A domain with more hosts and addresses than we ask at most costs no more of
// our time than those.
func TestHostsAndAddressesTriedAreCapped(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ hosts, each, want int }{
		"11 hosts": {11, 1, 10}, "21 addresses": {7, 3, 20}, "one host of 21 addresses": {1, 21, 20},
		"10 hosts of 2 addresses": {10, 2, 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			busy := smtptest.Script{On: map[string][]smtptest.Step{smtptest.OnConnect: smtptest.Do(smtptest.Step{Reply: "421 busy", Then: smtptest.Close})}}
			var names []string
			var servers []*smtptest.Server
			for i := range tt.hosts {
				names = append(names, fmt.Sprintf("mx%d.a.test", i))
				for range tt.each {
					servers = append(servers, s.host(names[i], busy))
				}
			}
			s.mx("a.test", names...)
			check(t, s.one("r@a.test"), want{queue.Deferred, queue.ScopeSite, queue.StageGreeting, 421, "4.3.2", "busy"})
			tried := 0
			for _, server := range servers {
				tried += server.Sessions()
			}
			if tried != tt.want {
				t.Errorf("%d of %d addresses were tried, want %d", tried, len(servers), tt.want)
			}
		})
	}
}

func TestSourceAddress(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.options.Sources = []netip.Addr{netip.MustParseAddr("127.77.255.1"), netip.MustParseAddr("2001:db8::1")}
	s.options.HELO = func(local netip.Addr) string { return strings.ReplaceAll(local.String(), ".", "-") + ".out.test" }
	mx := s.host("mx1.a.test", smtptest.Script{Extensions: modern})
	s.mx("a.test", "mx1.a.test")
	for range 2 {
		checkDelivered(t, s.one("r@a.test"))
	}
	for _, tx := range mx.Transactions() {
		if tx.HELO != "127-77-255-1.out.test" {
			t.Errorf("HELO %s", tx.HELO)
		}
	}
	if mx.Sessions() != 1 {
		t.Errorf("%d sessions: the connection of the same source was not used again", mx.Sessions())
	}
}

func TestAddressesOfNoSourcesFamilyAreLeftOut(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.options.Sources = []netip.Addr{netip.MustParseAddr("::1")}
	mx := s.host("mx1.a.test", smtptest.Script{})
	s.mx("a.test", "mx1.a.test")
	check(t, s.one("r@a.test"), want{queue.Deferred, queue.ScopeSite, queue.StageConnect, 0, "4.4.1", "source_addresses"})
	if mx.Sessions() != 0 {
		t.Error("connected all the same")
	}
}

func TestGuardRefusesWhatAStrangersDNSSays(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	mx := s.host("mx1.a.test", smtptest.Script{})
	s.mx("a.test", "mx1.a.test")
	s.options.Guard = &Guard{}
	check(t, s.one("r@a.test"), want{queue.Failed, queue.ScopeSite, queue.StagePolicy, 0, "5.4.4", "allow_networks"})
	if mx.Sessions() != 0 {
		t.Error("connected")
	}
	// What the operator writes is dialled without it, and that connection does
	// not serve a stranger's domain.
	s.fixed["inside.test"] = []string{"mx1.a.test"}
	checkDelivered(t, s.one("r@inside.test"))
	check(t, s.one("r@a.test"), want{queue.Failed, queue.ScopeSite, queue.StagePolicy, 0, "5.4.4", "allow_networks"})
	if n := len(mx.Transactions()); n != 1 {
		t.Errorf("%d messages got through", n)
	}
}

func TestNotEveryHostIsTriedWithATransactionThatBreaksSessions(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	var hosts []string
	var servers []*smtptest.Server
	for i := range 6 {
		h := fmt.Sprintf("mx%d.a.test", i)
		hosts = append(hosts, h)
		servers = append(servers, s.host(h, smtptest.Script{On: map[string][]smtptest.Step{"MAIL": smtptest.Do(smtptest.Step{Then: smtptest.Close})}}))
	}
	s.mx("a.test", hosts...)
	m := mail("r@a.test")
	s.deliver(m)
	check(t, m.outcome(t), want{queue.Deferred, queue.ScopeSite, queue.StageMAIL, 0, "4.4.2", "mx2.a.test"})
	n := 0
	for _, server := range servers {
		n += server.Sessions()
	}
	if n != maxSessions || m.report.Site != SiteFailed {
		t.Errorf("%d hosts were tried, news %v", n, m.report.Site)
	}
}

func TestRefusedAndDisconnected(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.host("mx1.a.test", smtptest.Script{Extensions: []string{"PIPELINING"}, On: map[string][]smtptest.Step{"RCPT": smtptest.Do(smtptest.Step{Reply: "550 5.1.1 no such user", Then: smtptest.Close})}})
	second := s.host("mx2.a.test", smtptest.Script{})
	s.mx("a.test", "mx1.a.test", "mx2.a.test")
	check(t, s.one("r@a.test"), want{queue.Failed, queue.ScopeRecipient, queue.StageRCPT, 550, "5.1.1", "no such user"})
	if second.Sessions() != 0 {
		t.Error("the second host was asked, though the first had decided")
	}
}
