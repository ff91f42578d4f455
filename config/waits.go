package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// BounceClasses are the reasons that retry_for knows, as the queue names them.
func BounceClasses() []string { return slices.Clone(bounceClasses) }

var bounceClasses = []string{
	"invalid-recipient", "invalid-domain", "mailbox-disabled", "mailbox-full", "invalid-sender", "authentication",
	"relaying", "routing", "policy", "reputation", "content", "too-large", "rate", "greylisted", "system", "protocol",
	"dns", "network", "tls", "local", "expired", "operator", "other",
}

// waitsByClass is a table of lists of durations: retry_for. Each line of the
// table is set by itself; what it does not name it has inherited.
type waitsByClass struct {
	to       *map[string][]time.Duration
	from, up time.Duration
}

func (v waitsByClass) wants() string {
	return fmt.Sprintf("a table of bounce classes (%s), each with %s", strings.Join(bounceClasses, ", "), v.waits(new([]time.Duration)).want)
}

func (v waitsByClass) waits(to *[]time.Duration) list[time.Duration] {
	return durations(to, v.from, v.up)
}

// set takes one line of the table, or the whole of it from the environment:
// "mailbox-full=1h,4h;rate=10m".
func (v waitsByClass) set(l literal) error {
	switch l.kind {
	case kindPair:
		return v.put(l, l.text, l.items[0])
	case kindPlain:
		*v.to = nil
		for line := range strings.SplitSeq(l.text, ";") {
			if strings.TrimSpace(line) == "" {
				continue
			}
			class, waits, ok := strings.Cut(line, "=")
			if !ok {
				return wrong(l, "%q, where a class, = and its waits are needed, like mailbox-full=1h,4h", line)
			}
			if err := v.put(l, strings.TrimSpace(class), literal{kind: kindPlain, text: waits, at: l.at}); err != nil {
				return err
			}
		}
		return nil
	case kindOther: // the empty table
		*v.to = nil
		return nil
	default:
		return wrong(l, "%s, where a table is needed", l.kind)
	}
}

func (v waitsByClass) put(l literal, class string, waits literal) error {
	if !slices.Contains(bounceClasses, class) {
		hint := ""
		if near := nearest(class, bounceClasses); near != "" {
			hint = fmt.Sprintf(": did you mean %s?", near)
		}
		return wrong(l, "there is no bounce class %q%s", class, hint)
	}
	var got []time.Duration
	if err := v.waits(&got).set(waits); err != nil {
		return err
	}
	changed := maps.Clone(*v.to) // the former one is shared with [delivery]
	if changed == nil {
		changed = map[string][]time.Duration{}
	}
	changed[class] = got
	*v.to = changed
	return nil
}

func (v waitsByClass) toml() string {
	if len(*v.to) == 0 {
		return "{}"
	}
	var lines []string
	for _, class := range slices.Sorted(maps.Keys(*v.to)) {
		waits := (*v.to)[class]
		lines = append(lines, class+" = "+v.waits(&waits).toml())
	}
	return "{ " + strings.Join(lines, ", ") + " }"
}

func (v waitsByClass) plain() any {
	all := map[string]any{}
	for class, waits := range *v.to {
		all[class] = v.waits(&waits).plain()
	}
	return all
}
