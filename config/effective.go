package config

import (
	"fmt"
	"io"
	"strings"
)

// Setting is one value in force and where it comes from.
type Setting struct {
	Key    string // "delivery.tls"; in a list of tables "destination[0].tls"
	Value  any    // as in TOML: text, number, bool or a list of them
	Origin Origin

	table *Table
	first bool // of its table, or of its element
	toml  string
}

// hidden stands for a secret.
const hidden = "(hidden)"

// Settings gives every value in force, in the order of the documentation. Of an
// element of a list of tables it gives what was set there; the rest is
// inherited.
func (c *Config) Settings() []Setting {
	var all []Setting
	for i := range Tables() {
		t := &Tables()[i]
		if t.Repeated {
			for n, element := range t.elements.all(c) {
				all = c.appendSettings(all, t, element, n)
			}
			continue
		}
		all = c.appendSettings(all, t, c, -1)
	}
	return all
}

func (c *Config) appendSettings(all []Setting, t *Table, root any, element int) []Setting {
	first := true
	for i := range t.Keys {
		k := &t.Keys[i]
		origin := c.origins[indexed(k.Path, element)]
		if element >= 0 && origin == (Origin{}) {
			continue
		}
		v := k.at.field(root)
		s := Setting{Key: k.Path, Value: v.plain(), Origin: origin, table: t, first: first, toml: v.toml()}
		if element >= 0 {
			s.Key = fmt.Sprintf("%s[%d].%s", t.Path, element, k.Name())
		}
		if k.secret {
			s.Value, s.toml = hidden, quote(hidden)
		}
		all, first = append(all, s), false
	}
	return all
}

// WriteTOML writes the values in force as TOML, each with its origin in a
// comment. Read back, it makes the same configuration, but for secrets.
func (c *Config) WriteTOML(w io.Writer) error {
	var b strings.Builder
	for _, s := range c.Settings() {
		if s.first && s.table.Path != "" {
			if s.table.Repeated {
				fmt.Fprintf(&b, "\n[[%s]]\n", s.table.Path)
			} else {
				fmt.Fprintf(&b, "\n[%s]\n", s.table.Path)
			}
		}
		name := s.Key[strings.LastIndexByte(s.Key, '.')+1:]
		fmt.Fprintf(&b, "%-40s # %s\n", name+" = "+s.toml, s.Origin)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
