package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// HELOOptions say what is known of this host beforehand.
type HELOOptions struct {
	Hostname string       // as configured: it is then the name, and is only checked
	Sources  []netip.Addr // addresses that connections leave from; empty: those that the kernel would use
	Public   []netip.Addr // behind NAT: what the world sees of them, in the same order within a family
}

// HELOResult is how this host calls itself, for each address that it sends from.
type HELOResult struct {
	Names []HELOName // at least one
}

// HELOName is the name for one source address, and how it was found.
type HELOName struct {
	Source netip.Addr `json:"source"` // the zero Addr where the host has no way out
	Public netip.Addr `json:"public"` // what the world sees; the zero Addr where that is not known
	Name   string     `json:"name"`   // a domain name, or an address literal
	Origin HELOOrigin `json:"origin"`
	// Confirmed: the name leads to the public address, and the address back to it.
	Confirmed bool `json:"confirmed"`
	// Unsure: a lookup failed, so that asking again later may give a better name.
	Unsure   bool     `json:"unsure"`
	Steps    []Step   `json:"steps"`
	Warnings []string `json:"warnings"` // each says what to do
}

// HELOOrigin is where a name comes from.
type HELOOrigin string

const (
	HELOConfigured HELOOrigin = "configured"
	HELOReverseDNS HELOOrigin = "reverse DNS"
	HELOSystem     HELOOrigin = "system host name"
	HELOLiteral    HELOOrigin = "address literal"
)

// Step is one thing that was tried.
type Step struct {
	Tried string `json:"tried"`
	Found string `json:"found"`
	OK    bool   `json:"ok"`
}

// For is the name to use from a source address; an unknown address gets that of
// the first of its family, and in want of one the first of all.
func (h HELOResult) For(source netip.Addr) string {
	source = source.Unmap()
	family := -1
	for i, n := range h.Names {
		if n.Source == source {
			return n.Name
		}
		if family < 0 && n.Source.IsValid() && n.Source.Is4() == source.Is4() {
			family = i
		}
	}
	return h.Names[max(family, 0)].Name
}

// HELO finds the name of this host as the world can confirm it: the address
// that connections leave from, the name that reverse DNS has for it, and
// whether that name leads back (RFC 1912, section 2.1; receivers hold senders
// to it). A configured name is checked in the same way. Where nothing can be
// found the name is the system's, or an address literal (RFC 5321, section
// 4.1.4), with a warning. Nobody outside is asked for our address.
//
// The error is about the options, or the cause for which ctx ended.
func (r *Resolver) HELO(ctx context.Context, o HELOOptions) (HELOResult, error) {
	return r.helo(ctx, o, system{sourceToward, os.Hostname})
}

// system is what HELO learns from the host itself.
type system struct {
	sourceToward func(netip.Addr) (netip.Addr, error)
	hostname     func() (string, error)
}

func (r *Resolver) helo(ctx context.Context, o HELOOptions, sys system) (HELOResult, error) {
	configured := ""
	if o.Hostname != "" {
		name, err := ASCIIDomain(o.Hostname)
		if err == nil && !strings.Contains(name, ".") {
			err = errors.New("a full name with a dot is needed")
		}
		if err != nil {
			return HELOResult{}, fmt.Errorf("hostname %s: %w", quoted(o.Hostname), err)
		}
		configured = name
	}
	var result HELOResult
	for _, s := range findSources(o, sys) {
		n := &naming{r: r, ctx: ctx, sys: sys, configured: configured, HELOName: s}
		n.choose()
		result.Names = append(result.Names, n.HELOName)
	}
	if ctx.Err() != nil {
		return HELOResult{}, fmt.Errorf("finding the HELO name: %w", context.Cause(ctx))
	}
	return result, nil
}

// naming finds the name for one source address.
type naming struct {
	r          *Resolver
	ctx        context.Context
	sys        system
	configured string
	HELOName
}

// candidate is a name that the host could use.
type candidate struct {
	name    string
	origin  HELOOrigin
	reverse bool // reverse DNS has it for our address
	forward bool // it leads to our address
}

// choose takes, in this order: the configured name; one that reverse and
// forward DNS agree on; one that leads to us; one that DNS or the system has
// for us; the address.
func (n *naming) choose() {
	var all []candidate
	reverse := n.reverseNames()
	if n.configured != "" {
		all = []candidate{{name: n.configured, origin: HELOConfigured, reverse: slices.Contains(reverse, n.configured)}}
		n.step("the configuration", "hostname = "+n.configured, true)
	} else {
		for _, name := range reverse {
			all = append(all, candidate{name: name, origin: HELOReverseDNS, reverse: true})
		}
		if name := n.systemName(); name != "" && !slices.Contains(reverse, name) {
			all = append(all, candidate{name: name, origin: HELOSystem})
		}
	}
	for i := range all {
		all[i].forward = n.leadsHere(all[i].name)
	}
	best, ok := pick(all)
	if !ok {
		n.useLiteral()
		return
	}
	n.Name, n.Origin, n.Confirmed = best.name, best.origin, best.forward && best.reverse
	n.warn(best)
}

func pick(all []candidate) (candidate, bool) {
	rank := func(c candidate) int {
		switch {
		case c.forward && c.reverse:
			return 3
		case c.forward:
			return 2
		case c.reverse:
			return 1
		}
		return 0
	}
	if len(all) == 0 {
		return candidate{}, false
	}
	return slices.MaxFunc(all, func(a, b candidate) int { return rank(a) - rank(b) }), true
}

// reverseNames gives the names that reverse DNS has for the public address,
// those that can be used, in alphabetical order.
func (n *naming) reverseNames() []string {
	const most = 10
	if !n.Public.IsValid() {
		return nil
	}
	tried := fmt.Sprintf("reverse DNS (PTR) of %s", n.Public)
	found, err := n.r.PTR(n.ctx, n.Public)
	if err != nil {
		n.lookupFailed(tried, err)
		return nil
	}
	var names []string
	for _, name := range slices.Sorted(slices.Values(found.Records)) {
		if why := unusableName(name); why != "" {
			n.step(tried, fmt.Sprintf("%s, which %s", quoteName(name), why), false)
			continue
		}
		if len(names) < most {
			n.step(tried, name, true)
			names = append(names, name)
		}
	}
	return names
}

// leadsHere asks whether a name has our public address.
func (n *naming) leadsHere(name string) bool {
	if !n.Public.IsValid() {
		return false
	}
	lookup, what := n.r.A, "IPv4"
	if n.Public.Is6() {
		lookup, what = n.r.AAAA, "IPv6"
	}
	tried := fmt.Sprintf("%s addresses of %s", what, name)
	found, err := lookup(n.ctx, name)
	if err != nil {
		n.lookupFailed(tried, err)
		return false
	}
	here := slices.Contains(found.Records, n.Public)
	n.step(tried, list(found.Records), here)
	return here
}

// systemName is the host name of the operating system where it is a full one,
// or the full one that the hosts file has for it.
func (n *naming) systemName() string {
	const tried = "the system's host name"
	name, err := n.sys.hostname()
	if err != nil {
		n.step(tried, err.Error(), false)
		return ""
	}
	short, full := name, ""
	if strings.Contains(name, ".") {
		full = name
	} else {
		full = fullName(n.r.options.HostsFile, name)
	}
	ascii, err := asciiDomain(full)
	switch {
	case full == "":
		n.step(tried, quoteName(short)+", which has no domain (and none in the hosts file)", false)
		return ""
	case err != nil:
		n.step(tried, fmt.Sprintf("%s: %v", quoteName(full), err), false)
		return ""
	}
	if why := unusableName(ascii); why != "" {
		n.step(tried, ascii+", which "+why, false)
		return ""
	}
	n.step(tried, ascii, true)
	return ascii
}

// useLiteral is the last resort (RFC 5321, section 4.1.4).
func (n *naming) useLiteral() {
	addr := n.Public
	if !addr.IsValid() {
		addr = n.Source
	}
	if !addr.IsValid() {
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	n.Origin = HELOLiteral
	n.Name = "[" + addr.String() + "]"
	if addr.Is6() {
		n.Name = "[IPv6:" + addr.String() + "]"
	}
	n.Warnings = append(n.Warnings, "this host has no name that could be found: most servers refuse mail from such hosts; "+
		"give its address a name in reverse DNS (at the provider) and that name the address, or set hostname")
}

// warn says what is wrong with the chosen name and what to do about it.
func (n *naming) warn(c candidate) {
	add := func(format string, args ...any) { n.Warnings = append(n.Warnings, fmt.Sprintf(format, args...)) }
	switch {
	case !n.Public.IsValid():
		// findSources has said why.
	case n.Unsure && !n.Confirmed:
		add("DNS could not be asked for all of it: whether %s is confirmed is not known", c.name)
	case !c.reverse:
		add("reverse DNS of %s does not say %s: set it at the provider of the address, or many servers refuse the mail", n.Public, c.name)
	case !c.forward:
		add("%s does not lead to %s: add an address record to its zone, or many servers refuse the mail", c.name, n.Public)
	case namesAddress(c.name, n.Public):
		add("%s looks like a provider's name for any customer: some servers refuse such; set a name of your own in reverse DNS", c.name)
	}
	if c.origin == HELOSystem && n.Public.IsValid() && isLocalName(c.name) {
		add("%s is a name for a local network: set hostname to one that the world can look up", c.name)
	}
}

func (n *naming) step(tried, found string, ok bool) {
	n.Steps = append(n.Steps, Step{tried, found, ok})
}

func (n *naming) lookupFailed(tried string, err error) {
	var e *Error
	if !errors.As(err, &e) || e.Temporary() {
		n.Unsure = true
	}
	found := err.Error()
	if e != nil && !e.Temporary() {
		found = "none"
	}
	n.step(tried, found, false)
}

func list(addrs []netip.Addr) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return strings.Join(words, ", ")
}
