package dkim

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// names turns U-labels into A-labels (RFC 6376, section 3.5, wants them in d=).
// What cannot be turned fits no key.
var names = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false))

// normalize gives a domain in A-labels and lower case, without a final dot.
func normalize(domain string) (string, error) {
	domain = strings.TrimSuffix(domain, ".")
	for i := range len(domain) {
		if domain[i] >= utf8.RuneSelf {
			return names.ToASCII(domain)
		}
	}
	return strings.ToLower(domain), nil
}

// authorDomains gives the domain of each address in the value of a From field,
// as written. It looks only for what separates addresses, so that odd display
// names and charsets do not keep a message from being signed.
func authorDomains(value string) []string {
	var domains []string
	var s addressScan
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case s.quoted:
			if c == '\\' {
				i++
			} else if c == '"' {
				s.quoted = false
			}
		case s.comments > 0:
			switch c {
			case '\\':
				i++
			case '(':
				s.comments++
			case ')':
				s.comments--
			}
		case c == '"':
			s.quoted = true
		case c == '(':
			s.comments++
		case c == '<':
			s.inAngle, s.domain, s.at = true, s.domain[:0], false
		case c == '>':
			s.inAngle, s.closed = false, true
		case s.closed && c != ',' && c != ';': // after the angle there is nothing to read
		case c == '@':
			s.at, s.domain = true, s.domain[:0]
		case (c == ',' || c == ';') && !s.inAngle:
			domains = s.end(domains)
		case c == ':' && !s.inAngle && !s.at: // the name of a group
			s.domain = s.domain[:0]
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
		case s.at:
			s.domain = append(s.domain, c)
		}
	}
	return s.end(domains)
}

// addressScan is the place in a list of addresses.
type addressScan struct {
	quoted, inAngle, closed, at bool
	comments                    int // how many are open
	domain                      []byte
}

// end closes an address.
func (s *addressScan) end(domains []string) []string {
	if s.at && len(s.domain) > 0 {
		domains = append(domains, string(s.domain))
	}
	*s = addressScan{domain: s.domain[:0]}
	return domains
}
