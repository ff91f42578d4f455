package config

import (
	"strings"
	"time"
)

// Policy is what can be set for all destinations and for one.
type Policy struct {
	Port          int
	TLS           TLS
	TLSMinVersion uint16 // crypto/tls.VersionTLS12 ...

	Retry            []time.Duration            // the last one repeats
	RetryFor         map[string][]time.Duration // by bounce class, in place of Retry
	ExpireAfter      time.Duration
	DelayNoticeAfter time.Duration // 0: none

	MaxConnectionsPerSite          int
	MaxMessagesPerConnection       int
	MaxRecipientsPerTransaction    int
	MaxMessagesPerMinutePerSite    int // 0: no limit
	MaxConnectionsPerMinutePerSite int // 0: no limit
}

// Destination is how mail for one recipient domain goes: [delivery], changed
// by the most specific [[destination]].
type Destination struct {
	Domain string   // as written: "example.org" or "*.example.org"; empty: [delivery] alone
	Hosts  []string // instead of MX: host, host:port; tried in this order

	Policy

	// Of this destination alone; 0: no limit.
	MaxMessagesPerMinute, MaxConnections, MaxConnectionsPerMinute int

	Chunking, Pipelining bool
}

// destination is what [delivery] says where no [[destination]] does.
func (d *Delivery) destination() Destination {
	return Destination{Policy: d.Policy, Chunking: true, Pipelining: true}
}

// DestinationFor gives the settings for a recipient domain (A-labels, no final
// dot). The domain itself goes before "*.parent", a longer parent before a
// shorter one; only the one [[destination]] found that way changes [delivery].
// Its slices are shared: do not change them.
func (c *Config) DestinationFor(domain string) Destination {
	if len(c.byDomain) == 0 {
		return c.Delivery.destination()
	}
	name := strings.ToLower(domain)
	if i, ok := c.byDomain[name]; ok {
		return c.Destinations[i]
	}
	for {
		_, parent, ok := strings.Cut(name, ".")
		if !ok {
			return c.Delivery.destination()
		}
		if i, ok := c.byDomain["*."+parent]; ok {
			return c.Destinations[i]
		}
		name = parent
	}
}
