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
