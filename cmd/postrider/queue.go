package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"postrider/mta/api/client"
	"postrider/mta/api/wire"
)

func newQueueCommand() *cobra.Command {
	c := group("queue", "Look at the queue and steer it", `Look at the queue and steer it.

All commands select mail in the same way; what is not given matches everything,
and all that is given must match. The rest of the command line, without dashes,
names messages by their ID or a unique beginning of it.`)
	server := addServerFlags(c)
	c.AddCommand(
		newQueueListCommand(server),
		newQueueShowCommand(server),
		newQueueStatsCommand(server),
		newQueueExportCommand(server),
		newQueueCheckCommand(server),
	)
	for _, a := range queueActions {
		c.AddCommand(newQueueActionCommand(server, a))
	}
	return c
}

// addSelector adds the flags of the selector language.
func addSelector(c *cobra.Command, s *wire.Selector) {
	f := c.Flags()
	f.StringVar(&s.Domain, "domain", "", "a recipient `domain`, or \"*.example.org\" for all below it")
	f.StringVar(&s.Site, "site", "", "every domain that this `provider` serves, as \"explain\" names it")
	f.StringVar(&s.Sender, "sender", "", "an `address`, \"@domain\", or \"<>\" for the null sender")
	f.StringVar(&s.Recipient, "recipient", "", "an `address`")
	f.StringVar(&s.Tag, "tag", "", "the sender's own `label`")
	f.StringArrayVar(&s.IDs, "id", nil, "a message's `ID` or a unique beginning of it; may be repeated")
	f.StringVar(&s.OlderThan, "older-than", "", "what arrived longer ago than this `span`, like 4h or 2d")
	f.StringSliceVar(&s.Status, "status", nil, "waiting, active or held; may be a list with commas")
	f.StringVar(&s.Class, "class", "", "the bounce `class` of the last attempt, like mailbox-full")
}

// listing is what to list.
type listing struct {
	selector wire.Selector
	limit    int // 0: all
	json     bool
}

func newQueueListCommand(server serverFlags) *cobra.Command {
	var l listing
	c := &cobra.Command{
		Use:   "list [flags] [ID...]",
		Short: "List messages that wait, oldest first",
		RunE: func(c *cobra.Command, args []string) error {
			l.selector.IDs = append(l.selector.IDs, args...)
			client, err := server.connect(c)
			if err != nil {
				return err
			}
			defer client.Close()
			return listQueue(c, client, l)
		},
	}
	addSelector(c, &l.selector)
	c.Flags().IntVar(&l.limit, "limit", 100, "at most this `number` of messages; 0: all")
	c.Flags().BoolVar(&l.json, "json", false, "print JSON for programs")
	return c
}

// listQueue gets the queue in parts, so that a long one fits into memory on
// both sides.
func listQueue(c *cobra.Command, server *client.Client, l listing) error {
	out := c.OutOrStdout()
	shown, after := 0, ""
	all := wire.MessageList{Messages: []wire.Message{}}
	for {
		ask := 1000
		if l.limit > 0 {
			ask = min(ask, l.limit-shown)
		}
		part, err := server.List(c.Context(), l.selector, after, ask)
		if err != nil {
			return err
		}
		shown += len(part.Messages)
		after = part.Next
		if l.json {
			all.Messages = append(all.Messages, part.Messages...)
		} else {
			showList(out, part.Messages, time.Now())
		}
		if after == "" || l.limit > 0 && shown >= l.limit {
			break
		}
	}
	switch {
	case l.json:
		all.Next = after
		return printJSON(out, all)
	case shown == 0:
		fmt.Fprintln(out, "nothing in the queue matches")
	case after != "":
		fmt.Fprintf(out, "-- %s, and there are more: --limit 0 lists all\n", count(shown, "message", "messages"))
	default:
		fmt.Fprintf(out, "-- %s\n", count(shown, "message", "messages"))
	}
	return nil
}

func newQueueShowCommand(server serverFlags) *cobra.Command {
	var content bool
	c := &cobra.Command{
		Use:   "show ID",
		Short: "Show one message: its envelope and what became of each recipient",
		Args:  cobra.ExactArgs(1),
	}
	asJSON := jsonFlag(c)
	c.Flags().BoolVar(&content, "content", false, "print the message itself, as it is sent")
	c.RunE = func(c *cobra.Command, args []string) error {
		client, err := server.connect(c)
		if err != nil {
			return err
		}
		defer client.Close()
		if content {
			r, err := client.Content(c.Context(), args[0])
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = io.Copy(c.OutOrStdout(), r)
			return err
		}
		m, err := client.Message(c.Context(), args[0])
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), m)
		}
		showMessage(c.OutOrStdout(), &m, time.Now(), time.Local)
		return nil
	}
	return c
}

func newQueueStatsCommand(server serverFlags) *cobra.Command {
	var domains int
	c := &cobra.Command{
		Use:   "stats",
		Short: "Show how much waits, for whom, for how long and why",
		Args:  cobra.NoArgs,
	}
	asJSON := jsonFlag(c)
	c.Flags().IntVar(&domains, "domains", 20, "at most this `number` of destinations, the fullest first")
	c.RunE = func(c *cobra.Command, _ []string) error {
		client, err := server.connect(c)
		if err != nil {
			return err
		}
		defer client.Close()
		s, err := client.Stats(c.Context(), domains)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), s)
		}
		showStats(c.OutOrStdout(), &s)
		return nil
	}
	return c
}

// queueAction is one of the commands that change something.
type queueAction struct {
	name, short, long string
	done              string // "%s were retried"
	destroys          bool
}

var queueActions = []queueAction{
	{name: "retry", short: "Try mail again now", done: "due now",
		long: "Makes deferred mail due now. Limits and back-off of its destinations still hold."},
	{name: "hold", short: "Keep mail in the queue until it is released", done: "held",
		long: "What is being sent at this moment is held only if that attempt fails. Held mail does not age."},
	{name: "release", short: "Let held mail go", done: "released"},
	{name: "cancel", short: "Remove mail from the queue, without a report", done: "cancelled", destroys: true,
		long: "What is being sent at this moment is cancelled only if that attempt fails."},
	{name: "fail", short: "Give mail up, with a report to its sender", done: "given up", destroys: true,
		long: "The reason stands in the report."},
	{name: "suspend", short: "Send nothing to, or from, somebody for a while", done: "suspended",
		long: "Goes by domain, site, sender or tag, and catches mail that comes later, too.\nLasts until it is resumed, or for the span of --for; a restart does not end it."},
	{name: "resume", short: "End a suspension", done: "resumed",
		long: "Names what was suspended in the same way; --all resumes everything."},
}

// actionFlags are the options of an action.
type actionFlags struct {
	wire.Action
	yes, json bool
}

func newQueueActionCommand(server serverFlags, a queueAction) *cobra.Command {
	var f actionFlags
	c := &cobra.Command{
		Use:   a.name + " [flags] [ID...]",
		Short: a.short,
		Long:  strings.TrimSpace(a.short + ".\n\n" + a.long),
	}
	addSelector(c, &f.Selector)
	s := c.Flags()
	s.BoolVar(&f.All, "all", false, "mean everything, where nothing else is selected")
	s.StringVar(&f.Reason, "reason", "", "a `text` for the history, and for the report that fail sends")
	s.BoolVar(&f.DryRun, "dry-run", false, "only count what would be touched")
	s.BoolVar(&f.json, "json", false, "print JSON for programs")
	if a.destroys {
		s.BoolVar(&f.yes, "yes", false, "do not ask")
	}
	switch a.name {
	case "retry", "release":
		s.IntVar(&f.Pace, "pace", 0, "at most this `number` of recipients per second (default 1000)")
		s.BoolVar(&f.AtOnce, "at-once", false, "all at the same moment, however many")
	case "suspend":
		s.StringVar(&f.For, "for", "", "how `long`, like 2h; without it, until it is resumed")
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		f.Selector.IDs = append(f.Selector.IDs, args...)
		if f.Selector.Empty() && !f.All {
			return usageError("nothing is selected: name messages, use the flags of the selector, or --all to mean everything")
		}
		client, err := server.connect(c)
		if err != nil {
			return err
		}
		defer client.Close()
		return runAction(c, client, a, f, questionOf(c))
	}
	return c
}

// runAction asks first, where the action destroys, and then acts.
func runAction(c *cobra.Command, server *client.Client, a queueAction, f actionFlags, q question) error {
	if a.destroys && !f.yes && !f.DryRun {
		counted := f.Action
		counted.DryRun = true
		r, err := server.Act(c.Context(), a.name, counted)
		if err != nil {
			return err
		}
		if r.Recipients == 0 {
			return showAction(c.OutOrStdout(), a, &r, f.json)
		}
		if err := q.ask(a.name + " " + touched(&r)); err != nil {
			return err
		}
	}
	r, err := server.Act(c.Context(), a.name, f.Action)
	if err != nil {
		return err
	}
	return showAction(c.OutOrStdout(), a, &r, f.json)
}

// touched counts recipients, and messages where the server counted those, too.
func touched(r *wire.ActionResult) string {
	text := count(r.Recipients, "recipient", "recipients")
	if r.Messages > 0 {
		text += " of " + count(r.Messages, "message", "messages")
	}
	return text
}

func showAction(w io.Writer, a queueAction, r *wire.ActionResult, asJSON bool) error {
	if asJSON {
		return printJSON(w, r)
	}
	switch {
	case len(r.Suspensions) > 0:
		for _, s := range r.Suspensions {
			fmt.Fprintf(w, "%s: %s\n", a.done, suspensionText(&s, time.Now()))
		}
		fmt.Fprintf(w, "%s in the queue now\n", touched(r))
	case r.Recipients == 0:
		fmt.Fprintln(w, "nothing in the queue matches")
	case r.DryRun:
		fmt.Fprintf(w, "would be %s: %s\n", a.done, touched(r))
	case r.Paced:
		fmt.Fprintf(w, "%s, little by little: %s\n", a.done, touched(r))
	default:
		fmt.Fprintf(w, "%s: %s\n", a.done, touched(r))
	}
	return nil
}

// question asks a person before something is destroyed.
type question struct {
	in       io.Reader
	out      io.Writer
	terminal bool
}

func isTerminal(r io.Reader) bool {
	file, ok := r.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// questionOf is for the person at a command's terminal.
func questionOf(c *cobra.Command) question {
	return question{c.InOrStdin(), c.ErrOrStderr(), isTerminal(c.InOrStdin())}
}

func (q question) ask(what string) error {
	if !q.terminal {
		return usageError("this would %s: repeat it with --yes", what)
	}
	fmt.Fprintf(q.out, "%s? [y/N] ", what)
	line, _ := bufio.NewReader(q.in).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return exitWith(exitFailure, fmt.Errorf("nothing was done"))
}
