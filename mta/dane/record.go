// Package dane holds the certificate of a mail host against the TLSA records in
// its zone (RFC 6698, as RFC 7671 and 7672 apply it to SMTP).
//
// A TLSA record binds a certificate to a name without any authority but the
// DNSSEC chain of the zone. It has four parts: a usage (whose certificate is
// meant), a selector (all of the certificate, or only its public key), a
// matching type (as it is, or by digest) and the data to match:
//
//	_25._tcp.mx.example.test. IN TLSA 3 1 1 8bd1da95...
//
// says: the host's own certificate (3) has a public key (1) whose SHA-256
// digest (1) is this. Of the four usages mail knows two:
//
//   - 3, DANE-EE: the host's own certificate. Nothing else in it counts, neither
//     its names nor its dates: the record says all of that.
//   - 2, DANE-TA: an authority of the zone's own. The host's certificate must
//     lead there, be within its dates, and bear one of the names that the
//     sender looked for.
//
// The usages 0 and 1 also want a public authority, which mail hosts do not
// have in common; a sender is to take such records for unusable. [Usable] picks
// the records that can be matched. Where there are records, but none of them is
// usable, the host still promises TLS: it is demanded, without authentication
// (RFC 7672, section 2.2). [Verify] does the matching.
//
// The caller answers for the rest: records and the addresses of the host are
// DNSSEC-validated; a lookup that failed means that the host is not used; SNI
// is the name that the records are for (RFC 7672, section 8.1).
package dane

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Certificate usages, selectors and matching types (RFC 7218).
const (
	PKIXTA = 0
	PKIXEE = 1
	DANETA = 2
	DANEEE = 3

	WholeCertificate = 0
	PublicKey        = 1

	Full   = 0
	SHA256 = 1
	SHA512 = 2
)

// maxData bounds the data of a record: more than any certificate needs.
const maxData = 32 << 10

// Record is a TLSA record (RFC 6698, section 2.1).
type Record struct {
	Usage, Selector, MatchingType uint8
	Data                          []byte
}

// ParseRecord reads a record as zone files have it: three numbers and data in
// hexadecimal, which may have blanks within: "3 1 1 8bd1 da95".
func ParseRecord(s string) (Record, error) {
	if len(s) > 3*maxData {
		return Record{}, fmt.Errorf("a TLSA record of %d octets is too long", len(s))
	}
	fields := strings.Fields(s)
	if len(fields) < 4 {
		return Record{}, errors.New("a TLSA record is written: usage selector matching-type data, for example 3 1 1 8bd1da95")
	}
	var numbers [3]uint8
	for i := range numbers {
		n, err := strconv.ParseUint(fields[i], 10, 8)
		if err != nil {
			return Record{}, fmt.Errorf("%q in a TLSA record is not a number from 0 to 255", fields[i])
		}
		numbers[i] = uint8(n)
	}
	data, err := hex.DecodeString(strings.Join(fields[3:], ""))
	if err != nil {
		return Record{}, errors.New("the data of a TLSA record is not hexadecimal")
	}
	return Record{numbers[0], numbers[1], numbers[2], data}, nil
}

// String writes the record as ParseRecord reads it.
func (r Record) String() string {
	return fmt.Sprintf("%d %d %d %s", r.Usage, r.Selector, r.MatchingType, hex.EncodeToString(r.Data))
}

// Check says why a record cannot be matched; nil where it can.
func (r Record) Check() error {
	switch {
	case r.Usage == PKIXTA, r.Usage == PKIXEE:
		return fmt.Errorf("usage %d needs a public authority and is not for mail (RFC 7672, section 3.1.3)", r.Usage)
	case r.Usage > DANEEE:
		return fmt.Errorf("usage %d is unknown", r.Usage)
	case r.Selector > PublicKey:
		return fmt.Errorf("selector %d is unknown", r.Selector)
	case len(r.Data) > maxData:
		return fmt.Errorf("the data has %d octets, at most %d are read", len(r.Data), maxData)
	}
	switch r.MatchingType {
	case Full:
		return r.checkFull()
	case SHA256:
		return r.checkDigest(sha256.Size)
	case SHA512:
		return r.checkDigest(sha512.Size)
	}
	return fmt.Errorf("matching type %d is unknown", r.MatchingType)
}

func (r Record) checkDigest(size int) error {
	if len(r.Data) != size {
		return fmt.Errorf("the digest has %d octets, %d are due", len(r.Data), size)
	}
	return nil
}

func (r Record) checkFull() error {
	var err error
	if r.Selector == WholeCertificate {
		_, err = x509.ParseCertificate(r.Data)
	} else {
		_, err = x509.ParsePKIXPublicKey(r.Data)
	}
	if err != nil {
		return fmt.Errorf("the data cannot be read: %w", err)
	}
	return nil
}

// Usable picks the records that can be matched. Of digests for the same usage
// and selector only the strongest count, so that a weak one cannot undo a
// strong one (RFC 7671, section 9).
func Usable(records []Record) []Record {
	type target struct{ usage, selector uint8 }
	strongest := make(map[target]uint8)
	var readable []Record
	for _, r := range records {
		if r.Check() != nil {
			continue
		}
		readable = append(readable, r)
		t := target{r.Usage, r.Selector}
		strongest[t] = max(strongest[t], r.MatchingType)
	}
	var usable []Record
	for _, r := range readable {
		if r.MatchingType == Full || r.MatchingType == strongest[target{r.Usage, r.Selector}] {
			usable = append(usable, r)
		}
	}
	return usable
}

// matches reports whether the record is about a certificate.
func (r Record) matches(c *x509.Certificate) bool {
	data := c.Raw
	if r.Selector == PublicKey {
		data = c.RawSubjectPublicKeyInfo
	}
	switch r.MatchingType {
	case SHA256:
		sum := sha256.Sum256(data)
		data = sum[:]
	case SHA512:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return bytes.Equal(data, r.Data)
}
