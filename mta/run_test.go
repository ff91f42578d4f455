package mta

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

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

// What waited for the start must not go out without DANE because nobody had
// asked the name servers yet: they are probed before anything is sent.
func TestNameServersAreProbedBeforeTheStart(t *testing.T) {
	t.Parallel()
	zone := resolvertest.Start(t)
	zone.Add(". IN SOA ns. host. 1 1 1 1 1")
	zone.Secure(".")
	zone.Fail(".", resolvertest.Fault{Delay: 100 * time.Millisecond}) // time enough to be overtaken
	cfg, err := config.Parse("f", fmt.Appendf(nil, `hostname = "mta.sender.test"
state_dir = %q
[resolver]
servers = [%q]
[submission]
listen = ["127.0.0.1:0"]
[http]
listen = "127.0.0.1:0"
`, t.TempDir(), zone.Addr()), nil)
	if err != nil {
		t.Fatal(err)
	}
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
