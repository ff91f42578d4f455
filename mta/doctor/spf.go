package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"postrider/resolver"
)

// spfResult is what a receiver's check of SPF comes to (RFC 7208, section 2.6),
// or that it depends on what is not evaluated here.
type spfResult string

const (
	spfNone      spfResult = "none"
	spfNeutral   spfResult = "neutral"
	spfPass      spfResult = "pass"
	spfFail      spfResult = "fail"
	spfSoftFail  spfResult = "softfail"
	spfTempError spfResult = "temperror"
	spfPermError spfResult = "permerror"
	spfNotJudged spfResult = "not judged"
)

// Bounds of RFC 7208, section 4.6.4: terms that look something up, all records
// together; lookups that find nothing; addresses looked up for one "mx".
const (
	spfLookups     = 10
	spfVoidLookups = 2
	spfMXHosts     = 10
)

// spf evaluates the records for one address.
type spf struct {
	dns     *resolver.Resolver
	ip      netip.Addr
	lookups int
	voids   int
}

// spfVerdict is a result, and the term or the trouble that decided.
type spfVerdict struct {
	result spfResult
	why    string
}

func (v spfVerdict) String() string {
	if v.why == "" {
		return string(v.result)
	}
	return fmt.Sprintf("%s (%s)", v.result, v.why)
}

func spfBroken(format string, args ...any) *spfVerdict {
	return &spfVerdict{spfPermError, fmt.Sprintf(format, args...)}
}

// checkSPF says what receivers find for mail from an address with a sender at
// a domain (RFC 7208, section 4).
func checkSPF(ctx context.Context, dns *resolver.Resolver, ip netip.Addr, domain string) spfVerdict {
	s := &spf{dns: dns, ip: ip.Unmap()}
	return s.check(ctx, domain)
}

// check is the function check_host of RFC 7208. It calls itself for include and
// redirect, each of which is a lookup that counts.
func (s *spf) check(ctx context.Context, domain string) spfVerdict {
	record, v := s.record(ctx, domain)
	if v != nil {
		return *v
	}
	terms, redirect, v := parseSPF(record)
	if v != nil {
		v.why += " in the record of " + domain
		return *v
	}
	for _, t := range terms {
		matches, v := s.match(ctx, domain, t)
		if v != nil {
			return *v
		}
		if matches {
			return spfVerdict{t.result, fmt.Sprintf("%q of %s", t.text, domain)}
		}
	}
	// "all" has matched where there is one, so that it goes before redirect
	// (section 6.1).
	if redirect == "" {
		return spfVerdict{spfNeutral, "no term of " + domain + " matches"} // section 4.7
	}
	if v := s.count(); v != nil {
		return *v
	}
	if strings.Contains(redirect, "%") {
		return spfVerdict{spfNotJudged, fmt.Sprintf("a macro in %q of %s", "redirect="+redirect, domain)}
	}
	got := s.check(ctx, redirect)
	if got.result == spfNone {
		return *spfBroken("%s is redirected to %s, which has no record", domain, redirect) // section 6.1
	}
	return got
}

// record finds the record of a domain (section 4.5).
func (s *spf) record(ctx context.Context, domain string) (string, *spfVerdict) {
	texts, err := TXT{s.dns}.TXT(ctx, domain)
	if err != nil {
		return "", &spfVerdict{spfTempError, err.Error()}
	}
	var found []string
	for _, t := range texts {
		if len(t) >= 6 && strings.EqualFold(t[:6], "v=spf1") && (len(t) == 6 || t[6] == ' ') {
			found = append(found, t[6:])
		}
	}
	switch len(found) {
	case 0:
		return "", &spfVerdict{spfNone, domain + " has no record"}
	case 1:
		return found[0], nil
	}
	return "", spfBroken("%s has %d records, one is allowed", domain, len(found))
}

// spfTerm is one mechanism.
type spfTerm struct {
	text     string // as written
	result   spfResult
	name     string // in lower case
	domain   string // empty: the one at hand
	network  netip.Prefix
	cut4     int // prefix lengths for a and mx
	cut6     int
	hasMacro bool
}

var spfQualifiers = map[byte]spfResult{'+': spfPass, '-': spfFail, '~': spfSoftFail, '?': spfNeutral}

// parseSPF reads the terms; one that is wrong spoils all (section 4.6).
func parseSPF(record string) (terms []spfTerm, redirect string, v *spfVerdict) {
	redirects, exps := 0, 0
	for word := range strings.FieldsSeq(record) {
		if name, value, ok := spfModifier(word); ok {
			switch name {
			case "redirect":
				redirects, redirect = redirects+1, strings.TrimSuffix(value, ".")
			case "exp":
				exps++
			}
			if redirects > 1 || exps > 1 || name == "redirect" && value == "" {
				return nil, "", spfBroken("%q", word)
			}
			continue
		}
		t, ok := parseSPFTerm(word)
		if !ok {
			return nil, "", spfBroken("%q", word)
		}
		terms = append(terms, t)
	}
	return terms, redirect, nil
}

// spfModifier splits name=value. A mechanism has no "=" before its ":" or "/".
func spfModifier(word string) (name, value string, ok bool) {
	i := strings.IndexAny(word, "=:/")
	if i < 1 || word[i] != '=' {
		return "", "", false
	}
	return strings.ToLower(word[:i]), word[i+1:], true
}

func parseSPFTerm(word string) (t spfTerm, ok bool) {
	t = spfTerm{text: word, result: spfPass, cut4: 32, cut6: 128}
	if q, is := spfQualifiers[word[0]]; is {
		t.result, word = q, word[1:]
	}
	end := strings.IndexAny(word, ":/")
	if end < 0 {
		end = len(word)
	}
	t.name = strings.ToLower(word[:end])
	argument, hasArgument := strings.CutPrefix(word[end:], ":")
	switch t.name {
	case "all":
		return t, word[end:] == ""
	case "ip4", "ip6":
		return t, hasArgument && t.parseNetwork(argument)
	case "a", "mx":
		return t, t.parseCuts(&argument) && (argument != "") == hasArgument && t.setDomain(argument)
	case "include", "exists":
		return t, argument != "" && hasArgument && t.setDomain(argument)
	case "ptr":
		return t, (argument != "") == hasArgument && t.setDomain(argument)
	}
	return t, false
}

func (t *spfTerm) setDomain(domain string) bool {
	t.domain, t.hasMacro = strings.TrimSuffix(domain, "."), strings.Contains(domain, "%")
	return !strings.ContainsAny(domain, "/:") || t.hasMacro
}

func (t *spfTerm) parseNetwork(s string) bool {
	if !strings.Contains(s, "/") {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return false
		}
		t.network = netip.PrefixFrom(addr, addr.BitLen())
	} else {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return false
		}
		t.network = p.Masked()
	}
	return t.network.Addr().Is4() == (t.name == "ip4")
}

// parseCuts takes "/24//64" off the end of what follows a or mx (section 5.3).
func (t *spfTerm) parseCuts(argument *string) bool {
	domain, cuts, hasCuts := strings.Cut(*argument, "/")
	*argument = domain
	if !hasCuts {
		return true
	}
	v4, v6, both := strings.Cut(cuts, "//")
	if rest, only6 := strings.CutPrefix(cuts, "/"); only6 {
		v4, v6, both = "", rest, true
	}
	return (v4 == "" && both || spfCut(v4, 32, &t.cut4)) && (!both || spfCut(v6, 128, &t.cut6))
}

func spfCut(digits string, most int, to *int) bool {
	n, err := strconv.ParseUint(digits, 10, 8)
	if err != nil || int(n) > most || len(digits) > 1 && digits[0] == '0' {
		return false
	}
	*to = int(n)
	return true
}

// count takes one of the lookups that a check may cost.
func (s *spf) count() *spfVerdict {
	if s.lookups++; s.lookups > spfLookups {
		return spfBroken("more than %d terms that look something up", spfLookups)
	}
	return nil
}

// match reports whether a mechanism covers the address; a verdict ends the
// whole check.
func (s *spf) match(ctx context.Context, domain string, t spfTerm) (bool, *spfVerdict) {
	switch t.name {
	case "all":
		return true, nil
	case "ip4", "ip6":
		return t.network.Contains(s.ip), nil
	}
	if v := s.count(); v != nil {
		return false, v
	}
	if t.hasMacro || t.name == "exists" || t.name == "ptr" {
		return false, &spfVerdict{spfNotJudged, fmt.Sprintf("%q of %s is not evaluated here", t.text, domain)}
	}
	if t.domain != "" {
		domain = t.domain
	}
	switch t.name {
	case "a":
		return s.hasAddress(ctx, domain, &t)
	case "mx":
		return s.hasMailHost(ctx, domain, &t)
	}
	return s.include(ctx, domain)
}

// include is section 5.2.
func (s *spf) include(ctx context.Context, domain string) (bool, *spfVerdict) {
	v := s.check(ctx, domain)
	switch v.result {
	case spfPass:
		return true, nil
	case spfFail, spfSoftFail, spfNeutral:
		return false, nil
	case spfNone:
		return false, spfBroken("%s is included and has no record", domain)
	}
	return false, &v
}

// hasAddress reports whether a name has the address, or one of its network.
func (s *spf) hasAddress(ctx context.Context, name string, t *spfTerm) (bool, *spfVerdict) {
	lookup, cut := s.dns.A, t.cut4
	if s.ip.Is6() {
		lookup, cut = s.dns.AAAA, t.cut6
	}
	found, err := lookup(ctx, name)
	if v := s.failed(err); v != nil || err != nil {
		return false, v
	}
	for _, a := range found.Records {
		if netip.PrefixFrom(a, cut).Contains(s.ip) {
			return true, nil
		}
	}
	return false, nil
}

// hasMailHost is section 5.4.
func (s *spf) hasMailHost(ctx context.Context, domain string, t *spfTerm) (bool, *spfVerdict) {
	found, err := s.dns.MX(ctx, domain)
	if v := s.failed(err); v != nil || err != nil {
		return false, v
	}
	if len(found.Records) > spfMXHosts {
		return false, spfBroken("%s has more than %d mail hosts", domain, spfMXHosts)
	}
	for _, mx := range found.Records {
		if mx.Host == "" {
			continue // a null MX (RFC 7505)
		}
		if matches, v := s.hasAddress(ctx, mx.Host, t); matches || v != nil {
			return matches, v
		}
	}
	return false, nil
}

// failed judges a failed lookup: what is not there is counted and no more.
func (s *spf) failed(err error) *spfVerdict {
	switch {
	case err == nil:
		return nil
	case !isAbsent(err):
		return &spfVerdict{spfTempError, err.Error()}
	}
	if s.voids++; s.voids > spfVoidLookups {
		return spfBroken("more than %d lookups that find nothing", spfVoidLookups)
	}
	return nil
}
