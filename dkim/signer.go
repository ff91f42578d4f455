package dkim

import (
	"crypto"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/emersion/go-msgauth/dkim"
)

// Signer makes the signatures of one message: the body is written, then Sign
// gives the fields. It is used by one goroutine. Sign or Close must be called,
// or a goroutine for each signature is left waiting.
type Signer struct {
	signatures []*signature
	buffer     []byte
	err        error
	ended      bool
}

// handOver is how much is gathered before the hashing goroutines get it: each
// hand-over costs a switch of goroutines, which for a small message would be
// more than the hashing itself.
const handOver = 32 << 10

var errEnded = errors.New("dkim: the signer has ended")

// Write takes the next part of the body, with CRLF line ends.
func (s *Signer) Write(p []byte) (int, error) {
	if s.ended {
		return 0, errEnded
	}
	if s.err != nil {
		return 0, s.err
	}
	if len(s.buffer)+len(p) > handOver {
		s.flush()
	}
	if len(p) >= handOver {
		s.give(p)
	} else {
		s.buffer = append(s.buffer, p...)
	}
	if s.err != nil {
		return 0, s.err
	}
	return len(p), nil
}

func (s *Signer) flush() {
	s.give(s.buffer)
	s.buffer = s.buffer[:0]
}

func (s *Signer) give(p []byte) {
	for _, one := range s.signatures {
		if s.err != nil || len(p) == 0 {
			return
		}
		if _, err := one.signer.Write(p); err != nil {
			s.err = one.failed(err)
		}
	}
}

// Sign ends the body and gives the DKIM-Signature fields, each ending in CRLF,
// to be put before the header.
func (s *Signer) Sign() ([]byte, error) {
	if s.ended {
		return nil, errEnded
	}
	s.flush()
	if err := errors.Join(s.err, s.end()); err != nil {
		return nil, err
	}
	var fields []byte
	for _, one := range s.signatures {
		fields = append(fields, one.signer.Signature()...)
	}
	return fields, nil
}

// Close gives up a signer; after Sign it does nothing. Nothing is signed.
func (s *Signer) Close() error {
	if s.ended {
		return nil
	}
	for _, one := range s.signatures {
		one.key.givenUp.Store(true)
	}
	_ = s.end() // that it was given up
	return nil
}

// end waits for each signature. Each computes by itself, so the slowest one
// counts, not their sum.
func (s *Signer) end() error {
	s.ended = true
	var errs []error
	for _, one := range s.signatures {
		if err := one.signer.Close(); err != nil {
			errs = append(errs, one.failed(err))
		}
	}
	return errors.Join(errs...)
}

// signature is one signature in the making.
type signature struct {
	signer *dkim.Signer
	key    *boundedKey
	name   string // of the key
}

func (s *signature) failed(err error) error {
	return fmt.Errorf("dkim: sign with %s: %w", s.name, err)
}

func newSignature(key signingKey, fields []string, rsa chan struct{}) (*signature, error) {
	s := &signature{key: &boundedKey{Signer: key.key.Signer}, name: key.selector + "._domainkey." + key.domain}
	if key.key.Algorithm == RSA {
		s.key.places = rsa
	}
	var err error
	s.signer, err = dkim.NewSigner(&dkim.SignOptions{
		Domain:                 key.domain,
		Selector:               key.selector,
		Signer:                 s.key,
		Hash:                   crypto.SHA256,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed,
		BodyCanonicalization:   dkim.CanonicalizationRelaxed,
		HeaderKeys:             fields,
	})
	if err != nil {
		return nil, s.failed(err)
	}
	return s, nil
}

// boundedKey signs when it has a place, and not at all once it is given up.
type boundedKey struct {
	crypto.Signer
	places  chan struct{} // nil: no bound
	givenUp atomic.Bool
}

var errGivenUp = errors.New("given up")

func (k *boundedKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.places != nil {
		k.places <- struct{}{}
		defer func() { <-k.places }()
	}
	if k.givenUp.Load() {
		return nil, errGivenUp
	}
	return k.Signer.Sign(random, digest, opts)
}
