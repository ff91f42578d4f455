// Bench measures Postrider beside its peers, and kills it to see what is lost.
//
//	bench compare [-scenarios A,B] [-rounds 3] [-out DIR]
//	bench crash   [-cycles 200] [-messages 20000]
//
// compare runs in network and mount namespaces of its own, where ports 25 and
// 53 are free and nothing outside can be reached: a load generator, the server
// under test and a receiving server share the machine. Servers take turns
// within each round, so that a machine that slows down slows all of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"postrider/mta/rehearsal/crash"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

const synopsis = "usage: bench compare|crash [flags]; -h after either lists its flags"

func run(args []string) error {
	if len(args) == 0 {
		return errors.New(synopsis)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch args[0] {
	case "compare":
		return runCompare(ctx, args[1:])
	case "crash":
		return runCrash(ctx, args[1:])
	}
	return fmt.Errorf("no command %q; %s", args[0], synopsis)
}

func runCompare(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench compare", flag.ExitOnError)
	keys := f.String("scenarios", "A,B,C,D", "which, by their letters; all is every one")
	rounds := f.Int("rounds", 3, "rounds of each; the table shows medians")
	scale := f.Float64("scale", 1, "times the messages of each scenario")
	bin := f.String("bin", "bin/postrider", "the postrider to measure")
	dir := f.String("dir", "bench-out", "where queues and results are written: on the file system to be measured")
	syncs := f.Bool("syncs", true, "count syncs in a short round of their own under strace, where it is installed")
	if err := f.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(scenarios(*scale), *keys)
	if err != nil {
		return err
	}
	outer, code, err := enterNamespaces()
	if err != nil {
		return err
	}
	if outer {
		os.Exit(code)
	}
	r, err := newRig(*dir, *bin)
	if err != nil {
		return err
	}
	r.rounds, r.countSyncs = *rounds, *syncs
	return r.compare(ctx, chosen)
}

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
	for i, id := range report.Lost {
		if i == 20 {
			break
		}
		fmt.Println("lost:", id)
	}
	if err != nil {
		return fmt.Errorf("%w; what was left is in %s", err, work)
	}
	return os.RemoveAll(work)
}
