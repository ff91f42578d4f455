package mta

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"postrider/config"
	"postrider/mta/smtptest"
)

// TestCertificateIsReadAgain: a new certificate is shown from the next load on,
// and a broken one never.
func TestCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	ca, err := smtptest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l := &config.Listener{TLSCertFile: filepath.Join(dir, "cert.pem"), TLSKeyFile: filepath.Join(dir, "key.pem")}
	install := func(name string) {
		t.Helper()
		pair, err := ca.Issue(name)
		if err != nil {
			t.Fatal(err)
		}
		key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		writePEM(t, l.TLSCertFile, "CERTIFICATE", pair.Certificate[0])
		writePEM(t, l.TLSKeyFile, "PRIVATE KEY", key)
	}
	install("one.test")
	c, err := loadCertificate(l)
	if err != nil {
		t.Fatal(err)
	}
	shows := func(name string) {
		t.Helper()
		got, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(got.Certificate[0])
		if err != nil || leaf.VerifyHostname(name) != nil {
			t.Errorf("shown is a certificate for %v, not %s (%v)", leaf.DNSNames, name, err)
		}
	}
	shows("one.test")
	install("two.test")
	shows("one.test")
	if err := c.load(); err != nil {
		t.Fatal(err)
	}
	shows("two.test")
	if err := os.WriteFile(l.TLSCertFile, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.load(); err == nil || !strings.Contains(err.Error(), l.TLSCertFile) {
		t.Errorf("a broken certificate: %v", err)
	}
	shows("two.test")
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
