package main

import (
	"os"
	"slices"

	"github.com/spf13/cobra"

	"postrider/config"
	"postrider/mta/sendmail"
)

// newSendmailCommand is sendmail(8). Its options are not those of the other
// commands, so that only --help is left to cobra.
func newSendmailCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sendmail [flags] [RECIPIENT...]",
		Short: "Queue a message that is read from standard input, as sendmail(8) does",
		Long: `Queue a message that is read from standard input, as sendmail(8) does. It is
also what the binary does when it is called sendmail.

  -t               take the recipients from To, Cc and Bcc
  -i, -oi          a line with a dot alone does not end the message
  -f, -r ADDRESS   the sender; "<>" or "" is the null sender
  -F NAME          name of the sender, for a message without From
  -N WHEN          report: never, or some of success,failure,delay
  -R full|hdrs     how much of the message a report returns
  -V ID            envelope ID, which reports repeat
  -bm, -bs, -bp    take a message (default); speak SMTP; list the queue
  -v               say under which ID it was queued

Other options of sendmail are taken and have no effect. When no server answers,
the message is put into the pickup directory, if this user may write there.

The exit codes are those of sysexits.h: 64 usage, 65 the message is at fault,
67 no such user here, 75 try again later.`,
		DisableFlagParsing: true,
		RunE:               runSendmail,
	}
}

func runSendmail(c *cobra.Command, args []string) error {
	if slices.Contains(args, "--help") {
		return c.Help()
	}
	args, file, socket := ownFlags(args)
	a, err := sendmail.Parse(args)
	if err != nil {
		return exitWith(sendmail.ExitCode(err), err)
	}
	// Warnings are for the operator, not for each program that sends mail.
	cfg, err := config.Load(config.Options{File: file, Client: true, Environ: os.Environ()})
	if err != nil {
		return exitWith(sendmail.ExitConfig, err)
	}
	if a.Mode == sendmail.ModeList {
		return mailq(c, file, socket)
	}
	command := &sendmail.Command{
		Sockets: submission(socket, cfg), Pickup: cfg.Pickup.Dir, User: sendmail.CurrentUser(),
		Stdin: c.InOrStdin(), Stdout: c.OutOrStdout(), Stderr: c.ErrOrStderr(),
	}
	if code := command.Run(c.Context(), a); code != sendmail.ExitOK {
		return exitWith(code, nil)
	}
	return nil
}

// ownFlags takes --config and --socket off the front, which no sendmail has.
func ownFlags(args []string) (rest []string, file, socket string) {
	for len(args) > 1 {
		switch args[0] {
		case "--config":
			file = args[1]
		case "--socket":
			socket = args[1]
		default:
			return args, file, socket
		}
		args = args[2:]
	}
	return args, file, socket
}

// mailq lists the queue.
func mailq(c *cobra.Command, file, socket string) error {
	server, err := serverFlags{&file, &socket}.connect(c)
	if err != nil {
		return exitWith(sendmail.ExitConfig, err)
	}
	defer server.Close()
	if err := listQueue(c, server, listing{}); err != nil {
		return exitWith(sendmail.ExitCode(err), err)
	}
	return nil
}
