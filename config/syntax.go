package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/net/idna"
)

// domainProfile turns a name as people write it into A-labels. The length
// rules of DNS hold; underscores are allowed by the check after it, since mail
// hosts in the wild have them.
var domainProfile = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.VerifyDNSLength(true), idna.StrictDomainName(false))

// ParseDomain reads a domain as the configuration has it, and gives A-labels in
// lower case, without a final dot. A DKIM selector has the same form.
func ParseDomain(s string) (string, error) { return parseDomain(s) }

func parseDomain(s string) (string, error) {
	name, err := domainProfile.ToASCII(strings.TrimSuffix(s, "."))
	if err != nil || !plainLabels(name) {
		return "", fmt.Errorf("%q is not a domain name", s)
	}
	return name, nil
}

func plainLabels(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	return true
}

// parseHostname is a domain name that is no address and not "localhost".
func parseHostname(s string) (string, error) {
	name, err := parseDomain(s)
	if err != nil {
		return "", err
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "", fmt.Errorf("%q is an address, where the name of this host is needed", s)
	}
	if name == "localhost" || !strings.Contains(name, ".") {
		return "", fmt.Errorf("%q is not a full host name: other servers refuse mail from a host that greets with it", s)
	}
	return name, nil
}

// parsePattern is a domain, or "*." and a domain for all its subdomains.
func parsePattern(s string) (string, error) {
	if strings.HasPrefix(s, "[") {
		return "", fmt.Errorf("%q is an address literal: a destination is a domain", s)
	}
	rest, wild := strings.CutPrefix(s, "*.")
	name, err := parseDomain(rest)
	if err != nil {
		return "", fmt.Errorf("%q is neither a domain nor \"*.\" and a domain", s)
	}
	if wild {
		return "*." + name, nil
	}
	return name, nil
}

// parseMailbox checks an address of our own side: local-part@domain.
func parseMailbox(s string) (string, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at > 64 || len(s) > 254 {
		return "", fmt.Errorf("%q is not a mail address, like \"ops@example.com\"", s)
	}
	for _, r := range s[:at] {
		if r <= ' ' || r == 0x7f || strings.ContainsRune(`"(),:;<>@[\]`, r) || unicode.IsSpace(r) {
			return "", fmt.Errorf("%q is not a mail address: %q cannot stand before the @", s, r)
		}
	}
	if strings.HasPrefix(s, ".") || s[at-1] == '.' || strings.Contains(s[:at], "..") {
		return "", fmt.Errorf("%q is not a mail address: its dots stand where they cannot", s)
	}
	domain, err := parseDomain(s[at+1:])
	if err != nil {
		return "", fmt.Errorf("%q is not a mail address: %w", s, err)
	}
	return s[:at+1] + domain, nil
}

// parseSender is an address of our own side, or "@" and a domain, in lower case.
func parseSender(s string) (string, error) {
	if domain, ok := strings.CutPrefix(s, "@"); ok {
		name, err := parseDomain(domain)
		return "@" + name, err
	}
	mailbox, err := parseMailbox(s)
	return strings.ToLower(mailbox), err
}

// parseListen is an address to listen on. Names are not resolved, except for
// localhost: what is listened on must not depend on DNS.
func parseListen(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%q is not an address and a port, like \"127.0.0.1:2525\", \"[::1]:2525\" or \":25\"", s)
	}
	if _, err := parsePort(port); err != nil {
		return "", fmt.Errorf("%q: %w", s, err)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if host == "" {
		return ":" + port, nil
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return "", fmt.Errorf("%q: %q is not an IP address", s, host)
	}
	return net.JoinHostPort(addr.String(), port), nil
}

func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is not a port from 0 to 65535", s)
	}
	return int(n), nil
}

// parseServer is the address of a DNS server, with or without a port.
func parseServer(s string) (string, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.String(), nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil || ap.Port() == 0 {
		return "", fmt.Errorf("%q is not the address of a DNS server, like \"127.0.0.1\" or \"[::1]:5353\"", s)
	}
	return ap.String(), nil
}

// parseMailHost is a host to deliver to: a name or an address, with or without
// a port.
func parseMailHost(s string) (string, error) {
	bare := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	if addr, err := netip.ParseAddr(bare); err == nil {
		return addr.String(), nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		if name, err := parseDomain(s); err == nil {
			return name, nil
		}
		return "", fmt.Errorf("%q is not a host, like \"mail.internal\", \"mail.internal:2525\" or \"[2001:db8::1]:25\"", s)
	}
	if n, err := parsePort(port); err != nil || n == 0 {
		return "", fmt.Errorf("%q: %q is not a port from 1 to 65535", s, port)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return net.JoinHostPort(addr.String(), port), nil
	}
	name, err := parseDomain(host)
	if err != nil {
		return "", fmt.Errorf("%q: %q is neither an address nor a host name", s, host)
	}
	return net.JoinHostPort(name, port), nil
}

// parseHTTPHost is what a request's Host may say besides the listen address.
func parseHTTPHost(s string) (string, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.String(), nil
	}
	name, err := parseDomain(s)
	if err != nil {
		return "", fmt.Errorf("%q is neither a host name nor an address; write it without a port", s)
	}
	return name, nil
}

func parseNetwork(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is not a network, like \"10.0.0.0/8\" or \"fd00::/8\"", s)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits set behind its length: is %q meant?", s, p.Masked())
	}
	return p, nil
}

func parseAddress(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", s)
	}
	return addr.Unmap(), nil
}

// parseSelector is a DKIM selector (RFC 6376, section 3.1).
func parseSelector(s string) (string, error) {
	name, err := parseDomain(s)
	if err != nil {
		return "", fmt.Errorf("%q is not a selector, like \"s2026\"", s)
	}
	return name, nil
}

func parsePath(s string) (string, error) {
	if s == "" {
		return "", errors.New("empty, where a path is needed")
	}
	if strings.ContainsRune(s, 0) {
		return "", fmt.Errorf("%q is not a path", s)
	}
	return filepath.Clean(s), nil
}

// parseUserName keeps to what every SASL mechanism can carry unprepared.
func parseUserName(s string) (string, error) {
	if s == "" || len(s) > 255 {
		return "", fmt.Errorf("%q is not a user name of 1 to 255 octets", s)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return "", fmt.Errorf("%q is not a user name: it holds what cannot be printed", s)
		}
	}
	return s, nil
}

var tlsVersions = []struct {
	text    string
	version uint16
}{{"1.0", tls.VersionTLS10}, {"1.1", tls.VersionTLS11}, {"1.2", tls.VersionTLS12}, {"1.3", tls.VersionTLS13}}

func tlsVersion(to *uint16) scalar[uint16] {
	const want = `"1.0", "1.1", "1.2" or "1.3"`
	read := func(s string) (uint16, error) {
		for _, v := range tlsVersions {
			if s == v.text {
				return v.version, nil
			}
		}
		return 0, fmt.Errorf("%q is not %s", s, want)
	}
	write := func(version uint16) string {
		for _, v := range tlsVersions {
			if version == v.version {
				return v.text
			}
		}
		return ""
	}
	return scalar[uint16]{to: to, read: read, write: write, want: want}
}
