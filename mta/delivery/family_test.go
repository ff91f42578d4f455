package delivery

import (
	"net/netip"
	"testing"

	"postrider/mta/smtptest"
	"postrider/queue"
)

// bothFamilies gives mx1.a.test an IPv6 and an IPv4 address with a server each.
func (s *scene) bothFamilies(six, four smtptest.Script) (v6, v4 *smtptest.Server) {
	s.t.Helper()
	v6, err := smtptest.Start("[::1]:0", six)
	if err != nil {
		s.t.Skipf("no IPv6 on this host: %v", err)
	}
	s.t.Cleanup(func() { v6.Close() })
	s.port = int(netip.MustParseAddrPort(v6.Addr().String()).Port())
	v4 = s.host("mx1.a.test", four)
	s.zone.Add("mx1.a.test. 300 IN AAAA ::1")
	s.mx("a.test", "mx1.a.test")
	return v6, v4
}

func TestRefusedByPolicyOverOneFamily(t *testing.T) {
	t.Parallel()
	noPTR := func(key string) smtptest.Script {
		return smtptest.Script{Extensions: modern, On: map[string][]smtptest.Step{key: smtptest.Say("550 5.7.25 no PTR record")}}
	}
	for _, key := range []string{"MAIL", "RCPT", smtptest.OnEnd} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			v6, v4 := s.bothFamilies(noPTR(key), smtptest.Script{Extensions: modern})
			var all []*letter
			for range 4 {
				all = append(all, mail("r@a.test"))
			}
			s.deliver(all...)
			for _, m := range all {
				checkDelivered(t, m.outcome(t))
			}
			checkDelivered(t, s.one("r@a.test")) // nor is the refused connection kept
			if v6.Sessions() != 1 || v4.Sessions() != 1 {
				t.Errorf("%d and %d sessions", v6.Sessions(), v4.Sessions())
			}
		})
	}
	t.Run("over both", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		v6, v4 := s.bothFamilies(noPTR("MAIL"), noPTR("MAIL"))
		check(t, s.one("r@a.test"), want{queue.Failed, queue.ScopeMessage, queue.StageMAIL, 550, "5.7.25", "no PTR"})
		if v6.Sessions() != 1 || v4.Sessions() != 1 {
			t.Errorf("%d and %d sessions", v6.Sessions(), v4.Sessions())
		}
	})
	t.Run("not by policy", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		_, v4 := s.bothFamilies(smtptest.Script{On: map[string][]smtptest.Step{"RCPT": smtptest.Say("550 5.1.1 no such user")}}, smtptest.Script{})
		check(t, s.one("r@a.test"), want{queue.Failed, queue.ScopeRecipient, queue.StageRCPT, 550, "5.1.1", "no such user"})
		if v4.Sessions() != 0 {
			t.Error("the other family was asked")
		}
	})
	t.Run("the other is down", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		_, v4 := s.bothFamilies(noPTR("MAIL"), smtptest.Script{})
		v4.Close()
		m := mail("r@a.test")
		s.deliver(m)
		check(t, m.outcome(t), want{queue.Deferred, queue.ScopeMessage, queue.StageMAIL, 550, "4.7.25", "no PTR"})
	})
	t.Run("after a message was taken", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		_, v4 := s.bothFamilies(smtptest.Script{On: map[string][]smtptest.Step{smtptest.OnEnd: smtptest.Do(smtptest.Step{Reply: "250 ok"}, smtptest.Step{Reply: "550 5.7.1 spam"})}}, smtptest.Script{})
		first, second := mail("r@a.test"), mail("r@a.test")
		s.deliver(first, second)
		checkDelivered(t, first.outcome(t))
		check(t, second.outcome(t), want{queue.Failed, queue.ScopeMessage, queue.StageFinal, 550, "5.7.1", "spam"})
		if v4.Sessions() != 0 {
			t.Error("the other family was asked about this message")
		}
	})
}
