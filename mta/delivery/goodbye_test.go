package delivery

import (
	"fmt"
	"strings"
	"testing"

	"postrider/mta/smtptest"
	"postrider/queue"
)

// manners are the three ways to carry a transaction.
var manners = map[string][]string{
	"one flight":         {"PIPELINING", "CHUNKING"},
	"pipelining":         {"PIPELINING"},
	"command by command": nil,
}

// A host that says 421 to the envelope has taken nothing, also where the
// content came along with it: the next host gets the message at once, and
// without one nothing is in doubt.
func TestServiceEndsInTheEnvelope(t *testing.T) {
	t.Parallel()
	for manner, extensions := range manners {
		for _, command := range []string{"MAIL", "RCPT TO:<r@", "RCPT TO:<second@"} {
			for _, then := range []smtptest.Then{smtptest.Close, smtptest.Continue} {
				if command != "MAIL" && then == smtptest.Continue {
					continue // the other recipient gets it: TestServiceGoesOnAfterGoodbye
				}
				for _, hasOther := range []bool{true, false} {
					t.Run(fmt.Sprint(manner, " ", command, then, hasOther), func(t *testing.T) {
						t.Parallel()
						s := newScene(t)
						first := s.host("mx1.a.test", smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{
							command: {{Reply: "421 4.3.2 closing", Then: then}}}})
						second := s.host("mx2.a.test", smtptest.Script{})
						hosts := []string{"mx1.a.test", "mx2.a.test"}
						if !hasOther {
							hosts = hosts[:1]
						}
						s.mx("a.test", hosts...)
						m := mail("r@a.test", "second@a.test")
						s.deliver(m)
						for _, o := range m.report.Outcomes {
							if o.InDoubt {
								t.Errorf("in doubt: %s", show(o))
							}
							if hasOther {
								checkDelivered(t, o)
							} else if o.Verdict != queue.Deferred || o.Code != 421 || o.Scope != queue.ScopeSite {
								t.Errorf("got %s", show(o))
							}
						}
						for _, tx := range first.Transactions() {
							if tx.IsAccepted {
								t.Errorf("taken by the host that said goodbye: %+v", tx)
							}
						}
						if n := len(second.Transactions()); hasOther != (n == 1) {
							t.Errorf("%d messages at the other host", n)
						}
					})
				}
			}
		}
	}
}

// A host that says 421 to one recipient and then takes the content for another
// has taken it.
func TestServiceGoesOnAfterGoodbye(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.host("mx1.a.test", smtptest.Script{Extensions: manners["one flight"], On: map[string][]smtptest.Step{
		"RCPT TO:<second@": smtptest.Say("421 4.3.2 closing")}})
	other := s.host("mx2.a.test", smtptest.Script{})
	s.mx("a.test", "mx1.a.test", "mx2.a.test")
	m := mail("r@a.test", "second@a.test")
	s.deliver(m)
	checkDelivered(t, m.report.Outcomes[0])
	check(t, m.report.Outcomes[1], want{queue.Deferred, queue.ScopeRecipient, queue.StageRCPT, 421, "4.3.2", "closing"})
	if n := other.Sessions(); n != 0 {
		t.Errorf("%d sessions with the other host", n)
	}
}

// The envelope failed, and the connection with it before the reply to the
// content: nothing of the content counts as sent (RFC 2920, section 3.1).
func TestEnvelopeRefusedAndDisconnected(t *testing.T) {
	t.Parallel()
	for manner, extensions := range manners {
		for command, w := range map[string]want{
			"MAIL": {queue.Failed, queue.ScopeMessage, queue.StageMAIL, 550, "5.7.1", "not you"},
			"RCPT": {queue.Failed, queue.ScopeRecipient, queue.StageRCPT, 550, "5.7.1", "not you"},
		} {
			t.Run(manner+" "+command, func(t *testing.T) {
				t.Parallel()
				s := newScene(t)
				s.host("mx1.a.test", smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{
					command: {{Reply: "550 5.7.1 not you", Then: smtptest.Close}}}})
				s.mx("a.test", "mx1.a.test")
				o := s.one("r@a.test")
				check(t, o, w)
				if o.InDoubt {
					t.Error("in doubt")
				}
			})
		}
	}
}

// 421 to DATA, or in the midst of large content: the host has not taken the
// message, so the next one gets it at once, and without one nothing is in doubt.
func TestServiceEndsInTheContent(t *testing.T) {
	t.Parallel()
	for manner, extensions := range manners {
		for key, step := range map[string]smtptest.Step{
			"DATA":             {Reply: "421 4.3.2 closing", Then: smtptest.Close},
			smtptest.OnContent: {After: 100_000, Reply: "421 4.3.2 closing", Then: smtptest.Close},
		} {
			if key == "DATA" && manner == "one flight" {
				continue
			}
			for _, hasOther := range []bool{true, false} {
				t.Run(fmt.Sprint(manner, key, hasOther), func(t *testing.T) {
					t.Parallel()
					s := newScene(t)
					s.host("mx1.a.test", smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{key: {step}}})
					second := s.host("mx2.a.test", smtptest.Script{})
					s.mx("a.test", []string{"mx1.a.test", "mx2.a.test"}[:map[bool]int{true: 2, false: 1}[hasOther]]...)
					m := mail("r@a.test")
					m.content += strings.Repeat("a line of a message that is longer than what goes out in one flight\r\n", 200_000)
					m.attempt.Envelope.Size = int64(len(m.content))
					s.deliver(m)
					o := m.outcome(t)
					if !hasOther {
						if o.Verdict != queue.Deferred || o.Code != 421 || o.InDoubt {
							t.Errorf("got %s", show(o))
						}
						return
					}
					checkDelivered(t, o)
					if got := second.Transactions(); len(got) != 1 || len(got[0].Content) != len(m.content) {
						t.Errorf("%d messages at the other host", len(got))
					}
				})
			}
		}
	}
}
