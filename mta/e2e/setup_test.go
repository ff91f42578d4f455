//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"postrider/mta/rehearsal/peers"
)

// patience bounds every wait for a condition.
const patience = 60 * time.Second

// binary is the program under test.
func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("E2E_BIN")
	if path == "" {
		path = "../../bin/postrider"
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(abs); err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	return abs
}

// needs skips a test whose peer is not installed, or fails it where nothing
// may be skipped.
func needs(t *testing.T, missing error) {
	t.Helper()
	if missing == nil {
		return
	}
	if os.Getenv("E2E_ALL") != "" {
		t.Fatal(missing)
	}
	t.Skipf("missing: %v", missing)
}

func needsProgram(t *testing.T, path, install string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		needs(t, fmt.Errorf("%w (apt-get install %s)", err, install))
	}
}

// postrider is a running daemon.
type postrider struct {
	t      *testing.T
	bin    string
	dir    string
	config string
	submit string // host:port
	http   string
	proc   *peers.Process
}

// newPostrider writes a configuration: where things are, then extra.
func newPostrider(t *testing.T, dns string, port int, extra string) *postrider {
	t.Helper()
	p := &postrider{t: t, bin: binary(t), dir: t.TempDir(), submit: freeAddr(t, "127.0.0.1"), http: freeAddr(t, "127.0.0.1")}
	p.config = filepath.Join(p.dir, "postrider.toml")
	text := fmt.Sprintf(`hostname = "mta.sender.test"
state_dir = %q
[submission]
listen = [%q]
[http]
listen = %q
[resolver]
servers = [%q]
[delivery]
port = %d
allow_networks = ["127.0.0.0/8"]
retry = ["1s", "2s"]
%s`, p.state(), p.submit, p.http, dns, port, extra)
	if err := os.WriteFile(p.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *postrider) state() string { return filepath.Join(p.dir, "state") }

// start runs the daemon until the test ends, and waits until it is ready.
func (p *postrider) start() {
	p.t.Helper()
	log := filepath.Join(p.dir, fmt.Sprintf("serve-%d.log", time.Now().UnixNano()))
	proc, err := peers.Start(context.Background(), log, p.bin, "serve", "--config", p.config)
	if err != nil {
		p.t.Fatal(err)
	}
	p.proc = proc
	p.t.Cleanup(func() {
		proc.Kill()
		if p.t.Failed() {
			text, _ := os.ReadFile(log)
			if len(text) > 8000 {
				text = text[len(text)-8000:]
			}
			p.t.Logf("%s:\n%s", log, text)
		}
	})
	if err := proc.Greets(context.Background(), p.submit); err != nil {
		p.t.Fatal(err)
	}
	waitFor(p.t, "readiness", func() bool {
		r, err := http.Get("http://" + p.http + "/readyz")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
}

// run runs a command of the binary and returns its standard output.
func (p *postrider) run(stdin string, args ...string) string {
	p.t.Helper()
	cmd := exec.Command(p.bin, args...)
	cmd.Stdin = bytes.NewBufferString(stdin)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("postrider %v: %v\n%s%s", args, err, out, errs.Bytes())
	}
	return string(out)
}

// waitFor polls a condition of another process.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %v in vain for %s", patience, what)
		}
	}
}

func freeAddr(t *testing.T, host string) string {
	t.Helper()
	l, err := net.Listen("tcp4", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
