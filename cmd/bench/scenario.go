package main

import (
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
	latency    time.Duration  // per round trip at the sink
	sign       dkim.Algorithm // the sender's domain has a key of this kind
	only       string         // the one server that can do it; empty: all
}

// scenarios in the order of the table. The counts keep a round of the slowest
// peer near ten seconds.
func scenarios(scale float64) []scenario {
	n := func(messages int) int { return max(int(float64(messages)*scale), 100) }
	return []scenario{
		{key: "A", title: "4 KB, 100 domains", messages: n(20000), size: 4096, domains: 100},
		{key: "B", title: "4 KB, one domain", messages: n(20000), size: 4096, domains: 1},
		{key: "C", title: "100 KB, 100 domains", messages: n(6000), size: 100 << 10, domains: 100},
		{key: "D", title: "4 KB, 100 domains, 20 ms per round trip at the sink", messages: n(10000), size: 4096, domains: 100, latency: 20 * time.Millisecond},
		{key: "K-rsa", title: "A signed with rsa2048", messages: n(10000), size: 4096, domains: 100, sign: dkim.RSA, only: "postrider"},
		{key: "K-ed", title: "A signed with ed25519", messages: n(20000), size: 4096, domains: 100, sign: dkim.Ed25519, only: "postrider"},
	}
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
