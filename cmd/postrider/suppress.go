package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postrider/mta/api/client"
	"postrider/mta/api/wire"
)

func newSuppressCommand() *cobra.Command {
	c := group("suppress", "Look at the addresses that nothing is sent to, and change them", `Look at the addresses that nothing is sent to, and change them.

Where suppression.enabled is set, an address whose host has said that there is
no such mailbox gets no further mail: a message to it fails at once, with a
report. What people put on the list stays until they remove it; what came of
answers ends after suppression.expire_after.`)
	server := addServerFlags(c)
	c.AddCommand(
		newSuppressListCommand(server),
		newSuppressAddCommand(server),
		newSuppressRemoveCommand(server),
		newSuppressImportCommand(server),
		newSuppressExportCommand(server),
	)
	return c
}

// suppressed walks over the list in parts.
func suppressed(ctx context.Context, server *client.Client, address, domain string, visit func(l *wire.SuppressionList) error) error {
	for after := ""; ; {
		part, err := server.Suppressions(ctx, address, domain, after, 1000)
		if err != nil {
			return err
		}
		if err := visit(&part); err != nil {
			return err
		}
		if after = part.Next; after == "" {
			return nil
		}
	}
}

func newSuppressListCommand(server serverFlags) *cobra.Command {
	var domain string
	c := &cobra.Command{
		Use:   "list [ADDRESS]",
		Short: "List the addresses, with count, reason and age",
		Args:  cobra.MaximumNArgs(1),
	}
	c.Flags().StringVar(&domain, "domain", "", "those in this `domain`, or \"*.example.org\" for all below it")
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		address := strings.Join(args, "")
		if address != "" && domain != "" {
			return usageError("name an address or a domain, not both")
		}
		client, err := server.connect(c)
		if err != nil {
			return err
		}
		defer client.Close()
		all := wire.SuppressionList{Entries: []wire.SuppressionEntry{}}
		shown := 0
		err = suppressed(c.Context(), client, address, domain, func(part *wire.SuppressionList) error {
			all.Enabled = part.Enabled
			shown += len(part.Entries)
			if *asJSON {
				all.Entries = append(all.Entries, part.Entries...)
				return nil
			}
			showSuppressed(c.OutOrStdout(), part.Entries, time.Now())
			return nil
		})
		switch {
		case err != nil:
			return err
		case *asJSON:
			return printJSON(c.OutOrStdout(), all)
		case shown == 0:
			fmt.Fprintln(c.OutOrStdout(), "nothing on the list matches")
		default:
			fmt.Fprintf(c.OutOrStdout(), "-- %s\n", count(shown, "address", "addresses"))
		}
		if !all.Enabled {
			warn(c, "the list is not in force: suppression.enabled is false")
		}
		return nil
	}
	return c
}

func showSuppressed(w io.Writer, entries []wire.SuppressionEntry, now time.Time) {
	var t table
	for i := range entries {
		e := &entries[i]
		state := ""
		if !e.InForce {
			state = "not in force"
		}
		answers := ""
		if e.Count > 0 {
			answers = count(e.Count, "answer", "answers")
		}
		t.add(plain(e.Address), e.Source, span(now.Sub(e.LastAt))+" ago", answers, state).below = plain(e.Reason)
	}
	t.write(w)
}

func newSuppressAddCommand(server serverFlags) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "add ADDRESS...",
		Short: "Send nothing to addresses any more",
		Args:  cobra.MinimumNArgs(1),
	}
	c.Flags().StringVar(&reason, "reason", "", "a `text` for the list and for the reports")
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		var add wire.Suppress
		for _, a := range args {
			add.Entries = append(add.Entries, wire.SuppressionEntry{Address: a, Source: "operator", Reason: reason})
		}
		client, err := server.connect(c)
		if err != nil {
			return err
		}
		defer client.Close()
		r, err := client.Suppress(c.Context(), add)
		if err != nil {
			return err
		}
		return showSuppression(c.OutOrStdout(), "added", &r, *asJSON)
	}
	return c
}

func showSuppression(w io.Writer, done string, r *wire.SuppressionResult, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	_, err := fmt.Fprintf(w, "%s: %s\n", done, count(r.Entries, "address", "addresses"))
	return err
}

func newSuppressRemoveCommand(server serverFlags) *cobra.Command {
	var u wire.Unsuppress
	var yes bool
	c := &cobra.Command{
		Use:   "remove [ADDRESS...]",
		Short: "Let mail go to addresses again",
	}
	f := c.Flags()
	f.StringVar(&u.Domain, "domain", "", "all those in this `domain`, or \"*.example.org\" for all below it")
	f.BoolVar(&u.All, "all", false, "the whole list")
	f.BoolVar(&u.DryRun, "dry-run", false, "only count what would be removed")
	f.BoolVar(&yes, "yes", false, "do not ask")
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if u.Addresses = args; len(args) == 0 && u.Domain == "" && !u.All {
			return usageError("nothing is selected: name addresses, a --domain, or --all")
		}
		client, err := server.connect(c)
		if err != nil {
			return err
		}
		defer client.Close()
		if len(args) == 0 && !yes && !u.DryRun { // who names addresses has counted them
			counted := u
			counted.DryRun = true
			r, err := client.Unsuppress(c.Context(), counted)
			if err != nil {
				return err
			}
			if r.Entries > 0 {
				if err := questionOf(c).ask("remove " + count(r.Entries, "address", "addresses")); err != nil {
					return err
				}
			}
		}
		r, err := client.Unsuppress(c.Context(), u)
		if err != nil {
			return err
		}
		done := "removed"
		if u.DryRun {
			done = "would be removed"
		}
		return showSuppression(c.OutOrStdout(), done, &r, *asJSON)
	}
	return c
}

func newSuppressImportCommand(server serverFlags) *cobra.Command {
	c := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Put the addresses of a file on the list",
		Long: `Put the addresses of a file, or of standard input, on the list.

A line is what "suppress export" writes, or an address and, behind a comma, a
tab or a blank, a reason. Empty lines and those that begin with # are left out.
A line that is neither ends the import: its number is told, and what stands
before it may be on the list already.`,
		Args: cobra.MaximumNArgs(1),
	}
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		in := c.InOrStdin()
		if len(args) == 1 {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		}
		client, err := server.connect(c)
		if err != nil {
			return err
		}
		defer client.Close()
		n, err := importSuppressed(c.Context(), client, in)
		if err != nil {
			return err
		}
		return showSuppression(c.OutOrStdout(), "imported", &wire.SuppressionResult{Entries: n}, *asJSON)
	}
	return c
}

// importSuppressed hands the lines to the server in parts that fit into a request.
func importSuppressed(ctx context.Context, server *client.Client, in io.Reader) (total int, err error) {
	const most = 1000
	var part wire.Suppress
	first, line := 1, 0 // of the part, and the present one
	flush := func() error {
		if len(part.Entries) == 0 {
			return nil
		}
		if _, err := server.Suppress(ctx, part); err != nil {
			return fmt.Errorf("lines %d to %d: %w", first, line, err)
		}
		total += len(part.Entries)
		part.Entries, first = part.Entries[:0], line+1
		return nil
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line++
		e, ok, err := suppressedLine(lines.Text())
		if err != nil {
			return total, fmt.Errorf("line %d: %w", line, err)
		}
		if ok {
			part.Entries = append(part.Entries, e)
		}
		if len(part.Entries) == most {
			if err := flush(); err != nil {
				return total, err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return total, fmt.Errorf("line %d: %w", line+1, err)
	}
	return total, flush()
}

// suppressedLine reads a line of an import; false where it says nothing.
func suppressedLine(line string) (e wire.SuppressionEntry, ok bool, err error) {
	line = strings.TrimSpace(line)
	switch {
	case line == "" || line[0] == '#':
		return e, false, nil
	case line[0] == '{':
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		err := d.Decode(&e)
		e.InForce = false // the server's to say
		return e, err == nil, err
	}
	address, reason := line, ""
	if i := strings.IndexAny(line, ",\t "); i >= 0 {
		address, reason = line[:i], strings.Trim(line[i+1:], "\"\t ")
	}
	return wire.SuppressionEntry{Address: strings.Trim(address, `"<>`), Source: "import", Reason: reason}, true, nil
}

func newSuppressExportCommand(server serverFlags) *cobra.Command {
	var domain string
	c := &cobra.Command{
		Use:   "export",
		Short: "Print the list, a line of JSON for each address, as import takes it",
		Args:  cobra.NoArgs,
	}
	c.Flags().StringVar(&domain, "domain", "", "those in this `domain`, or \"*.example.org\" for all below it")
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, err := server.connect(c)
		if err != nil {
			return err
		}
		defer client.Close()
		out := bufio.NewWriter(c.OutOrStdout())
		lines := json.NewEncoder(out)
		lines.SetEscapeHTML(false)
		err = suppressed(c.Context(), client, "", domain, func(part *wire.SuppressionList) error {
			for i := range part.Entries {
				if err := lines.Encode(&part.Entries[i]); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil {
			err = out.Flush()
		}
		return err
	}
	return c
}
