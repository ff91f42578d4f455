package delivery

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postrider/mta/smtptest"
	"postrider/queue"
)

var modern = []string{"PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE 10000000", "ENHANCEDSTATUSCODES"}

func TestDeliverToTheFirstMX(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	first := s.host("mx1.a.test", smtptest.Script{Extensions: modern})
	second := s.host("mx2.a.test", smtptest.Script{})
	s.mx("a.test", "mx1.a.test", "mx2.a.test")
	m := mail("r@a.test")
	s.deliver(m)
	o := m.outcome(t)
	checkDelivered(t, o)
	if o.Remote.Host != "mx1.a.test" || !o.Remote.IP.IsLoopback() || o.Remote.HELO != "out.test" || o.Remote.Demand != "enable" || o.Remote.TLS != "" {
		t.Errorf("remote: %+v", o.Remote)
	}
	if m.report.Site != SiteAlive || m.report.Timing.Connect <= 0 || m.report.Timing.Transfer <= 0 {
		t.Errorf("report: %+v", m.report)
	}
	got := first.Transactions()
	if len(got) != 1 || string(got[0].Content) != hello || got[0].From != "s@from.test" || got[0].HELO != "out.test" || second.Sessions() != 0 {
		t.Errorf("received: %+v; sessions at the second host: %d", got, second.Sessions())
	}
	if v := first.Violations(); len(v) > 0 {
		t.Errorf("violations: %v", v)
	}
}

func TestManyMessagesOverOneConnection(t *testing.T) {
	t.Parallel()
	for _, extensions := range [][]string{nil, {"PIPELINING"}, modern} {
		t.Run(strings.Join(extensions, " "), func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			mx := s.host("mx1.a.test", smtptest.Script{Extensions: extensions})
			s.mx("a.test", "mx1.a.test")
			var all []*letter
			for range 20 {
				all = append(all, mail("r@a.test"))
			}
			s.deliver(all...)
			for i, m := range all {
				checkDelivered(t, m.outcome(t))
				if connected := m.report.Timing.Connect > 0; connected != (i == 0) {
					t.Errorf("message %d: %v to connect", i, m.report.Timing.Connect)
				}
			}
			if mx.Sessions() != 1 || len(mx.Violations()) > 0 {
				t.Errorf("%d sessions, violations %v", mx.Sessions(), mx.Violations())
			}
		})
	}
}

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

func TestOneRecipientRefusedOthersDelivered(t *testing.T) {
	t.Parallel()
	for _, extensions := range [][]string{nil, {"PIPELINING"}, modern} {
		s := newScene(t)
		mx := s.host("mx1.a.test", smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{
			"RCPT TO:<b@a.test>": smtptest.Say("550 5.1.1 who"),
			"RCPT TO:<c@a.test>": smtptest.Say("451 4.3.0 later"),
		}})
		s.mx("a.test", "mx1.a.test")
		m, next := mail("a@a.test", "b@a.test", "c@a.test", "d@a.test"), mail("a@a.test")
		s.deliver(m, next)
		o := m.report.Outcomes
		checkDelivered(t, o[0])
		check(t, o[1], want{queue.Failed, queue.ScopeRecipient, queue.StageRCPT, 550, "5.1.1", "who"})
		check(t, o[2], want{queue.Deferred, queue.ScopeRecipient, queue.StageRCPT, 451, "4.3.0", "later"})
		checkDelivered(t, o[3])
		checkDelivered(t, next.outcome(t))
		if len(mx.Violations()) > 0 {
			t.Errorf("violations: %v", mx.Violations())
		}
	}
}

func TestDisconnectInData(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.host("mx1.a.test", smtptest.Script{On: map[string][]smtptest.Step{smtptest.OnContent: smtptest.Do(smtptest.Step{After: 1000, Then: smtptest.Reset})}})
	s.mx("a.test", "mx1.a.test")
	m := mail("r@a.test")
	m.content = "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 1<<17)
	s.deliver(m)
	o := m.outcome(t)
	check(t, o, want{queue.Deferred, queue.ScopeSite, queue.StageBody, 0, "4.4.2", "mx1.a.test"})
	if o.InDoubt {
		t.Error("in doubt, though not all was sent")
	}
}

func TestDisconnectAfterTheFinalDot(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.host("mx1.a.test", smtptest.Script{On: map[string][]smtptest.Step{smtptest.OnEnd: smtptest.Do(smtptest.Step{Then: smtptest.Close})}})
	second := s.host("mx2.a.test", smtptest.Script{})
	s.mx("a.test", "mx1.a.test", "mx2.a.test")
	o := s.one("r@a.test")
	check(t, o, want{queue.Deferred, queue.ScopeHost, queue.StageFinal, 0, "4.4.2", "was lost"})
	if !o.InDoubt {
		t.Error("not in doubt")
	}
	if second.Sessions() != 0 {
		t.Error("sent again at once, though the host may have it")
	}
}

// A server that closes after every message, without a word: what was asked
// early and not come to is carried over a new connection, uncharged.
func TestServerThatClosesAfterEachMessage(t *testing.T) {
	t.Parallel()
	for _, extensions := range [][]string{nil, {"PIPELINING"}, modern} {
		for name, end := range map[string]smtptest.Step{
			"closes":   {Reply: "250 2.0.0 ok", Then: smtptest.Close},
			"says 421": {Reply: "250 2.0.0 ok", Raw: "421 4.7.0 enough for today\r\n", Then: smtptest.Close},
		} {
			t.Run(fmt.Sprint(name, len(extensions)), func(t *testing.T) {
				t.Parallel()
				s := newScene(t)
				mx := s.host("mx1.a.test", smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{smtptest.OnEnd: smtptest.Do(end)}})
				s.mx("a.test", "mx1.a.test")
				var all []*letter
				for range 5 {
					all = append(all, mail("r@a.test"))
				}
				s.deliver(all...)
				for _, m := range all {
					checkDelivered(t, m.outcome(t))
				}
				if mx.Sessions() != 5 {
					t.Errorf("%d sessions", mx.Sessions())
				}
			})
		}
	}
}

func TestMessagesPerConnection(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		max        int
		extensions []string
	}{
		"ours":    {3, modern},
		"MAILMAX": {0, append([]string{"LIMITS MAILMAX=3"}, modern...)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			mx := s.host("mx1.a.test", smtptest.Script{Extensions: tt.extensions})
			s.mx("a.test", "mx1.a.test")
			s.dest.MaxMessages = tt.max
			var all []*letter
			for range 7 {
				all = append(all, mail("r@a.test"))
			}
			s.deliver(all...)
			for _, m := range all {
				checkDelivered(t, m.outcome(t))
			}
			if mx.Sessions() != 3 {
				t.Errorf("%d sessions for 7 messages, 3 each", mx.Sessions())
			}
		})
	}
}

func TestIdleConnectionIsUsedAgain(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	mx := s.host("mx1.a.test", smtptest.Script{Extensions: modern})
	s.mx("a.test", "mx1.a.test")
	s.mx("b.test", "mx1.a.test") // another domain at the same host
	for _, to := range []string{"r@a.test", "r@a.test", "r@b.test"} {
		checkDelivered(t, s.one(to))
	}
	if mx.Sessions() != 1 {
		t.Errorf("%d sessions", mx.Sessions())
	}
	if open, idle := s.agent.Connections(); open != 1 || idle != 1 {
		t.Errorf("%d open, %d idle", open, idle)
	}
}

func TestQuietCloseOfAnIdleConnectionIsNoFailure(t *testing.T) {
	t.Parallel()
	for name, close := range map[string]smtptest.Step{
		"closed":     {Reply: "250 ok", Then: smtptest.Close},
		"with a 421": {Reply: "250 ok", Raw: "421 idle for too long\r\n", Then: smtptest.Close},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			mx := s.host("mx1.a.test", smtptest.Script{Extensions: modern, On: map[string][]smtptest.Step{smtptest.OnEnd: smtptest.Do(close, smtptest.Step{})}})
			s.mx("a.test", "mx1.a.test")
			checkDelivered(t, s.one("r@a.test"))
			if !mx.WaitIdle(10 * time.Second) {
				t.Fatal("the server did not close")
			}
			m := mail("r@a.test")
			s.deliver(m)
			checkDelivered(t, m.outcome(t))
			if mx.Sessions() != 2 {
				t.Errorf("%d sessions", mx.Sessions())
			}
		})
	}
}

func TestIdleConnectionsEnd(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.options.IdleFor = 20 * time.Millisecond
	mx := s.host("mx1.a.test", smtptest.Script{Extensions: modern})
	s.mx("a.test", "mx1.a.test")
	checkDelivered(t, s.one("r@a.test"))
	if !mx.WaitCommand("QUIT", 10*time.Second) {
		t.Error("no QUIT after the idle time")
	}
}

func TestNoConnectionIsKeptForLongerThanItsLife(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	mx := s.host("mx1.a.test", smtptest.Script{Extensions: modern})
	s.mx("a.test", "mx1.a.test")
	checkDelivered(t, s.one("r@a.test"))
	s.agent.pool.mu.Lock()
	s.agent.pool.oldest.openedAt = time.Now().Add(-301 * time.Second)
	s.agent.pool.mu.Unlock()
	checkDelivered(t, s.one("r@a.test"))
	if mx.Sessions() != 2 {
		t.Errorf("%d sessions", mx.Sessions())
	}
}

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
	s := newScene(t)
	_, addr := s.listen(smtptest.Script{Extensions: modern})
	domain := "[" + addr.String() + "]"
	m := mail("r@" + domain)
	s.deliver(m)
	o := m.outcome(t)
	checkDelivered(t, o)
	if o.Remote.Host != domain {
		t.Errorf("remote: %+v", o.Remote)
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

func TestStopBeforeAConnection(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	mx := s.host("mx1.a.test", smtptest.Script{On: map[string][]smtptest.Step{"EHLO": smtptest.Do(smtptest.Step{Then: smtptest.Hang})}})
	s.mx("a.test", "mx1.a.test")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		mx.WaitCommand("EHLO", 10*time.Second)
		cancel()
	}()
	m := mail("r@a.test")
	s.deliverCtx(ctx, m)
	if o := m.outcome(t); o.Verdict != queue.Untried || m.report.Site != SiteUnknown {
		t.Errorf("our own stop became %s, site %v", show(o), m.report.Site)
	}
}

func TestStopFinishesWhatIsOnTheWire(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	mx := s.host("mx1.a.test", smtptest.Script{Extensions: []string{"PIPELINING"}, On: map[string][]smtptest.Step{smtptest.OnEnd: smtptest.Do(smtptest.Step{Wait: 50 * time.Millisecond, Reply: "250 2.0.0 ok"})}})
	s.mx("a.test", "mx1.a.test")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		mx.WaitCommand("DATA", 10*time.Second)
		cancel()
	}()
	m := mail("r@a.test")
	s.deliverCtx(ctx, m)
	checkDelivered(t, m.outcome(t))
}

func TestCloseEndsAttemptsOnTheWire(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		hangAt  string
		inDoubt bool
	}{
		"before the content": {"RCPT", false},
		"after the content":  {smtptest.OnEnd, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			mx := s.host("mx1.a.test", smtptest.Script{On: map[string][]smtptest.Step{tt.hangAt: smtptest.Do(smtptest.Step{Then: smtptest.Hang})}})
			s.mx("a.test", "mx1.a.test")
			s.start()
			go func() {
				mx.WaitCommand("RCPT", 10*time.Second)
				if tt.inDoubt {
					mx.WaitTransactions(1, 10*time.Second)
				}
				s.agent.Close()
			}()
			m := mail("r@a.test")
			s.deliver(m)
			o := m.outcome(t)
			if o.InDoubt != tt.inDoubt || tt.inDoubt != (o.Verdict == queue.Deferred) || !tt.inDoubt && o.Verdict != queue.Untried {
				t.Errorf("got %s", show(o))
			}
		})
	}
}

func TestDamagedContentIsDeferredAndTheSessionGoesOn(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	mx := s.host("mx1.a.test", smtptest.Script{Extensions: modern})
	s.mx("a.test", "mx1.a.test")
	bad, good := mail("r@a.test"), mail("r@a.test")
	bad.openErr = errBroken
	s.deliver(bad, good)
	check(t, bad.outcome(t), want{queue.Deferred, queue.ScopeMessage, queue.StageQueue, 0, "4.3.0", "checksum does not match"})
	checkDelivered(t, good.outcome(t))
	if mx.Sessions() != 1 {
		t.Errorf("%d sessions", mx.Sessions())
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

func TestRoomForNewConnectionsIsMadeByClosingIdleOnes(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.options.MaxConnections = 2
	var servers []*smtptest.Server
	for i := range 3 {
		host, domain := fmt.Sprintf("mx%d.test", i), fmt.Sprintf("d%d.test", i)
		servers = append(servers, s.host(host, smtptest.Script{}))
		s.mx(domain, host)
		checkDelivered(t, s.one("r@"+domain))
	}
	if !servers[0].WaitIdle(10 * time.Second) {
		t.Error("the oldest idle connection was not closed")
	}
	if open, idle := s.agent.Connections(); open != 2 || idle != 2 {
		t.Errorf("%d open, %d idle", open, idle)
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

func TestServiceEndsBeforeTheSecondMessage(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]smtptest.Step{
		"421":    {Reply: "421 4.7.0 enough", Then: smtptest.Close},
		"closed": {Then: smtptest.Close},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			mx := s.host("mx1.a.test", smtptest.Script{On: map[string][]smtptest.Step{"MAIL": smtptest.Do(smtptest.Step{}, step, smtptest.Step{})}})
			s.mx("a.test", "mx1.a.test")
			first, second := mail("r@a.test"), mail("r@a.test")
			s.deliver(first, second)
			checkDelivered(t, first.outcome(t))
			checkDelivered(t, second.outcome(t))
			if second.report.Slow || mx.Sessions() != 2 {
				t.Errorf("slow %v, %d sessions", second.report.Slow, mx.Sessions())
			}
		})
	}
}

func TestConnectionsUnderAFormerHELONameAreNotUsed(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	name := "one.test"
	s.options.HELO = func(netip.Addr) string { return name }
	mx := s.host("mx1.a.test", smtptest.Script{})
	s.mx("a.test", "mx1.a.test")
	checkDelivered(t, s.one("r@a.test"))
	name = "two.test"
	checkDelivered(t, s.one("r@a.test"))
	if got := mx.Transactions(); len(got) != 2 || got[1].HELO != "two.test" {
		t.Errorf("received %+v", got)
	}
}
