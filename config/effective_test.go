package config

import (
	"reflect"
	"regexp"
	"strings"
	"testing"
)

const everything = `
hostname = "mail.example.test"
mode = "silent"
public_addresses = ["192.0.2.1", "2001:db8::1"]
history = "36h"
[submission]
max_recipients = 0x10
[[submission.listener]]
listen = ["127.0.0.1:2526"]
auth = "none"
[[pickup.directory]]
dir = "more \"spool\"\t"
[delivery]
retry = ["1s", "90m"]
[[destination]]
domain = "*.example.test"
hosts = ["mail.internal:2525", "[2001:db8::2]:26", "192.0.2.9"]
chunking = false
[[destination]]
domain = "b.test"
tls_min_version = "1.3"
[[dkim]]
domain = "example.test"
selector = "s1"
key_file = "k.pem"
`

func TestTheEffectiveConfigurationReadsBack(t *testing.T) {
	t.Parallel()
	c := mustParse(t, everything, "POSTRIDER_DELIVERY_PORT=26")
	var b strings.Builder
	if err := c.WriteTOML(&b); err != nil {
		t.Fatal(err)
	}
	again := mustParse(t, b.String())
	again.File, again.origins, again.Warnings = c.File, c.origins, c.Warnings
	if !reflect.DeepEqual(c, again) {
		t.Errorf("read back as\n%+v\nnot\n%+v\nfrom\n%s", again, c, b.String())
	}
	for _, line := range []string{
		`hostname = "mail.example.test" # postrider.toml:2`,
		`port = 26 # POSTRIDER_DELIVERY_PORT`,
		`tls = "enable" # default`,
		`history = "1d12h" # postrider.toml:5`,
		"\n\n[[submission.listener]]\nlisten = [\"127.0.0.1:2526\"] # postrider.toml:9\nauth = \"none\" # postrider.toml:10\n\n",
		"dir = \"more \\\"spool\\\"\\u0009\"",
	} {
		if !strings.Contains(regexp.MustCompile(" +").ReplaceAllString(b.String(), " "), line) {
			t.Errorf("%q is missing in\n%s", line, b.String())
		}
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	c := mustParse(t, aUser)
	var b strings.Builder
	if err := c.WriteTOML(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "abcdefgh") || !strings.Contains(b.String(), `password_hash = "(hidden)"`) {
		t.Error(b.String())
	}
	for _, s := range c.Settings() {
		if s.Key == "user[0].password_hash" && s.Value != hidden {
			t.Errorf("%v", s.Value)
		}
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	got := map[string]any{}
	for _, s := range mustParse(t, everything).Settings() {
		got[s.Key] = s.Value
	}
	for key, want := range map[string]any{
		"delivery.port": 25, "delivery.tls": "enable", "delivery.retry": []any{"1s", "1h30m"}, "tlsrpt.enabled": true, "body_memory": "32MB",
		"destination[0].domain": "*.example.test", "destination[1].tls_min_version": "1.3", "destination[0].chunking": false, "resolver.servers": []any{},
	} {
		if !reflect.DeepEqual(got[key], want) {
			t.Errorf("%s is %#v, not %#v", key, got[key], want)
		}
	}
	if _, there := got["destination[1].chunking"]; there {
		t.Error("what a destination inherits is listed as its own")
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("f", []byte(everything), nil); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(everything, "POSTRIDER_DELIVERY_PORT=26")
	f.Add(Example(), "POSTRIDER_SUBMISSION_LISTEN=127.0.0.1:1,[::1]:2")
	f.Add("[delivery]\ntls = 'x'\n[delivery.timeouts]\nfinal='1d'", "POSTRIDER_X=y")
	f.Add("delivery = {timeouts = {tls = '1s'}}\nuser = [{name='a'}]", "")
	f.Add("[[dkim]]\n[dkim.x]\ny=[[1],[{}]]\n", "POSTRIDER_DELIVERY_RETRY=,")
	f.Fuzz(func(t *testing.T, text, variable string) {
		c, err := Parse("f", []byte(text), []string{variable})
		if err != nil {
			if _, ok := err.(Errors); !ok || c != nil {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		if len(c.Users) > 0 {
			return // whose secrets are not written
		}
		var b strings.Builder
		if err := c.WriteTOML(&b); err != nil {
			t.Fatal(err)
		}
		again, err := Parse("g", []byte(b.String()), nil)
		if err != nil {
			t.Fatalf("the effective configuration is refused: %v\n%s", err, b.String())
		}
		settings := c.Settings()
		for i, s := range again.Settings() {
			if was := settings[i]; was.Key != s.Key || was.toml != s.toml {
				t.Fatalf("%s = %s became %s = %s", was.Key, was.toml, s.Key, s.toml)
			}
		}
	})
}
