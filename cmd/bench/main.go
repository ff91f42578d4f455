package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"postrider/mta/rehearsal"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

const synopsis = "usage: bench compare|plot|crash [flags]; -h after one of them lists its flags"

func run(args []string) error {
	if len(args) == 0 {
		return errors.New(synopsis)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch args[0] {
	case "compare":
		return runCompare(ctx, args[1:])
	case "plot":
		return runPlot(args[1:])
	case "crash":
		return runCrash(ctx, args[1:])
	}
	return fmt.Errorf("no command %q; %s", args[0], synopsis)
}

func runCompare(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench compare", flag.ExitOnError)
	keys := f.String("scenarios", "A,B,C,D", "which, by their letters; all is every one")
	var o options
	names := f.String("servers", "", "which, by their names ("+namesOf(contestants(""))+"); empty is all but "+straightName+" that are installed")
	f.IntVar(&o.rounds, "rounds", 3, "rounds of each; the table shows medians")
	scale := f.Float64("scale", 1, "times the messages of each scenario")
	bin := f.String("bin", "bin/postrider", "the postrider to measure")
	f.StringVar(&o.dir, "dir", "bench-out", "where queues and results are written: on the file system to be measured")
	way := f.String("way", rehearsal.WayOverlapped.String(), "how messages are submitted: pipelined, chunked, overlapped or sequential")
	f.BoolVar(&o.countSyncs, "syncs", true, "count syncs and look what every 250 follows, in short rounds of their own under strace, where it is installed")
	if err := f.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(scenarios(*scale), *keys)
	if err != nil {
		return err
	}
	if o.way, err = rehearsal.ParseWay(*way); err != nil {
		return err
	}
	if o.servers, err = selectServers(contestants(*bin), *names); err != nil {
		return err
	}
	outer, code, err := enterNamespaces()
	if err != nil {
		return err
	}
	if outer {
		os.Exit(code)
	}
	r, err := newRig(o)
	if err != nil {
		return err
	}
	return r.compare(ctx, chosen)
}

func runPlot(args []string) error {
	f := flag.NewFlagSet("bench plot", flag.ExitOnError)
	in := f.String("in", "bench-out/results.json", "what compare wrote")
	out := f.String("out", "bench-out", "the directory that gets the plots")
	if err := f.Parse(args); err != nil {
		return err
	}
	r, err := readReport(*in)
	if err != nil {
		return err
	}
	written, err := writePlots(*out, r)
	if err == nil {
		fmt.Println("wrote", strings.Join(written, ", "))
	}
	return err
}
