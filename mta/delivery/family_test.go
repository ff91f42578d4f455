package delivery

import (
	"net"
	"net/netip"
	"os"
	"syscall"
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
	t.Run("for now", func(t *testing.T) {
		t.Parallel()
		for reply, elsewhere := range map[string]bool{
			"450 4.7.25 no PTR record": true, "451 4.7.23 the address has no PTR": true, "451 4.7.26 neither SPF nor DKIM": true,
			"451 4.7.1 greylisted": false, "450 4.7.0 come back later": false,
		} {
			t.Run(reply, func(t *testing.T) {
				t.Parallel()
				s := newScene(t)
				_, v4 := s.bothFamilies(smtptest.Script{On: map[string][]smtptest.Step{"RCPT": smtptest.Say(reply)}}, smtptest.Script{})
				o := s.one("r@a.test")
				if (o.Verdict == queue.Delivered) != elsewhere || v4.Sessions() > 0 != elsewhere {
					t.Errorf("%d sessions with the other family: %s", v4.Sessions(), show(o))
				}
			})
		}
	})
	t.Run("for now over both", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		say := smtptest.Script{On: map[string][]smtptest.Step{"MAIL": smtptest.Say("450 4.7.25 no PTR record")}}
		v6, v4 := s.bothFamilies(say, say)
		check(t, s.one("r@a.test"), want{queue.Deferred, queue.ScopeMessage, queue.StageMAIL, 450, "4.7.25", "no PTR"})
		if v6.Sessions() != 1 || v4.Sessions() != 1 {
			t.Errorf("%d and %d sessions", v6.Sessions(), v4.Sessions())
		}
	})
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

// Where each host has one family, the other is that of the next host, at
// whatever preference (RFC 5321, section 5.1); hosts of the family that was
// refused are passed over.
func TestNextHostHasTheOtherFamily(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	noPTR := smtptest.Script{On: map[string][]smtptest.Step{"RCPT": smtptest.Say("550 5.7.25 no PTR record")}}
	first := s.host("mx1.a.test", noPTR)
	same := s.host("mx2.a.test", smtptest.Script{})
	six, err := smtptest.Start(netip.AddrPortFrom(netip.IPv6Loopback(), uint16(s.port)).String(), smtptest.Script{})
	if err != nil {
		t.Skipf("no IPv6 on this host: %v", err)
	}
	t.Cleanup(func() { six.Close() })
	s.zone.Add("mx3.a.test. 300 IN AAAA ::1")
	s.mx("a.test", "mx1.a.test", "mx2.a.test", "mx3.a.test")
	o := s.one("r@a.test")
	checkDelivered(t, o)
	if o.Remote.Host != "mx3.a.test" || first.Sessions() != 1 || same.Sessions() != 0 {
		t.Errorf("delivered to %s; %d and %d sessions with the others", o.Remote.Host, first.Sessions(), same.Sessions())
	}
}

// A host with IPv4 alone must not keep for days what was refused for good,
// because IPv6 might have been welcome.
func TestRefusalStandsWhereWeLackTheOtherFamily(t *testing.T) {
	t.Parallel()
	t.Run("no source address", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		s.options.Sources = []netip.Addr{netip.MustParseAddr("127.77.255.2")}
		s.host("mx1.a.test", smtptest.Script{On: map[string][]smtptest.Step{smtptest.OnEnd: smtptest.Say("550 5.7.1 spam")}})
		s.zone.Add("mx2.a.test. 300 IN AAAA ::1")
		s.mx("a.test", "mx1.a.test", "mx2.a.test")
		check(t, s.one("r@a.test"), want{queue.Failed, queue.ScopeMessage, queue.StageFinal, 550, "5.7.1", "spam"})
	})
	t.Run("found out before", func(t *testing.T) {
		t.Parallel()
		s := newScene(t)
		s.options.Sources = []netip.Addr{netip.MustParseAddr("127.77.255.2")}
		s.host("mx1.a.test", smtptest.Script{On: map[string][]smtptest.Step{smtptest.OnEnd: smtptest.Say("550 5.7.1 spam")}})
		s.zone.Add("mx1.a.test. 300 IN AAAA ::1", "mx2.a.test. 300 IN AAAA ::1", "mx3.a.test. 300 IN AAAA ::1")
		s.mx("a.test", "mx1.a.test", "mx2.a.test", "mx3.a.test")
		check(t, s.one("r@a.test"), want{queue.Failed, queue.ScopeMessage, queue.StageFinal, 550, "5.7.1", "spam"})
		if n := len(s.events.list()); n != 2 {
			t.Errorf("%d addresses were tried, want the one out of reach and the one that refused", n)
		}
	})
	t.Run("no route", func(t *testing.T) {
		t.Parallel()
		// What the dialer says is all that counts, so that no test needs a host without IPv6.
		for err, isUnreachable := range map[syscall.Errno]bool{
			syscall.ENETUNREACH: true, syscall.EADDRNOTAVAIL: true, syscall.EAFNOSUPPORT: true,
			syscall.EHOSTUNREACH: false, syscall.ECONNREFUSED: false,
		} {
			six := &queue.Remote{IP: netip.MustParseAddr("2001:db8::1")}
			after := dialFault("mx", &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", err)})
			after.remote = six
			w := walk{allPermanent: true}
			w.note(after)
			if w.allPermanent || w.isUnreachable(false) != isUnreachable || w.isUnreachable(true) {
				t.Errorf("%v before a refusal: %+v", err, w)
			}
			w = walk{allPermanent: true}
			w.leaveFamily(netip.MustParseAddr("192.0.2.1"))
			w.noteRefusal(&session{words: words{remote: &queue.Remote{}}}, []queue.Outcome{{Verdict: queue.Failed, Code: 550, Status: "5.7.1"}})
			w.note(after)
			if w.allPermanent != isUnreachable {
				t.Errorf("%v after a refusal for good: permanent %v", err, w.allPermanent)
			}
		}
	})
}
