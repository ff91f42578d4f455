package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"postrider/mta"
	"postrider/mta/api/wire"
)

func newQueueCheckCommand(server serverFlags) *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Verify the store: sums, indexes, and what belongs to nothing",
		Long: `Verify the store: sums, indexes, and what belongs to nothing.

Everything in it is read. The running server is asked, and goes on working
meanwhile; --offline reads the store of one that does not run. Nothing is
changed. What cannot be read is set aside by the server when it meets it. Files
that a kill has left behind are counted and are nothing wrong: the next start
removes them.

   0  nothing is wrong
   1  something is wrong, or the check did not come to its end`,
		Args: cobra.NoArgs,
	}
	offline := c.Flags().Bool("offline", false, "read the store of a server that does not run")
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		check, err := checkQueue(c, server, *offline)
		if err != nil {
			return err
		}
		if *asJSON {
			err = printJSON(c.OutOrStdout(), check)
		} else {
			showCheck(c.OutOrStdout(), &check, *offline)
		}
		if err == nil && len(check.Problems) > 0 {
			return exitWith(exitFailure, nil)
		}
		return err
	}
	return c
}

func checkQueue(c *cobra.Command, server serverFlags, offline bool) (wire.Check, error) {
	if offline {
		cfg, err := clientConfig(c, *server.config)
		if err != nil {
			return wire.Check{}, err
		}
		return mta.CheckQueue(c.Context(), cfg, slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	}
	client, err := server.connect(c)
	if err != nil {
		return wire.Check{}, err
	}
	defer client.Close()
	check, err := client.Check(c.Context())
	return check, withHint(err, "--offline checks the store of a server that does not run")
}

func showCheck(w io.Writer, check *wire.Check, offline bool) {
	fmt.Fprintf(w, "%s", count(int(check.Messages), "message", "messages"))
	if !offline {
		fmt.Fprintf(w, " with %s", count(int(check.Recipients), "open recipient", "open recipients"))
	}
	fmt.Fprintf(w, ", %s, %s of history, %s to be written\n", count(int(check.Bodies), "body", "bodies"),
		count(int(check.Histories), "record", "records"), count(int(check.Notices), "report", "reports"))
	if n := int(check.Leftovers); n > 0 {
		fmt.Fprintf(w, "%s left by a kill, for the next start to remove\n", count(n, "file", "files"))
	}
	for _, id := range check.SetAside {
		fmt.Fprintf(w, "set aside: %s; \"postrider trace\" tells why\n", id)
	}
	for _, p := range check.Problems {
		if p.ID != "" {
			fmt.Fprintf(w, "problem: %s: %s\n", p.ID, plain(p.Text))
		} else {
			fmt.Fprintf(w, "problem: %s\n", plain(p.Text))
		}
	}
	if len(check.Problems) == 0 {
		fmt.Fprintln(w, "nothing is wrong")
	}
}
