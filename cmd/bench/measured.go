package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"postrider/mta/rehearsal"
)

// sessions is how many clients submit at once.
const sessions = 20

// measured runs the server under test through one load.
func (r *rig) measured(ctx context.Context, s scenario, c contestant, dir string, wrap []string, sink *rehearsal.Sink) (res result, err error) {
	server, err := c.start(ctx, s, dir, wrap)
	if err != nil {
		return res, err
	}
	stopped := false
	defer func() {
		if !stopped {
			_ = c.stop(server, dir)
		}
	}()
	before, err := measure(server.PID())
	if err != nil {
		return res, err
	}
	load, err := rehearsal.NewLoad(rehearsal.LoadOptions{
		Target: submissionAddr, Sessions: sessions, Messages: int64(s.messages), Size: s.size, Domains: s.domains,
	})
	if err != nil {
		return res, err
	}
	began := time.Now()
	loaded, err := load.Run(ctx)
	if err != nil {
		return res, fmt.Errorf("load: %w (%s)", err, loaded.FirstError)
	}
	if loaded.Accepted != int64(s.messages) {
		return res, fmt.Errorf("load: %d of %d messages were accepted: %s", loaded.Accepted, s.messages, loaded.FirstError)
	}
	if err := arrived(ctx, sink, loaded.Copies); err != nil {
		return res, err
	}
	stats := sink.Stats()
	after, err := measure(server.PID())
	if err != nil {
		return res, err
	}
	stopped = true
	if err := c.stop(server, dir); err != nil {
		return res, err
	}
	used := after.minus(before)
	n := float64(s.messages)
	res = result{
		Scenario: s.key, Server: c.name(), Messages: s.messages,
		Elapsed: stats.Last.Sub(began), PeakRSS: after.PeakRSS,
		CPU: time.Duration(float64(used.CPU) / n), Written: float64(used.BytesWritten) / n,
		AcceptP50: loaded.Wait.P50, AcceptP99: loaded.Wait.P99,
		Lost: int(loaded.Copies - stats.Copies), Duplicates: int(stats.Duplicates),
	}
	res.Rate = n / res.Elapsed.Seconds()
	return res, nil
}

// syncRounds counts the syncs per message of each server, in a short round
// under strace, which is far too slow to be timed.
func (r *rig) syncRounds(ctx context.Context, s scenario) error {
	if !r.countSyncs {
		return nil
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		fmt.Println("  syncs are not counted: strace is not installed")
		return nil
	}
	s.messages = min(s.messages, 2000)
	for _, c := range r.servers {
		if s.only != "" && s.only != c.name() {
			continue
		}
		summary := filepath.Join(r.dir, "strace-"+c.name()+".txt")
		wrap := []string{strace, "-f", "-q", "-c", "-e", "trace=fsync,fdatasync", "-o", summary}
		if _, err := r.round(ctx, s, c, wrap); err != nil {
			return fmt.Errorf("scenario %s, %s, counting syncs: %w", s.key, c.name(), err)
		}
		calls, err := straceCalls(summary)
		if err != nil {
			return err
		}
		for i := range r.results {
			if r.results[i].Scenario == s.key && r.results[i].Server == c.name() {
				r.results[i].Syncs = float64(calls) / float64(s.messages)
			}
		}
		fmt.Printf("  syncs    %-10s %8.2f per message\n", c.name(), float64(calls)/float64(s.messages))
	}
	return nil
}

// straceCalls sums the calls of strace's summary: "% time seconds usecs/call
// calls [errors] syscall".
func straceCalls(file string) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	total := 0
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 5 || f[len(f)-1] != "fsync" && f[len(f)-1] != "fdatasync" {
			continue
		}
		n, err := strconv.Atoi(f[3])
		if err != nil {
			return 0, fmt.Errorf("%s: %q: %w", file, line, err)
		}
		total += n
	}
	return total, nil
}
