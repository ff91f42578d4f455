package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"postrider/mta/rehearsal"
)

// An idle server is let be for a while before it is looked at, and then
// watched for a time; the single messages come so far apart that it is idle
// between them, and each goes to another domain.
const (
	idleSettle   = 3 * time.Second
	idleWatch    = 10 * time.Second
	idleMessages = 20
	idlePause    = 250 * time.Millisecond
)

// playIdle looks at a fresh server that has nothing to do, and then gives it
// single messages.
func playIdle(ctx context.Context, _ *rig, t *turn) (res result, err error) {
	s, err := t.launch(ctx)
	if err != nil {
		return res, err
	}
	defer s.end()
	if err := wait(ctx, idleSettle); err != nil {
		return res, err
	}
	calm, err := measure(s.proc.PID())
	if err != nil {
		return res, err
	}
	switches := wakeUps(s.proc.PID())
	if err := wait(ctx, idleWatch); err != nil {
		return res, err
	}
	res.WakeUps = float64(wakeUps(s.proc.PID())-switches) / idleWatch.Seconds()
	now, err := measure(s.proc.PID())
	if err != nil {
		return res, err
	}
	res.IdleCPU = float64(now.minus(calm).CPU) / float64(idleWatch)
	res.Ready, res.StartRSS = s.ready, memoryNow(s.proc.PID())

	load, err := rehearsal.NewLoad(rehearsal.LoadOptions{
		Target: submissionAddr, Sessions: 1, Messages: int64(t.messages), Size: t.size, Domains: t.domains,
		Way: rehearsal.WayPipelined, Pause: idlePause, Passage: t.passage,
	})
	if err != nil {
		return res, err
	}
	began := time.Now()
	loaded, err := runLoad(ctx, load, int64(t.messages))
	if err != nil {
		return res, err
	}
	if err := arrived(ctx, t.sink, loaded.Copies); err != nil {
		return res, err
	}
	used, err := s.stop()
	if err != nil {
		return res, err
	}
	t.fill(&res, loaded, began, used)
	res.Rate, res.CPU, res.Written = 0, 0, 0 // twenty messages tell nothing of them
	return res, nil
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wakeUps is how often the threads of a server have gone to sleep of their own
// accord: as often as something woke them.
func wakeUps(root int) int64 {
	var total int64
	for _, pid := range tree(root) {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			continue // ended meanwhile
		}
		for _, task := range tasks {
			total += field(filepath.Join("/proc", strconv.Itoa(pid), "task", task.Name(), "status"), "voluntary_ctxt_switches:")
		}
	}
	return total
}
