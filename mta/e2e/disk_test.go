//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"postrider/mta/rehearsal"
	"postrider/mta/rehearsal/peers"
)

// sink is a receiving server and its DNS, in a process of its own.
type sink struct {
	t          *testing.T
	dns, stats string
	port       int
}

func startSink(t *testing.T) *sink {
	t.Helper()
	s := &sink{t: t, dns: freeAddr(t, "127.0.0.1"), stats: freeAddr(t, "127.0.0.1")}
	smtp := freeAddr(t, "127.0.0.1")
	if _, err := fmt.Sscanf(smtp, "127.0.0.1:%d", &s.port); err != nil {
		t.Fatal(err)
	}
	proc, err := peers.Start(context.Background(), filepath.Join(t.TempDir(), "sink.log"), binary(t),
		"sink", "--dns", s.dns, "--listen", smtp, "--stats", s.stats, "--verify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proc.Kill)
	if err := proc.Greets(context.Background(), smtp); err != nil {
		t.Fatal(err)
	}
	return s
}

// get reads a page.
func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// load sends messages and gives what came of it.
func (p *postrider) load(o rehearsal.LoadOptions) *rehearsal.Result {
	p.t.Helper()
	o.Target = p.submit
	l, err := rehearsal.NewLoad(o)
	if err != nil {
		p.t.Fatal(err)
	}
	r, err := l.Run(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return r
}

// accepts waits until the server takes mail, and sends it one message.
func (p *postrider) accepts(domain string) {
	p.t.Helper()
	waitFor(p.t, "mail to be taken again", func() bool {
		r := p.load(rehearsal.LoadOptions{Messages: 1, Sessions: 1, Domains: 1, DomainSuffix: domain, Size: 1000})
		return r.Accepted == 1
	})
}

func (p *postrider) lives() {
	p.t.Helper()
	select {
	case <-p.proc.Done():
		p.t.Fatalf("the server has ended: %v", p.proc.Wait())
	default:
	}
}

func (p *postrider) log() string {
	text, err := os.ReadFile(p.proc.Log)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

// queued is how many messages the server holds.
func (p *postrider) queued() (n int) {
	p.t.Helper()
	_, rest, _ := strings.Cut(get(p.t, "http://"+p.http+"/metrics"), "\npostrider_queue_messages ")
	var f float64
	if _, err := fmt.Sscan(rest, &f); err != nil {
		p.t.Fatal(err)
	}
	return int(f)
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		needs(t, errors.New("root, to mount and to limit"))
	}
}

// TestFullDisk fills the file system that the queue is on to the last octet:
// with mail up to the floor of free space, or not, and then with something
// else. New mail gets 452 before, none that was acknowledged is lost, and with
// space mail is taken again, without a restart.
func TestFullDisk(t *testing.T) {
	needsRoot(t)
	for name, messages := range map[string]int{"mostly by others": 3000, "mostly by mail": 60_000} {
		t.Run(name, func(t *testing.T) { fillDisk(t, messages) })
	}
}

func fillDisk(t *testing.T, messages int) {
	s := startSink(t)
	p := newPostrider(t, s.dns, s.port, "")
	if err := os.Mkdir(p.state(), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", p.state(), "tmpfs", 0, "size=600m,mode=711"); err != nil {
		needs(t, fmt.Errorf("mount a tmpfs: %w", err))
	}
	t.Cleanup(func() { _ = unix.Unmount(p.state(), unix.MNT_DETACH) })
	p.start()
	p.run("", "queue", "--config", p.config, "suspend", "--sender", "load@sender.test", "--reason", "test")

	var accepted int64
	load := func(n int) *rehearsal.Result {
		r := p.load(rehearsal.LoadOptions{Messages: int64(n), Domains: 100, DomainSuffix: "shop.test", Sender: "load@sender.test", Size: 20_000})
		accepted += r.Accepted
		return r
	}
	load(messages)
	var space unix.Statfs_t
	if err := unix.Statfs(p.state(), &space); err != nil {
		t.Fatal(err)
	}
	if accepted < 3000 || space.Bavail == 0 {
		t.Fatalf("%d were accepted, %d blocks are free", accepted, space.Bavail)
	}
	// Somebody else takes the rest.
	ballast := filepath.Join(p.state(), "ballast")
	if err := exec.Command("dd", "if=/dev/zero", "of="+ballast, "bs=64k", "status=none").Run(); err == nil {
		t.Fatal("the disk cannot be filled")
	}
	// The room is looked at once a second: what comes before may be taken.
	if r := load(1000); r.Refused == 0 || !strings.Contains(r.FirstError, "452") {
		t.Errorf("on a full disk: %d accepted, %d refused, %q", r.Accepted, r.Refused, r.FirstError)
	}
	waitFor(t, "the log to tell", func() bool { return strings.Contains(p.log(), "new mail is turned away") })
	p.run("", "queue", "--config", p.config, "resume", "--sender", "load@sender.test")
	p.lives()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the queue to be delivered", func() bool { return p.queued() == 0 })
	var arrived rehearsal.Stats
	if err := json.Unmarshal([]byte(get(t, "http://"+s.stats)), &arrived); err != nil {
		t.Fatal(err)
	}
	if lost := accepted - arrived.Copies; lost > 0 {
		t.Errorf("%d of %d accepted messages are lost", lost, accepted)
	}
	p.accepts("later.test")
	p.lives()
	for _, bad := range []string{"set aside", "damage"} {
		if strings.Contains(p.log(), bad) {
			t.Errorf("the log speaks of %q", bad)
		}
	}
}
