//go:build e2e

package e2e

import (
	"bytes"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
)

// TestExtensionsOfPostfix: whatever of SMTP's extensions a real Postfix offers,
// mail that could use them all arrives in the form that fits, with signatures
// that verify, and its sender learns what he asked for.
func TestExtensionsOfPostfix(t *testing.T) {
	needsProgram(t, "/usr/lib/python3/dist-packages/dkim/__init__.py", "python3-dkim")
	for name, tt := range map[string]struct {
		discard                    string
		chunking, eight, utf8, dsn bool
	}{
		"all":                {"", true, true, true, true},
		"no CHUNKING":        {"chunking", false, true, true, true},
		"no PIPELINING":      {"pipelining", true, true, true, true},
		"no 8BITMIME":        {"8bitmime", true, false, false, true},
		"no SMTPUTF8":        {"smtputf8", true, true, false, true},
		"no DSN":             {"dsn", true, true, true, false},
		"none of extensions": {"pipelining, chunking, 8bitmime, smtputf8, dsn, size, starttls, enhancedstatuscodes", false, false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const domain, from, to = "postfix.test", "writer@postfix.test", "ops@postfix.test"
			r := startReceivingPostfix(t, domain, map[string]string{
				"smtpd_discard_ehlo_keywords": tt.discard, "debug_peer_list": "127.0.0.0/8", "debug_peer_level": "1",
			})
			z := zoneFor(t, domain)
			p := newPostrider(t, z.Addr(), r.port, "")
			publishKeys(t, p, z, "sender.test")
			p.start()

			// The sender is at Postfix too, so that reports can be seen.
			submit(t, p, letter{from: from, to: to, subject: "eight", body: "Grüße\r\n.\r\n", envID: "env-1", notify: smtp.DSNNotifySuccess})
			submit(t, p, letter{from: from, to: to, subject: "Grüße", body: "x\r\n", isUTF8: true})
			submit(t, p, letter{from: from, subject: "mailbox", to: "jürgen@" + domain, body: "x\r\n", isUTF8: true})

			eight := r.find("Subject: eight\n")
			body := bytes.ReplaceAll(eight, []byte("\n"), []byte("\r\n"))
			verifyWithPython(t, z, signedPart(t, body))
			if got := bytes.HasSuffix(eight, []byte("\n\nGrüße\n.\n")); got != tt.eight {
				t.Errorf("the octets are those that were sent: %v\n%s", got, eight)
			}
			if got := bytes.Contains(eight, []byte("\n\nGr=C3=BC=C3=9Fe\n=2E\n")); got == tt.eight {
				t.Errorf("converted: %v\n%s", got, eight)
			}
			if log := r.readLog(); strings.Contains(log, ": BDAT ") != tt.chunking {
				t.Errorf("BDAT used: %v", !tt.chunking)
			}
			r.checkReport(t, tt.dsn)
			if tt.utf8 {
				r.find("Subject: Grüße\n")
				r.find("Subject: mailbox\n")
				return
			}
			encoded := bytes.ReplaceAll(r.find("Subject: =?utf-8?b?R3LDvMOfZQ==?=\n"), []byte("\n"), []byte("\r\n"))
			verifyWithPython(t, z, signedPart(t, encoded))
			report := r.find("Status: 5.6.7\n")
			if !bytes.Contains(report, []byte("does not offer SMTPUTF8")) {
				t.Errorf("a report without the reason:\n%s", report)
			}
		})
	}
}

// checkReport looks for the report that NOTIFY=SUCCESS asked for: Postfix's own
// where it has DSN, else ours (RFC 3461, section 5.2.2).
func (r *receiver) checkReport(t *testing.T, isPassed bool) {
	t.Helper()
	action, from := "relayed", "mta.sender.test"
	if isPassed {
		action, from = "delivered", "mx.postfix.test"
	}
	report := r.find("Original-Envelope-Id: env-1\n")
	for _, want := range []string{"Action: " + action + "\n", "Reporting-MTA: dns; " + from, "Original-Recipient: rfc822;first+name@elsewhere.test\n"} {
		if !bytes.Contains(bytes.ToLower(report), bytes.ToLower([]byte(want))) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
}
