package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// The messages of the rounds under strace, which are not timed.
const (
	countedMessages = 2000
	provenMessages  = 200
)

// syncRounds counts the syncs per message of each server, and looks what every
// 250 follows, in short rounds under strace, which is far too slow to be timed.
func (r *rig) syncRounds(ctx context.Context, s scenario) error {
	if !r.countSyncs || s.play != nil || len(s.variants) > 0 {
		return nil
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		fmt.Println("  syncs are not counted: strace is not installed")
		return nil
	}
	for _, c := range r.servers {
		if !s.isFor(c) || c.name() == straightName {
			continue
		}
		perMessage, err := r.countSyncsOf(ctx, strace, s, c)
		if err != nil {
			return fmt.Errorf("scenario %s, %s, counting syncs: %w", s.key, c.name(), err)
		}
		proof, err := r.proveSyncsOf(ctx, strace, s, c)
		if err != nil {
			return fmt.Errorf("scenario %s, %s, looking for syncs: %w", s.key, c.name(), err)
		}
		for i := range r.report.Rounds {
			if round := &r.report.Rounds[i]; round.Scenario == s.key && round.Server == c.name() {
				round.Syncs, round.Proven, round.Unsynced = perMessage, proof.after, proof.without
			}
		}
		fmt.Printf("  syncs    %-32s %8.2f per message; %d of %d replies of 250 followed one\n", c.name(), perMessage, proof.after, proof.after+proof.without)
	}
	return nil
}

// countSyncsOf has as many clients as the timed rounds, as they share syncs.
func (r *rig) countSyncsOf(ctx context.Context, strace string, s scenario, c contestant) (float64, error) {
	s.messages = min(s.messages, countedMessages)
	summary := filepath.Join(r.dir, "syncs-"+c.name()+".txt")
	wrap := []string{strace, "-f", "-q", "-c", "--seccomp-bpf", "-e", "trace=fsync,fdatasync", "-o", summary}
	if _, err := r.round(ctx, s, variant{}, c, wrap); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(summary)
	if err != nil {
		return 0, err
	}
	calls, err := countedCalls(string(text))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", summary, err)
	}
	return float64(calls) / float64(s.messages), nil
}

// countedCalls sums the calls of strace's summary: "% time seconds usecs/call
// calls [errors] syscall", with errors only where there are some.
func countedCalls(text string) (int, error) {
	total := 0
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 5 || !isSync(f[len(f)-1]) {
			continue
		}
		n, err := strconv.Atoi(f[3])
		if err != nil {
			return 0, fmt.Errorf("%q: %w", line, err)
		}
		if len(f) > 5 {
			failed, err := strconv.Atoi(f[4])
			if err != nil {
				return 0, fmt.Errorf("%q: %w", line, err)
			}
			n -= failed
		}
		total += n
	}
	return total, nil
}

func isSync(call string) bool { return call == "fsync" || call == "fdatasync" }

// proveSyncsOf has one client, with one message after the other, so that no
// message can be taken for another one's sync.
func (r *rig) proveSyncsOf(ctx context.Context, strace string, s scenario, c contestant) (syncProof, error) {
	s.messages, s.alone = min(s.messages, provenMessages), true
	trace := filepath.Join(r.dir, "calls-"+c.name()+".txt")
	wrap := []string{
		strace, "-f", "-q", "--seccomp-bpf", "-yy", "-s", "300", "-o", trace,
		"-e", "trace=fsync,fdatasync,read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg",
	}
	if _, err := r.round(ctx, s, variant{}, c, wrap); err != nil {
		return syncProof{}, err
	}
	f, err := os.Open(trace)
	if err != nil {
		return syncProof{}, err
	}
	defer f.Close()
	proof := newSyncProof(submissionAddr)
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		proof.line(lines.Text())
	}
	if err := lines.Err(); err != nil {
		return syncProof{}, fmt.Errorf("%s: %w", trace, err)
	}
	if proof.after+proof.without != s.messages {
		return syncProof{}, fmt.Errorf("%s: %d replies to the content of %d messages", trace, proof.after+proof.without, s.messages)
	}
	return *proof, os.Remove(trace)
}
