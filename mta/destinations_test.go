package mta

import (
	"testing"

	"postrider/queue"
)

func TestSelects(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		sel    queue.Selector
		domain string
		want   bool
	}{
		{"everything", queue.Selector{}, "a.test", true},
		{"the domain", queue.Selector{Domain: "a.test"}, "a.test", true},
		{"another domain", queue.Selector{Domain: "a.test"}, "b.test", false},
		{"below a wildcard", queue.Selector{Domain: "*.a.test"}, "x.a.test", true},
		{"a wildcard's own name", queue.Selector{Domain: "*.a.test"}, "a.test", false},
		{"ends alike, is not below", queue.Selector{Domain: "*.a.test"}, "ba.test", false},
		{"of a site", queue.Selector{Domains: []string{"a.test", "b.test"}}, "b.test", true},
		{"of another site", queue.Selector{Domains: []string{"a.test"}}, "b.test", false},
	} {
		if got := selects(c.sel, c.domain); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
