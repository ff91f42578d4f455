package dkim

import (
	"crypto"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slowKey takes a second for an operation and counts those under way.
type slowKey struct {
	now, most, total atomic.Int32
}

func (k *slowKey) Public() crypto.PublicKey { return nil }

func (k *slowKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	k.total.Add(1)
	n := k.now.Add(1)
	for most := k.most.Load(); n > most && !k.most.CompareAndSwap(most, n); most = k.most.Load() {
	}
	time.Sleep(time.Second) // of the bubble's clock
	k.now.Add(-1)
	return nil, nil
}

func TestFewOperationsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowKey{}
		k := &Keys{rsa: make(chan struct{}, 3)}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := k.operate(&signingKey{key: &PrivateKey{RSA, slow}}, nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if slow.most.Load() != 3 || slow.total.Load() != 20 {
			t.Errorf("%d at a time, %d in all", slow.most.Load(), slow.total.Load())
		}
	})
}

// A server signs for many clients at once.
func TestSignersSideBySide(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "example.test r rsa", "example.test e ed25519")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { f.mustVerify(t, f.sign(t, header, bodies["text"]), 2) })
	}
	wg.Wait()
}

// What one message leaves behind must not get into the signature of the next,
// also where a signer is given up halfway, or the message is not signed at all.
func TestNothingIsLeftOfTheMessageBefore(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "example.test s ed25519")
	short := "From: ann@example.test\r\n\r\n"
	two := "From: ann@example.test\r\nFrom: bob@example.test\r\nSubject: two\r\n\r\n"
	for range 5 {
		f.mustVerify(t, f.sign(t, header, "a long text\r\n\r\n"), 1)
		f.mustVerify(t, f.sign(t, short, ""), 1)
		f.mustVerify(t, f.sign(t, header, bodies["trailing"]), 1)
		s, err := f.keys.Signer([]byte(header))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("text \r")); err != nil { // a blank and a CR wait in it
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Sign(); err == nil {
			t.Error("a signer that was given up signs")
		}
		f.mustVerify(t, f.sign(t, two, "x"), 0)
		f.mustVerify(t, f.sign(t, short, "x\r\n"), 1)
	}
}

func BenchmarkSign(b *testing.B) {
	body := []byte(strings.Repeat("a line of text as a message has it, of some seventy octets or more.\r\n", 60))
	for name, keys := range map[string][]string{
		"none":    {"other.test s ed25519"},
		"ed25519": {"example.test s ed25519"},
		"rsa2048": {"example.test s rsa"},
		"both":    {"example.test r rsa", "example.test e ed25519"},
	} {
		for size, times := range map[string]int{"4KB": 1, "100KB": 25} {
			b.Run(name+"/"+size, func(b *testing.B) {
				f := newFixture(b, keys...)
				b.ReportAllocs()
				b.SetBytes(int64(len(header) + times*len(body)))
				for b.Loop() {
					s, err := f.keys.Signer([]byte(header))
					if err != nil {
						b.Fatal(err)
					}
					if s == nil {
						continue
					}
					for range times {
						if _, err := s.Write(body); err != nil {
							b.Fatal(err)
						}
					}
					if _, err := s.Sign(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkBareOperation(b *testing.B) {
	for _, a := range []Algorithm{RSA, Ed25519} {
		b.Run(string(a), func(b *testing.B) {
			key, err := GenerateKey(a)
			if err != nil {
				b.Fatal(err)
			}
			opts := crypto.SHA256
			if a == Ed25519 {
				opts = 0
			}
			for b.Loop() {
				if _, err := key.Signer.Sign(nil, make([]byte, 32), opts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
