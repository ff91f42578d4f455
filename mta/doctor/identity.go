package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"postrider/resolver"
)

// identity looks at the name we greet with, for each address that mail leaves
// from, and at the name that the world has for that address.
func (d *Doctor) identity(ctx context.Context) []Finding {
	found, err := d.helo(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return []Finding{
			{HELO, "hostname", NotDone, "DNS did not answer in time", seeNameServers},
			{ReverseDNS, "our addresses", NotDone, "DNS did not answer in time", seeNameServers},
		}
	case err != nil:
		return []Finding{{HELO, "hostname", Failed, err.Error(), "set hostname to the name of this host in DNS"}}
	}
	var all []Finding
	for i := range found.Names {
		all = append(all, d.judgeHELO(ctx, &found.Names[i])...)
	}
	for i := range found.Names {
		if f, ok := d.reverseDNS(ctx, &found.Names[i]); ok {
			all = append(all, f)
		}
	}
	return all
}

// seeNameServers is the advice where DNS could not be asked.
const seeNameServers = "see the finding about the name servers"

// Address tells where connections leave from, and what the world sees of it.
func Address(n *resolver.HELOName) string {
	switch {
	case !n.Source.IsValid():
		return "this host"
	case n.Public.IsValid() && n.Public != n.Source:
		return fmt.Sprintf("%s (seen as %s)", n.Source, n.Public)
	}
	return n.Source.String()
}

// judgeHELO judges the name. What has no name is a failure over IPv4, where
// nearly all mail goes; over IPv6 the other family is left.
func (d *Doctor) judgeHELO(ctx context.Context, n *resolver.HELOName) []Finding {
	f := Finding{
		HELO, fmt.Sprintf("%s, from %s", n.Name, Address(n)), OK,
		fmt.Sprintf("we greet with it (%s), and it and the address lead to each other", n.Origin), strings.Join(n.Warnings, "; "),
	}
	if why := badGreeting(n.Name); why != "" {
		f.Verdict, f.Found = Failed, "we greet with it, and "+why+": most servers refuse such"
		f.Advice = "set hostname to the name that reverse DNS has for the address"
		return []Finding{f}
	}
	switch {
	case !n.Source.IsValid():
		f.Verdict, f.Found = Failed, "no connection can be made from here"
	case n.Unsure:
		f.Verdict, f.Found = Warning, "DNS could not be asked for all of it"
	case n.Confirmed && len(n.Warnings) > 0:
		f.Verdict, f.Found = Warning, fmt.Sprintf("we greet with it (%s), and it is confirmed", n.Origin)
	case n.Confirmed:
	case !n.Public.IsValid():
		f.Verdict, f.Found = Warning, fmt.Sprintf("we greet with it (%s); whether it is confirmed is not known behind NAT", n.Origin)
	case n.Origin == resolver.HELOLiteral && n.Source.Is4():
		f.Verdict, f.Found = Failed, "this host has no name: we greet with an address"
	default:
		f.Verdict, f.Found = Warning, fmt.Sprintf("we greet with it (%s), and it is not confirmed", n.Origin)
	}
	if n.Origin != resolver.HELOLiteral && d.leadsNowhere(ctx, n.Name) {
		return []Finding{f, {HELO, n.Name, Warning, "the name leads to no address at all: some servers refuse a greeting that cannot be looked up, and reports sent from it", "add an address record for it to its zone"}}
	}
	return []Finding{f}
}

// badGreeting says what is wrong with a name whatever DNS says. It catches what
// was configured: a name that is looked for is held to this beforehand.
func badGreeting(name string) string {
	switch {
	case strings.HasPrefix(name, "["):
		return ""
	case !strings.Contains(name, "."):
		return "it has no domain, like the ID of a container"
	case name == "localhost.localdomain", strings.HasPrefix(name, "localhost."), strings.HasSuffix(name, ".localhost"), strings.HasSuffix(name, ".localdomain"):
		return "every host is called so"
	case strings.HasSuffix(name, ".local"), strings.HasSuffix(name, ".internal"), strings.HasSuffix(name, ".lan"):
		return "it is a name for a local network"
	}
	return ""
}

// leadsNowhere reports that a name has no address, as a fact.
func (d *Doctor) leadsNowhere(ctx context.Context, name string) bool {
	_, err := d.o.DNS.Resolver.Addrs(ctx, name)
	return isAbsent(err)
}

// isAbsent reports that DNS has no such name or record, as a fact.
func isAbsent(err error) bool {
	var e *resolver.Error
	return errors.As(err, &e) && (e.Kind == resolver.NoSuchDomain || e.Kind == resolver.NoData)
}

// reverseDNS looks at the name of an address, whatever we greet with: receivers
// ask for it before the greeting is said. ok is false where the world's view
// of the address is not known.
func (d *Doctor) reverseDNS(ctx context.Context, n *resolver.HELOName) (f Finding, ok bool) {
	if !n.Public.IsValid() {
		return f, false
	}
	f = Finding{ReverseDNS, n.Public.String(), OK, "", ""}
	found, err := d.o.DNS.Resolver.PTR(ctx, n.Public)
	switch {
	case isAbsent(err):
		return withoutName(f, n.Public), true
	case err != nil:
		f.Verdict, f.Found, f.Advice = Warning, err.Error(), seeNameServers
		return f, true
	}
	const most = 10
	names := slices.Sorted(slices.Values(found.Records))
	for _, name := range names[:min(len(names), most)] {
		forward, err := d.o.DNS.Resolver.Addrs(ctx, name)
		if err == nil && slices.Contains(forward.Records, n.Public) {
			f.Found = "is called " + name + ", and that leads back to it"
			return f, true
		}
	}
	f.Verdict = Warning
	if n.Public.Is4() {
		f.Verdict = Failed
	}
	f.Found = fmt.Sprintf("is called %s, and that does not lead back to it: many servers refuse such mail", strings.Join(names[:min(len(names), most)], ", "))
	f.Advice = fmt.Sprintf("give %s an address record with %s, or the address another name", names[0], n.Public)
	return f, true
}

func withoutName(f Finding, addr netip.Addr) Finding {
	if addr.Is4() {
		f.Verdict, f.Found = Failed, "has no name in reverse DNS (PTR): most servers refuse mail from such"
		f.Advice = "set it at the provider of the address, to the name that hostname has"
		return f
	}
	f.Verdict = Warning
	f.Found = "has no name in reverse DNS (PTR): Gmail and other large receivers refuse mail over IPv6 from such; it is then tried over IPv4"
	f.Advice = "set it at the provider of the address; until then name only the IPv4 address in delivery.source_addresses"
	return f
}
