//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"testing"

	"postrider/mta/rehearsal"
	"postrider/mta/rehearsal/peers"
)

// TestOneConnectionOverALongWay tells how much mail one connection carries to a
// server that is 100 ms away (docs/performance.md):
//
//	make e2e ARGS='-run TestOneConnectionOverALongWay'
func TestOneConnectionOverALongWay(t *testing.T) {
	for name, tt := range map[string]struct {
		without  string
		messages int // a connection carries 100 by default
	}{
		"CHUNKING": {"dsn", 100}, "PIPELINING only": {"chunking", 100}, "neither": {"chunking,pipelining", 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listen, dns, stats := freeAddr(t, "127.0.0.23"), freeAddr(t, "127.0.0.1"), freeAddr(t, "127.0.0.1")
			sink, err := peers.Start(context.Background(), filepath.Join(t.TempDir(), "sink.log"), binary(t),
				"sink", "--round-trip", "100ms", "--listen", listen, "--dns", dns, "--stats", stats, "--without", tt.without)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(sink.Kill)
			if err := sink.Greets(context.Background(), listen); err != nil {
				t.Fatal(err)
			}
			_, port, _ := net.SplitHostPort(listen)
			number, err := strconv.Atoi(port)
			if err != nil {
				t.Fatal(err)
			}
			p := newPostrider(t, dns, number, "max_connections_per_site = 1\n")
			p.start()
			before := sinkStats(t, stats)
			p.run("", "load", p.submit, "--messages", strconv.Itoa(tt.messages), "--domains", "1", "--size", "4KB", "--sessions", "4")
			waitFor(t, "the messages at the sink", func() bool { return sinkStats(t, stats).Messages == int64(tt.messages) })
			got := sinkStats(t, stats)
			if n := got.Connections - before.Connections; n != 1 || got.ProtocolErrors != 0 {
				t.Errorf("%d connections and %d wrong commands", n, got.ProtocolErrors)
			}
			t.Logf("100 ms away, %s: %.1f messages/s of 4 KB over one connection", name, got.PerSecond())
		})
	}
}

func sinkStats(t *testing.T, addr string) rehearsal.Stats {
	t.Helper()
	r, err := http.Get("http://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	var s rehearsal.Stats
	if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}
