package config

import (
	"net/netip"
	"strings"
	"time"
)

// Config is the effective configuration. It is not changed after Load or
// Parse, so it may be read by many goroutines. Names of domains are A-labels
// in lower case; paths are absolute after Load; sizes are octets.
type Config struct {
	File     string   // the file that was read; empty: none
	Dir      string   // where relative paths start
	Warnings []string // what an operator should know, though nothing is wrong

	Hostname        string // empty: to be found in reverse DNS
	StateDir        string
	Mode            Mode
	Postmaster      string // empty: see PostmasterAt
	LocalMailTo     string // empty: local mail is refused
	PublicAddresses []netip.Addr
	BodyMemory      int64
	History         time.Duration
	HistorySize     int64
	MinFreeSpace    int64 // 0: the queue's own floor
	ShutdownGrace   time.Duration

	Log          Log
	Submission   Submission
	Pickup       Pickup
	HTTP         HTTP
	Resolver     Resolver
	Delivery     Delivery
	TLSRPT       TLSRPT
	Suppression  Suppression
	Destinations []Destination // as written; see DestinationFor
	Senders      []Sender
	DKIM         []DKIMKey
	Users        []User
	Rules        Rules // of delivery.rules_file

	byDomain map[string]int // into Destinations
	bySender map[string]int // into Senders
	origins  map[string]Origin
}

// Mode is what becomes of mail: config key "mode".
type Mode string

const (
	ModeLive     Mode = "live"
	ModeSilent   Mode = "silent"   // all is done, logged and counted, nothing leaves the host
	ModeDisabled Mode = "disabled" // nothing is accepted and nothing leaves
)

// Log is the table [log].
type Log struct {
	Level  string // debug, info, warn, error
	Format string // text, json
}

// Submission is the table [submission]; Listeners names every listener.
type Submission struct {
	Listener
	MaxConnections int
	Further        []Listener // [[submission.listener]]
}

// Listener is one set of addresses to submit to, under one policy.
type Listener struct {
	Listen          []string // host:port
	TrustedNetworks []netip.Prefix
	Auth            Auth
	MaxMessageSize  int64
	MaxRecipients   int
	TLSCertFile     string // empty: no STARTTLS
	TLSKeyFile      string
	ImplicitTLS     bool // TLS from the first octet (RFC 8314), without STARTTLS
}

// Listeners gives [submission] itself, where it listens at all, and the
// further ones.
func (s *Submission) Listeners() []Listener {
	var all []Listener
	if len(s.Listen) > 0 {
		all = append(all, s.Listener)
	}
	return append(all, s.Further...)
}

// Auth says who must authenticate. Whoever is in TrustedNetworks never must.
type Auth string

const (
	AuthNone     Auth = "none"     // not offered
	AuthOptional Auth = "optional" // offered
	AuthRequired Auth = "required" // also for TrustedNetworks
)

// Pickup is the table [pickup]; Directories names every directory.
type Pickup struct {
	Dir     string
	Further []PickupDirectory
}

// PickupDirectory is one directory that files are moved into.
type PickupDirectory struct {
	Dir string
}

// Directories gives the main directory and the further ones.
func (p *Pickup) Directories() []PickupDirectory {
	return append([]PickupDirectory{{Dir: p.Dir}}, p.Further...)
}

// HTTP is the table [http].
type HTTP struct {
	Listen string // empty: no TCP listener
	Hosts  []string
}

// Resolver is the table [resolver].
type Resolver struct {
	Servers     []string // address or address:port; none: /etc/resolv.conf
	TrustAD     TrustAD
	Timeout     time.Duration
	ProbeSigned string // a name whose SOA a validating resolver answers with AD; empty: the root
	ProbeBogus  string // a name that a validating resolver refuses; empty: not asked
}

// TrustAD says whether the AD bit of an answer is believed.
type TrustAD string

const (
	TrustADAuto TrustAD = "auto"
	TrustADYes  TrustAD = "yes"
	TrustADNo   TrustAD = "no"
)

// Delivery is the table [delivery].
type Delivery struct {
	Policy // where no [[destination]] says otherwise

	AllowNetworks   []netip.Prefix
	SourceAddresses []netip.Addr
	HoldFor         time.Duration
	RulesFile       string // empty: only the built-in rules

	MaxConnections          int
	MaxMessagesPerMinute    int // 0: no limit
	MaxConnectionsPerMinute int // 0: no limit

	MaxMessagesPerMinutePerSenderDomain int // 0: no limit

	ConnectionIdle   time.Duration
	ConnectionMaxAge time.Duration
	Timeouts         Timeouts
}

// TLS is the demand on a connection, before MTA-STS and DANE raise it.
type TLS string

const (
	TLSNone    TLS = "none"    // no STARTTLS
	TLSEnable  TLS = "enable"  // where it can be had
	TLSRequire TLS = "require" // never in clear
	TLSVerify  TLS = "verify"  // and with a certificate valid for the MX host
)

// Timeouts are those of RFC 5321, section 4.5.3.2.
type Timeouts struct {
	Connect, Greeting, Command, TLS, Data, Block, Final time.Duration
}

// TLSRPT is the table [tlsrpt].
type TLSRPT struct {
	Enabled  bool
	Interval time.Duration
	From     string // empty: the postmaster
}

// Suppression is the table [suppression].
type Suppression struct {
	Enabled     bool
	After       int           // answers
	ExpireAfter time.Duration // 0: never
	MaxEntries  int
}

// DKIMKey is one [[dkim]].
type DKIMKey struct {
	Domain   string
	Selector string
	KeyFile  string
}

// User is one [[user]] who may submit.
type User struct {
	Name         string
	PasswordHash string // bcrypt ($2b$...) or argon2id ($argon2id$...)
}

// Sender is one [[sender]]: what holds for mail of an address or of a domain.
type Sender struct {
	Address string // "news@example.org" or "@example.org"
	HoldFor time.Duration

	MaxMessagesPerMinute int // 0: no limit
}

// HoldFor is how long mail of a sender (empty: the null sender) waits before
// its first attempt. An address goes before its domain, and that before
// [delivery].
func (c *Config) HoldFor(sender string) time.Duration {
	if len(c.bySender) == 0 || sender == "" {
		return c.Delivery.HoldFor
	}
	key := strings.ToLower(sender)
	if i, ok := c.bySender[key]; ok {
		return c.Senders[i].HoldFor
	}
	if i, ok := c.bySender[key[max(0, strings.LastIndexByte(key, '@')):]]; ok {
		return c.Senders[i].HoldFor
	}
	return c.Delivery.HoldFor
}

// SenderRate is how many messages a minute may go out of those that share a key
// with this sender; 0: no limit. A [[sender]] with a rate goes before
// [delivery], whose limit is for each domain. The null sender has none.
func (c *Config) SenderRate(sender string) (key string, perMinute int) {
	if sender == "" || len(c.bySender) == 0 && c.Delivery.MaxMessagesPerMinutePerSenderDomain == 0 {
		return "", 0
	}
	name := strings.ToLower(sender)
	domain := name[max(0, strings.LastIndexByte(name, '@')):]
	for _, key := range []string{name, domain} {
		if i, ok := c.bySender[key]; ok && c.isSet(indexed("sender.max_messages_per_minute", i)) {
			return "sender " + key, c.Senders[i].MaxMessagesPerMinute
		}
	}
	return "sender " + domain, c.Delivery.MaxMessagesPerMinutePerSenderDomain
}

// PostmasterAt gives the postmaster's address on a host of this name.
func (c *Config) PostmasterAt(hostname string) string {
	if c.Postmaster != "" {
		return c.Postmaster
	}
	return "postmaster@" + hostname
}
