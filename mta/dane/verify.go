package dane

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind is why a certificate does not do.
type Kind uint8

const (
	NoCertificate Kind = iota + 1 // the host showed none
	NoMatch                       // no record is about what it showed
	NotTrusted                    // it showed an authority of the zone, but its certificate does not lead there
	WrongName                     // it leads there, and bears none of the names looked for
	Expired                       // it, or one on the way, is not within its dates
)

var kindWords = [...]string{
	NoCertificate: "the host showed no certificate",
	NoMatch:       "no TLSA record matches the certificates that the host showed",
	NotTrusted:    "the host's certificate does not lead to the authority that a TLSA record names",
	WrongName:     "the host's certificate bears none of the names looked for",
	Expired:       "a certificate is not within its dates",
}

// Error says why verification failed.
type Error struct {
	Kind Kind
	Err  error // may be nil
}

func (e *Error) Error() string {
	s := "DANE: " + kindWords[e.Kind]
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives what lies beneath.
func (e *Error) Unwrap() error { return e.Err }

// ResultType is the kind in the words of TLS reports (RFC 8460, section 4.3).
func (e *Error) ResultType() string {
	switch e.Kind {
	case NotTrusted:
		return "certificate-not-trusted"
	case WrongName:
		return "certificate-host-mismatch"
	case Expired:
		return "certificate-expired"
	}
	return "tlsa-invalid" // none of the records was found to be valid
}

// Verify holds the certificates that a host showed in a finished handshake
// against usable records (those that Usable gave), and gives the record that
// matched. Names are those that a certificate below an authority (usage 2) may
// bear: the name that has the TLSA records and, where the MX answer was
// DNSSEC-validated, the recipient domain, each before and after aliases (RFC
// 7672, section 3.2.2). The error is an *Error.
//
// The handshake is to be made with tls.Config.InsecureSkipVerify, which leaves
// the certificates to us; that the host has the key of the first one has been
// proven by then.
func Verify(cs *tls.ConnectionState, records []Record, names []string, now time.Time) (Record, error) {
	if len(cs.PeerCertificates) == 0 {
		return Record{}, &Error{Kind: NoCertificate}
	}
	leaf := cs.PeerCertificates[0]
	for _, r := range records {
		if r.Usage == DANEEE && r.matches(leaf) {
			return r, nil // RFC 7672, section 3.1.1: neither names nor dates count
		}
	}
	var failed *Error
	for _, r := range records {
		if r.Usage != DANETA {
			continue
		}
		err := verifyBelow(r, cs.PeerCertificates, names, now)
		if err == nil {
			return r, nil
		}
		if failed == nil || err.Kind > failed.Kind {
			failed = err // the one that came furthest says most
		}
	}
	if failed == nil {
		failed = &Error{Kind: NoMatch}
	}
	return Record{}, failed
}

// verifyBelow checks a chain that has to lead to the authority of a record.
func verifyBelow(r Record, chain []*x509.Certificate, names []string, now time.Time) *Error {
	anchors := anchorsOf(r, chain)
	if len(anchors) == 0 {
		return &Error{Kind: NoMatch}
	}
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, a := range anchors {
		options.Roots.AddCert(a)
	}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(options); err != nil {
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
			return &Error{Expired, err}
		}
		return &Error{NotTrusted, err}
	}
	if !bears(chain[0], names) {
		return &Error{WrongName, fmt.Errorf("looked for %s, it has %s", strings.Join(names, ", "), describeNames(chain[0]))}
	}
	return nil
}

// anchorsOf gives the certificates that a record makes trusted. Mostly the host
// has to show its authority (RFC 7672, section 3.1.2); a record that holds all
// of it is itself enough (RFC 7671, sections 5.2.2 and 5.2.3).
func anchorsOf(r Record, chain []*x509.Certificate) []*x509.Certificate {
	var anchors []*x509.Certificate
	for _, c := range chain[1:] {
		if r.matches(c) {
			anchors = append(anchors, c)
		}
	}
	if len(anchors) > 0 || r.MatchingType != Full || r.matches(chain[0]) {
		return anchors // the host's own certificate is no authority, also not over itself
	}
	if r.Selector == WholeCertificate {
		if c, err := x509.ParseCertificate(r.Data); err == nil {
			anchors = append(anchors, c)
		}
		return anchors
	}
	key, err := x509.ParsePKIXPublicKey(r.Data)
	if err != nil {
		return nil
	}
	// A bare key: what it has signed is as good as shown below it.
	signer := &x509.Certificate{PublicKey: key}
	for _, c := range chain {
		if signer.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil {
			anchors = append(anchors, c)
		}
	}
	return anchors
}

// bears reports whether a certificate is for one of the names. The common name
// counts where there are no DNS names (RFC 7672, section 3.2.3).
func bears(c *x509.Certificate, names []string) bool {
	if len(c.DNSNames) == 0 && c.Subject.CommonName != "" {
		named := *c
		named.DNSNames = []string{c.Subject.CommonName}
		c = &named
	}
	return slices.ContainsFunc(names, func(n string) bool {
		n = strings.TrimSuffix(n, ".")
		return n != "" && c.VerifyHostname(n) == nil
	})
}

func describeNames(c *x509.Certificate) string {
	const most = 5
	switch n := len(c.DNSNames); {
	case n > most:
		return fmt.Sprintf("%q and %d more", c.DNSNames[:most], n-most)
	case n > 0:
		return fmt.Sprintf("%q", c.DNSNames)
	}
	return fmt.Sprintf("the common name %q", c.Subject.CommonName)
}
