package intake_test

import (
	"path/filepath"
	"strings"
	"testing"

	msgauth "github.com/emersion/go-msgauth/dkim"

	"postrider/dkim"
	"postrider/mta/intake"
)

// TestSignaturesVerify signs with real keys, whatever has to be done to the
// content first, and asks an independent verifier.
func TestSignaturesVerify(t *testing.T) {
	t.Parallel()
	key, err := dkim.GenerateKey(dkim.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := dkim.WriteKeyFile(file, key); err != nil {
		t.Fatal(err)
	}
	keys, err := dkim.NewKeys(dkim.Options{Sources: []dkim.Source{{Domain: "a.test", Selector: "s", KeyFile: file}}})
	if err != nil {
		t.Fatal(err)
	}
	record, err := key.Record()
	if err != nil {
		t.Fatal(err)
	}
	s := newShelf(t)
	r := newReceiver(t, s, func(o *intake.Options) { o.Signer = intake.SignWith(keys.Signer) })
	for name, content := range map[string]string{
		"plain":      full + "Subject: x\n\ntext\n",
		"no header":  "mere text",
		"encoded":    "From: Jürgen <ann@a.test>\nSubject: Grüße\nBcc: x@y.test\n\nGrüße\n\n\n",
		"long lines": full + "To: " + strings.Repeat("bob@b.test, ", 100) + "bob@b.test\n\n" + strings.Repeat("word ", 300) + "\n",
		"large":      full + "\r\n" + strings.Repeat("a line of a large message\r\n", 10_000),
	} {
		mustTake(t, r, meta(), content)
		found, err := msgauth.VerifyWithOptions(strings.NewReader(s.last.prefix+s.last.body), &msgauth.VerifyOptions{
			LookupTXT: func(string) ([]string, error) { return []string{record.Text()}, nil },
		})
		if err != nil || len(found) != 1 || found[0].Err != nil || found[0].Domain != "a.test" {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
	}
	m := meta()
	m.Envelope.Sender = "eve@e.test"
	mustTake(t, r, m, "From: eve@e.test\n\n")
	if strings.Contains(s.last.prefix, "DKIM-Signature") {
		t.Error("signed for a domain without a key")
	}
}
