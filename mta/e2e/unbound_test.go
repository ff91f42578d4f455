//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postrider/mta/rehearsal/peers"
	"postrider/resolver"
)

// startUnbound runs a private unbound that validates the given zones, and asks
// nobody else. It answers its address.
func startUnbound(t *testing.T, zones ...signedZone) string {
	t.Helper()
	needsProgram(t, "/usr/sbin/unbound", "unbound")
	dir := t.TempDir()
	listen := freeAddr(t, "127.0.0.1")
	_, port, _ := net.SplitHostPort(listen)
	var text strings.Builder
	fmt.Fprintf(&text, `server:
	interface: 127.0.0.1@%s
	port: %s
	do-ip6: no
	do-not-query-localhost: no
	username: ""
	chroot: ""
	directory: %q
	pidfile: ""
	use-syslog: no
	logfile: ""
	val-log-level: 2
	log-servfail: yes
	module-config: "validator iterator"
	local-zone: "test." nodefault
`, port, port, dir)
	for i, z := range zones {
		anchor := filepath.Join(dir, fmt.Sprintf("anchor%d", i))
		if err := os.WriteFile(anchor, []byte(z.Anchor+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "\ttrust-anchor-file: %q\n", anchor)
	}
	text.WriteString("remote-control:\n\tcontrol-enable: no\n")
	// A root of our own, with nothing else in it: this is no test of the internet.
	root := signedZone{Name: ".", File: filepath.Join(dir, "root.zone")}
	if err := os.WriteFile(root.File, []byte(". 300 IN SOA ns. host. 1 3600 600 86400 60\n. 300 IN NS ns.\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, z := range append(zones, root) {
		fmt.Fprintf(&text, "auth-zone:\n\tname: %q\n\tzonefile: %q\n\tfor-downstream: no\n\tfor-upstream: yes\n\tfallback-enabled: no\n", z.Name, z.File)
	}
	conf := filepath.Join(dir, "unbound.conf")
	if err := os.WriteFile(conf, []byte(text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	proc, err := peers.Start(context.Background(), filepath.Join(dir, "unbound.log"), "/usr/sbin/unbound", "-d", "-c", conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		proc.Kill()
		if t.Failed() {
			text, _ := os.ReadFile(proc.Log)
			t.Logf("%s:\n%s", proc.Log, text)
		}
	})
	r, err := resolver.New(resolver.Options{Servers: []string{listen}, AutoTrustAD: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var probed resolver.ProbeResult
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("unbound: %+v", probed)
		}
	})
	waitFor(t, "a validating unbound", func() bool {
		probed = r.Probe(t.Context(), resolver.ProbeOptions{Signed: zones[0].Name})
		return probed.Validating
	})
	return listen
}
