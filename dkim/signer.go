package dkim

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Signer makes the signatures of one message: the body is written, then Sign
// gives the fields. It is used by one goroutine, holds nothing that would have
// to be given back, and does all its work on its caller's goroutine.
type Signer struct {
	keys   []signingKey
	names  []string // of h=
	header []byte   // the signed fields in canonical form
	body   *bodyHash
	rsa    chan struct{}
	ended  bool
}

var (
	errEnded = errors.New("dkim: the signer has ended")
	errNoEnd = errors.New("dkim: the header section does not end in an empty line")
)

// begin makes a Signer for the fields of a header.
func (k *Keys) begin(keys []signingKey, s *survey, names []string, header []byte) (*Signer, error) {
	if !bytes.HasSuffix(header, []byte("\r\n\r\n")) {
		return nil, errNoEnd
	}
	return &Signer{keys: keys, names: names, header: s.canonical(), body: newBodyHash(), rsa: k.rsa}, nil
}

// Write takes the next part of the body, with CRLF line ends. It fails only
// after the end.
func (s *Signer) Write(p []byte) (int, error) {
	if s.ended {
		return 0, errEnded
	}
	s.body.write(p)
	return len(p), nil
}

// Sign ends the body and gives the DKIM-Signature fields, each ending in CRLF,
// to be put before the header.
func (s *Signer) Sign() ([]byte, error) {
	if s.ended {
		return nil, errEnded
	}
	s.ended = true
	bodySum, now := s.body.sum(), time.Now()
	var fields []byte
	for i := range s.keys {
		field, err := s.sign(&s.keys[i], bodySum, now)
		if err != nil {
			return nil, fmt.Errorf("dkim: sign with %s._domainkey.%s: %w", s.keys[i].selector, s.keys[i].domain, err)
		}
		fields = append(fields, field...)
	}
	return fields, nil
}

// Close gives up a signer; after Sign it does nothing.
func (s *Signer) Close() error {
	s.ended = true
	return nil
}

// sign makes the field of one key. What is signed are the header's fields and
// the field itself with an empty b= and without its line end (RFC 6376,
// section 3.7).
func (s *Signer) sign(key *signingKey, bodySum []byte, now time.Time) ([]byte, error) {
	field := s.unsignedField(key, bodySum, now)
	sha := sha256.New()
	sha.Write(s.header)
	sha.Write(bytes.TrimSuffix(appendRelaxed(nil, field), crlf))
	signature, err := s.operate(key, sha.Sum(nil))
	if err != nil {
		return nil, err
	}
	return appendFolded(field, base64.StdEncoding.EncodeToString(signature)), nil
}

// operate applies the private key to a digest. RFC 8463, section 3: Ed25519
// signs the digest as its message.
func (s *Signer) operate(key *signingKey, digest []byte) ([]byte, error) {
	if key.key.Algorithm == Ed25519 {
		return key.key.Signer.Sign(rand.Reader, digest, crypto.Hash(0))
	}
	s.rsa <- struct{}{}
	defer func() { <-s.rsa }()
	return key.key.Signer.Sign(rand.Reader, digest, crypto.SHA256)
}

// foldAt is where lines of the field are folded (RFC 5322, section 2.1.1).
const foldAt = 78

// unsignedField makes the field up to its empty b=.
func (s *Signer) unsignedField(key *signingKey, bodySum []byte, now time.Time) []byte {
	f := make([]byte, 0, 1024)
	f = append(f, "DKIM-Signature: v=1; a="...)
	f = append(f, key.key.Algorithm...)
	f = append(f, "-sha256; c=relaxed/relaxed;\r\n\td="...)
	f = append(f, key.domain...)
	f = append(f, ";\r\n\ts="...)
	f = append(f, key.selector...)
	f = append(f, "; t="...)
	f = strconv.AppendInt(f, now.Unix(), 10)
	f = append(f, ";\r\n\th="...)
	column := len("\th=")
	for i, name := range s.names {
		if i > 0 {
			f = append(f, ':')
		}
		if column += len(name) + 1; column > foldAt {
			f = append(f, "\r\n\t"...)
			column = len("\t") + len(name) + 1
		}
		f = append(f, name...)
	}
	f = append(f, ";\r\n\tbh="...)
	f = base64.StdEncoding.AppendEncode(f, bodySum)
	return append(f, ";\r\n\tb="...)
}

// appendFolded appends a base64 value in lines, and the end of the field.
func appendFolded(f []byte, value string) []byte {
	room := foldAt - len("\tb=")
	for len(value) > room {
		f = append(f, value[:room]...)
		f = append(f, "\r\n\t"...)
		value = value[room:]
		room = foldAt - len("\t")
	}
	f = append(f, value...)
	return append(f, crlf...)
}
