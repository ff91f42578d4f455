package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postrider/mta/doctor"
	"postrider/resolver"
)

// heloTimeout bounds the questions to DNS, all together.
const heloTimeout = 30 * time.Second

// newHeloCommand explains how this host calls itself and how it came to that.
func newHeloCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "helo",
		Short: "Show the name this host gives to other servers, and how it is found",
		Long: `Show the name this host gives to other servers (HELO), and how it is found.

Receivers hold a sender to three things: its address has a name in reverse DNS,
that name has the address, and the sender greets with it. This looks at each in
turn and says what to do where one is missing. Nothing is sent but DNS queries.

The exit code is 0 when the name is confirmed for every address.`,
		Example: `  postrider helo
  postrider helo --hostname mail.example.com --public 192.0.2.1`,
		Args: cobra.NoArgs,
	}
	file, asJSON := configFlag(c), jsonFlag(c)
	f := c.Flags()
	servers := f.StringSlice("server", nil, "name `server` to ask, address or address:port (default those of the configuration, else of /etc/resolv.conf)")
	hostname := f.String("hostname", "", "check this `name` instead of that of the configuration, or of looking for one")
	sources := f.StringSlice("source", nil, "`address` that connections leave from (default those of the configuration, else those that the system would use)")
	public := f.StringSlice("public", nil, "behind NAT: `address` that the world sees (default those of the configuration)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := clientConfig(c, *file)
		if err != nil {
			return err
		}
		asked := resolver.HELOOptions{Hostname: cfg.Hostname, Sources: cfg.Delivery.SourceAddresses, Public: cfg.PublicAddresses}
		if *hostname != "" {
			asked.Hostname = *hostname
		}
		if err := takeAddresses(&asked.Sources, "source", *sources); err != nil {
			return err
		}
		if err := takeAddresses(&asked.Public, "public", *public); err != nil {
			return err
		}
		if len(*servers) == 0 {
			*servers = cfg.Resolver.Servers
		}
		r, err := resolver.New(resolver.Options{Servers: *servers, Timeout: cfg.Resolver.Timeout})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(c.Context(), heloTimeout)
		defer cancel()
		found, err := r.HELO(ctx, asked)
		if err != nil {
			return err
		}
		return reportHELO(c.OutOrStdout(), found, *asJSON)
	}
	return c
}

// takeAddresses replaces addresses by those of a flag, where it has any.
func takeAddresses(addrs *[]netip.Addr, flag string, words []string) error {
	if len(words) == 0 {
		return nil
	}
	taken := make([]netip.Addr, 0, len(words))
	for _, w := range words {
		a, err := netip.ParseAddr(w)
		if err != nil {
			return usageError("--%s %q: an IP address is needed", flag, w)
		}
		taken = append(taken, a)
	}
	*addrs = taken
	return nil
}

// reportHELO prints what was found. The error is for the exit code: it names
// the addresses whose name is not confirmed.
func reportHELO(w io.Writer, found resolver.HELOResult, asJSON bool) error {
	if asJSON {
		if err := printJSON(w, found.Names); err != nil {
			return err
		}
	} else {
		for i, n := range found.Names {
			if i > 0 {
				fmt.Fprintln(w)
			}
			printHELO(w, n)
		}
	}
	var without []string
	for _, n := range found.Names {
		if !n.Confirmed {
			without = append(without, doctor.Address(&n))
		}
	}
	if len(without) > 0 {
		return fmt.Errorf("the name of %s is not confirmed by DNS", strings.Join(without, " and "))
	}
	return nil
}

func printHELO(w io.Writer, n resolver.HELOName) {
	fmt.Fprintf(w, "%s\n  from %s, for connections from %s\n", n.Name, n.Origin, doctor.Address(&n))
	for _, s := range n.Steps {
		mark := "ok"
		if !s.OK {
			mark = "--"
		}
		fmt.Fprintf(w, "  %s  %s: %s\n", mark, s.Tried, s.Found)
	}
	for _, warning := range n.Warnings {
		fmt.Fprintf(w, "  !!  %s\n", warning)
	}
	if n.Confirmed && len(n.Warnings) == 0 {
		fmt.Fprintln(w, "  the name and the address lead to each other: nothing to do")
	}
}
