package intake

import "io"

// Signer chooses the keys for a message.
type Signer interface {
	// Sign begins the signatures of a message. header is the whole header
	// section with CRLF line ends and the blank line; it is not changed until
	// the Signature is done. A nil Signature: no key fits the From field. An
	// error: one does, but cannot be used.
	Sign(header []byte) (Signature, error)
}

// Signature is the signatures of one message in the making: the body is
// written, then Sign answers the fields to put before the header, each ending
// in CRLF. Close gives it up; it may follow Sign.
type Signature interface {
	io.Writer
	Sign() ([]byte, error)
	Close() error
}

// SignWith makes a Signer of a function that begins signatures, such as the
// method Signer of dkim.Keys. Its zero answer (nil) means that no key fits.
func SignWith[S interface {
	comparable
	Signature
}](begin func(header []byte) (S, error)) Signer {
	return signerFunc(func(header []byte) (Signature, error) {
		s, err := begin(header)
		var none S
		if err != nil || s == none { // a nil pointer must not become a Signature that is not nil
			return nil, err
		}
		return s, nil
	})
}

type signerFunc func(header []byte) (Signature, error)

func (f signerFunc) Sign(header []byte) (Signature, error) { return f(header) }
