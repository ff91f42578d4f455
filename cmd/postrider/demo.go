package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"postrider/mta/rehearsal/demo"
)

func newDemoCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "demo",
		Short: "See the main job at work, on loopback and without the internet",
		Long: `See the main job at work, on loopback and without the internet.

It starts a small internet (DNS and receiving servers with different manners:
one with STARTTLS and CHUNKING, a plain one, a slow one, one that greylists, one
that refuses a recipient, one whose first mail host is down), runs this program's
server with an otherwise default configuration, moves the sample messages into
its pickup directory, submits further ones over SMTP, and holds what arrives
against what is expected. The exit code is 0 only if every message met it.`,
		Example: `  postrider demo
  postrider demo --keep`,
		Args: cobra.NoArgs,
	}
	f := c.Flags()
	spool := f.String("spool", "testdata/spool", "`directory` of the sample messages and their table")
	injected := f.Int("messages", 400, "how `many` to submit over SMTP")
	keep := f.Bool("keep", false, "leave everything running, and print the addresses to look at")
	limit := f.Duration("limit", 50*time.Second, "how long to wait for what is expected")
	c.RunE = func(c *cobra.Command, _ []string) error {
		binary, err := os.Executable()
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return demo.Run(ctx, demo.Options{
			Binary: binary, Spool: *spool, Injected: *injected, Keep: *keep, Limit: *limit,
			Out: c.OutOrStdout(), Terminal: term.IsTerminal(int(os.Stdout.Fd())),
		})
	}
	return c
}
