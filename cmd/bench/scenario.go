package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"postrider/dkim"
)

// scenario is one load, the same for every server under test.
type scenario struct {
	key, title string
	messages   int
	size       int
	domains    int
	latency    time.Duration // per round trip at the sink
	only       string        // the one server that can do it; empty: all
	variants   []variant     // compared with each other; none: one without a name
	settle     time.Duration // between the start of the server and the load
	alone      bool          // one client with one message after the other, not twenty
	// play is one round against a server; nil: stream.
	play func(ctx context.Context, r *rig, t *turn) (result, error)
}

// variant is what differs within a scenario.
type variant struct {
	name    string
	sign    dkim.Algorithm // the sender's domain has a key of this kind
	waiting int            // messages in the queue when the server starts, for destinations that are down
	dead    int            // messages for dead destinations, accepted before
	deadFor time.Duration  // between that and the load
	ways    []string       // the ways of being dead, by their suffixes
}

func (s scenario) everyVariant() []variant {
	if len(s.variants) == 0 {
		return []variant{{}}
	}
	return s.variants
}

// isFor tells whether a server plays a scenario.
func (s scenario) isFor(c contestant) bool { return s.only == "" || s.only == c.name() }

// deadFor is how long mail has waited for dead destinations before the load of
// scenario G: their first tries, which cost what any try costs, are over, and
// those that do not answer are still being called. In "half just dying" the
// load comes at once.
const deadFor = 5 * time.Second

// deadDomains and healthyDomains are the destinations of scenario G,
// waitingDomains those of what waits in F.
const (
	healthyDomains = 5000
	deadDomains    = 5000
	waitingDomains = 1000
)

// scenarios in the order of the table. The counts keep a round of the slowest
// peer under a minute on a slow machine.
func scenarios(scale float64) []scenario {
	n := func(messages int) int { return max(int(float64(messages)*scale), 100) }
	return []scenario{
		{key: "A", title: "4 KB, 100 domains", messages: n(20_000), size: 4096, domains: 100},
		{key: "B", title: "4 KB, one domain", messages: n(20_000), size: 4096, domains: 1},
		{key: "C", title: "100 KB, 100 domains", messages: n(6_000), size: 100 << 10, domains: 100},
		{key: "D", title: "4 KB, 100 domains, 20 ms per round trip at the sink", messages: n(10_000), size: 4096, domains: 100, latency: 20 * time.Millisecond},
		{
			// A fresh server tries each destination a few times; what a waiting
			// queue costs beyond that is seen after it.
			key: "F", title: "A while others wait for 1,000 destinations that are down", only: postriderName,
			messages: n(20_000), size: 4096, domains: 100, settle: 5 * time.Second,
			variants: []variant{{name: "empty queue"}, {name: "a queue of " + grouped(n(1_000_000)), waiting: n(1_000_000)}},
		},
		{
			key: "G", title: "4 KB, 5,000 healthy domains while 5,000 others are dead", only: postriderName,
			messages: n(20_000), size: 4096, domains: healthyDomains,
			variants: []variant{
				{name: "without the dead"},
				{name: "half just dying", dead: n(20_000), ways: []string{downSuffix, holeSuffix, silentSuffix}},
				{name: "half dead", dead: n(20_000), deadFor: deadFor, ways: []string{downSuffix, holeSuffix, silentSuffix}},
				{name: "half refusing", dead: n(20_000), deadFor: deadFor, ways: []string{downSuffix}},
				{name: "half swallowed", dead: n(20_000), deadFor: deadFor, ways: []string{holeSuffix}},
				{name: "half without DNS", dead: n(20_000), deadFor: deadFor, ways: []string{silentSuffix}},
			},
		},
		{key: "H", title: "4 KB files in the spool directory", messages: n(100_000), size: 4096, domains: 100, only: postriderName, play: playSpool},
		{key: "I", title: "an idle server, and single messages to it", messages: idleMessages, size: 4096, domains: idleMessages, play: playIdle},
		{
			key: "K", title: "A signed with DKIM", messages: n(10_000), size: 4096, domains: 100, only: postriderName,
			variants: []variant{{name: "unsigned"}, {name: "rsa2048", sign: dkim.RSA}, {name: "ed25519", sign: dkim.Ed25519}},
		},
	}
}

// grouped writes a number with a comma after each three digits.
func grouped(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// choose picks scenarios by their keys; "all" is every one.
func choose(all []scenario, keys string) ([]scenario, error) {
	if keys == "all" {
		return all, nil
	}
	var chosen []scenario
	for key := range strings.SplitSeq(keys, ",") {
		i := slices.IndexFunc(all, func(s scenario) bool { return strings.EqualFold(s.key, key) })
		if i < 0 {
			return nil, fmt.Errorf("no scenario %q; there are %s", key, keysOf(all))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

func keysOf(all []scenario) string {
	var keys []string
	for _, s := range all {
		keys = append(keys, s.key)
	}
	return strings.Join(keys, ", ")
}
