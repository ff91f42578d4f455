package intake_test

import (
	"errors"
	"strings"
	"testing"

	"postrider/mta/intake"
)

// fakeSigner keeps what it signs.
type fakeSigner struct {
	noKey             bool
	err               error // of Sign
	writeErr, signErr error
	open              int // signatures that were neither ended nor closed
	signed            string
}

type fakeSignature struct {
	s     *fakeSigner
	text  strings.Builder
	ended bool
}

func (s *fakeSigner) Sign(header []byte) (intake.Signature, error) {
	if s.err != nil || s.noKey {
		return nil, s.err
	}
	s.open++
	sig := &fakeSignature{s: s}
	sig.text.Write(header)
	return sig, nil
}

func (f *fakeSignature) Write(p []byte) (int, error) {
	f.text.Write(p)
	return len(p), f.s.writeErr
}

func (f *fakeSignature) Sign() ([]byte, error) {
	if f.s.signErr != nil {
		return nil, f.s.signErr
	}
	f.s.signed = f.text.String()
	return []byte("DKIM-Signature: fake\r\n"), nil
}

func (f *fakeSignature) Close() error {
	if !f.ended {
		f.ended = true
		f.s.open--
	}
	return nil
}

// checkSigned holds that what was signed is what is sent, but for the trace.
func checkSigned(t *testing.T, s *shelf, signer *fakeSigner) {
	t.Helper()
	sent := s.last.prefix + s.last.body
	rest, ok := strings.CutPrefix(sent, "DKIM-Signature: fake\r\nReceived: ")
	if !ok {
		t.Fatalf("sent %.200q", sent)
	}
	_, rest, _ = strings.Cut(rest, "+0200\r\n")
	if rest != signer.signed {
		t.Errorf("signed\n%.2000q\nbut sent\n%.2000q", signer.signed, rest)
	}
	if signer.open != 0 {
		t.Errorf("%d signatures were left open", signer.open)
	}
}

func TestSignedAsSent(t *testing.T) {
	t.Parallel()
	for _, content := range []string{
		full + "Bcc: x@y.test\nSubject: Grüße\n\ntext\n.\n",
		"text without header",
		"Subject: header without text\n",
		"",
		full + "\r\n" + strings.Repeat("a line\n", 20_000),
	} {
		for _, size := range []int{0, 1, 5000} {
			if size == 1 && len(content) > 10_000 {
				continue
			}
			s, signer := newShelf(t), &fakeSigner{}
			r := newReceiver(t, s, func(o *intake.Options) { o.Signer = signer })
			if err := take(r, meta(), content, size); err != nil {
				t.Fatal(err)
			}
			checkSigned(t, s, signer)
		}
	}
}

func TestNoKeyMeansUnsigned(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r := newReceiver(t, s, func(o *intake.Options) { o.Signer = &fakeSigner{noKey: true} })
	mustTake(t, r, meta(), full+"\r\n")
	if strings.Contains(s.last.prefix, "DKIM") {
		t.Errorf("prefix %q", s.last.prefix)
	}
}

// TestSigningFails: a message that should be signed never goes out unsigned.
func TestSigningFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("key is gone")
	for name, signer := range map[string]*fakeSigner{
		"at the header": {err: broken}, "in the text": {writeErr: broken}, "at the end": {signErr: broken},
	} {
		s := newShelf(t)
		r := newReceiver(t, s, func(o *intake.Options) { o.Signer = signer })
		e := refusal(t, take(r, meta(), full+"\r\ntext\r\n", 0))
		if e.Code != 451 || e.Status != "4.3.5" || !errors.Is(e, broken) || s.last.body != "" {
			t.Errorf("%s: %v, stored %q", name, e, s.last.body)
		}
		if signer.open != 0 {
			t.Errorf("%s: %d signatures were left open", name, signer.open)
		}
	}
}

func TestSignWithNil(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r := newReceiver(t, s, func(o *intake.Options) {
		o.Signer = intake.SignWith(func([]byte) (*fakeSignature, error) { return nil, nil })
	})
	mustTake(t, r, meta(), full+"\r\n")
}

func TestAbortClosesTheSignature(t *testing.T) {
	t.Parallel()
	signer := &fakeSigner{}
	r := newReceiver(t, newShelf(t), func(o *intake.Options) { o.Signer = signer })
	msg, err := r.Begin(now, meta())
	if err != nil {
		t.Fatal(err)
	}
	msg.Write([]byte(full + "\r\ntext"))
	if signer.open != 1 {
		t.Fatal("no signature was begun")
	}
	msg.Abort()
	if signer.open != 0 {
		t.Error("the signature was left open")
	}
}
