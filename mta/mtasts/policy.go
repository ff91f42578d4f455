// Package mtasts finds and keeps the MTA-STS policies of mail domains (RFC
// 8461).
//
// By a policy a domain says: my mail hosts are these, they speak TLS with a
// certificate that a public authority vouches for, and whoever finds otherwise
// has met an impostor. It is told in two places:
//
//   - A TXT record at _mta-sts.<domain>, "v=STSv1; id=20260101T000000;", says
//     that there is a policy and, by a new id, that it has changed.
//   - https://mta-sts.<domain>/.well-known/mta-sts.txt is the policy itself. The
//     certificate of that server is what makes it trustworthy.
//
// A sender remembers the policy for as long as it says (max_age), and applies
// it also when neither DNS nor the web server answers: else whoever can disturb
// them could undo it. What has never been seen cannot be protected, so the
// memory has to outlive the process: [Policies] keeps it in a [Store], renews
// it daily, and drops it only when it ends or is replaced.
//
// The parts: [ParseRecord] and [ParsePolicy] read the two texts, [Policy.Match]
// holds an MX host against the policy, [Fetcher] gets it over HTTPS, [Policies]
// puts them together. What a policy means for a connection is not decided here:
// mode enforce demands TLS with a certificate valid for the MX host, mode
// testing only wants to be told of failures (RFC 8460).
package mtasts

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	maxRecord   = 1024      // octets of a TXT record that is looked at
	maxPolicy   = 64 << 10  // octets of a policy (RFC 8461, section 3.3, suggests it)
	maxMX       = 500       // patterns in one policy
	maxMaxAge   = 31557600  // seconds: a year (section 3.2)
	maxIDLength = 32        // section 3.1
	versionTag  = "v=STSv1" // of the record
	version     = "STSv1"   // of the policy
)

// Mode is what is to happen to mail for a host that does not comply.
type Mode string

const (
	None    Mode = "none"    // no policy is in force
	Testing Mode = "testing" // deliver, and report
	Enforce Mode = "enforce" // do not deliver
)

// Policy is what a domain asks of its senders. It may be shared and is not to
// be changed.
type Policy struct {
	ID     string // of the record that announced it
	Mode   Mode
	MX     []string      // patterns, lower case: "mx.example.test", "*.example.test"
	MaxAge time.Duration // at most a year
}

// ParseRecord finds the id in the TXT records of _mta-sts.<domain>. Without a
// record of MTA-STS the id is empty. More than one, or one that is malformed,
// is an error, and means that there is no policy to fetch (section 3.1).
func ParseRecord(txts []string) (id string, err error) {
	var record string
	for _, t := range txts {
		if rest, ok := strings.CutPrefix(t, versionTag); !ok || strings.TrimLeft(rest, " \t") == "" || strings.TrimLeft(rest, " \t")[0] != ';' {
			continue // something else that lives at the same name
		}
		if record != "" {
			return "", errors.New("there is more than one MTA-STS record")
		}
		record = t
	}
	if record == "" {
		return "", nil
	}
	if len(record) > maxRecord {
		return "", fmt.Errorf("the MTA-STS record has %d octets, at most %d are read", len(record), maxRecord)
	}
	return parseFields(record)
}

func parseFields(record string) (id string, err error) {
	fields := strings.Split(record, ";")
	for i, field := range fields[1:] {
		field = strings.Trim(field, " \t")
		if field == "" && i == len(fields)-2 {
			break // the record may end in a semicolon
		}
		name, value, ok := strings.Cut(field, "=")
		if !ok || !isFieldName(name) || !isFieldValue(value) {
			return "", fmt.Errorf("the MTA-STS record has the malformed field %q", field)
		}
		if name != "id" || id != "" {
			continue
		}
		if len(value) > maxIDLength || strings.Trim(value, alphanumeric) != "" {
			return "", fmt.Errorf("the id %q of the MTA-STS record is not 1 to %d letters and digits", value, maxIDLength)
		}
		id = value
	}
	if id == "" {
		return "", errors.New("the MTA-STS record has no id")
	}
	return id, nil
}

const alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

func isFieldName(s string) bool {
	return s != "" && len(s) <= 32 && strings.Contains(alphanumeric, s[:1]) && strings.Trim(s, alphanumeric+"_-.") == ""
}

// isFieldValue takes visible ASCII but for "=" and ";".
func isFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '=' || c == ';' {
			return false
		}
	}
	return s != ""
}

// ParsePolicy reads a policy as it is served (section 3.2). The ID is not in
// it and stays empty. Unknown keys are passed over; of keys that come twice,
// mx excepted, the first counts.
func ParsePolicy(body []byte) (Policy, error) {
	if len(body) > maxPolicy {
		return Policy{}, fmt.Errorf("the policy has more than %d octets", maxPolicy)
	}
	var p Policy
	seen := make(map[string]bool)
	for i, line := range bytes.Split(body, []byte("\n")) {
		text := strings.Trim(strings.TrimSuffix(string(line), "\r"), " \t")
		if text == "" {
			continue
		}
		key, value, ok := strings.Cut(text, ":")
		if !ok {
			return Policy{}, fmt.Errorf("line %d of the policy is not \"key: value\"", i+1)
		}
		if key != "mx" && seen[key] {
			continue
		}
		seen[key] = true
		if err := p.set(key, strings.Trim(value, " \t")); err != nil {
			return Policy{}, fmt.Errorf("line %d of the policy: %w", i+1, err)
		}
	}
	for _, key := range []string{"version", "mode", "max_age"} {
		if !seen[key] {
			return Policy{}, fmt.Errorf("the policy has no %s", key)
		}
	}
	if len(p.MX) == 0 && p.Mode != None {
		return Policy{}, errors.New("the policy has no mx")
	}
	return p, nil
}

func (p *Policy) set(key, value string) error {
	switch key {
	case "version":
		if value != version {
			return fmt.Errorf("version %q is not %s", value, version)
		}
	case "mode":
		p.Mode = Mode(value)
		if p.Mode != None && p.Mode != Testing && p.Mode != Enforce {
			return fmt.Errorf("mode %q is not none, testing or enforce", value)
		}
	case "max_age":
		seconds, err := strconv.ParseUint(value, 10, 64)
		if err != nil || len(value) > 10 {
			return fmt.Errorf("max_age %q is not a number of up to 10 digits", value)
		}
		p.MaxAge = time.Duration(min(seconds, maxMaxAge)) * time.Second
	case "mx":
		pattern := strings.ToLower(value)
		if !isPattern(pattern) {
			return fmt.Errorf("mx %q is neither a host name nor \"*.\" and a domain", value)
		}
		if len(p.MX) == maxMX {
			return fmt.Errorf("there are more than %d mx", maxMX)
		}
		p.MX = append(p.MX, pattern)
	}
	return nil
}

func isPattern(s string) bool {
	name := strings.TrimPrefix(s, "*.")
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, alphanumeric+"-_") != "" {
			return false
		}
	}
	return true
}

// Match reports whether a host, in A-labels, is one of the policy's. A wildcard
// stands for exactly one label (section 4.1).
func (p Policy) Match(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, pattern := range p.MX {
		if suffix, wild := strings.CutPrefix(pattern, "*"); wild {
			label, ok := strings.CutSuffix(host, suffix)
			if ok && label != "" && !strings.Contains(label, ".") {
				return true
			}
		} else if host == pattern {
			return true
		}
	}
	return false
}
