package mta

import (
	"slices"
	"testing"
)

func TestShortName(t *testing.T) {
	t.Parallel()
	for system, want := range map[string][]string{
		"web1":             {"web1"},
		"web1.example.org": {"web1"},
		"example.org":      {"example"},
		"":                 nil,
		".":                nil,
		"bad_ name":        nil,
	} {
		if got := shortName(system); !slices.Equal(got, want) {
			t.Errorf("%q: %q, not %q", system, got, want)
		}
	}
}
