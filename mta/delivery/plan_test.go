package delivery

import (
	"testing"

	"github.com/miekg/dns"

	"postrider/mta/smtptest"
	"postrider/queue"
	"postrider/resolver"
	"postrider/resolver/resolvertest"
)

// TestDomainsWithoutAWay: what DNS proves fails at once, with the status of its
// RFC; what it does not know waits.
func TestDomainsWithoutAWay(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.zone.Add("exists.test. 300 IN TXT x",
		"null.test. 300 IN MX 0 .",
		"homeless.test. 300 IN MX 10 exists.test.",
		"own.test. 300 IN MX 10 me.test.", "me.test. 300 IN A 192.0.2.1",
		"failing.test. 300 IN MX 10 mx.failing.test.",
		"away.test. 300 IN MX 10 mx.away.test.", "mx.away.test. 300 IN A 192.0.2.2")
	s.zone.Fail("failing.test", resolvertest.Fault{Rcode: dns.RcodeServerFailure})
	s.zone.Fail("refused.test", resolvertest.Fault{Rcode: dns.RcodeRefused})
	s.zone.Fail("bogus.test", resolvertest.Bogus())
	s.zone.Fail("mx.away.test", resolvertest.Fault{Rcode: dns.RcodeServerFailure})
	s.start()
	r, ok := s.planner.Resolver.(*resolver.Resolver)
	if !ok {
		t.Fatal("not the real resolver")
	}
	if err := r.SetOwn([]string{"me.test"}, nil); err != nil {
		t.Fatal(err)
	}
	for domain, w := range map[string]want{
		"missing.test":  {queue.Failed, queue.ScopeSite, queue.StageDNS, 0, "5.1.2", "missing.test"},
		"null.test":     {queue.Failed, queue.ScopeSite, queue.StageDNS, 0, "5.1.10", "null MX"},
		"exists.test":   {queue.Failed, queue.ScopeSite, queue.StageDNS, 0, "5.4.4", "no mail host has an address"},
		"homeless.test": {queue.Failed, queue.ScopeSite, queue.StageDNS, 0, "5.4.4", "no mail host has an address"},
		"own.test":      {queue.Failed, queue.ScopeSite, queue.StageDNS, 0, "5.4.6", "loop back"},
		"nodot":         {queue.Failed, queue.ScopeSite, queue.StageDNS, 0, "5.1.2", "without a dot"},
		"failing.test":  {queue.Deferred, queue.ScopeSite, queue.StageDNS, 0, "4.4.3", "failing.test"},
		"refused.test":  {queue.Deferred, queue.ScopeSite, queue.StageDNS, 0, "4.4.3", "refused.test"},
		"bogus.test":    {queue.Deferred, queue.ScopeSite, queue.StageDNS, 0, "4.4.3", "DNSSEC"},
		"away.test":     {queue.Deferred, queue.ScopeSite, queue.StageDNS, 0, "4.4.3", "no mail host has an address now"},
	} {
		t.Run(domain, func(t *testing.T) {
			t.Parallel()
			_, err := s.planner.Plan(t.Context(), domain)
			if err == nil {
				t.Fatal("there is a plan")
			}
			check(t, PlanOutcome(err), w)
		})
	}
}

// A name without a dot is no mail domain of the world's, but may be one of ours:
// where hosts are written for it, they get its mail.
func TestDomainWithoutADotGoesToItsHosts(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	mx, addr := s.listen(smtptest.Script{})
	s.fixed["intranet"] = []string{addr.String()}
	checkDelivered(t, s.one("r@intranet"))
	if got := mx.Transactions(); len(got) != 1 || got[0].Rcpts[0].Address != "r@intranet" {
		t.Errorf("received %+v", got)
	}
}
