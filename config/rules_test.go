package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const someRules = `
builtin = false
[[rule]]
name = "night"
code = 45
pattern = '(?i)come back after \d+ h'
domain = "*.bank.test"
action = "suspend"
for = "2h"
class = "rate"
[[rule]]
name = "gone"
pattern = "closed for good"
site = "outlook"
action = "permanent"
`

func TestParseRules(t *testing.T) {
	t.Parallel()
	got, err := ParseRules("r", []byte(someRules))
	want := Rules{Own: []Rule{
		{Name: "night", Code: 45, Pattern: `(?i)come back after \d+ h`, Domain: "*.bank.test", Action: RuleSuspend, For: 2 * hour, Class: "rate"},
		{Name: "gone", Pattern: "closed for good", Site: "outlook", Action: RulePermanent},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := ParseRules("r", nil); err != nil || !got.Builtin || len(got.Own) != 0 {
		t.Errorf("an empty file: %+v %v", got, err)
	}
}

func TestTheManualsRulesAreRules(t *testing.T) {
	t.Parallel()
	manual, err := os.ReadFile("../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	var file strings.Builder
	for line := range strings.Lines(string(manual)) {
		if text, ok := strings.CutPrefix(line, "    "); ok {
			file.WriteString(text)
		}
	}
	if got, err := ParseRules("rules.md", []byte(file.String())); err != nil || len(got.Own) != 2 {
		t.Errorf("%+v %v", got, err)
	}
}

func TestParseRulesComplaints(t *testing.T) {
	t.Parallel()
	const begin = "[[rule]]\nname = 'x'\n"
	for text, want := range map[string]string{
		begin + "pattern = '(a'\nclass = 'rate'\n":                               "r:3:11: rule.pattern: error parsing regexp: missing closing )",
		begin + "pattern = '" + strings.Repeat("a", 501) + "'\nclass = 'rate'\n": "r:3:11: rule.pattern: a pattern has from 1 to 500 octets",
		begin + "class = 'rate'\n":                                               `r:1:3: rule: "pattern" is missing`,
		begin + "pattern = 'a'\nclass = 'rates'\n":                               `r:4:9: rule.class: there is no bounce class "rates": did you mean rate?`,
		begin + "pattern = 'a'\naction = 'wait'\n":                               `r:4:10: rule.action: "wait" is not "none", "slow-down", "suspend", "permanent" or "retry-soon"`,
		begin + "pattern = 'a'\naction = 'suspend'\n":                            "r:4:1: rule.action: a suspension needs its length",
		begin + "pattern = 'a'\naction = 'permanent'\nfor = '1h'\n":              `r:5:1: rule.for: a time says nothing with the action "permanent"`,
		begin + "pattern = 'a'\naction = 'permanent'\ncode = 250\n":              "r:5:1: rule.code: 250 is no refusal",
		begin + "pattern = 'a'\n":                                                "r:2:1: rule.name: a rule with neither action nor class",
		begin + "pattern = 'a'\naction = 'permanent'\nregexp = 'b'\n":            "r:5:1: rule.regexp: there is no such key",
		"[rules]\n": "r:1:2: rules: there is no such table",
		strings.Repeat(begin+"pattern = 'a'\nclass = 'rate'\n", 501): "r: 501 rules, where at most 500 are allowed",
	} {
		if _, err := ParseRules("r", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: %v\nwant %s", text, err, want)
		}
	}
}

func TestTheRulesFileIsReadWithTheConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := write("postrider.toml", "state_dir = 'state'\n[delivery]\nrules_file = 'my.rules'\n")
	if _, err := Load(Options{File: file}); err == nil || !strings.Contains(err.Error(), "postrider.toml:3:1: delivery.rules_file: open ") {
		t.Errorf("a missing file: %v", err)
	}
	rules := write("my.rules", someRules)
	c, err := Load(Options{File: file})
	if err != nil || len(c.Rules.Own) != 2 || c.Rules.Builtin {
		t.Errorf("%+v %v", c, err)
	}
	write("my.rules", "[[rule]]\n")
	if _, err := Load(Options{File: file}); err == nil || !strings.Contains(err.Error(), rules+":1:3: rule: ") {
		t.Errorf("a bad file: %v", err)
	}
	if _, err := Load(Options{File: file, Client: true}); err != nil {
		t.Errorf("a client needs no rules: %v", err)
	}
	if !Default().Rules.Builtin {
		t.Error("the built-in rules are off by default")
	}
}
