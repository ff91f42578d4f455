package mta

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"postrider/config"
	"postrider/resolver"
	"postrider/resolver/resolvertest"
)

// TestUntrustedNameServersAreToldOfOnce: one clear warning, not one for each
// probe; and a word when that has changed.
func TestUntrustedNameServersAreToldOfOnce(t *testing.T) {
	t.Parallel()
	zone := resolvertest.Start(t)
	zone.Add(". IN SOA ns. host. 1 1 1 1 1")
	r, err := resolver.New(resolver.Options{Servers: []string{zone.Addr()}, AutoTrustAD: true, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	probes := newTrust(new(config.Config), r, slog.New(slog.NewTextHandler(&log, nil)))
	lines := func() []string {
		defer log.Reset()
		return strings.Split(strings.TrimSpace(log.String()), "\n")
	}

	probes.begin(t.Context())
	for range 3 {
		probes.probe(t.Context())
	}
	said := lines()
	if len(said) != 1 {
		t.Fatalf("%d lines:\n%s", len(said), strings.Join(said, "\n"))
	}
	for _, want := range []string{"level=WARN", "there is no DANE", zone.Addr(), "does not validate DNSSEC"} {
		if !strings.Contains(said[0], want) {
			t.Errorf("the warning lacks %q: %s", want, said[0])
		}
	}
	if probes.wait != probeRetry {
		t.Errorf("the next probe is in %v", probes.wait)
	}

	zone.Secure(".")
	probes.probe(t.Context())
	probes.probe(t.Context())
	if said = lines(); len(said) != 1 || !strings.Contains(said[0], "level=INFO") || !strings.Contains(said[0], "DANE is in use") {
		t.Errorf("after the server validates: %q", said)
	}
	if probes.wait != probeRefresh {
		t.Errorf("the next probe is in %v", probes.wait)
	}
	zone.Insecure(".")
	probes.probe(t.Context())
	if said = lines(); len(said) != 1 || !strings.Contains(said[0], "level=WARN") {
		t.Errorf("after it ceased to: %q", said)
	}
}

// The names that the configuration gives are those that are asked for: the
// signed one must come back with AD, the bogus one as SERVFAIL.
func TestProbeNamesOfTheConfiguration(t *testing.T) {
	t.Parallel()
	zone := resolvertest.Start(t)
	zone.Add("signed.test. IN SOA ns. host. 1 1 1 1 1", "bogus.test. IN A 192.0.2.1")
	zone.Secure("signed.test")
	r, err := resolver.New(resolver.Options{Servers: []string{zone.Addr()}, AutoTrustAD: true, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse("f", []byte("[resolver]\nprobe_signed = \"signed.test\"\nprobe_bogus = \"bogus.test\"\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	probes := newTrust(cfg, r, slog.New(slog.NewTextHandler(&log, nil)))
	probes.begin(t.Context())
	if said := log.String(); !strings.Contains(said, "level=WARN") || !strings.Contains(said, "it answers NOERROR for bogus.test, whose signatures are broken") {
		t.Errorf("of servers that give the bogus name: %s", said)
	}
	log.Reset()
	zone.Fail("bogus.test", resolvertest.Bogus())
	probes.probe(t.Context())
	if said := log.String(); !strings.Contains(said, "DANE is in use") {
		t.Errorf("of servers that validate: %s", said)
	}
	log.Reset()
	zone.Insecure("signed.test")
	probes.probe(t.Context())
	if said := log.String(); !strings.Contains(said, "level=WARN") || !strings.Contains(said, "signed.test") || !strings.Contains(said, "without the AD bit") {
		t.Errorf("of servers that do not set AD: %s", said)
	}
}
