//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"postrider/mta/rehearsal/peers"
	"postrider/resolver/resolvertest"
)

const receivingHost = "127.0.0.21"

func startReceivingPostfix(t *testing.T, domain string, main map[string]string) *receiver {
	t.Helper()
	needs(t, peers.PostfixMissing())
	needsProgram(t, "/usr/bin/openssl", "openssl")
	dir, err := os.MkdirTemp("", "postrider-e2e-postfix-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := &receiver{t: t, mail: filepath.Join(dir, "mail")}
	if err := os.Mkdir(r.mail, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(r.mail, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	selfSigned(t, dir, "mx."+domain)
	listen := freeAddr(t, receivingHost)
	_, port, _ := net.SplitHostPort(listen)
	if r.port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{
		"myhostname":                   "mx." + domain,
		"virtual_mailbox_domains":      domain,
		"virtual_mailbox_base":         r.mail,
		"virtual_mailbox_maps":         "static:" + maildir + "/",
		"virtual_uid_maps":             "static:" + strconv.Itoa(nobody),
		"virtual_gid_maps":             "static:" + strconv.Itoa(nobody),
		"virtual_minimum_uid":          "1",
		"smtpd_tls_cert_file":          filepath.Join(dir, "cert.pem"),
		"smtpd_tls_key_file":           filepath.Join(dir, "key.pem"),
		"smtpd_tls_security_level":     "may",
		"smtpd_tls_received_header":    "yes",
		"smtpd_recipient_restrictions": "reject_unauth_destination",
	}
	for k, v := range main {
		settings[k] = v
	}
	pf := &peers.Postfix{Dir: dir, Listen: listen, Main: settings}
	r.log = pf.Log()
	proc, err := pf.Start(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.showLog()
		if err := pf.Stop(proc); err != nil {
			t.Error(err)
		}
	})
	if err := proc.Greets(context.Background(), listen); err != nil {
		t.Fatal(err)
	}
	return r
}

// nobody is the user that the Maildirs belong to.
const nobody = 65534

// zoneFor leads from a domain to the receiving Postfix.
func zoneFor(t *testing.T, domain string) *resolvertest.Zone {
	z := resolvertest.Start(t)
	z.Add(domain+". 300 IN MX 10 mx."+domain+".", "mx."+domain+". 300 IN A "+receivingHost)
	return z
}

// TestDeliversToPostfixOverSTARTTLS: a message handed in by swaks arrives at a
// real Postfix over TLS with the same octets, and python3-dkim verifies it.
func TestDeliversToPostfixOverSTARTTLS(t *testing.T) {
	needsProgram(t, "/usr/bin/swaks", "swaks")
	needsProgram(t, "/usr/lib/python3/dist-packages/dkim/__init__.py", "python3-dkim")
	const domain = "postfix.test"
	r := startReceivingPostfix(t, domain, map[string]string{"smtpd_tls_security_level": "encrypt"})
	z := zoneFor(t, domain)
	p := newPostrider(t, z.Addr(), r.port, "")
	publishKeys(t, p, z, "sender.test")
	p.start()

	message := "From: Cron <root@sender.test>\r\nTo: <ops@" + domain + ">\r\nSubject: disk\r\n" +
		"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <e2e-1@sender.test>\r\n\r\n" +
		".a line that begins with a dot\r\n..two\r\n\r\n.\r\ntrailing blanks  \r\nend\r\n"
	swaks(t, p, "root@sender.test", "ops@"+domain, message)

	got := r.first()
	body := bytes.ReplaceAll(got, []byte("\n"), []byte("\r\n"))
	if !bytes.HasSuffix(body, []byte(message)) {
		t.Errorf("the message does not end with the octets that were sent:\n%q\nwant\n%q", body, message)
	}
	if !bytes.Contains(got, []byte("using TLSv1.3")) {
		t.Errorf("Postfix's Received field does not speak of TLS 1.3:\n%s", got)
	}
	verifyWithPython(t, z, signedPart(t, body))
}

// swaks submits a message over SMTP.
func swaks(t *testing.T, p *postrider, from, to, message string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(p.submit)
	cmd := exec.Command("/usr/bin/swaks", "--server", host, "--port", port, "--helo", "app.sender.test",
		"--from", from, "--to", to, "--data", "-", "--silent", "2")
	cmd.Stdin = strings.NewReader(strings.TrimSuffix(message, "\r\n")) // swaks ends the last line itself
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("swaks: %v\n%s", err, out)
	}
}

// signedPart cuts off what the receiving server put before the signature.
func signedPart(t *testing.T, message []byte) []byte {
	t.Helper()
	i := bytes.Index(message, []byte("DKIM-Signature:"))
	if i < 0 {
		t.Fatalf("no DKIM-Signature in:\n%s", message)
	}
	return message[i:]
}
