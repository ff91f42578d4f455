package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"postrider/mta/rehearsal/crash"
)

func runCrash(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench crash", flag.ExitOnError)
	cycles := f.Int("cycles", 200, "how often to kill")
	messages := f.Int("messages", 20000, "messages to be accepted in all, at least")
	seed := f.Uint64("seed", uint64(time.Now().UnixNano()), "of the moments of the kills")
	bin := f.String("bin", "bin/postrider", "the postrider to kill")
	dir := f.String("dir", "bench-out", "where the queue is: on the file system to be tried")
	if err := f.Parse(args); err != nil {
		return err
	}
	binary, err := filepath.Abs(*bin)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*dir, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(*dir, "crash-")
	if err != nil {
		return err
	}
	if work, err = filepath.Abs(work); err != nil {
		return err
	}
	fmt.Printf("seed %d, in %s\n", *seed, work)
	report, err := crash.Run(ctx, crash.Options{
		Binary: binary, Dir: work, Cycles: *cycles, Messages: *messages, Seed: *seed, Out: os.Stdout,
	})
	fmt.Println(report)
	show("lost", report.Lost)
	show("corrupt", report.Corrupt)
	show("repeated", report.Repeated)
	show("on record out of order", report.Unordered)
	show("on record too late", report.Late)
	show("never on record", report.Unrecorded)
	if err != nil {
		return fmt.Errorf("%w; what was left is in %s", err, work)
	}
	return os.RemoveAll(work)
}

// show names the first of many.
func show(what string, which []string) {
	for _, w := range which[:min(len(which), 20)] {
		fmt.Printf("%s: %s\n", what, w)
	}
}
