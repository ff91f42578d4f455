package dkim

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Record is what is published for a key (RFC 6376, section 3.6.1).
type Record struct {
	Algorithm Algorithm
	PublicKey []byte   // empty: the key is revoked
	Hashes    []string // h=; empty: all
	Services  []string // s=; empty: all
	Flags     []string // t=
}

// Record gives the record to publish for a key.
func (k *PrivateKey) Record() (Record, error) {
	switch public := k.Signer.Public().(type) {
	case *rsa.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(public)
		return Record{Algorithm: RSA, PublicKey: der}, err
	case ed25519.PublicKey:
		return Record{Algorithm: Ed25519, PublicKey: public}, nil // RFC 8463, section 4: the bare key
	default:
		return Record{}, fmt.Errorf("no record for a key of the type %T", public)
	}
}

// RecordName is where the record of a key is published.
func RecordName(domain, selector string) string { return selector + "._domainkey." + domain }

// Text gives the record as one text.
func (r Record) Text() string {
	return "v=DKIM1; k=" + string(r.Algorithm) + "; p=" + base64.StdEncoding.EncodeToString(r.PublicKey)
}

// maxString is the longest string of a TXT record (RFC 1035, section 3.3).
const maxString = 255

// Strings gives the record split into the strings of a TXT record.
func (r Record) Strings() []string {
	var parts []string
	for part := range slices.Chunk([]byte(r.Text()), maxString) {
		parts = append(parts, string(part))
	}
	return parts
}

// ZoneLine gives the record as a zone file has it.
func (r Record) ZoneLine(name string) string {
	parts := r.Strings()
	for i, p := range parts {
		parts[i] = `"` + p + `"`
	}
	if len(parts) == 1 {
		return name + ". IN TXT " + parts[0]
	}
	return name + ". IN TXT ( " + strings.Join(parts, "\n    ") + " )"
}

// maxRecord bounds what is read of a record: an RSA key of 4,096 bits takes 750.
const maxRecord = 4096

// ParseRecord reads a record as receivers do.
func ParseRecord(text string) (Record, error) {
	if len(text) > maxRecord {
		return Record{}, fmt.Errorf("a record of %d octets", len(text))
	}
	r := Record{Algorithm: RSA}
	seen := map[string]bool{}
	for i, tag := range strings.Split(text, ";") {
		if strings.TrimSpace(tag) == "" {
			continue
		}
		name, value, ok := strings.Cut(tag, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || seen[name] {
			return Record{}, fmt.Errorf("%q is not a tag, or one too many", strings.TrimSpace(tag))
		}
		seen[name] = true
		if err := r.setTag(name, value, i == 0); err != nil {
			return Record{}, err
		}
	}
	if !seen["p"] {
		return Record{}, errors.New("no public key (p=)")
	}
	return r, nil
}

func (r *Record) setTag(name, value string, first bool) error {
	switch name {
	case "v":
		if value != "DKIM1" || !first {
			return fmt.Errorf("v=%s: it has to be DKIM1, and the first tag", value)
		}
	case "k":
		r.Algorithm = Algorithm(value)
	case "h":
		r.Hashes = words(value)
	case "s":
		r.Services = words(value)
	case "t":
		r.Flags = words(value)
	case "p":
		key, err := base64.StdEncoding.DecodeString(strings.Map(withoutSpace, value))
		if err != nil {
			return errors.New("the public key (p=) is no base64")
		}
		r.PublicKey = key
	}
	return nil // other tags are ignored, as section 3.2 wants
}

func words(value string) []string {
	parts := strings.Split(value, ":")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

func withoutSpace(c rune) rune {
	if c == ' ' || c == '\t' || c == '\r' || c == '\n' {
		return -1
	}
	return c
}

// same reports whether two records publish the same key.
func (r Record) same(other Record) bool {
	return r.Algorithm == other.Algorithm && bytes.Equal(r.PublicKey, other.PublicKey)
}
