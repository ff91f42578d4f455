package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"postrider/dkim"
)

// SenderOptions say whose mail goes out from here.
type SenderOptions struct {
	LocalMailTo     string // empty: local mail is refused
	LocalMailDomain string
	Keys            []dkim.Source
	KeysError       error // why they could not be listed
}

// senders looks at what receivers ask DNS about mail from here: for each domain
// that is signed for, and for the name in reports, whose sender is empty and is
// judged by the HELO name (RFC 7208, section 2.4).
func (d *Doctor) senders(ctx context.Context) []Finding {
	o := &d.o.Senders
	var domains []string
	for _, s := range o.Keys {
		domains = append(domains, s.Domain)
	}
	slices.Sort(domains)
	domains = slices.Compact(domains)
	sources, helo, err := d.seenAs(ctx)
	found := make([][]Finding, len(o.Keys)+len(domains)+1)
	var wg sync.WaitGroup
	for i, s := range o.Keys {
		wg.Go(func() { found[i] = d.key(ctx, s) })
	}
	for i, domain := range domains {
		wg.Go(func() {
			found[len(o.Keys)+i] = []Finding{d.senderPolicy(ctx, domain, sources, err), d.dmarc(ctx, domain)}
		})
	}
	if err == nil {
		wg.Go(func() { found[len(found)-1] = d.heloPolicy(ctx, helo, sources, domains) })
	}
	wg.Wait()
	var all []Finding
	for _, f := range found {
		all = append(all, f...)
	}
	switch {
	case o.KeysError != nil:
		all = append(all, Finding{DKIM, "keys", NotDone, "not all can be found: " + o.KeysError.Error(), "run the doctor as root, or as the server's user"})
	case len(o.Keys) == 0:
		all = append(all, Finding{DKIM, "keys", Warning, "there is none: mail goes out unsigned, and large receivers refuse or distrust such", "postrider dkim keygen --domain DOMAIN --selector SELECTOR"})
	}
	if len(domains) == 0 {
		all = append(all,
			Finding{SPF, "sender domains", NotDone, "no domain is signed for, so that none is known as ours", ""},
			Finding{DMARC, "sender domains", NotDone, "no domain is signed for, so that none is known as ours", ""},
		)
	}
	return all
}

// seenAs gives the addresses that receivers see, and the first HELO name.
func (d *Doctor) seenAs(ctx context.Context) (sources []netip.Addr, helo string, err error) {
	found, err := d.helo(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, n := range found.Names {
		if n.Public.IsValid() {
			sources = append(sources, n.Public)
		}
	}
	return sources, found.Names[0].Name, nil
}

// key compares a key with its record.
func (d *Doctor) key(ctx context.Context, s dkim.Source) []Finding {
	f := Finding{DKIM, dkim.RecordName(s.Domain, s.Selector), OK, "is published as the key is here: receivers can verify", ""}
	key, err := dkim.ReadKeyFile(s.KeyFile)
	switch {
	case errors.Is(err, fs.ErrPermission) && !d.isRoot:
		f.Verdict, f.Found, f.Advice = NotDone, err.Error(), "run the doctor as root, or as the server's user"
		return []Finding{f}
	case err != nil:
		f.Verdict, f.Found = Failed, "the server does not start with this key: "+err.Error()
		return []Finding{f}
	}
	p, isKnown := ComparePublished(ctx, TXT{d.o.DNS.Resolver}, s, key)
	switch {
	case !isKnown:
		f.Verdict, f.Found, f.Advice = Warning, p.Problem, seeNameServers
	case !p.Published:
		f.Verdict, f.Found, f.Advice = Failed, p.Problem+": no receiver can verify the signatures", p.Advice
	case len(p.Notes) > 0:
		f.Verdict, f.Found = Warning, strings.Join(p.Notes, "; ")
	}
	return []Finding{f}
}

// senderPolicy looks whether a domain's SPF record covers our addresses; unknown
// says why they could not be found.
func (d *Doctor) senderPolicy(ctx context.Context, domain string, sources []netip.Addr, unknown error) Finding {
	f := Finding{SPF, domain, OK, "", ""}
	if unknown != nil {
		f.Verdict, f.Found = NotDone, "the address that the world sees is not known: "+unknown.Error()
		return f
	}
	if len(sources) == 0 {
		f.Verdict, f.Found = NotDone, "the address that the world sees is not known"
		f.Advice = "set public_addresses"
		return f
	}
	var words []string
	for _, ip := range sources {
		v := checkSPF(ctx, d.o.DNS.Resolver, ip, domain)
		words = append(words, fmt.Sprintf("%s: %s", ip, v))
		verdict, advice := judgeSPF(v.result, ip)
		if severity(verdict) > severity(f.Verdict) {
			f.Verdict, f.Advice = verdict, advice
		}
	}
	f.Found = strings.Join(words, "; ")
	return f
}

func severity(v Verdict) int { return slices.Index([]Verdict{OK, NotDone, Warning, Failed}, v) }

func judgeSPF(r spfResult, ip netip.Addr) (Verdict, string) {
	mechanism := "ip4:" + ip.String()
	if ip.Is6() {
		mechanism = "ip6:" + ip.String()
	}
	switch r {
	case spfPass:
		return OK, ""
	case spfFail:
		return Failed, "the record tells receivers to refuse mail from here: put " + mechanism + " into it"
	case spfPermError:
		return Failed, "receivers cannot evaluate the record: mend it"
	case spfNone:
		return Warning, fmt.Sprintf("publish a TXT record %q", "v=spf1 "+mechanism+" ~all")
	case spfTempError:
		return Warning, seeNameServers
	case spfNotJudged:
		return Warning, "put " + mechanism + " before that term, to have it decided"
	}
	return Warning, "put " + mechanism + " into the record" // softfail, neutral
}

// heloPolicy looks at the record of the HELO name. None is well: few have one.
func (d *Doctor) heloPolicy(ctx context.Context, helo string, sources []netip.Addr, done []string) []Finding {
	if helo == "" || strings.HasPrefix(helo, "[") || len(sources) == 0 || slices.Contains(done, helo) {
		return nil
	}
	f := d.senderPolicy(ctx, helo, sources, nil)
	if strings.HasPrefix(f.Found, sources[0].String()+": "+string(spfNone)) {
		return nil
	}
	f.Found += " (the HELO name, which reports of failures are judged by)"
	return []Finding{f}
}

// dmarc looks for the policy of a domain (RFC 7489, section 6.6.3).
func (d *Doctor) dmarc(ctx context.Context, domain string) Finding {
	f := Finding{DMARC, domain, OK, "", ""}
	for name := domain; strings.Contains(name, "."); _, name, _ = strings.Cut(name, ".") {
		texts, err := TXT{d.o.DNS.Resolver}.TXT(ctx, "_dmarc."+name)
		if err != nil {
			f.Verdict, f.Found, f.Advice = Warning, err.Error(), seeNameServers
			return f
		}
		records := slices.DeleteFunc(texts, func(t string) bool { return !isDMARC(t) })
		if len(records) > 0 {
			judgeDMARC(&f, "_dmarc."+name, records)
			return f
		}
	}
	f.Verdict = Warning
	f.Found = "has no DMARC record, and no domain above it has: Gmail and Yahoo ask for one of who sends much"
	f.Advice = fmt.Sprintf("publish a TXT record at _dmarc.%s: %q, with an address of yours", domain, "v=DMARC1; p=none; rua=mailto:postmaster@"+domain)
	return f
}

// isDMARC: the tag v comes first and is written so (RFC 7489, section 6.3).
func isDMARC(text string) bool {
	name, value, ok := strings.Cut(strings.SplitN(text, ";", 2)[0], "=")
	return ok && strings.TrimSpace(name) == "v" && strings.TrimSpace(value) == "DMARC1"
}

func judgeDMARC(f *Finding, name string, records []string) {
	if len(records) > 1 {
		f.Verdict = Warning
		f.Found = fmt.Sprintf("%s has %d DMARC records: receivers take that for none", name, len(records))
		f.Advice = "leave one of them"
		return
	}
	policy, known := "", []string{"none", "quarantine", "reject"}
	for tag := range strings.SplitSeq(records[0], ";") {
		if key, value, ok := strings.Cut(tag, "="); ok && strings.TrimSpace(key) == "p" {
			policy = strings.ToLower(strings.TrimSpace(value))
			break
		}
	}
	if !slices.Contains(known, policy) {
		f.Verdict = Warning
		f.Found = fmt.Sprintf("%s has no policy that receivers know (p=%s)", name, policy)
		f.Advice = "begin it with v=DMARC1; p=none"
		return
	}
	f.Found = fmt.Sprintf("%s: p=%s; mail that we sign for this domain passes", name, policy)
}
