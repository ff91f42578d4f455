package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"postrider/resolver"
	"postrider/resolver/resolvertest"
)

func TestHelo(t *testing.T) {
	t.Parallel()
	const (
		ptr  = "1.2.0.192.in-addr.arpa. IN PTR mail.test."
		addr = "mail.test. IN A 192.0.2.1"
	)
	tests := []struct {
		name    string
		records []string
		args    string
		want    []string // parts of the output
		err     string
	}{
		{"confirmed", []string{ptr, addr}, "--source 192.0.2.1", []string{"mail.test\n  from reverse DNS, for connections from 192.0.2.1\n", "  ok  reverse DNS (PTR) of 192.0.2.1: mail.test\n", "nothing to do"}, ""},
		{"behind NAT", []string{ptr, addr}, "--source 10.0.0.1 --public 192.0.2.1", []string{"10.0.0.1 (seen as 192.0.2.1)", "nothing to do"}, ""},
		{"configured, not confirmed", []string{ptr}, "--source 192.0.2.1 --hostname other.test", []string{"other.test\n", "  !!  reverse DNS of 192.0.2.1 does not say other.test"}, "192.0.2.1 is not confirmed"},
		{"not an address", nil, "--source nonsense", nil, `--source "nonsense": an IP address is needed`},
		{"not a public address", nil, "--public nonsense", nil, `--public "nonsense": an IP address is needed`},
		{"not a name", nil, "--hostname localhost", nil, "full name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			zone := resolvertest.Start(t)
			zone.Add(tt.records...)
			c := newHeloCommand()
			var out bytes.Buffer
			c.SetOut(&out)
			c.SetErr(&out)
			c.SetArgs(append(strings.Fields(tt.args), "--server", zone.Addr()))
			err := c.ExecuteContext(t.Context())
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			for _, w := range tt.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("no %q in:\n%s", w, &out)
				}
			}
		})
	}
}

func TestHeloJSON(t *testing.T) {
	t.Parallel()
	zone := resolvertest.Start(t)
	zone.Add("1.2.0.192.in-addr.arpa. IN PTR mail.test.", "mail.test. IN A 192.0.2.1")
	c := newHeloCommand()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetArgs([]string{"--json", "--source", "192.0.2.1", "--server", zone.Addr()})
	if err := c.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	var names []resolver.HELOName
	if err := json.Unmarshal(out.Bytes(), &names); err != nil {
		t.Fatal(err)
	}
	if len(names) != 1 || names[0].Name != "mail.test" || !names[0].Confirmed || len(names[0].Steps) == 0 {
		t.Errorf("%+v", names)
	}
}
