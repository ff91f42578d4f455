package tlsrpt

import (
	"errors"
	"fmt"
	"net/mail"
	"net/url"
	"strings"
)

const (
	maxRecord       = 4096 // octets of a TXT record that is looked at
	maxDestinations = 5    // that reports are sent to
	versionTag      = "v=TLSRPTv1"
)

// Destination is where reports are wanted: one of the two is set.
type Destination struct {
	Mail string // an address
	URL  string // of https
}

// String is the destination as the record has it.
func (d Destination) String() string {
	if d.Mail != "" {
		return "mailto:" + d.Mail
	}
	return d.URL
}

// ParseRecord finds the destinations in the TXT records of _smtp._tls.<domain>
// (section 3). Without a record of TLS reporting there are none. More than
// one, or one that is malformed, is an error, and means that no reports are
// wanted. Destinations of unknown kinds are passed over; at most five are given.
func ParseRecord(txts []string) ([]Destination, error) {
	var record string
	for _, t := range txts {
		rest, ok := strings.CutPrefix(t, versionTag)
		if rest = strings.TrimLeft(rest, " \t"); !ok || rest == "" || rest[0] != ';' {
			continue // something else that lives at the same name
		}
		if record != "" {
			return nil, errors.New("there is more than one TLS reporting record")
		}
		record = t
	}
	if record == "" {
		return nil, nil
	}
	if len(record) > maxRecord {
		return nil, fmt.Errorf("the TLS reporting record has %d octets, at most %d are read", len(record), maxRecord)
	}
	rua, err := findRUA(record)
	if err != nil {
		return nil, err
	}
	return parseRUA(rua)
}

func findRUA(record string) (string, error) {
	fields := strings.Split(record, ";")
	rua := ""
	for i, field := range fields[1:] {
		field = strings.Trim(field, " \t")
		if field == "" && i == len(fields)-2 {
			break // the record may end in a semicolon
		}
		name, value, ok := strings.Cut(field, "=")
		if !ok || name == "" || value == "" {
			return "", fmt.Errorf("the TLS reporting record has the malformed field %q", field)
		}
		if name == "rua" && rua == "" {
			rua = value
		}
	}
	if rua == "" {
		return "", errors.New("the TLS reporting record has no rua")
	}
	return rua, nil
}

// parseRUA reads a list of URIs; a comma or semicolon within one is encoded.
func parseRUA(rua string) ([]Destination, error) {
	var all []Destination
	for text := range strings.SplitSeq(rua, ",") {
		text = strings.Trim(text, " \t")
		u, err := url.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("%q in rua is not a URI", text)
		}
		d, known, err := destination(u)
		if err != nil {
			return nil, fmt.Errorf("%q in rua: %w", text, err)
		}
		if known && len(all) < maxDestinations {
			all = append(all, d)
		}
	}
	return all, nil
}

func destination(u *url.URL) (d Destination, known bool, err error) {
	switch strings.ToLower(u.Scheme) {
	case "mailto":
		address, err := url.PathUnescape(u.Opaque)
		if err != nil {
			return Destination{}, false, err
		}
		parsed, err := mail.ParseAddress(address)
		if err != nil || parsed.Address != address || !isPlain(address) {
			return Destination{}, false, errors.New("not an address that a report can be sent to")
		}
		return Destination{Mail: address}, true, nil
	case "https":
		if u.Hostname() == "" || u.User != nil {
			return Destination{}, false, errors.New("a host is needed, and no user name")
		}
		u.Fragment = ""
		return Destination{URL: u.String()}, true, nil
	case "":
		return Destination{}, false, errors.New("the scheme is missing")
	}
	return Destination{}, false, nil
}

// isPlain keeps anything from an address that could end a header field or an
// SMTP command.
func isPlain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`<>()",:;\[]`, c) >= 0 {
			return false
		}
	}
	return s != "" && len(s) <= 254
}
