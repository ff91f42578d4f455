package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postrider/mta/api/wire"
)

func newExplainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain ADDRESS",
		Short: "Tell how mail to an address would go, and what holds it now",
		Long: `Tell how mail to an address would go, and what holds it now: the mail hosts and
their addresses, the TLS that is asked of each and who asks for it, the limits,
and the state of the destination in the running server. Nothing is sent.

The exit code is 1 where mail to this address would bounce at once.`,
		Args: cobra.ExactArgs(1),
	}
	server := addServerFlags(c)
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		client, err := server.connect(c)
		if err != nil {
			return err
		}
		defer client.Close()
		e, err := client.Explain(c.Context(), args[0])
		if err != nil {
			return err
		}
		if *asJSON {
			err = printJSON(c.OutOrStdout(), e)
		} else {
			showExplanation(c.OutOrStdout(), &e, time.Now())
		}
		if err == nil && e.Permanent {
			return exitWith(exitFailure, nil)
		}
		return err
	}
	return c
}

var routeTexts = map[string]string{
	"mx":       "its MX records",
	"implicit": "the domain itself, which has no MX record (RFC 5321, section 5.1)",
	"literal":  "the address in brackets",
	"fixed":    "the hosts of the configuration",
}

func showExplanation(w io.Writer, e *wire.Explanation, now time.Time) {
	fmt.Fprintf(w, "mail to %s\n", angle(e.Address))
	if e.Local {
		fmt.Fprintln(w, "is mail for this host: it goes to local_mail_to, or is refused where that is not set")
		return
	}
	fmt.Fprintf(w, "goes by %s", plain(e.Domain))
	if e.Site != "" {
		fmt.Fprintf(w, ", site %s", plain(e.Site))
	}
	fmt.Fprintln(w)
	switch {
	case e.RouteError != "" && e.Permanent:
		fmt.Fprintf(w, "it would bounce at once: %s\n", plain(e.RouteError))
		return
	case e.RouteError != "":
		fmt.Fprintf(w, "it would wait: %s\n", plain(e.RouteError))
	default:
		secure := "not signed (no DNSSEC)"
		if e.DNSSEC {
			secure = "validated by DNSSEC"
		}
		if e.Route == "fixed" || e.Route == "literal" { // nothing was looked up for them
			fmt.Fprintf(w, "hosts: %s\n", routeTexts[e.Route])
			break
		}
		fmt.Fprintf(w, "hosts: %s, %s\n", routeTexts[e.Route], secure)
	}
	for i := range e.Hosts {
		showHost(w, &e.Hosts[i])
	}
	for i := range e.Skipped {
		fmt.Fprintf(w, "  %d %s is not used: %s\n", e.Skipped[i].Preference, plain(e.Skipped[i].Name), plain(e.Skipped[i].Error))
	}
	showSettings(w, &e.Settings)
	for i := range e.Suspensions {
		fmt.Fprintf(w, "suspended: %s\n", suspensionText(&e.Suspensions[i], now))
	}
	if e.Lane != nil {
		fmt.Fprintf(w, "now: %s open", connections(e.Lane))
		if e.Lane.LastError == e.RouteError {
			e.Lane.LastError = "" // said above
		}
		if text := laneText(e.Lane, now); text != "" {
			fmt.Fprintf(w, "; %s", text)
		}
		fmt.Fprintln(w)
	}
}

func showHost(w io.Writer, h *wire.Host) {
	name := plain(h.Name)
	if name == "" {
		name = "an address"
	}
	fmt.Fprintf(w, "  %d %s port %d\n", h.Preference, name, h.Port)
	if h.Error != "" {
		fmt.Fprintf(w, "      no address: %s\n", plain(h.Error))
	}
	for _, a := range h.Addresses {
		fmt.Fprintf(w, "      %s", a.IP)
		if a.Refused != "" {
			fmt.Fprintf(w, "  not dialled: %s", plain(a.Refused))
		}
		fmt.Fprintln(w)
	}
	switch {
	case h.TLS.Error != "" && h.TLS.Source != "":
		fmt.Fprintf(w, "      TLS: %s, from %s; not used: %s\n", h.TLS.Level, plain(h.TLS.Source), plain(h.TLS.Error))
	case h.TLS.Error != "":
		fmt.Fprintf(w, "      TLS: %s\n", plain(h.TLS.Error))
	case h.TLS.Source != "":
		fmt.Fprintf(w, "      TLS: %s, from %s\n", h.TLS.Level, plain(h.TLS.Source))
	case h.TLS.Level != "":
		fmt.Fprintf(w, "      TLS: %s\n", h.TLS.Level)
	}
}

func showSettings(w io.Writer, s *wire.Settings) {
	if len(s.Retry) > 0 {
		fmt.Fprintf(w, "tried again after %s (the last one repeats), given up after %s\n", strings.Join(s.Retry, ", "), s.ExpireAfter)
	}
	var limits []string
	add := func(n int, text string) {
		if n > 0 {
			limits = append(limits, fmt.Sprintf("%d %s", n, text))
		}
	}
	add(s.MaxConnections, "connections to the site")
	add(s.MaxMessagesPerMinute, "messages a minute")
	add(s.MaxMessagesPerConn, "messages on a connection")
	add(s.MaxRecipientsPerTrans, "recipients at once")
	if len(limits) > 0 {
		fmt.Fprintf(w, "at most %s\n", strings.Join(limits, ", "))
	}
}
