package config

import "time"

func deliveryTables() []Table {
	return []Table{
		{Path: "delivery", Keys: deliveryKeys(), Doc: "How mail goes out. Most of it can be changed for a recipient domain in `[[destination]]`."},
		{Path: "delivery.timeouts", Keys: timeoutKeys(), Doc: "How long a peer may take for each step. The defaults of all but `connect` and `tls` are the least that RFC 5321, section 4.5.3.2, asks for. A short `final` makes duplicates: the peer has the message, and we do not know it."},
		{Path: "tlsrpt", Keys: tlsrptKeys(), Doc: "Reports to domains that want to know how TLS to them went (RFC 8460). A connection counts once for each domain whose mail it carries, by that domain's own policy."},
		{Path: "suppression", Keys: suppressionKeys(), Doc: "The addresses that nothing is sent to any more. `postrider suppress` shows and changes the list; its file is `<state_dir>/suppression`."},
	}
}

func deliveryKeys() []Key {
	return append(rebind(policyKeys(), func(c *Config) *Policy { return &c.Delivery.Policy }), []Key{
		{Path: "delivery.allow_networks", Default: `[]`,
			at:  on(func(c *Config) value { return networks(&c.Delivery.AllowNetworks) }),
			Doc: "Networks that may be dialled though a recipient domain is chosen by strangers: without it loopback, private, link-local and our own addresses are refused."},
		{Path: "delivery.source_addresses", Default: `[]`, Otherwise: "the system chooses",
			at:  on(func(c *Config) value { return addresses(&c.Delivery.SourceAddresses) }),
			Doc: "The addresses of this host that mail leaves from."},
		{Path: "delivery.rules_file", Default: `""`, Otherwise: "only the built-in rules", isPath: true,
			at:  on(func(c *Config) value { return optional(text(&c.Delivery.RulesFile, "a file", parsePath)) }),
			Doc: "Rules about what replies mean, which go before the built-in ones, see [rules.md](rules.md)."},
		{Path: "delivery.hold_for", Default: `"0s"`,
			at:  on(func(c *Config) value { return duration(&c.Delivery.HoldFor, 0, 30*day) }),
			Doc: "The undo window: every message waits this long before its first attempt, and `queue cancel` still catches it. A `[[sender]]` or a message (`X-Postrider-Hold-For`, `hold_for` in the API) may have another one."},
		{Path: "delivery.max_connections", Default: `1000`,
			at:  on(func(c *Config) value { return number(&c.Delivery.MaxConnections, 1, 100_000) }),
			Doc: "Connections out, all together. Hosts that have not answered for 50 ms are counted apart, up to eight times as many. Where the control group limits the memory, one for each 2 MB of that at most."},
		{Path: "delivery.max_messages_per_minute", Default: `0`, Otherwise: noLimit,
			at:  on(func(c *Config) value { return rate(&c.Delivery.MaxMessagesPerMinute) }),
			Doc: "Messages out, all together."},
		{Path: "delivery.max_connections_per_minute", Default: `0`, Otherwise: noLimit,
			at:  on(func(c *Config) value { return rate(&c.Delivery.MaxConnectionsPerMinute) }),
			Doc: "New connections out, all together."},
		{Path: "delivery.max_messages_per_minute_per_sender_domain", Default: `0`, Otherwise: noLimit,
			at:  on(func(c *Config) value { return rate(&c.Delivery.MaxMessagesPerMinutePerSenderDomain) }),
			Doc: "Messages out whose envelope senders are in one domain: batch mail goes at this pace, and the mail of others passes it by. Reports, which have no sender, are not counted."},
		{Path: "delivery.connection_idle", Default: `"5s"`,
			at:  on(func(c *Config) value { return duration(&c.Delivery.ConnectionIdle, 0, 5*minute) }),
			Doc: "How long a connection is kept for the next message to the same site."},
		{Path: "delivery.connection_max_age", Default: `"5m"`,
			at:  on(func(c *Config) value { return duration(&c.Delivery.ConnectionMaxAge, second, hour) }),
			Doc: "After this time a connection takes no further message."},
	}...)
}

const noLimit = "0 means no limit"

// policyKeys are those that [delivery] shares with [[destination]].
func policyKeys() []Key {
	return []Key{
		{Path: "delivery.port", Default: `25`,
			at:  of(func(p *Policy) value { return number(&p.Port, 1, 65535) }),
			Doc: "The port of mail hosts."},
		{Path: "delivery.tls", Default: `"enable"`,
			at:  of(func(p *Policy) value { return word(&p.TLS, TLSNone, TLSEnable, TLSRequire, TLSVerify) }),
			Doc: "`none`: no STARTTLS. `enable`: TLS where it can be had, without judging the certificate, else in clear; MTA-STS and DANE raise the demand. `require`: never in clear. `verify`: `require`, and a certificate valid for the MX host."},
		{Path: "delivery.tls_min_version", Default: `"1.2"`,
			at:  of(func(p *Policy) value { return tlsVersion(&p.TLSMinVersion) }),
			Doc: "The oldest TLS version that counts. `enable` falls back below it, down to 1.0, before it goes in clear."},
		{Path: "delivery.retry", Default: `["5m", "10m", "20m", "40m", "1h", "2h", "4h"]`,
			at:  of(func(p *Policy) value { return durations(&p.Retry, second/10, 7*day) }),
			Doc: "The waits between attempts, each spread by 20 % either way; the last one repeats."},
		{Path: "delivery.retry_for", Default: `{}`, Otherwise: "every class has the waits of `retry`", isTable: true,
			at:  of(func(p *Policy) value { return waitsByClass{&p.RetryFor, second / 10, 7 * day} }),
			Doc: "Other waits after a failure of a certain kind: `mailbox-full = [\"4h\", \"12h\"]` in `[delivery.retry_for]`. Greylisting that says no time is repeated after the first wait of `retry` where nothing is set here; a time that the other side asks for goes before both, once."},
		{Path: "delivery.expire_after", Default: `"5d"`,
			at:  of(func(p *Policy) value { return duration(&p.ExpireAfter, second, 30*day) }),
			Doc: "When to give up, counted from the time the first attempt was due. RFC 5321, section 4.5.4.1, wants at least 4 to 5 days."},
		{Path: "delivery.delay_notice_after", Default: `"4h"`, Otherwise: "0s means never",
			at:  of(func(p *Policy) value { return duration(&p.DelayNoticeAfter, 0, 30*day) }),
			Doc: "When the sender is told, once, that a message is late."},
		{Path: "delivery.max_connections_per_site", Default: `20`,
			at:  of(func(p *Policy) value { return number(&p.MaxConnectionsPerSite, 1, 10_000) }),
			Doc: "Connections to one site: the domains that share their mail hosts. Where the settings of its domains differ, the smallest holds."},
		{Path: "delivery.max_messages_per_connection", Default: `100`,
			at:  of(func(p *Policy) value { return number(&p.MaxMessagesPerConnection, 1, 1_000_000) }),
			Doc: "After so many a connection is closed and a new one made."},
		{Path: "delivery.max_recipients_per_transaction", Default: `100`,
			at:  of(func(p *Policy) value { return number(&p.MaxRecipientsPerTransaction, 1, 10_000) }),
			Doc: "Recipients of one message at one domain that go in one transaction; the others go in the next one."},
		{Path: "delivery.max_messages_per_minute_per_site", Default: `0`, Otherwise: noLimit,
			at:  of(func(p *Policy) value { return rate(&p.MaxMessagesPerMinutePerSite) }),
			Doc: "Messages to one site."},
		{Path: "delivery.max_connections_per_minute_per_site", Default: `0`, Otherwise: noLimit,
			at:  of(func(p *Policy) value { return rate(&p.MaxConnectionsPerMinutePerSite) }),
			Doc: "New connections to one site."},
	}
}

func rate(to *int) value { return number(to, 0, 10_000_000) }

func timeoutKeys() []Key {
	timeout := func(name, fallback, doc string, field func(*Timeouts) value) Key {
		return Key{Path: "delivery.timeouts." + name, Default: quote(fallback), Doc: doc,
			at: on(func(c *Config) value { return field(&c.Delivery.Timeouts) })}
	}
	return []Key{
		timeout("connect", "30s", "To one address.", func(t *Timeouts) value { return wait(&t.Connect) }),
		timeout("greeting", "5m", "Until the 220.", func(t *Timeouts) value { return wait(&t.Greeting) }),
		timeout("command", "5m", "For the reply to EHLO, MAIL, RCPT or RSET.", func(t *Timeouts) value { return wait(&t.Command) }),
		timeout("tls", "1m", "For the TLS handshake.", func(t *Timeouts) value { return wait(&t.TLS) }),
		timeout("data", "2m", "For the 354.", func(t *Timeouts) value { return wait(&t.Data) }),
		timeout("block", "3m", "To take a block of content.", func(t *Timeouts) value { return wait(&t.Block) }),
		timeout("final", "10m", "For the reply after the content.", func(t *Timeouts) value { return wait(&t.Final) }),
	}
}

// wait is a timeout. Very short ones must work: rehearsals use them.
func wait(to *time.Duration) value { return duration(to, 10*time.Millisecond, hour) }

func tlsrptKeys() []Key {
	return []Key{
		{Path: "tlsrpt.enabled", Default: `true`,
			at:  on(func(c *Config) value { return boolean(&c.TLSRPT.Enabled) }),
			Doc: "Whether results are counted and reported."},
		{Path: "tlsrpt.interval", Default: `"24h"`,
			at:  on(func(c *Config) value { return duration(&c.TLSRPT.Interval, second, 7*day) }),
			Doc: "The time that one report covers. Receivers expect a day."},
		{Path: "tlsrpt.from", Default: `""`, Otherwise: "the postmaster",
			at:  on(func(c *Config) value { return optional(text(&c.TLSRPT.From, "a mail address", parseMailbox)) }),
			Doc: "The sender of reports that go by mail."},
	}
}

func suppressionKeys() []Key {
	return []Key{
		{Path: "suppression.enabled", Default: `false`,
			at:  on(func(c *Config) value { return boolean(&c.Suppression.Enabled) }),
			Doc: "Whether mail to addresses on the list fails at once (5.7.0, with a report), and whether an explicit answer that there is no such mailbox puts an address on it. Answers about reputation, quota or anything else never do."},
		{Path: "suppression.after", Default: `1`,
			at:  on(func(c *Config) value { return number(&c.Suppression.After, 1, 100) }),
			Doc: "How many such answers it takes, without a delivery between them."},
		{Path: "suppression.expire_after", Default: `"90d"`, Otherwise: "0s means never",
			at:  on(func(c *Config) value { return duration(&c.Suppression.ExpireAfter, 0, 10*year) }),
			Doc: "When what came of answers ends, counted from the last one. What people put on the list stays."},
		{Path: "suppression.max_entries", Default: `100000`,
			at:  on(func(c *Config) value { return number(&c.Suppression.MaxEntries, 100, 10_000_000) }),
			Doc: "The most entries, of about 300 octets of memory each. Of what came of answers the oldest makes room."},
	}
}
