package delivery

import (
	"crypto/tls"
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
	if o.Remote.Host != "mx1.a.test" || !o.Remote.IP.IsLoopback() || o.Remote.HELO != "out.test" || o.Remote.Demand != "enable; in clear: it does not offer STARTTLS" || o.Remote.TLS != "" {
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

// Domains with names of their own for one host share its connections, and each
// is told its own name.
func TestHostIsCalledByEachDomainsName(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	mx, addr := s.listen(smtptest.Script{})
	s.mx("a.test", "mx1.a.test")
	s.mx("b.test", "mx1.b.test")
	s.zone.Add("mx1.a.test. 300 IN A "+addr.String(), "mx1.b.test. 300 IN A "+addr.String())
	first := s.one("r@a.test")
	second := s.one("r@b.test")
	checkDelivered(t, second)
	if mx.Sessions() != 1 {
		t.Errorf("%d sessions", mx.Sessions())
	}
	if first.Remote.Host != "mx1.a.test" || second.Remote.Host != "mx1.b.test" || second.Remote.IP != addr {
		t.Errorf("delivered to %+v, then to %+v", first.Remote, second.Remote)
	}
}

// What nobody sets is what the documentation says.
func TestDefaultsOfTheAgent(t *testing.T) {
	t.Parallel()
	a := NewAgent(Options{})
	if a.pool.idleFor != 5*time.Second || a.o.Life != 300*time.Second || a.o.Connect != 30*time.Second || a.o.MinTLS != tls.VersionTLS12 {
		t.Errorf("idle for %v, life %v, connect %v, TLS from %x", a.pool.idleFor, a.o.Life, a.o.Connect, a.o.MinTLS)
	}
}
