//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"postrider/mta/rehearsal"
	"postrider/resolver"
	"postrider/resolver/resolvertest"
)

// pythonVerify checks every signature of a message with python3-dkim, which
// reads the keys from a table instead of DNS.
const pythonVerify = `
import dkim, json, sys
keys = json.load(open(sys.argv[1]))
def txt(name, timeout=5):
    return keys[name.decode().rstrip(".")].encode()
message = sys.stdin.buffer.read()
d = dkim.DKIM(message)
count = sum(1 for name, _ in d.headers if name.lower() == b"dkim-signature")
good = sum(1 for i in range(count) if dkim.DKIM(message).verify(idx=i, dnsfunc=txt))
print(count, good)
`

// publishKeys makes keys for a domain and puts their records in the zone.
func publishKeys(t *testing.T, p *postrider, z *resolvertest.Zone, domain string) {
	t.Helper()
	records, err := rehearsal.MakeKeys(filepath.Join(p.state(), "dkim"), domain, "e2e")
	if err != nil {
		t.Fatal(err)
	}
	z.Add(records...)
}

func verifyWithPython(t *testing.T, z *resolvertest.Zone, message []byte) {
	t.Helper()
	r, err := resolver.New(resolver.Options{Servers: []string{z.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	keys := make(map[string]string)
	for _, name := range signatureNames(t, message) {
		a, err := r.TXT(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = strings.Join(a.Records, "")
	}
	table, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(file, table, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/python3", "-c", pythonVerify, file)
	cmd.Stdin = bytes.NewReader(message)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("python3-dkim: %v\n%s", err, out)
	}
	if got := strings.TrimSpace(string(out)); got != "2 2" {
		t.Errorf("python3-dkim found and verified %q signatures, want 2 and 2 (rsa and ed25519)", got)
	}
}

// signatureNames lists where the keys of a message's signatures stand in DNS.
func signatureNames(t *testing.T, message []byte) []string {
	t.Helper()
	var names []string
	header, _, _ := bytes.Cut(message, []byte("\r\n\r\n"))
	unfolded := strings.NewReplacer("\r\n ", " ", "\r\n\t", " ").Replace(string(header))
	for line := range strings.SplitSeq(unfolded, "\r\n") {
		value, ok := strings.CutPrefix(line, "DKIM-Signature:")
		if !ok {
			continue
		}
		tags := make(map[string]string)
		for tag := range strings.SplitSeq(value, ";") {
			k, v, _ := strings.Cut(tag, "=")
			tags[strings.TrimSpace(k)] = strings.TrimSpace(v)
		}
		names = append(names, tags["s"]+"._domainkey."+tags["d"])
	}
	if len(names) != 2 {
		t.Fatalf("%d signatures in:\n%s", len(names), header)
	}
	return names
}
