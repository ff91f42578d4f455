package config

// listTables are the tables that may stand more than once. Their keys cannot
// be set by the environment.
func listTables() []Table {
	return []Table{
		{Path: "submission.listener", Repeated: true, Keys: inherit(listenerKeys(), "submission.listener", func(l *Listener) *Listener { return l }),
			elements: elementsOf[Listener]{
				in:        func(c *Config) *[]Listener { return &c.Submission.Further },
				inherited: func(c *Config) Listener { l := c.Submission.Listener; l.Listen = nil; return l },
			},
			Doc: "A further listener. What it does not say it takes from `[submission]`."},
		{Path: "pickup.directory", Repeated: true, Keys: pickupDirectoryKeys(),
			elements: elementsOf[PickupDirectory]{
				in:        func(c *Config) *[]PickupDirectory { return &c.Pickup.Further },
				inherited: func(*Config) PickupDirectory { return PickupDirectory{} },
			},
			Doc: "A further pickup directory."},
		{Path: "destination", Repeated: true, Keys: destinationKeys(),
			elements: elementsOf[Destination]{
				in:        func(c *Config) *[]Destination { return &c.Destinations },
				inherited: func(c *Config) Destination { return c.Delivery.destination() },
			},
			Doc: "Settings for one recipient domain. What it does not say it takes from `[delivery]`. Where several match, the most specific one alone counts: the domain itself before `*.` and a parent, a longer parent before a shorter one."},
		{Path: "sender", Repeated: true, Keys: senderKeys(),
			elements: elementsOf[Sender]{
				in:        func(c *Config) *[]Sender { return &c.Senders },
				inherited: func(c *Config) Sender { return Sender{HoldFor: c.Delivery.HoldFor} },
			},
			Doc: "Settings for mail of one sender: of an address, or of all addresses in a domain. The address goes before its domain."},
		{Path: "dkim", Repeated: true, Keys: dkimKeys(),
			elements: elementsOf[DKIMKey]{
				in:        func(c *Config) *[]DKIMKey { return &c.DKIM },
				inherited: func(*Config) DKIMKey { return DKIMKey{} },
			},
			Doc: "A key that signs mail whose From is in this domain, or in a subdomain that has no key of its own. Two entries of one domain sign twice, for instance with an RSA and an Ed25519 key. `postrider dkim keygen` makes keys in `<state_dir>/dkim`, where they need no entry."},
		{Path: "user", Repeated: true, Keys: userKeys(),
			elements: elementsOf[User]{
				in:        func(c *Config) *[]User { return &c.Users },
				inherited: func(*Config) User { return User{} },
			},
			Doc: "Who may submit with AUTH."},
	}
}

func pickupDirectoryKeys() []Key {
	return []Key{
		{Path: "pickup.directory.dir", required: true, isPath: true,
			at:  of(func(d *PickupDirectory) value { return text(&d.Dir, "a directory", parsePath) }),
			Doc: "As `pickup.dir`."},
	}
}

func destinationKeys() []Key {
	keys := []Key{
		{Path: "destination.domain", required: true,
			at: of(func(d *Destination) value {
				return text(&d.Domain, `a domain, or "*." and a domain for its subdomains`, parsePattern)
			}),
			Doc: "The recipient domain; `*.example.org` means its subdomains, not itself."},
		{Path: "destination.hosts", Otherwise: "the MX records decide",
			at:  of(func(d *Destination) value { return texts(&d.Hosts, "hosts, with or without a port", parseMailHost) }),
			Doc: "Fixed hosts instead of MX, tried in this order, for internal domains: `[\"mail.internal:2525\"]`. They may be in any network."},
		{Path: "destination.max_messages_per_minute", Otherwise: noLimit,
			at:  of(func(d *Destination) value { return rate(&d.MaxMessagesPerMinute) }),
			Doc: "Messages to this domain alone."},
		{Path: "destination.max_connections", Otherwise: noLimit,
			at:  of(func(d *Destination) value { return number(&d.MaxConnections, 0, 10_000) }),
			Doc: "Connections that carry mail for this domain, beside the limits of its site."},
		{Path: "destination.max_connections_per_minute", Otherwise: noLimit,
			at:  of(func(d *Destination) value { return rate(&d.MaxConnectionsPerMinute) }),
			Doc: "New connections for this domain alone."},
		{Path: "destination.chunking", Otherwise: "true",
			at:  of(func(d *Destination) value { return boolean(&d.Chunking) }),
			Doc: "`false` for a server that announces CHUNKING and breaks it."},
		{Path: "destination.pipelining", Otherwise: "true",
			at:  of(func(d *Destination) value { return boolean(&d.Pipelining) }),
			Doc: "`false` for a server that announces PIPELINING and breaks it."},
	}
	return append(keys, inherit(policyKeys(), "destination", func(d *Destination) *Policy { return &d.Policy })...)
}

func senderKeys() []Key {
	return []Key{
		{Path: "sender.address", required: true,
			at:  of(func(s *Sender) value { return text(&s.Address, `a mail address, or "@" and a domain`, parseSender) }),
			Doc: "The envelope's sender, `news@example.org` or `@example.org`, in any case of letters."},
		{Path: "sender.hold_for", Otherwise: "that of `delivery.hold_for`",
			at:  of(func(s *Sender) value { return duration(&s.HoldFor, 0, 30*day) }),
			Doc: "The undo window of this sender's mail, see `delivery.hold_for`."},
		{Path: "sender.max_messages_per_minute", Otherwise: "its domain's `[[sender]]`, else `delivery.max_messages_per_minute_per_sender_domain`",
			at:  of(func(s *Sender) value { return rate(&s.MaxMessagesPerMinute) }),
			Doc: "Messages of this address, or of this domain together, that go out in a minute; 0 means no limit."},
	}
}

func dkimKeys() []Key {
	return []Key{
		{Path: "dkim.domain", required: true,
			at:  of(func(k *DKIMKey) value { return text(&k.Domain, "a domain", parseDomain) }),
			Doc: "The signing domain (d=)."},
		{Path: "dkim.selector", required: true,
			at:  of(func(k *DKIMKey) value { return text(&k.Selector, "a selector", parseSelector) }),
			Doc: "The selector (s=): the record is published at `<selector>._domainkey.<domain>`."},
		{Path: "dkim.key_file", required: true, isPath: true,
			at:  of(func(k *DKIMKey) value { return text(&k.KeyFile, "a file", parsePath) }),
			Doc: "The private key, PEM, RSA or Ed25519, readable by the server's user alone."},
	}
}

func userKeys() []Key {
	return []Key{
		{Path: "user.name", required: true,
			at:  of(func(u *User) value { return text(&u.Name, "a name", parseUserName) }),
			Doc: "The name to authenticate with."},
		{Path: "user.password_hash", required: true, secret: true,
			at:  of(func(u *User) value { return text(&u.PasswordHash, "a bcrypt or argon2id hash", parsePasswordHash) }),
			Doc: "A bcrypt (`$2b$...`) or argon2id (`$argon2id$...`) hash, for instance from `htpasswd -nB name`. Keep the file unreadable for others."},
	}
}
