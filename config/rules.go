package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Rules say what the replies of mail hosts mean beyond their codes: those of
// delivery.rules_file, before the built-in ones.
type Rules struct {
	Own     []Rule // in order: the first that matches counts
	Builtin bool   // the built-in ones follow
}

// Rule is one [[rule]].
type Rule struct {
	Name    string
	Code    int    // one, two or all three digits of the reply's code; 0: any refusal
	Pattern string // a regular expression (RE2), matched against the text with its enhanced status
	Domain  string // recipient domain, or "*.example.org"; empty: any
	Site    string // empty: any
	Action  RuleAction
	For     time.Duration // 0: the action's own
	Class   string        // bounce class; empty: as without the rule
}

// RuleAction is what a rule asks for.
type RuleAction string

const (
	RuleNone      RuleAction = "none"       // nothing: only the class
	RuleSlowDown  RuleAction = "slow-down"  // fewer connections to the site
	RuleSuspend   RuleAction = "suspend"    // nothing to the site for a time
	RulePermanent RuleAction = "permanent"  // the recipient has failed
	RuleRetrySoon RuleAction = "retry-soon" // like greylisting
)

// maxRules and maxPattern bound what every refusal is held against.
const (
	maxRules   = 500
	maxPattern = 500
)

var rulesSchema = sync.OnceValue(func() *schema { return newSchema(ruleTables()) })

func ruleTables() []Table {
	return []Table{
		{Keys: []Key{
			{Path: "builtin", Default: "true",
				at:  on(func(c *Config) value { return boolean(&c.Rules.Builtin) }),
				Doc: "Whether the built-in rules follow."},
		}},
		{Path: "rule", Repeated: true, Keys: ruleKeys(), elements: elementsOf[Rule]{
			in:        func(c *Config) *[]Rule { return &c.Rules.Own },
			inherited: func(*Config) Rule { return Rule{Action: RuleNone} },
		}},
	}
}

func ruleKeys() []Key {
	return []Key{
		{Path: "rule.name", required: true,
			at: of(func(r *Rule) value { return text(&r.Name, "a short name", parseRuleName) })},
		{Path: "rule.code",
			at: of(func(r *Rule) value { return number(&r.Code, 4, 599) })},
		{Path: "rule.pattern", required: true,
			at: of(func(r *Rule) value { return text(&r.Pattern, "a regular expression", parseRulePattern) })},
		{Path: "rule.domain",
			at: of(func(r *Rule) value {
				return text(&r.Domain, `a domain, or "*." and a domain for its subdomains`, parsePattern)
			})},
		{Path: "rule.site",
			at: of(func(r *Rule) value { return text(&r.Site, "a site as postrider explain names it", parseRuleName) })},
		{Path: "rule.action",
			at: of(func(r *Rule) value {
				return word(&r.Action, RuleNone, RuleSlowDown, RuleSuspend, RulePermanent, RuleRetrySoon)
			})},
		{Path: "rule.for",
			at: of(func(r *Rule) value { return duration(&r.For, second, day) })},
		{Path: "rule.class",
			at: of(func(r *Rule) value { return text(&r.Class, "a bounce class", parseClass) })},
	}
}

func parseRuleName(s string) (string, error) {
	if s == "" || len(s) > 200 {
		return "", fmt.Errorf("from 1 to 200 octets are needed")
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return "", fmt.Errorf("%q has a control character", s)
		}
	}
	return s, nil
}

func parseRulePattern(s string) (string, error) {
	if s == "" || len(s) > maxPattern {
		return "", fmt.Errorf("a pattern has from 1 to %d octets", maxPattern)
	}
	_, err := regexp.Compile(s)
	return s, err
}

func parseClass(s string) (string, error) {
	if slices.Contains(bounceClasses, s) {
		return s, nil
	}
	if near := nearest(s, bounceClasses); near != "" {
		return "", fmt.Errorf("there is no bounce class %q: did you mean %s?", s, near)
	}
	return "", fmt.Errorf("there is no bounce class %q", s)
}

// ParseRules reads the text of a rules file; its name is for complaints. The
// error is of type Errors.
func ParseRules(file string, data []byte) (Rules, error) {
	var errs Errors
	c := &Config{File: file, origins: map[string]Origin{}, Rules: Rules{Builtin: true}}
	doc := readDocument(file, data, rulesSchema(), &errs)
	for _, e := range doc.entries {
		if e.element < 0 {
			c.setEntry(doc, e, c, &errs)
		}
	}
	c.setElements(doc, rulesSchema().repeats["rule"], &errs)
	if n := len(c.Rules.Own); n > maxRules {
		errs.add(&Error{File: file, Text: fmt.Sprintf("%d rules, where at most %d are allowed", n, maxRules)})
	}
	for i := range c.Rules.Own {
		c.validateRule(i, &errs)
	}
	return c.Rules, errs.result()
}

func (c *Config) validateRule(i int, errs *Errors) {
	r := &c.Rules.Own[i]
	switch {
	case r.Code != 0 && !isRefusal(r.Code):
		errs.add(c.complain(indexed("rule.code", i), strconv.Itoa(r.Code)+" is no refusal: those begin with 4 or 5", ""))
	case r.Action == RuleSuspend && r.For == 0:
		errs.add(c.complain(indexed("rule.action", i), "a suspension needs its length", `set for, like "30m"`))
	case r.For != 0 && r.Action != RuleSuspend && r.Action != RuleRetrySoon:
		errs.add(c.complain(indexed("rule.for", i), fmt.Sprintf("a time says nothing with the action %q", r.Action), ""))
	case r.Action == RuleNone && r.Class == "":
		errs.add(c.complain(indexed("rule.name", i), "a rule with neither action nor class", "set one of them"))
	}
}

// isRefusal reports whether the digits of a code, or its first ones, are those
// of a refusal.
func isRefusal(code int) bool {
	for code >= 10 {
		code /= 10
	}
	return code == 4 || code == 5
}

// ReadRules reads delivery.rules_file anew; without one the rules stay as they
// are. An error about its content is of type Errors.
func (c *Config) ReadRules() (Rules, error) {
	if c.Delivery.RulesFile == "" {
		return c.Rules, nil
	}
	data, err := readFile(c.Delivery.RulesFile)
	if err != nil {
		return Rules{}, err
	}
	return ParseRules(c.Delivery.RulesFile, data)
}

// readRules reads delivery.rules_file, if there is one.
func (c *Config) readRules(read func(path string) ([]byte, error), errs *Errors) {
	if c.Delivery.RulesFile == "" {
		return
	}
	data, err := read(c.Delivery.RulesFile)
	if err != nil {
		errs.add(c.complain("delivery.rules_file", err.Error(), ""))
		return
	}
	rules, err := ParseRules(c.Delivery.RulesFile, data)
	if all, ok := err.(Errors); ok {
		*errs = append(*errs, all...)
	}
	c.Rules = rules
}
