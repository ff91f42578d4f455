package mta

import (
	"regexp"

	"postrider/config"
	"postrider/mta/delivery"
	"postrider/queue"
)

// ReplyRules are the rules about replies that are in force, in their order.
func ReplyRules(cfg *config.Config) delivery.Rules { return replyRules(cfg.Rules) }

func replyRules(from config.Rules) delivery.Rules {
	rules := make(delivery.Rules, 0, len(from.Own))
	for _, r := range from.Own {
		rules = append(rules, delivery.Rule{
			Name: r.Name, Code: r.Code, Pattern: regexp.MustCompile(r.Pattern), // config has compiled it once
			Domain: r.Domain, Site: r.Site, Action: ruleActions[r.Action], For: r.For, Class: queue.Class(r.Class),
		})
	}
	if from.Builtin {
		rules = append(rules, delivery.DefaultRules()...)
	}
	return rules
}

var ruleActions = map[config.RuleAction]delivery.Action{
	config.RuleNone: 0, config.RuleSlowDown: delivery.SlowDown, config.RuleSuspend: delivery.Pause,
	config.RulePermanent: delivery.Permanent, config.RuleRetrySoon: delivery.RetrySoon,
}
