package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "postrider",
		Short: "A mail server that only sends",
		Long: `Postrider takes mail from programs on this host or network, keeps it safe on
disk, finds the recipients' mail servers in DNS and delivers straight to them.

queue, send, sendmail, suppress, trace and explain ask the running server over
its control socket; the other commands need none, and doctor asks where it runs.

The exit code is 0 only on success, 2 for a wrong command line, 1 for all else.`,
		Example: `  postrider check                    is the configuration right, and what is in force?
  postrider doctor                   what would keep mail from getting out?
  postrider serve                    run the server
  postrider trace 01jd7c             what became of a message?`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       buildVersion(),
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetVersionTemplate("postrider {{.Version}}\n")
	root.AddCommand(
		newCheckCommand(),
		newDKIMCommand(),
		newDoctorCommand(),
		newDemoCommand(),
		newExplainCommand(),
		newHeloCommand(),
		newLoadCommand(),
		newQueueCommand(),
		newSendCommand(),
		newSendmailCommand(),
		newServeCommand(),
		newSinkCommand(),
		newSuppressCommand(),
		newTraceCommand(),
		newVersionCommand(),
	)
	return root
}

// group is a command that only has others below it.
func group(use, short, long string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Long: long,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("there is no command %q below %s", args[0], c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(children...)
	return c
}
