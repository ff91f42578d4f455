package mta

import (
	"slices"
	"testing"
	"time"

	"postrider/config"
	"postrider/mta/delivery"
	"postrider/queue"
)

func TestTheConfigurationKnowsEveryBounceClass(t *testing.T) {
	t.Parallel()
	var words []string
	for _, c := range queue.Classes() {
		words = append(words, string(c))
	}
	if got := config.BounceClasses(); !slices.Equal(got, words) {
		t.Errorf("config knows %q, the queue %q", got, words)
	}
}

func parsed(t *testing.T, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse("f", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestSchedulesOfDestinations(t *testing.T) {
	t.Parallel()
	schedule := schedules(parsed(t, `
[delivery.retry_for]
mailbox-full = ["4h"]
[[destination]]
domain = "slow.test"
retry = ["1h"]
expire_after = "2d"
[destination.retry_for]
greylisted = ["10m"]
`))
	general, slow := schedule("a.test"), schedule("slow.test")
	if general.Retry[0] != 5*time.Minute || general.ExpireAfter != 120*time.Hour || general.Jitter != 0.2 ||
		len(general.RetryFor) != 1 || general.RetryFor[queue.ClassMailboxFull][0] != 4*time.Hour {
		t.Errorf("%+v", general)
	}
	if slow.Retry[0] != time.Hour || slow.ExpireAfter != 48*time.Hour || slow.RetryFor[queue.ClassGreylisted][0] != 10*time.Minute ||
		slow.RetryFor[queue.ClassMailboxFull][0] != 4*time.Hour {
		t.Errorf("%+v", slow)
	}
	if schedule("slow.test") != slow {
		t.Error("a schedule is made for each question")
	}
}

func TestLimitsOfDestinations(t *testing.T) {
	t.Parallel()
	of := limits(parsed(t, `
[delivery]
max_messages_per_minute_per_site = 7
[[destination]]
domain = "a.test"
max_connections = 2
max_connections_per_minute = 3
max_messages_per_minute = 4
max_connections_per_minute_per_site = 5
max_connections_per_site = 6
`))
	l := of("a.test")
	if l.Connections != 2 || l.ConnectionsPerMinute != 3 || l.MessagesPerMinute != 4 || l.SiteConnectionsPerMinute != 5 || l.SiteConnections != 6 || l.SiteMessagesPerMinute != 7 {
		t.Errorf("%+v", l)
	}
	if l := of("b.test"); l.Connections+l.ConnectionsPerMinute+l.MessagesPerMinute+l.SiteConnectionsPerMinute != 0 || l.SiteConnections != 20 || l.SiteMessagesPerMinute != 7 {
		t.Errorf("%+v", l)
	}
}

func TestOwnRulesGoBeforeTheBuiltinOnes(t *testing.T) {
	t.Parallel()
	cfg := config.Default()
	builtin := len(delivery.DefaultRules())
	if got := ReplyRules(cfg); len(got) != builtin {
		t.Errorf("%d rules by default, not %d", len(got), builtin)
	}
	own, err := config.ParseRules("r", []byte("[[rule]]\nname='n'\npattern='grey'\ncode=45\ndomain='a.test'\nsite='s'\naction='suspend'\nfor='1h'\nclass='rate'\n"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Rules = own
	got := ReplyRules(cfg)
	r := got[0]
	if len(got) != builtin+1 || r.Name != "n" || r.Code != 45 || r.Domain != "a.test" || r.Site != "s" || r.Action != delivery.Pause || r.For != time.Hour ||
		r.Class != queue.ClassRate || !r.Pattern.MatchString("greylisted") {
		t.Errorf("%+v", got)
	}
	cfg.Rules.Builtin = false
	if got := ReplyRules(cfg); len(got) != 1 {
		t.Errorf("%d rules without the built-in ones", len(got))
	}
	for action, want := range map[config.RuleAction]string{config.RuleNone: "none", config.RuleSlowDown: "slow-down", config.RuleSuspend: "suspend", config.RulePermanent: "permanent", config.RuleRetrySoon: "retry-soon"} {
		if got := ruleActions[action].String(); got != want {
			t.Errorf("%s became %s", action, got)
		}
	}
}
