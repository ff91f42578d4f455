package main

import (
	"crypto"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"postrider/dkim"
	"postrider/mta/rehearsal"
)

// signatureCost is what a signature of a message of 4 KB costs this machine.
type signatureCost struct {
	Algorithm string `json:"algorithm"`
	// Operation hashes the body and the header and has the key sign: no
	// signature can cost less.
	Operation time.Duration `json:"operation_ns"`
	// Whole is all that package dkim does for it.
	Whole time.Duration `json:"whole_ns"`
}

// signs tells whether a scenario has variants that sign.
func (s scenario) signs() bool {
	for _, v := range s.variants {
		if v.sign != "" {
			return true
		}
	}
	return false
}

// signatureCosts measures both kinds of signature.
func signatureCosts() ([]signatureCost, error) {
	const (
		header = "From: load@sender.test\r\nTo: r@d1.load.test\r\nDate: Tue, 10 Nov 2026 03:13:00 +0000\r\nSubject: Load\r\nMessage-ID: <1@load.test>\r\n\r\n"
		line   = "a line of text as a message has it, of some seventy octets or more......\r\n"
	)
	body := []byte(strings.Repeat(line, 4096/len(line)))
	var all []signatureCost
	for _, algorithm := range []dkim.Algorithm{dkim.RSA, dkim.Ed25519} {
		key, err := dkim.GenerateKey(algorithm)
		if err != nil {
			return nil, err
		}
		// RFC 8463, section 3: Ed25519 signs the hash as its message.
		hash := crypto.SHA256
		if algorithm == dkim.Ed25519 {
			hash = 0
		}
		operation, err := cpuOf(func() error {
			sha256.Sum256(body)
			digest := sha256.Sum256([]byte(header))
			_, err := key.Signer.Sign(nil, digest[:], hash)
			return err
		})
		if err != nil {
			return nil, err
		}
		whole, err := wholeCost(algorithm, []byte(header), body)
		if err != nil {
			return nil, err
		}
		all = append(all, signatureCost{Algorithm: string(algorithm), Operation: operation, Whole: whole})
	}
	return all, nil
}

// wholeCost is the cost of signing as a server does it.
func wholeCost(algorithm dkim.Algorithm, header, body []byte) (time.Duration, error) {
	dir, err := os.MkdirTemp("", "bench-dkim-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if _, err := rehearsal.MakeKeys(dir, "sender.test", "bench", algorithm); err != nil {
		return 0, err
	}
	selector := "bench-" + string(algorithm)
	keys, err := dkim.NewKeys(dkim.Options{Sources: []dkim.Source{{
		Domain: "sender.test", Selector: selector, KeyFile: filepath.Join(dir, dkim.KeyFileName("sender.test", selector)),
	}}})
	if err != nil {
		return 0, err
	}
	return cpuOf(func() error {
		s, err := keys.Signer(header)
		if err != nil {
			return err
		}
		if _, err := s.Write(body); err != nil {
			return err
		}
		_, err = s.Sign()
		return err
	})
}

// cpuOf is the CPU time of one call, of a great many.
func cpuOf(f func() error) (time.Duration, error) {
	const (
		calls = 200
		least = time.Second
	)
	before, n := ownCPU(), 0
	for ownCPU()-before < least {
		for range calls {
			if err := f(); err != nil {
				return 0, err
			}
		}
		n += calls
	}
	return (ownCPU() - before) / time.Duration(n), nil
}

// ownCPU is the CPU time of this process.
func ownCPU() time.Duration {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
