package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Algorithm is that of a key, in the word of the k= tag.
type Algorithm string

const (
	RSA     Algorithm = "rsa"     // RFC 6376, section 3.3, with SHA-256
	Ed25519 Algorithm = "ed25519" // RFC 8463
)

// RFC 8301, section 3.2: verifiers need not take keys below 1,024 bits, and
// must take up to 4,096.
const (
	minBits = 1024
	maxBits = 4096
	newBits = 2048
)

// maxKeyFile is far above any key.
const maxKeyFile = 64 << 10

// PrivateKey is a key to sign with.
type PrivateKey struct {
	Algorithm Algorithm
	Signer    crypto.Signer
}

// GenerateKey makes a new key; an RSA key has 2,048 bits.
func GenerateKey(a Algorithm) (*PrivateKey, error) {
	switch a {
	case RSA:
		key, err := rsa.GenerateKey(rand.Reader, newBits)
		if err != nil {
			return nil, err
		}
		return &PrivateKey{RSA, key}, nil
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return &PrivateKey{Ed25519, key}, nil
	}
	return nil, fmt.Errorf("no algorithm %q: there are %s and %s", a, RSA, Ed25519)
}

// ParseKey reads a key in PEM: PKCS#8, or PKCS#1 for RSA.
func ParseKey(data []byte) (*PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM block: a private key begins with -----BEGIN PRIVATE KEY-----")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("a PEM block of the type %q, where an unencrypted private key is needed", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("damaged: %w", err)
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if bits := key.N.BitLen(); bits < minBits || bits > maxBits {
			return nil, fmt.Errorf("an RSA key of %d bits: receivers take %d to %d", bits, minBits, maxBits)
		}
		return &PrivateKey{RSA, key}, nil
	case ed25519.PrivateKey:
		return &PrivateKey{Ed25519, key}, nil
	}
	return nil, fmt.Errorf("a key of the type %T: DKIM knows RSA and Ed25519", key)
}

// ReadKeyFile reads a key from a file that its owner alone can read.
func ReadKeyFile(path string) (*PrivateKey, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not block here
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the key: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s can be read or written by others (mode %04o): chmod 600", path, info.Mode().Perm())
	case info.Size() > maxKeyFile:
		return nil, fmt.Errorf("%s is too large for a key", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	key, err := ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// WriteKeyFile writes a key to a new file (mode 0600), and makes its directory
// (0700) where there is none. It never writes over a file. What root writes
// belongs to the owner of the directory around it, so that a key made by root
// in the server's directory can be read by the server.
func WriteKeyFile(path string, key *PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key.Signer)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := makeDirectory(dir); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(inherit(dir, path), pem.Encode(f, &pem.Block{Type: "PRIVATE KEY", Bytes: der}), f.Sync(), f.Close())
	if err != nil {
		return errors.Join(err, os.Remove(path)) // what is not whole is no key
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// makeDirectory makes a directory and those above it.
func makeDirectory(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDirectory(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return inherit(parent, dir)
}

// inherit gives path the owner of the directory around it, where we are root.
func inherit(dir, path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	return os.Lchown(path, int(owner.Uid), int(owner.Gid))
}
