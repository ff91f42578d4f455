package delivery

import (
	"fmt"
	"strings"
	"testing"

	"postrider/mta/smtptest"
	"postrider/mta/tlspolicy"
)

// Domains with the same hosts in another order of preference do not share:
// mail would ride to a host that is another domain's last resort.
func TestOtherPreferencesDoNotShare(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, name := range []string{"mx1.a.test", "mx2.a.test", "mx3.a.test"} {
		s.host(name, smtptest.Script{})
	}
	s.mx("a.test", "mx1.a.test", "mx2.a.test")
	s.mx("same.test", "mx1.a.test", "mx2.a.test")
	s.mx("other.test", "mx2.a.test", "mx1.a.test")
	for _, domain := range []string{"equal.test", "equal2.test"} {
		s.zone.Add(domain+". 300 IN MX 10 mx1.a.test.", domain+". 300 IN MX 10 mx2.a.test.")
	}
	s.zone.Add("last.test. 300 IN MX 10 mx1.a.test.", "last.test. 300 IN MX 10 mx2.a.test.", "last.test. 300 IN MX 20 mx3.a.test.")
	s.zone.Add("last2.test. 300 IN MX 5 mx2.a.test.", "last2.test. 300 IN MX 5 mx1.a.test.", "last2.test. 300 IN MX 50 mx3.a.test.")
	for pair, isShared := range map[string]bool{"a same": true, "a other": false, "a equal": false, "equal equal2": true, "last last2": true} {
		one, two, _ := strings.Cut(pair, " ")
		if got := s.plan(one+".test").Key == s.plan(two+".test").Key; got != isShared {
			t.Errorf("%s and %s share connections: %v", one, two, got)
		}
	}
}

// What a domain demands is found in its own plan, also when its mail comes to a
// connection as another domain's next message, and that connection breaks.
func TestNextDomainConnectsByItsOwnPlan(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	mx := s.host("mx1.a.test", smtptest.Script{On: map[string][]smtptest.Step{"MAIL": smtptest.Do(smtptest.Step{}, smtptest.Step{Then: smtptest.Close}, smtptest.Step{})}})
	s.mx("a.test", "mx1.a.test")
	s.mx("b.test", "mx1.a.test")
	a, b := mail("r@a.test"), mail("r@b.test")
	a.attempt.Plan, b.attempt.Plan = s.plan("a.test"), s.plan("b.test")
	if a.attempt.Plan.Key != b.attempt.Plan.Key {
		t.Fatalf("%q, %q", a.attempt.Plan.Key, b.attempt.Plan.Key)
	}
	s.deliver(a, b)
	checkDelivered(t, a.outcome(t))
	checkDelivered(t, b.outcome(t))
	var told []string
	for _, c := range s.events.list() {
		told = append(told, c.Domain)
	}
	if got := strings.Join(told, " "); mx.Sessions() != 2 || got != "a.test b.test" {
		t.Errorf("%d connections, told of %q", mx.Sessions(), got)
	}
}

// reusing is work whose attempts are all the same value, as the dispatcher's
// are.
type reusing struct {
	t       *testing.T
	attempt *Attempt
	left    []*letter
}

func (w *reusing) Connecting(bool) {}

func (w *reusing) Next() (*Attempt, bool) {
	if len(w.left) == 0 || w.attempt.Envelope != nil {
		return nil, false
	}
	*w.attempt = w.left[0].attempt
	w.left = w.left[1:]
	return w.attempt, true
}

func (w *reusing) Done(a *Attempt, r *Report) {
	m := a.Value.(*letter)
	m.report, m.reported = *r, true
	*a = Attempt{}
}

// An attempt that is used again is another message, with a way of its own: a
// demand that the former one had not is met, not forgotten.
func TestAttemptIsUsedAgain(t *testing.T) {
	t.Parallel()
	ca := must(smtptest.NewCA())(t)
	s := newScene(t)
	s.zone.Secure(".")
	s.options.Roots = ca.Pool()
	mx := s.host("mx1.a.test", smtptest.Script{Extensions: []string{"STARTTLS", "REQUIRETLS"}, TLS: must(ca.TLS("mx1.a.test"))(t)})
	s.mx("a.test", "mx1.a.test")
	plain, strict := mail("r@a.test"), mail("r@a.test")
	strict.attempt.Envelope.RequireTLS = true
	plan := s.plan("a.test")
	w := &reusing{t: t, attempt: &Attempt{}, left: []*letter{plain, strict}}
	for first, ok := w.Next(); ok; first, ok = w.Next() {
		s.agent.Deliver(t.Context(), plan, first, w)
	}
	checkDelivered(t, plain.outcome(t))
	checkDelivered(t, strict.outcome(t))
	got := mx.Transactions()
	if len(got) != 2 || strings.Contains(got[0].FromParams, "REQUIRETLS") || !strings.Contains(got[1].FromParams, "REQUIRETLS") {
		t.Errorf("arrived: %+v", got)
	}
	if o := strict.outcome(t); o.Remote == nil || o.Remote.Demand != "verify (message)" {
		t.Errorf("asked for %q", o.Remote.Demand)
	}
}

func TestDomainsCountedAreBounded(t *testing.T) {
	t.Parallel()
	c := counted{last: "first.test"}
	if c.isNew("first.test") {
		t.Error("the first domain was told of twice")
	}
	n := 1
	for i := range 2 * maxCounted {
		if c.isNew(fmt.Sprintf("d%d.test", i)) {
			n++
		}
	}
	if n != maxCounted || c.isNew("d0.test") || c.isNew("first.test") {
		t.Errorf("%d domains counted, want %d, each once", n, maxCounted)
	}
}

// Messages that no policy is asked for do not use up their domain's turn.
func TestTLSIgnoredDoesNotCount(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.host("mx1.a.test", smtptest.Script{})
	s.mx("a.test", "mx1.a.test")
	free, plain := mail("r@a.test"), mail("r@a.test")
	free.attempt.Envelope.TLSIgnored = true
	s.deliver(free, plain, mail("r@a.test"))
	checkDelivered(t, plain.outcome(t))
	got := s.events.list()
	if len(got) != 2 || got[0].Message != tlspolicy.MessageTLSIgnored || got[0].IsShared ||
		got[1].Message != tlspolicy.MessageDefault || !got[1].IsShared || got[1].TLSResult != TLSNotSupported {
		t.Errorf("told of %+v", got)
	}
}
