package mta

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"postrider/config"
	"postrider/resolver/resolvertest"
)

// logBuffer is written by all of a server.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// serverConfig is of a whole server on loopback.
func serverConfig(t *testing.T, dir string, zone *resolvertest.Zone) *config.Config {
	t.Helper()
	return parsed(t, fmt.Sprintf(`hostname = "mta.sender.test"
state_dir = %q
[resolver]
servers = [%q]
[submission]
listen = ["127.0.0.1:0"]
[http]
listen = "127.0.0.1:0"
[pickup]
dir = %q
`, dir, zone.Addr(), filepath.Join(dir, "pickup")))
}

// A policy that is remembered is renewed before it ends, though no mail asks for
// it: the whole server looks for its record.
func TestServerRenewsRememberedPolicies(t *testing.T) {
	t.Parallel()
	zone := resolvertest.Start(t)
	dir := t.TempDir()
	store, err := newFileStore(stateDir(dir).sts())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	remembered := fmt.Sprintf(`{"version":1,"domain":"d.test","id":"1","mode":"enforce","mx":["mx.d.test"],"max_age":604800,"fetched_at":%d,"used_at":%d}`,
		now.Add(-48*time.Hour).Unix(), now.Add(-time.Hour).Unix())
	if err := store.Put("d.test", []byte(remembered)); err != nil {
		t.Fatal(err)
	}
	var log logBuffer
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	m, err := New(ctx, serverConfig(t, dir, zone), Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	zone.Wait("_mta-sts.d.test", dns.TypeTXT, 1)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if data, err := store.Get("d.test"); err != nil || string(data) != remembered {
		t.Errorf("without a record the policy is not kept: %q, %v", data, err)
	}
}

// What waited for the start must not go out without DANE because nobody had
// asked the name servers yet: they are probed before anything is sent.
func TestNameServersAreProbedBeforeTheStart(t *testing.T) {
	t.Parallel()
	zone := resolvertest.Start(t)
	zone.Add(". IN SOA ns. host. 1 1 1 1 1")
	zone.Secure(".")
	zone.Fail(".", resolvertest.Fault{Delay: 100 * time.Millisecond}) // time enough to be overtaken
	cfg := serverConfig(t, t.TempDir(), zone)
	var log logBuffer
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	atReady := ""
	m, err := New(ctx, cfg, Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Ready: func() { atReady = log.String(); stop() }})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(atReady, "the name servers validate and are trusted, DANE is in use") {
		t.Errorf("when it was ready the log had:\n%s\nand in the end\n%s", atReady, log.String())
	}
}
