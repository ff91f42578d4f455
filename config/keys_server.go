package config

func serverTables() []Table {
	return []Table{
		{Keys: topKeys(), Doc: "What concerns the whole server. These keys stand before the first table."},
		{Path: "log", Keys: logKeys(), Doc: "Log lines go to standard error."},
		{Path: "submission", Keys: submissionKeys(), Doc: "SMTP for programs that hand mail in. Who is neither in `trusted_networks` nor authenticated is refused."},
		{Path: "pickup", Keys: pickupKeys(), Doc: "A directory whose `*.eml` files become messages."},
		{Path: "http", Keys: httpKeys(), Doc: "The API, `/metrics`, `/healthz`, `/readyz` and the status page. The command line does not need it: it speaks over `<state_dir>/control.sock`."},
		{Path: "resolver", Keys: resolverKeys(), Doc: "Where DNS is asked."},
	}
}

func topKeys() []Key {
	return []Key{
		{Path: "hostname", Default: `""`, Otherwise: "found from the reverse DNS of the address that mail leaves from",
			at:  on(func(c *Config) value { return optional(text(&c.Hostname, "a full host name", parseHostname)) }),
			Doc: "The name that this host greets other servers with (HELO). It has to be the name that reverse DNS gives for the address that mail leaves from."},
		{Path: "state_dir", Default: `"/var/lib/postrider"`, isPath: true,
			at:  on(func(c *Config) value { return text(&c.StateDir, "a directory", parsePath) }),
			Doc: "The queue, the control socket and the lock. Where the default cannot be written and the key is not set, `serve` takes ./postrider-data, with a warning and never as root."},
		{Path: "mode", Default: `"live"`,
			at:  on(func(c *Config) value { return word(&c.Mode, ModeLive, ModeSilent, ModeDisabled) }),
			Doc: "`live`: mail is delivered. `silent`: everything is done, logged and counted, but nothing leaves the host: for staging. `disabled`: nothing is accepted and nothing leaves; the queue stays as it is."},
		{Path: "postmaster", Default: `""`, Otherwise: "postmaster@ and the host name",
			at:  on(func(c *Config) value { return optional(text(&c.Postmaster, "a mail address", parseMailbox)) }),
			Doc: "Who is named in reports as the person to ask."},
		{Path: "local_mail_to", Default: `""`, Otherwise: "such mail is refused with a text that names this key",
			at:  on(func(c *Config) value { return optional(text(&c.LocalMailTo, "a mail address", parseMailbox)) }),
			Doc: "Takes mail for names without a domain (root, www-data) and for our own host name, and the reports that go there."},
		{Path: "public_addresses", Default: `[]`,
			at:  on(func(c *Config) value { return addresses(&c.PublicAddresses) }),
			Doc: "Behind NAT: the addresses that the world sees. The host name is looked up from them, and they count as our own."},
		{Path: "body_memory", Default: `"32MB"`,
			at:  on(func(c *Config) value { return size(&c.BodyMemory, 0, 64*giga) }),
			Doc: "How much of the messages just accepted is kept in memory, so that a delivery at once reads nothing back. Where the control group limits the memory, an eighth of that at most."},
		{Path: "history", Default: `"7d"`,
			at:  on(func(c *Config) value { return duration(&c.History, hour, 10*year) }),
			Doc: "How long `trace` can tell what became of a message."},
		{Path: "history_size", Default: `"1GB"`,
			at:  on(func(c *Config) value { return size(&c.HistorySize, mega, 100*tera) }),
			Doc: "How much disk the history may take, and never more than a tenth of its file system; the oldest goes first. It is cut every ten minutes, and when the disk runs short of space."},
		{Path: "min_free_space", Default: `"0B"`, Otherwise: "0B means 5 % of the file system, but between 128MiB and 512MiB, and a quarter at most",
			at:  on(func(c *Config) value { return size(&c.MinFreeSpace, 0, 100*tera) }),
			Doc: "Below this much free space under `state_dir` new mail is turned away for the time being (452), before the disk is full."},
		{Path: "shutdown_grace", Default: `"30s"`,
			at:  on(func(c *Config) value { return duration(&c.ShutdownGrace, 0, hour) }),
			Doc: "How long sessions under way may take to reach their final reply when the server stops. Less than the TimeoutStopSec of the service."},
	}
}

func logKeys() []Key {
	return []Key{
		{Path: "log.level", Default: `"info"`,
			at:  on(func(c *Config) value { return word(&c.Log.Level, "debug", "info", "warn", "error") }),
			Doc: "`info` has one line per change of a message's state; `debug` adds the SMTP dialog, never content or passwords."},
		{Path: "log.format", Default: `"text"`,
			at:  on(func(c *Config) value { return word(&c.Log.Format, "text", "json") }),
			Doc: "`text` is key=value."},
	}
}

func submissionKeys() []Key {
	return append(rebind(listenerKeys(), func(c *Config) *Listener { return &c.Submission.Listener }),
		Key{Path: "submission.max_connections", Default: `1000`,
			at:  on(func(c *Config) value { return number(&c.Submission.MaxConnections, 1, 1_000_000) }),
			Doc: "Connections to all listeners together; who comes later is told to come back (421). Where the control group limits the memory, one for each MB of that at most."})
}

// listenerKeys are those that [submission] shares with [[submission.listener]].
func listenerKeys() []Key {
	return []Key{
		{Path: "submission.listen", Default: `["127.0.0.1:2525"]`, required: true,
			at: of(func(l *Listener) value {
				return texts(&l.Listen, `addresses with a port, like "127.0.0.1:2525"`, parseListen)
			}),
			Doc: "Where to listen. An address beyond loopback needs `trusted_networks` named, or users and a certificate."},
		{Path: "submission.trusted_networks", Default: `["127.0.0.0/8", "::1/128"]`,
			at:  of(func(l *Listener) value { return networks(&l.TrustedNetworks) }),
			Doc: "Who may submit without AUTH. Name a container's bridge gateway only exactly: it may stand for every stranger."},
		{Path: "submission.auth", Default: `"optional"`,
			at:  of(func(l *Listener) value { return word(&l.Auth, AuthNone, AuthOptional, AuthRequired) }),
			Doc: "`none`: not offered. `optional`: needed from outside `trusted_networks`. `required`: needed from everyone. It is offered under TLS, and in clear on loopback only."},
		{Path: "submission.max_message_size", Default: `"50MB"`,
			at:  of(func(l *Listener) value { return size(&l.MaxMessageSize, 1_000, 10*giga) }),
			Doc: "Announced with SIZE; what is larger is refused (552)."},
		{Path: "submission.max_recipients", Default: `10000`,
			at:  of(func(l *Listener) value { return number(&l.MaxRecipients, 1, 1_000_000) }),
			Doc: "Of one message. RFC 5321, section 4.5.3.1.8, wants at least 100."},
		{Path: "submission.tls_cert_file", Default: `""`, Otherwise: "no TLS", isPath: true,
			at:  of(func(l *Listener) value { return optional(text(&l.TLSCertFile, "a file", parsePath)) }),
			Doc: "The certificate with its chain, PEM. With it STARTTLS is offered."},
		{Path: "submission.tls_key_file", Default: `""`, isPath: true,
			at:  of(func(l *Listener) value { return optional(text(&l.TLSKeyFile, "a file", parsePath)) }),
			Doc: "The certificate's key, PEM, readable by the server's user alone."},
		{Path: "submission.implicit_tls", Default: `false`,
			at:  of(func(l *Listener) value { return boolean(&l.ImplicitTLS) }),
			Doc: "TLS from the first octet (RFC 8314, the submissions port 465) instead of STARTTLS."},
	}
}

func pickupKeys() []Key {
	return []Key{
		{Path: "pickup.dir", Default: `""`, Otherwise: "<state_dir>/pickup", isPath: true,
			at:  on(func(c *Config) value { return optional(text(&c.Pickup.Dir, "a directory", parsePath)) }),
			Doc: "Files are moved into it. What is wrong moves on to its `bad` directory with a text that says why."},
	}
}

func httpKeys() []Key {
	return []Key{
		{Path: "http.listen", Default: `"127.0.0.1:8025"`,
			at:  on(func(c *Config) value { return optional(text(&c.HTTP.Listen, "an address with a port", parseListen)) }),
			Doc: "Where to listen; empty: nowhere. Queue data and every change need a bearer token."},
		{Path: "http.hosts", Default: `[]`,
			at:  on(func(c *Config) value { return texts(&c.HTTP.Hosts, "host names", parseHTTPHost) }),
			Doc: "Names that a request's Host may have besides the listen address and localhost."},
	}
}

func resolverKeys() []Key {
	return []Key{
		{Path: "resolver.servers", Default: `[]`, Otherwise: "those of /etc/resolv.conf",
			at:  on(func(c *Config) value { return texts(&c.Resolver.Servers, "DNS servers", parseServer) }),
			Doc: "The DNS servers to ask, with or without a port."},
		{Path: "resolver.trust_ad", Default: `"auto"`,
			at:  on(func(c *Config) value { return word(&c.Resolver.TrustAD, TrustADAuto, TrustADYes, TrustADNo) }),
			Doc: "Whether a resolver's word that an answer is DNSSEC-validated (the AD bit) is believed, without which there is no DANE. `auto`: from a resolver on loopback that passes the probe. `yes`: from every server in use, since the way to it is safe. `no`: never."},
		{Path: "resolver.timeout", Default: `"2s"`,
			at:  on(func(c *Config) value { return duration(&c.Resolver.Timeout, second/10, minute) }),
			Doc: "For one try at one server."},
		{Path: "resolver.probe_signed", Default: `""`, Otherwise: "the root",
			at:  on(func(c *Config) value { return optional(text(&c.Resolver.ProbeSigned, "a signed domain", parseDomain)) }),
			Doc: "A domain whose SOA a validating resolver answers with the AD bit; asked at start."},
		{Path: "resolver.probe_bogus", Default: `""`, Otherwise: "not asked",
			at: on(func(c *Config) value {
				return optional(text(&c.Resolver.ProbeBogus, "a domain with broken signatures", parseDomain))
			}),
			Doc: "A domain that a validating resolver answers with SERVFAIL; asked at start."},
	}
}
