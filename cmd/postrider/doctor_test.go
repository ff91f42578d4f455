package main

import (
	"errors"
	"testing"

	"postrider/config"
)

// TestDoctorOfTheInstalledServer: an ordinary user asks about the server that
// is there, not about the one that they could start.
func TestDoctorOfTheInstalledServer(t *testing.T) {
	t.Parallel()
	installed := &config.Config{File: "/etc/p.toml", StateDir: "/var/lib/p"}
	fallback := &config.Config{File: "/etc/p.toml", StateDir: "/home/u/postrider-data"}
	for name, c := range map[string]struct {
		own   *config.Config
		err   error
		there []string
		want  bool
	}{
		"installed":                    {own: fallback, there: []string{"/var/lib/p"}, want: true},
		"nothing is installed":         {own: fallback},
		"both are there":               {own: fallback, there: []string{"/var/lib/p", "/home/u/postrider-data"}},
		"a file in the directory":      {own: &config.Config{File: "/home/u/postrider.toml", StateDir: "/home/u/postrider-data"}, there: []string{"/var/lib/p"}},
		"it is one and the same":       {own: installed, there: []string{"/var/lib/p"}},
		"no directory of one's own":    {err: config.Errors{{Key: "state_dir"}}, there: []string{"/var/lib/p"}, want: true},
		"something else is wrong":      {err: config.Errors{{Key: "state_dir"}, {Key: "hostname"}}, there: []string{"/var/lib/p"}},
		"the file cannot be read":      {err: errors.New("permission denied"), there: []string{"/var/lib/p"}},
		"no directory, none installed": {err: config.Errors{{Key: "state_dir"}}},
	} {
		got := meansInstalled(c.own, c.err, installed, func(path string) bool {
			for _, p := range c.there {
				if p == path {
					return true
				}
			}
			return false
		})
		if got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
