package config

import "testing"

func TestSenderRate(t *testing.T) {
	t.Parallel()
	c := mustParse(t, `
[delivery]
max_messages_per_minute_per_sender_domain = 100
[[sender]]
address = "@Shop.test"
max_messages_per_minute = 60
[[sender]]
address = "news@shop.test"
max_messages_per_minute = 6
[[sender]]
address = "quick@shop.test"
hold_for = "1m"
[[sender]]
address = "@free.test"
max_messages_per_minute = 0
`)
	for sender, want := range map[string]struct {
		key  string
		rate int
	}{
		"a@SHOP.test":     {"sender @shop.test", 60},
		"news@shop.test":  {"sender news@shop.test", 6},
		"quick@shop.test": {"sender @shop.test", 60},
		"a@free.test":     {"sender @free.test", 0},
		"a@b.test":        {"sender @b.test", 100},
		"":                {"", 0},
	} {
		if key, rate := c.SenderRate(sender); key != want.key || rate != want.rate {
			t.Errorf("%s: %q %d", sender, key, rate)
		}
	}
	if _, rate := Default().SenderRate("a@b.test"); rate != 0 {
		t.Errorf("by default %d", rate)
	}
}
