//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"postrider/mta/rehearsal"
)

// TestDamageOnTheDisk flips octets in what a stopped server has on its disk.
// The check says so before the start; the server starts all the same, keeps a
// damaged store beside the mended one, names the messages that it cannot read,
// and delivers the rest.
func TestDamageOnTheDisk(t *testing.T) {
	for name, c := range map[string]struct {
		pattern string
		tables  bool // the records have gone from the log into tables
		mended  bool // by a new store
		most    int  // messages that may be lost
	}{
		"the file of a body": {"queue/b/*/*", false, false, 1},
		"a table":            {"queue/store/*.sst", true, true, 60},
		"the log":            {"queue/store/*.log", false, true, 2},
	} {
		t.Run(name, func(t *testing.T) {
			d := &damaged{t: t, sink: startSink(t)}
			d.postrider = newPostrider(t, d.sink.dns, d.sink.port, "")
			d.fill(c.tables)
			if found := d.check(); len(found.Problems)+len(found.SetAside) > 0 {
				t.Fatalf("before anything was damaged: %+v", found)
			}
			flip(t, d.largest(c.pattern))
			found := d.check()
			t.Logf("check before: %+v", found)
			if len(found.Problems) == 0 && found.Failure == "" {
				t.Error("the check has found nothing")
			}
			d.start()
			d.deliver(c.most)
			if kept, _ := filepath.Glob(filepath.Join(d.state(), "queue/store.damaged-*")); (len(kept) == 1) != c.mended {
				t.Errorf("kept: %v", kept)
			}
		})
	}
}

// damaged is a server whose disk is not what it was.
type damaged struct {
	*postrider
	t        *testing.T
	sink     *sink
	accepted int
}

// fill lets mail wait, and stops the server.
func (d *damaged) fill(tables bool) {
	d.start()
	d.run("", "queue", "--config", d.config, "suspend", "--sender", "load@sender.test", "--reason", "test")
	for _, size := range []int{2_000, 20_000, 300_000} {
		r := d.load(rehearsal.LoadOptions{Messages: 200, Domains: 20, DomainSuffix: "shop.test", Sender: "load@sender.test", Size: size})
		d.accepted += int(r.Accepted)
	}
	if d.accepted != 600 {
		d.t.Fatalf("%d were accepted", d.accepted)
	}
	d.proc.Kill() // all is in the log
	if tables {
		d.start() // which writes the log out
		if err := d.proc.Terminate(); err != nil {
			d.t.Fatal(err)
		}
	}
}

// found is what the check of a store that is not in use says.
type found struct {
	SetAside []string `json:"set_aside"`
	Problems []struct{ ID, Text string }
	Failure  string // it did not come to its end
}

func (d *damaged) check() (f found) {
	d.t.Helper()
	out, err := exec.Command(d.bin, "queue", "check", "--config", d.config, "--offline", "--json").Output()
	if jerr := json.Unmarshal(out, &f); jerr == nil {
		if (err == nil) != (len(f.Problems) == 0) {
			d.t.Errorf("check: %v with %+v", err, f)
		}
		return f
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		d.t.Fatalf("check: %v, %s", err, out)
	}
	f.Failure = string(exit.Stderr)
	return f
}

// largest is the largest file of a kind.
func (d *damaged) largest(pattern string) string {
	d.t.Helper()
	size := func(name string) int64 {
		info, err := os.Stat(name)
		if err != nil {
			d.t.Fatal(err)
		}
		return info.Size()
	}
	names, err := filepath.Glob(filepath.Join(d.state(), pattern))
	if err != nil || len(names) == 0 {
		d.t.Fatalf("no %s: %v", pattern, err)
	}
	return slices.MaxFunc(names, func(a, b string) int { return int(size(a) - size(b)) })
}

// flip turns octets in the middle of what a file holds.
func flip(t *testing.T, name string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	// A log that is used again is longer than what is in it.
	end := len(strings.TrimRight(string(data), "\x00"))
	for i := range 16 {
		data[end/2+i] ^= 0xff
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

var identifier = regexp.MustCompile(`msg="a message cannot be read and is set aside" id=([0-9a-z]{26})`)

// deliver lets the mail go that is left, and holds what has arrived, what was
// named and what was accepted against each other.
func (d *damaged) deliver(most int) {
	d.run("", "queue", "--config", d.config, "resume", "--sender", "load@sender.test")
	waitFor(d.t, "the queue to be delivered", func() bool { d.lives(); return d.queued() == 0 })
	var stats rehearsal.Stats
	if err := json.Unmarshal([]byte(get(d.t, "http://"+d.sink.stats)), &stats); err != nil {
		d.t.Fatal(err)
	}
	var online found
	_ = json.Unmarshal([]byte(d.run("", "queue", "--config", d.config, "check", "--json")), &online)
	named := make(map[string]bool)
	for _, m := range identifier.FindAllStringSubmatch(d.log(), -1) {
		named[m[1]] = true
	}
	lost := d.accepted - int(stats.Copies)
	d.t.Logf("%d accepted, %d arrived, %d lost, %d named, check after: %+v", d.accepted, stats.Copies, lost, len(named), online)
	// A damaged key names an ID that never was beside the one that it was.
	if len(named) < lost || len(named) > lost+1 || len(online.SetAside) != len(named) || len(online.Problems) > 0 {
		d.t.Errorf("%d are lost, %d are named by the log, the check says %+v", lost, len(named), online)
	}
	if lost < 1 || lost > most {
		d.t.Errorf("%d of %d messages are lost", lost, d.accepted)
	}
	d.accepts("later.test")
}
