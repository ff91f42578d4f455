package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// validate looks at what single values cannot tell: settings that contradict
// each other, or open the server to strangers.
func (c *Config) validate(errs *Errors) {
	c.validateSubmission(errs)
	c.validateDelivery(errs)
	c.validateUnique(errs)
	c.indexDestinations()
	c.indexSenders()
	c.warn()
}

func (c *Config) validateSubmission(errs *Errors) {
	if len(c.Submission.Listen) > 0 {
		c.validateListener(&c.Submission.Listener, "submission", -1, errs)
	}
	for i := range c.Submission.Further {
		c.validateListener(&c.Submission.Further[i], "submission.listener", i, errs)
	}
}

func (c *Config) validateListener(l *Listener, table string, element int, errs *Errors) {
	listen := indexed(table+".listen", element)
	add := func(name, text, hint string) {
		key := c.firstSet(indexed(table+"."+name, element), "submission."+name, listen)
		errs.add(c.complain(key, text, hint))
	}
	for _, p := range l.TrustedNetworks {
		// 10.0.0.0/8 and fc00::/7 are the widest networks that are anybody's own.
		if p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 7 {
			add("trusted_networks", fmt.Sprintf("%s is a good part of the internet: that would be an open relay", p), "name the networks of your own hosts")
		}
	}
	switch {
	case l.TLSCertFile == "" && l.TLSKeyFile != "":
		add("tls_key_file", "a key without its certificate", "set tls_cert_file too")
	case l.TLSCertFile != "" && l.TLSKeyFile == "":
		add("tls_cert_file", "a certificate without its key", "set tls_key_file too")
	case l.TLSCertFile == "" && l.ImplicitTLS:
		add("implicit_tls", "TLS needs a certificate", "set tls_cert_file and tls_key_file")
	}
	if l.Auth == AuthRequired && len(c.Users) == 0 {
		add("auth", "AUTH is required, and there is no [[user]] who could pass", "add a [[user]], or trust networks instead")
	}
	if beyond := l.beyondLoopback(); beyond != "" {
		named := c.isSet(indexed(table+".trusted_networks", element)) || c.isSet("submission.trusted_networks")
		validateOpenListener(l, beyond, named && len(l.TrustedNetworks) > 0, len(c.Users) > 0, add)
	}
}

// validateOpenListener is for a listener that others can reach. It starts only
// where AUTH is possible, or where the networks are named that may do without.
func validateOpenListener(l *Listener, beyond string, trusts, users bool, add func(name, text, hint string)) {
	authenticates := l.Auth != AuthNone && users
	switch {
	case !authenticates && !trusts:
		add("listen", fmt.Sprintf("%s is reached from beyond this host, and nobody there may submit", beyond),
			"name the networks that may in trusted_networks, or add a [[user]] with tls_cert_file and tls_key_file")
	case authenticates && l.TLSCertFile == "" && (!trusts || l.Auth == AuthRequired):
		add("listen", fmt.Sprintf("%s is reached from beyond this host, where AUTH is not offered in clear", beyond),
			"set tls_cert_file and tls_key_file")
	}
}

// firstSet gives the first key that does not have its default; where all have,
// the first.
func (c *Config) firstSet(keys ...string) string {
	for _, k := range keys {
		if c.isSet(k) {
			return k
		}
	}
	return keys[0]
}

// beyondLoopback gives the first address that others can reach.
func (l *Listener) beyondLoopback() string {
	i := slices.IndexFunc(l.Listen, func(s string) bool { return !onLoopback(s) })
	if i < 0 {
		return ""
	}
	return l.Listen[i]
}

func onLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

func (c *Config) validateDelivery(errs *Errors) {
	check := func(p *Policy, table string, element int) {
		// A notice of delay after the end would never be written.
		key := indexed(table+".delay_notice_after", element)
		if p.DelayNoticeAfter >= p.ExpireAfter && c.isSet(key) {
			errs.add(c.complain(key, fmt.Sprintf("%s is not before expire_after = %s", FormatDuration(p.DelayNoticeAfter), FormatDuration(p.ExpireAfter)), `"0s" means never`))
		}
	}
	check(&c.Delivery.Policy, "delivery", -1)
	for i := range c.Destinations {
		check(&c.Destinations[i].Policy, "destination", i)
	}
	if c.Delivery.MaxConnectionsPerSite > c.Delivery.MaxConnections && c.isSet("delivery.max_connections_per_site") {
		errs.add(c.complain("delivery.max_connections_per_site", fmt.Sprintf("%d is more than max_connections = %d", c.Delivery.MaxConnectionsPerSite, c.Delivery.MaxConnections), ""))
	}
}

// validateUnique finds what is said twice.
func (c *Config) validateUnique(errs *Errors) {
	destinations := make([]string, len(c.Destinations))
	for i, d := range c.Destinations {
		destinations[i] = d.Domain
	}
	c.unique(errs, "destination.domain", destinations)

	senders := make([]string, len(c.Senders))
	for i, s := range c.Senders {
		senders[i] = s.Address
	}
	c.unique(errs, "sender.address", senders)

	keys := make([]string, len(c.DKIM))
	for i, k := range c.DKIM {
		if k.Selector != "" && k.Domain != "" {
			keys[i] = k.Selector + "._domainkey." + k.Domain
		}
	}
	c.unique(errs, "dkim.selector", keys)

	users := make([]string, len(c.Users))
	for i, u := range c.Users {
		users[i] = u.Name
	}
	c.unique(errs, "user.name", users)

	dirs := make([]string, len(c.Pickup.Further))
	for i, d := range c.Pickup.Further {
		dirs[i] = d.Dir
	}
	c.unique(errs, "pickup.directory.dir", dirs)
}

// unique complains about the second of two equal values of a list of tables.
func (c *Config) unique(errs *Errors, key string, values []string) {
	first := map[string]int{}
	for i, v := range values {
		if v == "" {
			continue // missing, or wrong and complained about
		}
		j, again := first[v]
		if !again {
			first[v] = i
			continue
		}
		errs.add(c.complain(indexed(key, i), fmt.Sprintf("%q stands already at %s", v, c.origins[indexed(key, j)]), ""))
	}
}

func (c *Config) indexDestinations() {
	if len(c.Destinations) == 0 {
		return
	}
	c.byDomain = make(map[string]int, len(c.Destinations))
	for i, d := range c.Destinations {
		c.byDomain[d.Domain] = i
	}
}

func (c *Config) indexSenders() {
	c.bySender = make(map[string]int, len(c.Senders))
	for i, s := range c.Senders {
		c.bySender[s.Address] = i
	}
}

// warn says what is allowed and yet worth knowing.
func (c *Config) warn() {
	add := func(format string, args ...any) { c.Warnings = append(c.Warnings, fmt.Sprintf(format, args...)) }
	if c.HTTP.Listen != "" && !onLoopback(c.HTTP.Listen) {
		add("http.listen: %s is reached from beyond this host: /metrics is open to all who reach it, and tokens travel in clear", c.HTTP.Listen)
	}
	if c.Mode != ModeLive {
		add("mode: %q: no mail leaves this host", c.Mode)
	}
	if c.Delivery.TLSMinVersion < tlsVersions[2].version && (c.Delivery.TLS == TLSRequire || c.Delivery.TLS == TLSVerify) {
		add("delivery.tls_min_version: a TLS below 1.2 is accepted where TLS is required")
	}
}
