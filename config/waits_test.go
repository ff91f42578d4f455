package config

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestWaitsByClass(t *testing.T) {
	t.Parallel()
	type waits = map[string][]time.Duration
	general := waits{"mailbox-full": {4 * hour, 12 * hour}, "rate": {10 * minute}}
	for name, text := range map[string]string{
		"a table":         "[delivery.retry_for]\nmailbox-full = ['4h', '12h']\nrate = ['10m']\n[[destination]]\ndomain = 'a.test'\n[destination.retry_for]\nrate = ['1m']\n[[destination]]\ndomain='b.test'\n",
		"an inline table": "[delivery]\nretry_for = { mailbox-full = ['4h', '12h'], rate = ['10m'] }\n[[destination]]\ndomain = 'a.test'\nretry_for = { rate = ['1m'] }\n[[destination]]\ndomain='b.test'\n",
		"dotted keys":     "[delivery]\nretry_for.rate = ['10m']\nretry_for.mailbox-full = ['4h', '12h']\n[[destination]]\ndomain = 'b.test'\n[[destination]]\ndomain = 'a.test'\nretry_for.rate = ['1m']\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := mustParse(t, text)
			for domain, want := range map[string]waits{
				"other.test": general, "b.test": general,
				"a.test": {"mailbox-full": {4 * hour, 12 * hour}, "rate": {minute}},
			} {
				if got := c.DestinationFor(domain).RetryFor; !reflect.DeepEqual(got, want) {
					t.Errorf("%s: %v, want %v", domain, got, want)
				}
			}
			var b strings.Builder
			if err := c.WriteTOML(&b); err != nil {
				t.Fatal(err)
			}
			again := mustParse(t, b.String())
			if !reflect.DeepEqual(again.Delivery.RetryFor, general) || !reflect.DeepEqual(again.Destinations, c.Destinations) {
				t.Errorf("read back otherwise from\n%s", b.String())
			}
		})
	}
	c := mustParse(t, "[delivery.retry_for]\ndns = ['1h']\n", "POSTRIDER_DELIVERY_RETRY_FOR=mailbox-full=4h,12h; rate=10m")
	if !reflect.DeepEqual(c.Delivery.RetryFor, general) {
		t.Errorf("from the environment: %v", c.Delivery.RetryFor)
	}
}

func TestWaitsByClassComplaints(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"[delivery.retry_for]\nmailbox_full = ['4h']\n":                        `f:2:1: delivery.retry_for: there is no bounce class "mailbox_full": did you mean mailbox-full?`,
		"[delivery.retry_for]\nrate = []\n":                                    `f:2:1: delivery.retry_for: a list of 0, where a list of at least one duration`,
		"[delivery.retry_for]\n\nrate = ['1ms']\n":                             `f:3:9: delivery.retry_for: "1ms", where a duration from 100ms to 7d is needed`,
		"[delivery]\nretry_for = 7\n":                                          `f:2:13: delivery.retry_for: a whole number, where a table is needed`,
		"[[destination]]\ndomain = 'a.test'\n[destination.retry_for]\nx = 1\n": `f:4:1: destination.retry_for: there is no bounce class "x"`,
		"[destination.retry_for]\nrate = ['1h']\n":                             `f:1:2: destination: is a list of tables: write [[destination]]`,
		"[[destination]]\ndomain = 'a.test'\n[destination.timeouts]\n":         `f:3:14: destination.timeouts: there is no such table`,
	} {
		_, err := Parse("f", []byte(text), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v\nwant %s", text, err, want)
		}
	}
}
