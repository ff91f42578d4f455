package main

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"postrider/config"
	"postrider/mta/rehearsal"
)

func newLoadCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "load [HOST:PORT]",
		Short: "Load a server on this host with mail and measure it",
		Long: `Load a server on this host with mail and measure it.

Every session has one message under way and sends the next when it was answered.
Each message is another one, with a Message-ID of its own, to addresses at
d0.load.test, d1.load.test and so on: have the rehearsal's DNS (postrider sink)
answer for them, or the mail will try to leave.

The exit code is 0 only if every message was accepted.`,
		Example: `  postrider load --messages 100000 127.0.0.1:2525
  postrider load --way chunked --size 100kB --domains 1 --json`,
		Args: cobra.MaximumNArgs(1),
	}
	var o rehearsal.LoadOptions
	f := c.Flags()
	f.IntVar(&o.Sessions, "sessions", 20, "how many at once")
	f.Int64Var(&o.Messages, "messages", 10_000, "how many in all")
	f.IntVar(&o.Domains, "domains", 100, "how many recipient domains take turns")
	f.StringVar(&o.DomainSuffix, "domain", "load.test", "what the recipient domains are below")
	f.IntVar(&o.Recipients, "recipients", 1, "of each message, at as many domains")
	f.StringVar(&o.Sender, "from", "load@sender.test", "the sender's `address`")
	f.Int64Var(&o.PerConnection, "per-connection", 0, "messages over a connection before the next is made (0: all)")
	f.BoolVar(&o.TLS, "tls", false, "use STARTTLS, whatever the certificate")
	f.DurationVar(&o.Timeout, "timeout", 5*time.Minute, "for each reply")
	size := f.String("size", "4096B", "of each message, with a unit")
	way := f.String("way", "pipelined", "pipelined (two round trips a message), chunked or overlapped (one), sequential")
	allow := f.StringSlice("allow-network", nil, "`network` beyond loopback that may be loaded")
	asJSON := jsonFlag(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		o.Target = append(args, "127.0.0.1:2525")[0]
		if err := parseLoad(&o, *size, *way, *allow); err != nil {
			return exitWith(exitUsage, err)
		}
		load, err := rehearsal.NewLoad(o)
		if err != nil {
			return exitWith(exitUsage, err)
		}
		return runLoad(c, load, o.Messages, *asJSON)
	}
	return c
}

// parseLoad reads what flags cannot.
func parseLoad(o *rehearsal.LoadOptions, size, way string, allow []string) error {
	octets, err := config.ParseSize(size)
	if err != nil {
		return fmt.Errorf("--size: %w", err)
	}
	o.Size = int(octets)
	if o.Way, err = rehearsal.ParseWay(way); err != nil {
		return fmt.Errorf("--way: %w", err)
	}
	for _, s := range allow {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return fmt.Errorf("--allow-network: %w", err)
		}
		o.AllowNetworks = append(o.AllowNetworks, p.Masked())
	}
	return nil
}

func runLoad(c *cobra.Command, load *rehearsal.Load, messages int64, asJSON bool) error {
	ctx := c.Context()
	began := time.Now()
	line := followLine(ctx, c, func() string {
		accepted, lost := load.Progress()
		return fmt.Sprintf("%d of %d accepted, %d not, %.0f/s", accepted, messages, lost, float64(accepted)/time.Since(began).Seconds())
	})
	r, err := load.Run(ctx)
	line.end()
	if r != nil {
		if asJSON {
			printJSON(c.OutOrStdout(), r)
		} else {
			showLoad(c, r)
		}
	}
	if err == nil && r.Accepted != messages {
		err = fmt.Errorf("%d of %d messages were not accepted; the first time: %s", messages-r.Accepted, messages, r.FirstError)
	}
	return err
}

func showLoad(c *cobra.Command, r *rehearsal.Result) {
	w := columns(c.OutOrStdout())
	fmt.Fprintf(w, "accepted\t%s, %s, over %s\n", count(int(r.Accepted), "message", "messages"), octets(r.Octets), count(int(r.Connects), "connection", "connections"))
	fmt.Fprintf(w, "not accepted\t%d refused, %d lost, and %s of accepted messages\n", r.Refused, r.Failed, count(int(r.Rejected), "recipient", "recipients"))
	fmt.Fprintf(w, "took\t%.2f s: %.0f messages/s\n", r.Took.Seconds(), r.PerSecond())
	fmt.Fprintf(w, "answered after\t%v half of them, %v 90 %%, %v 99 %%, %v 99.9 %%, %v all\n",
		brief(r.Wait.P50), brief(r.Wait.P90), brief(r.Wait.P99), brief(r.Wait.P999), brief(r.Wait.Max))
	if r.Accepted > 0 {
		fmt.Fprintf(w, "CPU of the load\t%.1f us a message\n", float64(r.CPU.Nanoseconds())/1000/float64(r.Accepted))
	}
	w.Flush()
}

// brief writes a time with three digits.
func brief(d time.Duration) time.Duration {
	for unit := time.Second; unit >= time.Microsecond; unit /= 10 {
		if d >= unit {
			return d.Round(unit / 100)
		}
	}
	return d
}
