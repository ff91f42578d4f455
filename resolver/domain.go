package resolver

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const (
	maxName  = 253 // octets without the final dot (RFC 1035, section 2.3.4)
	maxLabel = 63
	// maxUnicodeName bounds what is handed to the IDNA tables: no name of 253
	// octets in A-labels is longer than this in UTF-8.
	maxUnicodeName = 1024
)

// lookupProfile is idna.Lookup with lengths checked and without the check for
// letters, digits and hyphens, which refuses the underscore of _mta-sts and of
// host names that exist; checkLabel has the last word on the characters.
var lookupProfile = idna.New(
	idna.MapForLookup(),
	idna.BidiRule(),
	idna.VerifyDNSLength(true),
	idna.StrictDomainName(false),
	idna.CheckHyphens(false),
)

// ASCIIDomain gives a domain in A-labels, lower case, without final dot: the
// form in which it is compared, looked up and sent (RFC 5890, section 2.3.2.1).
// It takes U-labels and A-labels; a name that DNS could not hold, characters
// other than letters, digits, hyphen and underscore, and bare IP addresses are
// errors that say what is wrong.
func ASCIIDomain(domain string) (string, error) {
	name, err := asciiDomain(domain)
	if err != nil {
		return "", &Error{Kind: Malformed, Name: domain, Status: statusNoDomain, Err: err}
	}
	return name, nil
}

func asciiDomain(domain string) (string, error) {
	if len(domain) > maxUnicodeName {
		return "", fmt.Errorf("the name has %d octets, at most %d are possible", len(domain), maxName)
	}
	// The IDNA tables would take what is not UTF-8 for U+FFFD, and that for a letter.
	if !utf8.ValidString(domain) || strings.ContainsRune(domain, utf8.RuneError) {
		return "", errors.New("the name is not valid UTF-8")
	}
	name := domain
	if !isASCII(name) || hasACELabel(name) {
		mapped, err := lookupProfile.ToASCII(strings.TrimSuffix(name, "."))
		if err != nil {
			return "", fmt.Errorf("not a valid internationalised name: %w", err)
		}
		name = mapped
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if err := checkHostName(name); err != nil {
		return "", err
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "", errors.New("an IP address takes brackets, as in [192.0.2.1]")
	}
	return name, nil
}

// checkHostName holds a name without final dot against the lengths of RFC
// 1035 and the characters of RFC 952 and 1123, with the underscore besides.
func checkHostName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > maxName:
		return fmt.Errorf("the name has %d octets, at most %d are possible", len(name), maxName)
	}
	for rest := name; ; {
		label, tail, more := strings.Cut(rest, ".")
		if err := checkLabel(label); err != nil {
			return err
		}
		if !more {
			return nil
		}
		rest = tail
	}
}

func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("a label is empty: two dots in a row, or one at the start")
	case len(label) > maxLabel:
		return fmt.Errorf("a label has %d octets, at most %d are possible", len(label), maxLabel)
	case label[0] == '-' || label[len(label)-1] == '-':
		return fmt.Errorf("label %q starts or ends with a hyphen", label)
	}
	for i := range len(label) {
		switch c := label[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return fmt.Errorf("label %q has a character that host names cannot have", label)
		}
	}
	return nil
}

// parseLiteral reads an address literal (RFC 5321, section 4.1.3).
func parseLiteral(literal string) (netip.Addr, error) {
	inside, ok := strings.CutSuffix(strings.TrimPrefix(literal, "["), "]")
	if !ok || len(literal) > 64 {
		return netip.Addr{}, errors.New("an address literal ends with a bracket")
	}
	const tag = "ipv6:"
	v6 := len(inside) >= len(tag) && strings.EqualFold(inside[:len(tag)], tag)
	if v6 {
		inside = inside[len(tag):]
	}
	addr, err := netip.ParseAddr(inside)
	switch {
	case err != nil:
		return netip.Addr{}, errors.New("an address literal is [192.0.2.1] or [IPv6:2001:db8::1]")
	case addr.Zone() != "":
		return netip.Addr{}, errors.New("an address literal has no zone")
	case v6 != addr.Is6():
		return netip.Addr{}, errors.New("IPv6 addresses, and only they, are written [IPv6:...]")
	}
	return addr.Unmap(), nil
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

func hasACELabel(name string) bool {
	for rest := name; rest != ""; {
		label, tail, _ := strings.Cut(rest, ".")
		if len(label) >= 4 && strings.EqualFold(label[:4], "xn--") {
			return true
		}
		rest = tail
	}
	return false
}

func quoted(s string) string { return strconv.QuoteToASCII(s) }
