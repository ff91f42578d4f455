//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postrider/mta/rehearsal"
	"postrider/mta/rehearsal/peers"
)

// memoryGroup is a control group with a limit, and how many processes the
// kernel has killed in it.
type memoryGroup struct {
	dir    string
	events string // the file that counts kills
}

// newMemoryGroup makes a control group below the one that this process is in
// (version 1) or at the root (version 2, where a group that has processes
// shares nothing out).
func newMemoryGroup(t *testing.T, limit int64) memoryGroup {
	t.Helper()
	needsRoot(t)
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		needs(t, err)
	}
	var parent, limits string
	g := memoryGroup{}
	if _, rest, ok := strings.Cut(string(text), ":memory:"); ok {
		own, _, _ := strings.Cut(rest, "\n")
		parent, limits, g.events = filepath.Join("/sys/fs/cgroup/memory", own), "memory.limit_in_bytes", "memory.oom_control"
		if _, err := os.Stat(parent); err != nil {
			parent = "/sys/fs/cgroup/memory" // a container's part of the hierarchy
		}
	} else {
		parent, limits, g.events = "/sys/fs/cgroup", "memory.max", "memory.events"
		// It fails where it was done already by whoever owns the hierarchy.
		_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+memory"), 0)
	}
	g.dir = filepath.Join(parent, fmt.Sprintf("postrider-e2e-%d", os.Getpid()))
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		needs(t, fmt.Errorf("a control group for memory: %w", err))
	}
	t.Cleanup(func() { waitFor(t, "the control group to be removed", func() bool { return os.Remove(g.dir) == nil }) })
	if err := os.WriteFile(filepath.Join(g.dir, limits), fmt.Append(nil, limit), 0); err != nil {
		needs(t, fmt.Errorf("limit the memory of a control group: %w", err))
	}
	return g
}

// kills is how often the kernel has killed a process of the group.
func (g memoryGroup) kills(t *testing.T) (n int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(g.dir, g.events))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "oom_kill %d", &n); err == nil {
			return n
		}
	}
	t.Fatalf("%s does not count kills: %s", g.events, text)
	return 0
}

// startIn runs the daemon in a control group.
func (p *postrider) startIn(g memoryGroup) {
	p.t.Helper()
	proc, err := peers.Start(context.Background(), filepath.Join(p.dir, "serve.log"), "/bin/sh", "-c",
		`echo $$ > "$0"/cgroup.procs && exec "$@"`, g.dir, p.bin, "serve", "--config", p.config)
	if err != nil {
		p.t.Fatal(err)
	}
	p.proc = proc
	p.t.Cleanup(func() {
		proc.Kill()
		if text, err := os.ReadFile(proc.Log); err == nil && p.t.Failed() {
			p.t.Logf("%v, kills: %d\n%s", proc.Wait(), g.kills(p.t), text[max(len(text)-8000, 0):])
		}
	})
	if err := proc.Greets(context.Background(), p.submit); err != nil {
		p.t.Fatal(err)
	}
}

// TestMemoryOfTheControlGroup lets mail wait until the memory that the control
// group allows is nearly used: then new mail gets 452, the kernel never has to
// kill, all that was accepted is delivered, and mail is taken again.
func TestMemoryOfTheControlGroup(t *testing.T) {
	const memory, recipients = 80_000_000, 20
	g := newMemoryGroup(t, memory)
	s := startSink(t)
	p := newPostrider(t, s.dns, s.port, "")
	p.startIn(g)
	p.run("", "queue", "--config", p.config, "suspend", "--sender", "load@sender.test", "--reason", "test")

	var accepted int64
	var r *rehearsal.Result
	for round := 0; ; round++ {
		// Between the small ones some that fill buffers, and files.
		size := 2000
		if round%8 == 1 {
			size = []int{100_000, 200_000}[round/8%2]
		}
		r = p.load(rehearsal.LoadOptions{Messages: 200, Domains: 500, Recipients: recipients, DomainSuffix: "shop.test",
			Sender: "load@sender.test", Size: size})
		accepted += r.Accepted
		p.lives()
		if r.Refused > 0 {
			break
		}
		if round == 100 {
			t.Fatalf("%d messages to %d recipients each wait in %d octets, and none was refused", accepted, recipients, memory)
		}
	}
	t.Logf("refused for the first time behind %d messages to %d recipients each", accepted, recipients)
	if !strings.Contains(r.FirstError, "452") {
		t.Errorf("near the limit: %q", r.FirstError)
	}
	waitFor(t, "the log to tell", func() bool { return strings.Contains(p.log(), "that the control group allows") })
	p.run("", "queue", "--config", p.config, "resume", "--sender", "load@sender.test")
	for left := p.queued(); left > 0; {
		before := left
		waitFor(t, "the queue to go out", func() bool { p.lives(); left = p.queued(); return left < before })
	}
	var arrived rehearsal.Stats
	if err := json.Unmarshal([]byte(get(t, "http://"+s.stats)), &arrived); err != nil {
		t.Fatal(err)
	}
	if want := recipients * accepted; arrived.Copies != want {
		t.Errorf("%d copies of %d have arrived", arrived.Copies, want)
	}
	p.accepts("later.test")
	p.lives()
	if n := g.kills(t); n != 0 {
		t.Errorf("the kernel has killed %d times", n)
	}
}
