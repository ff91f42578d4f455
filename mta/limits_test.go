package mta

import (
	"crypto/tls"
	"reflect"
	"slices"
	"testing"
	"time"

	"postrider/config"
	"postrider/mta/delivery"
	"postrider/mta/smtpclient"
	"postrider/mta/tlspolicy"
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

// TestSettingsReachTheDelivery: what is written is what is done, for all
// destinations and for one.
func TestSettingsReachTheDelivery(t *testing.T) {
	t.Parallel()
	cfg := parsed(t, `
[delivery]
port = 2525
tls = "verify"
tls_min_version = "1.3"
source_addresses = ["192.0.2.1"]
connection_idle = "7s"
connection_max_age = "8m"
max_connections = 9
max_connections_per_site = 6
max_messages_per_connection = 5
[delivery.timeouts]
connect = "11s"
greeting = "12s"
command = "13s"
tls = "14s"
data = "15s"
block = "16s"
final = "17s"
[[destination]]
domain = "other.test"
hosts = ["mx.other.test:26"]
port = 27
tls = "require"
tls_min_version = "1.2"
chunking = false
pipelining = false
max_messages_per_connection = 4
`)
	o := agentOptions(cfg, &identity{}, nil, nil)
	if o.MinTLS != tls.VersionTLS13 || len(o.Sources) != 1 || o.IdleFor != 7*time.Second || o.Life != 8*time.Minute || o.MaxConnections != 9 || o.MaxConnectionsPerAddress != 6 ||
		o.Connect != 11*time.Second || o.VerifyDANE == nil {
		t.Errorf("%+v", o)
	}
	if want := (smtpclient.Timeouts{Greeting: 12 * time.Second, Command: 13 * time.Second, TLS: 14 * time.Second, Data: 15 * time.Second, Block: 16 * time.Second, Final: 17 * time.Second}); o.Timeouts != want {
		t.Errorf("%+v", o.Timeouts)
	}
	if o := agentOptions(config.Default(), &identity{}, nil, nil); o.IdleFor != 5*time.Second || o.Life != 300*time.Second || o.MinTLS != tls.VersionTLS12 {
		t.Errorf("by default %+v", o)
	}
	of := destination(cfg)
	if got, want := of("a.test"), (delivery.Destination{TLS: tlspolicy.Verify, Port: 2525, MaxMessages: 5, Session: delivery.SessionSettings{MinTLS: tls.VersionTLS13}}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	want := delivery.Destination{TLS: tlspolicy.Require, Hosts: []string{"mx.other.test:26"}, Port: 27, MaxMessages: 4,
		Session: delivery.SessionSettings{MinTLS: tls.VersionTLS12, NoChunking: true, NoPipelining: true}}
	if got := of("other.test"); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
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
