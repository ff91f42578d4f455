// Package mailaddr reads and checks mailbox addresses: those of an SMTP
// envelope (RFC 5321, section 4.1.2; RFC 6531, section 3.3) and those of
// header fields (RFC 5322, section 3.4).
//
// An Address is always safe to be written into a command line or a header
// field: it holds no control characters, no blanks outside quotes and no angle
// brackets outside quotes. What cannot be brought into that form is an *Error.
//
// It asks no DNS and knows no policy: whether a domain exists, may be written
// to or is our own is decided elsewhere. Source routes (RFC 5321, appendix C)
// are left to whoever reads the command.
package mailaddr

import (
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// The bounds of an address in octets. RFC 5321, section 4.5.3.1, asks to take
// at least 64, 255 and 254 and to impose no limit where that is possible.
// Local parts longer than 64 are in daily use (variable envelope return
// paths, reply-by-mail tokens), so the remote host is left to judge them; the
// sum keeps a RCPT command with its parameters within one line.
const (
	MaxLocal  = 255
	MaxDomain = 255
	MaxLength = 320
)

// Address is a mailbox in wire form.
type Address struct {
	Local  string // quoted only where it has to be
	Domain string // as written, without a final dot; or a literal with its brackets; empty only from ParseUnqualified
}

// Error says why a text is no address.
type Error struct {
	Address string // what was read, cut to a length that fits a log line
	Reason  string
}

func (e *Error) Error() string { return fmt.Sprintf("address %q: %s", e.Address, e.Reason) }

func refuse(s, reason string) error {
	const most = 100 // enough to recognise it
	if len(s) > most {
		s = s[:most] + "..."
	}
	return &Error{Address: s, Reason: reason}
}

// Parse reads a mailbox without angle brackets: local part (dot-string or
// quoted-string; UTF-8 allowed) and domain or literal. It refuses control
// characters, bad dots, over-long parts and anything that could not be
// written back safely. Quotes that are not needed are removed (RFC 5321,
// section 4.1.2), as is a final dot of the domain.
func Parse(s string) (Address, error) {
	a, err := ParseUnqualified(s)
	if err == nil && a.Domain == "" {
		return Address{}, refuse(s, "no domain: write it as name@domain")
	}
	return a, err
}

// ParseUnqualified is like Parse, but the domain may be missing, as in mail to
// "root" or, by RFC 5321, section 4.5.1, to "postmaster".
func ParseUnqualified(s string) (Address, error) {
	if len(s) > MaxLength {
		return Address{}, refuse(s, fmt.Sprintf("longer than %d octets", MaxLength))
	}
	var local, rest string
	var reason string
	if strings.HasPrefix(s, `"`) {
		local, rest, reason = cutQuoted(s)
	} else {
		local, rest, reason = cutDotString(s)
	}
	if reason == "" && len(local) > MaxLocal {
		reason = fmt.Sprintf("the local part is longer than %d octets", MaxLocal)
	}
	if reason == "" && rest == "" {
		return Address{Local: local}, nil
	}
	if reason == "" && rest[0] != '@' {
		reason = unexpected(rest) + " in the local part"
	}
	if reason != "" {
		return Address{}, refuse(s, reason)
	}
	domain := rest[1:]
	if len(domain) > 1 {
		domain = strings.TrimSuffix(domain, ".")
	}
	if reason := checkDomain(domain); reason != "" {
		return Address{}, refuse(s, reason)
	}
	return Address{Local: local, Domain: domain}, nil
}

// String is the wire form: Local@Domain, or Local alone.
func (a Address) String() string {
	if a.Domain == "" {
		return a.Local
	}
	return a.Local + "@" + a.Domain
}

// ASCIIDomain is the domain in A-labels, lower case: the key of a lane. A
// literal comes back in its canonical form. It is empty where the address was
// not made by this package and its domain is none.
func (a Address) ASCIIDomain() string {
	d := a.Domain
	if strings.HasPrefix(d, "[") {
		ip, ok := literal(d)
		switch {
		case !ok:
			return ""
		case ip.Is4():
			return "[" + ip.String() + "]"
		default:
			return "[IPv6:" + ip.String() + "]"
		}
	}
	if isASCII(d) {
		return strings.ToLower(d)
	}
	ascii, reason := toASCII(d)
	if reason != "" {
		return ""
	}
	return ascii
}

// NeedsUTF8 reports whether the local part, or the domain as written, is not ASCII.
func (a Address) NeedsUTF8() bool { return !isASCII(a.Local) || !isASCII(a.Domain) }

// Same reports whether two addresses are one mailbox for all that a sender can
// know: local parts must be equal, domains may differ in case and in A- or
// U-labels (RFC 5321, section 2.4).
func (a Address) Same(b Address) bool {
	return a.Local == b.Local && (a.Domain == b.Domain || a.ASCIIDomain() == b.ASCIIDomain())
}

// atext marks what RFC 5322, section 3.2.3, allows in an unquoted local part,
// and ldh the letters, digits and hyphen of host names; the underscore, which
// is no host name's but is in use, is taken as well.
const (
	atext = 1 << iota
	ldh
)

var classes = func() (t [256]uint8) {
	for c := '0'; c <= '9'; c++ {
		t[c] = atext | ldh
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c] = atext | ldh
		t[c-'a'+'A'] = atext | ldh
	}
	for _, c := range "!#$%&'*+/=?^`{|}~" {
		t[c] = atext
	}
	t['-'] = atext | ldh
	t['_'] = atext | ldh
	return t
}()

// cutDotString reads a dot-string and answers what follows it.
func cutDotString(s string) (local, rest, reason string) {
	i, start := 0, 0 // start of the present atom
	for i < len(s) {
		c := s[i]
		switch {
		case classes[c]&atext != 0:
			i++
		case c == '.':
			if i == start {
				return "", "", dotReason(i)
			}
			i++
			start = i
		case c >= utf8.RuneSelf:
			n, reason := visibleRune(s[i:])
			if reason != "" {
				return "", "", reason + " in the local part"
			}
			i += n
		default:
			goto end
		}
	}
end:
	if i == 0 {
		if s == "" {
			return "", "", "it is empty"
		}
		if s[0] == '@' {
			return "", "", "nothing before the @"
		}
		return "", "", unexpected(s) + " at its start"
	}
	if i == start {
		return "", "", "a dot ends the local part; such a name has to be quoted"
	}
	return s[:i], s[i:], ""
}

func dotReason(i int) string {
	if i == 0 {
		return "a dot begins the local part; such a name has to be quoted"
	}
	return "two dots in a row in the local part; such a name has to be quoted"
}

// cutQuoted reads a quoted-string and answers it with no more quoting than it
// needs, and what follows it.
func cutQuoted(s string) (local, rest, reason string) {
	plain := make([]byte, 0, len(s))
	for i := 1; i < len(s); {
		c := s[i]
		switch {
		case c == '"':
			return quote(string(plain)), s[i+1:], ""
		case c == '\\':
			if i+1 >= len(s) || s[i+1] < ' ' || s[i+1] > '~' {
				return "", "", "a backslash that quotes nothing in the local part"
			}
			plain = append(plain, s[i+1])
			i += 2
		case c < ' ' || c == 0x7f:
			return "", "", "a control character in the local part"
		case c >= utf8.RuneSelf:
			n, reason := visibleRune(s[i:])
			if reason != "" {
				return "", "", reason + " in the local part"
			}
			plain = append(plain, s[i:i+n]...)
			i += n
		default:
			plain = append(plain, c)
			i++
		}
	}
	return "", "", "the closing quote is missing"
}

// quote brings a local part into wire form.
func quote(plain string) string {
	if local, rest, reason := cutDotString(plain); reason == "" && rest == "" {
		return local
	}
	var b strings.Builder
	b.Grow(len(plain) + 2)
	b.WriteByte('"')
	for i := range len(plain) {
		if plain[i] == '"' || plain[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(plain[i])
	}
	b.WriteByte('"')
	return b.String()
}

// visibleRune measures one character beyond ASCII. RFC 6531 allows them all;
// controls, separators of lines and blanks are refused because nobody writes
// them on purpose, and because some programs take them for what they look like.
func visibleRune(s string) (n int, reason string) {
	r, n := utf8.DecodeRuneInString(s)
	switch {
	case r == utf8.RuneError && n == 1:
		return 0, "an octet that is not UTF-8"
	case unicode.IsControl(r) || unicode.IsSpace(r):
		return 0, fmt.Sprintf("the character %U", r)
	}
	return n, ""
}

// unexpected names the character at the start of s.
func unexpected(s string) string {
	switch c := s[0]; {
	case c == ' ' || c == '\t':
		return "a blank"
	case c < ' ' || c == 0x7f:
		return "a control character"
	case c >= utf8.RuneSelf:
		return "a character beyond ASCII"
	default:
		return fmt.Sprintf("an unquoted %q", string(c))
	}
}

// checkDomain answers why d is no domain and no literal, or nothing.
func checkDomain(d string) (reason string) {
	switch {
	case d == "":
		return "nothing after the @"
	case len(d) > MaxDomain:
		return fmt.Sprintf("the domain is longer than %d octets", MaxDomain)
	case d[0] == '[':
		if _, ok := literal(d); !ok {
			return "the address literal is neither [192.0.2.1] nor [IPv6:2001:db8::1] in form"
		}
		return ""
	case isASCII(d):
		return checkHostName(d)
	}
	for i := 0; i < len(d); {
		if d[i] < utf8.RuneSelf {
			i++
			continue
		}
		n, reason := visibleRune(d[i:])
		if reason != "" {
			return reason + " in the domain"
		}
		i += n
	}
	_, reason = toASCII(d)
	return reason
}

// checkHostName checks the labels of an ASCII domain (RFC 1035, section 2.3.4).
func checkHostName(d string) (reason string) {
	const maxLabel, maxName = 63, 253
	if len(d) > maxName {
		return fmt.Sprintf("the domain is longer than %d octets", maxName)
	}
	start, digits := 0, true // digits: the label has nothing else
	for i := 0; i <= len(d); i++ {
		if i < len(d) && d[i] != '.' {
			c := d[i]
			if classes[c]&ldh == 0 {
				return unexpected(d[i:]) + " in the domain"
			}
			digits = digits && c >= '0' && c <= '9'
			continue
		}
		switch n := i - start; {
		case n == 0:
			return "an empty label in the domain"
		case n > maxLabel:
			return fmt.Sprintf("a label of the domain is longer than %d octets", maxLabel)
		case d[start] == '-' || d[i-1] == '-':
			return "a hyphen at the edge of a label of the domain"
		case i == len(d) && digits:
			return "the domain ends in a number; an IP address is written in brackets, as in name@[192.0.2.1]"
		}
		start, digits = i+1, true
	}
	return ""
}

// literal reads an address literal (RFC 5321, section 4.1.3).
func literal(d string) (ip netip.Addr, ok bool) {
	const tag = "IPv6:"
	if len(d) < 2 || d[len(d)-1] != ']' {
		return ip, false
	}
	inner := d[1 : len(d)-1]
	if len(inner) > len(tag) && strings.EqualFold(inner[:len(tag)], tag) {
		ip, err := netip.ParseAddr(inner[len(tag):])
		return ip, err == nil && ip.Is6() && ip.Zone() == ""
	}
	ip, err := netip.ParseAddr(inner)
	return ip, err == nil && ip.Is4()
}

// profile maps as browsers do (UTS 46, non-transitional). It is not strict
// about ASCII, since that refuses the underscore; checkHostName is.
var profile = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false),
	idna.VerifyDNSLength(true), idna.StrictDomainName(false))

func toASCII(d string) (ascii, reason string) {
	ascii, err := profile.ToASCII(d)
	if err != nil {
		return "", "the domain has no form in ASCII: " + strings.TrimPrefix(err.Error(), "idna: ")
	}
	return ascii, checkHostName(ascii)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
