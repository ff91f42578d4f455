package dkim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestKeyFilesAreReadBack(t *testing.T) {
	t.Parallel()
	for _, a := range []Algorithm{RSA, Ed25519} {
		key, err := GenerateKey(a)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "new", "key.pem")
		if err := WriteKeyFile(path, key); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700 | fs.ModeDir} {
			if info, err := os.Stat(name); err != nil || info.Mode() != want {
				t.Errorf("%s: %v %v", name, info.Mode(), err)
			}
		}
		back, err := ReadKeyFile(path)
		if err != nil {
			t.Fatal(err)
		}
		was, _ := key.Record()
		if is, _ := back.Record(); !is.same(was) || back.Algorithm != a {
			t.Errorf("%s: another key came back", a)
		}
		before, _ := os.ReadFile(path)
		if err := WriteKeyFile(path, key); !errors.Is(err, fs.ErrExist) {
			t.Errorf("written over a file: %v", err)
		}
		if after, _ := os.ReadFile(path); string(before) != string(after) {
			t.Error("the file has changed")
		}
	}
	if _, err := GenerateKey("dsa"); err == nil {
		t.Error("a DSA key was made")
	}
}

// Root makes a key for a server that runs as another user.
func TestKeysBelongToTheOwnerOfTheirDirectory(t *testing.T) {
	t.Parallel()
	state, want := t.TempDir(), uint32(os.Geteuid())
	if want == 0 {
		want = 65534
		if err := os.Chown(state, int(want), -1); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(state, "dkim", "key.pem")
	if err := WriteKeyFile(path, rfcKey(t)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, filepath.Dir(path)} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Sys().(*syscall.Stat_t).Uid; got != want {
			t.Errorf("%s belongs to %d, not %d", name, got, want)
		}
	}
}

func TestParseKey(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)})
	if key, err := ParseKey(append([]byte("a note\n"), pkcs1...)); err != nil || key.Algorithm != RSA {
		t.Errorf("PKCS#1: %v", err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKCS8PrivateKey(ecKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"empty":     {nil, "no PEM block"},
		"garbage":   {[]byte("secret"), "no PEM block"},
		"public":    {pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}), `type "PUBLIC KEY"`},
		"encrypted": {pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}), "unencrypted"},
		"damaged":   {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), "damaged"},
		"damaged 1": {pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte("x")}), "damaged"},
		"ecdsa":     {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: ecDER}), "RSA and Ed25519"},
		"short":     {[]byte(shortKey), "512 bits"},
	} {
		if _, err := ParseKey(tt.data); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// shortKey is an RSA key of 512 bits, which nothing makes any more.
const shortKey = `-----BEGIN RSA PRIVATE KEY-----
MIIBOwIBAAJBANfVKmxZ2M1YX7gk9lWEvVdcXS28xIALGta1g8rBj0wq91X+49mt
b2ibbsNIMW1qkdxeUZ2f3GnD1fRgYGiXzBECAwEAAQJAXe9FjnCwHfcHedKEb4Xd
DieB2kUc1ImAvc+0M0t4vXHsyCU+DQBswuVBFnGj52l96R8ZnNs7MX1IiZtH+pCw
wQIhAPmN6u8FxTx4YQWw3bDBqFqgWXAtQiRqZGaoVwqu7r8pAiEA3WhGvIGQbGv4
IzrDFbjJgDA+VVYUP0iPtlGhMLHkCqkCIQCFSiO9XtumHLXVkE4YZpdBMHwUyleV
k63klu1Gq4ChYQIhAK/BbyWE1Fi8/KU6qFI99fbEVTb4tenmd+6KriIxlIzBAiAT
A6eYv7a0a33lWWulJLV8k+f95uH6zXb0VEqLEWblDQ==
-----END RSA PRIVATE KEY-----`
