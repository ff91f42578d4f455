package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"postrider/config"
	"postrider/mta/rehearsal"
	"postrider/mta/smtpserver"
)

// sinkFlags are what the command line says about a sink.
type sinkFlags struct {
	tls     bool
	without []string
	refuse  []string
	maxSize string
	hosts   []string
	asJSON  *bool
	site    rehearsal.SiteOptions
}

func newSinkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "sink",
		Short: "Receive mail for any domain and forget it, for rehearsals",
		Long: `Receive mail for any domain and forget it, for rehearsals.

It is a receiving server and the DNS that leads to it: every domain has a mail
host, and that has the sink's address. A server whose resolver.servers is this
DNS delivers all its mail here and none anywhere else. What is forgotten is
counted; --keep writes it to files, --verify tells what came twice.`,
		Example: `  postrider sink
  postrider sink --round-trip 20ms --refuse '*:5%=450 4.2.0 later' --greylist 1m
  postrider sink --tls --without chunking,pipelining --keep ./received
  postrider sink --record 'example.test. IN MX 10 down.example.test.'`,
		Args: cobra.NoArgs,
	}
	s := &sinkFlags{asJSON: jsonFlag(c)}
	f := c.Flags()
	f.StringSliceVar(&s.site.Listen, "listen", []string{"127.0.0.1:2526"}, "`address` for SMTP")
	f.StringVar(&s.site.DNS, "dns", "127.0.0.1:2553", "`address` for DNS; empty: none")
	f.StringVar(&s.site.Stats, "stats", "", "`address` on loopback where the counts are JSON over HTTP; empty: none")
	f.StringVar(&s.site.Sink.Hostname, "hostname", "mx.sink.test", "how it greets")
	f.BoolVar(&s.tls, "tls", false, "offer STARTTLS, with a self-made certificate")
	f.StringSliceVar(&s.without, "without", nil, "`extension` that is not offered, like chunking; ehlo is all of them")
	f.StringVar(&s.maxSize, "max-size", "0B", "of a message; 0B: no limit")
	f.IntVar(&s.site.Sink.MaxRecipients, "max-recipients", 0, "of a transaction; 0: no limit")
	f.DurationVar(&s.site.Sink.RoundTrip, "round-trip", 0, "how far away it is")
	f.DurationVar(&s.site.Sink.Delay, "delay", 0, "how long it thinks about MAIL, each RCPT and the content")
	f.DurationVar(&s.site.Sink.Greylist, "greylist", 0, "how long an unknown sender and recipient are told to come back")
	f.StringArrayVar(&s.refuse, "refuse", nil, "recipients that are refused, as `MATCH[:SHARE%]=REPLY`; they match an address, @domain or *")
	f.StringVar(&s.site.Sink.Keep.Dir, "keep", "", "`directory` that gets each message as a file")
	f.BoolVar(&s.site.Sink.Verify, "verify", false, "tell by their Message-ID what came twice")
	f.StringSliceVar(&s.site.Nameserver.MX, "mx", nil, "mail `host` of every domain; none: each has its own, mx.DOMAIN")
	f.StringSliceVar(&s.hosts, "host-address", nil, "`address` of the mail hosts; none: where it listens")
	f.StringArrayVar(&s.site.Nameserver.Records, "record", nil, "a DNS `record` of one's own, as in a zone file")
	f.StringSliceVar(&s.site.Nameserver.Missing, "missing", nil, "`domain` that does not exist")
	f.StringSliceVar(&s.site.Nameserver.Failing, "failing", nil, "`domain` that the DNS fails for")
	f.DurationVar(&s.site.Nameserver.TTL, "ttl", 5*time.Minute, "of the DNS records")
	f.BoolVar(&s.site.Nameserver.Authentic, "authentic", false, "set the AD bit, as a validating resolver does")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := s.parse(); err != nil {
			return exitWith(exitUsage, err)
		}
		return s.run(c)
	}
	return c
}

// parse reads what flags cannot.
func (s *sinkFlags) parse() (err error) {
	if s.site.Sink.MaxMessageSize, err = config.ParseSize(s.maxSize); err != nil {
		return fmt.Errorf("--max-size: %w", err)
	}
	for _, name := range s.without {
		ext, err := smtpserver.ParseExtension(name)
		if err != nil {
			return fmt.Errorf("--without: %w", err)
		}
		s.site.Sink.Without |= ext
	}
	for _, text := range s.refuse {
		r, err := rehearsal.ParseRefusal(text)
		if err != nil {
			return fmt.Errorf("--refuse: %w", err)
		}
		s.site.Sink.Refuse = append(s.site.Sink.Refuse, r)
	}
	for _, text := range s.hosts {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("--host-address: %w", err)
		}
		s.site.Nameserver.Addresses = append(s.site.Nameserver.Addresses, ip)
	}
	if s.tls {
		s.site.Sink.TLS, err = rehearsal.SelfSigned(append([]string{s.site.Sink.Hostname}, s.site.Nameserver.MX...)...)
	}
	return err
}

// run serves until the command is told to end, and tells what came.
func (s *sinkFlags) run(c *cobra.Command) error {
	s.site.Sink.Logger = slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelError}))
	site, err := rehearsal.OpenSite(s.site)
	if err != nil {
		return err
	}
	announceSite(c, site)
	line := followLine(c.Context(), c, func() string {
		st := site.Sink.Stats()
		return fmt.Sprintf("%s for %s at %s, %d refused, %s open", count(int(st.Messages), "message", "messages"), count(int(st.Recipients), "recipient", "recipients"),
			count(st.Domains, "domain", "domains"), st.Refused, count(int(st.Open), "connection", "connections"))
	})
	err = site.Run(c.Context())
	line.end()
	if *s.asJSON {
		printJSON(c.OutOrStdout(), site.Sink.Stats())
	} else {
		s.show(c, site.Sink.Stats())
	}
	return err
}

// announceSite tells where everything is, and how a server is led there.
func announceSite(c *cobra.Command, site *rehearsal.Site) {
	w := c.ErrOrStderr()
	for _, a := range site.SMTP {
		fmt.Fprintf(w, "SMTP on %v\n", a)
	}
	if site.Stats != nil {
		fmt.Fprintf(w, "counts on http://%v/\n", site.Stats)
	}
	if site.DNS == nil {
		return
	}
	fmt.Fprintf(w, "DNS on %v; postrider delivers here with this in its configuration:\n\n", site.DNS)
	smtp := site.SMTP[0].(*net.TCPAddr).AddrPort()
	ip := smtp.Addr().Unmap()
	fmt.Fprintf(w, "  [resolver]\n  servers = [\"%v\"]\n  [delivery]\n  port = %d\n  allow_networks = [\"%v\"]\n\n", site.DNS, smtp.Port(), netip.PrefixFrom(ip, ip.BitLen()))
}

func (s *sinkFlags) show(c *cobra.Command, st rehearsal.Stats) {
	w := columns(c.OutOrStdout())
	fmt.Fprintf(w, "received\t%s, %s, over %s\n", count(int(st.Messages), "message", "messages"), octets(st.Octets), count(int(st.Connections), "connection", "connections"))
	fmt.Fprintf(w, "for\t%s at %s\n", count(int(st.Recipients), "recipient", "recipients"), count(st.Domains, "domain", "domains"))
	if st.Refused > 0 {
		fmt.Fprintf(w, "refused\t%s, %d of them greylisted\n", count(int(st.Refused), "recipient", "recipients"), st.Greylisted)
	}
	if s.site.Sink.Verify {
		fmt.Fprintf(w, "came twice\t%d of %d; %d were not looked at, and %s had no Message-ID\n", st.Duplicates, st.Copies+st.Duplicates, st.Unverified, count(int(st.WithoutID), "message", "messages"))
	}
	if st.ProtocolErrors > 0 {
		fmt.Fprintf(w, "wrong commands\t%d\n", st.ProtocolErrors)
	}
	if rate := st.PerSecond(); rate > 0 {
		fmt.Fprintf(w, "from first to last\t%s: %.0f messages/s\n", span(st.Last.Sub(st.First)), rate)
	}
	w.Flush()
}
