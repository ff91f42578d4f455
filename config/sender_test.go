package config

import (
	"testing"
	"time"
)

func TestHoldFor(t *testing.T) {
	t.Parallel()
	c := mustParse(t, `
[delivery]
hold_for = "5m"
[[sender]]
address = "@News.Test"
hold_for = "1h"
[[sender]]
address = "Boss@news.test"
hold_for = "0s"
[[sender]]
address = "@plain.test"
`)
	for sender, want := range map[string]time.Duration{
		"a@other.test":    5 * time.Minute,
		"":                5 * time.Minute,
		"a@news.test":     time.Hour,
		"A@NEWS.TEST":     time.Hour,
		"a@sub.news.test": 5 * time.Minute,
		"boss@news.test":  0,
		"BOSS@news.test":  0,
		"a@plain.test":    5 * time.Minute,
	} {
		if got := c.HoldFor(sender); got != want {
			t.Errorf("%q is held for %v, want %v", sender, got, want)
		}
	}
}
