package delivery

import (
	"regexp"
	"testing"
	"time"

	"postrider/mta/smtptest"
	"postrider/queue"
)

func TestDefaultRules(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code  int
		text  string
		retry time.Duration
		slow  bool
		pause time.Duration
		class queue.Class
	}{
		{450, "4.7.1 Greylisted, see http://x.test", 0, false, 0, "greylisted"},
		{451, "4.7.1 Greylisting in action, please come back in 5 minutes", 5 * time.Minute, false, 0, "greylisted"},
		{450, "4.2.0 <r@a.test>: Recipient address rejected: Graylisted for 30 seconds", 30 * time.Second, false, 0, "greylisted"},
		{451, "4.7.1 Please try again in 60 seconds", time.Minute, false, 0, "greylisted"},
		{451, "grey-listed, retry in 1 hour", time.Hour, false, 0, "greylisted"},
		{451, "greylisted for 99999 hours", longestHint, false, 0, "greylisted"},
		{451, "greylisted for 0 seconds", 0, false, 0, "greylisted"},
		{451, "4.3.0 local error, try again later", 0, false, 0, ""},
		{421, "4.7.0 try again later", 0, true, 0, ""},
		{421, "4.7.0 too many connections, try again in 5 minutes", 0, true, 0, "rate"},
		{452, "4.3.2 Too many simultaneous sessions", 0, true, 0, "rate"},
		{450, "4.7.28 unusual rate of mail", 0, true, 0, "rate"},
		{451, "4.7.650 The mail server [192.0.2.1] has been temporarily rate limited", 0, true, 0, "rate"},
		{421, "4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints", 0, true, 10 * time.Minute, "reputation"},
		{451, "4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)", 0, true, 0, "rate"},
		{421, "RP-001 The mail server IP connecting to Outlook.com server has exceeded the rate limit allowed", 0, true, 0, "rate"},
		{450, "4.2.1 The user you are trying to contact is receiving mail too quickly", 0, false, 0, ""},
		{550, "5.1.1 no such user, greylisted never", 0, false, 0, ""},
	} {
		o := queue.Outcome{Verdict: queue.Deferred, Code: tt.code, Status: "4.0.0", Text: tt.text}
		var r Report
		DefaultRules().judge(&o, peer{}, &r)
		if o.RetryAfter != tt.retry || r.Slow != tt.slow || r.Pause != tt.pause || o.Class != tt.class || o.Verdict != queue.Deferred {
			t.Errorf("%d %s: retry %v slow %v pause %v class %q", tt.code, tt.text, o.RetryAfter, r.Slow, r.Pause, o.Class)
		}
		if (r.Pause > 0) != (r.Why != "") {
			t.Errorf("%s: a pause without a reason, or the other way round: %q", tt.text, r.Why)
		}
	}
}

func TestRuleThatMakesATemporaryReplyPermanent(t *testing.T) {
	t.Parallel()
	rules := Rules{{Name: "blocked", Code: 421, Pattern: regexp.MustCompile("blocked for ever"), Action: Permanent, Class: "policy"}}
	o := queue.Outcome{Verdict: queue.Deferred, Code: 421, Status: "4.7.0", Text: "4.7.0 blocked for ever"}
	rules.judge(&o, peer{}, &Report{})
	if o.Verdict != queue.Failed || o.Status != "5.7.0" || o.Class != "policy" {
		t.Errorf("got %+v", o)
	}
	o = queue.Outcome{Verdict: queue.Deferred, Code: 450, Status: "4.7.0", Text: "4.7.0 blocked for ever"}
	if rules.judge(&o, peer{}, &Report{}); o.Verdict != queue.Deferred {
		t.Error("another code was matched")
	}
}

func TestGreylistingIsRetriedAfterItsHintWithoutSlowingTheSite(t *testing.T) {
	t.Parallel()
	for _, extensions := range [][]string{nil, {"PIPELINING"}, modern} {
		s := newScene(t)
		s.host("mx1.a.test", smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{"RCPT": smtptest.Say("450 4.7.1 greylisted, come back in 2 seconds")}})
		s.mx("a.test", "mx1.a.test")
		m := mail("r@a.test")
		s.deliver(m)
		o := m.outcome(t)
		check(t, o, want{queue.Deferred, queue.ScopeRecipient, queue.StageRCPT, 450, "4.7.1", "greylisted"})
		if o.RetryAfter != 2*time.Second || m.report.Slow || m.report.Site != SiteAlive {
			t.Errorf("retry after %v, report %+v", o.RetryAfter, m.report)
		}
	}
}

func TestRulesForADomainOrASite(t *testing.T) {
	t.Parallel()
	rules := Rules{
		{Name: "domain", Domain: "a.test", Pattern: regexp.MustCompile("busy"), Class: queue.ClassSystem},
		{Name: "below", Domain: "*.b.test", Pattern: regexp.MustCompile("busy"), Class: queue.ClassPolicy},
		{Name: "site", Site: "outlook", Pattern: regexp.MustCompile("busy"), Action: RetrySoon, For: time.Minute, Class: queue.ClassRate},
	}
	site := func(p *Plan) string { return p.Site }
	for _, tt := range []struct {
		domain, site string
		want         queue.Class
	}{
		{"a.test", "outlook", queue.ClassSystem},
		{"x.a.test", "", queue.ClassNone},
		{"x.b.test", "", queue.ClassPolicy},
		{"b.test", "", queue.ClassNone},
		{"xb.test", "", queue.ClassNone},
		{"c.test", "outlook", queue.ClassRate},
	} {
		o := queue.Outcome{Verdict: queue.Deferred, Code: 450, Status: "4.2.0", Text: "busy"}
		patience := rules.judge(&o, peer{tt.domain, &Plan{Site: tt.site}, site}, &Report{})
		if o.Class != tt.want || patience != (tt.want == queue.ClassRate) || patience != (o.RetryAfter == time.Minute) {
			t.Errorf("%s at %q: %+v", tt.domain, tt.site, o)
		}
	}
}

func TestRulesReadTheGreeting(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		greeting string
		class    queue.Class
		site     SiteNews
		verdict  queue.Verdict
		slow     bool
		pause    bool
	}{
		"greylisted":     {"451 4.7.1 greylisted, come back in 5 minutes", queue.ClassGreylisted, SiteUnknown, queue.Deferred, false, false},
		"full":           {"421 4.7.0 too many connections from you", queue.ClassRate, SiteFailed, queue.Deferred, true, false},
		"reputation":     {"421 4.7.0 [TSS04] later", queue.ClassReputation, SiteFailed, queue.Deferred, true, true},
		"for good":       {"450 4.7.1 never again", queue.ClassPolicy, SiteUnknown, queue.Failed, false, false},
		"nothing known":  {"450 4.3.0 hm", queue.ClassSystem, SiteFailed, queue.Deferred, false, false},
		"a bare goodbye": {"421 bye", queue.ClassSystem, SiteFailed, queue.Deferred, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.host("mx1.a.test", smtptest.Script{On: map[string][]smtptest.Step{smtptest.OnConnect: smtptest.Say(tt.greeting)}})
			s.mx("a.test", "mx1.a.test")
			own := Rule{Name: "never", Domain: "a.test", Pattern: regexp.MustCompile("never again"), Action: Permanent, Class: queue.ClassPolicy}
			s.options.Rules = append(Rules{own}, DefaultRules()...)
			m := mail("r@a.test")
			s.deliver(m)
			o := m.outcome(t)
			if o.Class != tt.class || o.Verdict != tt.verdict || m.report.Site != tt.site || m.report.Slow != tt.slow || m.report.Pause > 0 != tt.pause {
				t.Errorf("%+v, report %+v", o, m.report)
			}
		})
	}
}

func FuzzRetryHint(f *testing.F) {
	f.Add("try again in 5 minutes")
	f.Add("00000s 99999 h")
	f.Fuzz(func(t *testing.T, text string) {
		if d := retryHint(text); d != 0 && (d < shortestHint || d > longestHint) {
			t.Errorf("%q: %v", text, d)
		}
	})
}
