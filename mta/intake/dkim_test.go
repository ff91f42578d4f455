package intake_test

import (
	"strings"
	"testing"
)

// TestSignaturesVerify signs with real keys, whatever has to be done to the
// content first, and asks an independent verifier.
func TestSignaturesVerify(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r, record := signing(t, s)
	for name, content := range map[string]string{
		"plain":      full + "Subject: x\n\ntext\n",
		"no header":  "mere text",
		"encoded":    "From: Jürgen <ann@a.test>\nSubject: Grüße\nBcc: x@y.test\n\nGrüße\n\n\n",
		"long lines": full + "To: " + strings.Repeat("bob@b.test, ", 100) + "bob@b.test\n\n" + strings.Repeat("word ", 300) + "\n",
		"large":      full + "\r\n" + strings.Repeat("a line of a large message\r\n", 10_000),
	} {
		mustTake(t, r, meta(), content)
		t.Run(name, func(t *testing.T) { verify(t, s.last.prefix+s.last.body, record) })
	}
	m := meta()
	m.Envelope.Sender = "eve@e.test"
	mustTake(t, r, m, "From: eve@e.test\n\n")
	if strings.Contains(s.last.prefix, "DKIM-Signature") {
		t.Error("signed for a domain without a key")
	}
}
