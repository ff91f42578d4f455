//go:build e2e

package e2e

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// keyDigest is what a TLSA record 3 1 1 has for the certificate of Postfix.
func (r *receiver) keyDigest() string {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(filepath.Dir(r.mail), "cert.pem"))
	if err != nil {
		r.t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		r.t.Fatal("no certificate in cert.pem")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		r.t.Fatal(err)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// submitTo hands a message in by the command line and answers its ID.
func (p *postrider) submitTo(to string, flags ...string) string {
	p.t.Helper()
	args := append([]string{"send", "--config", p.config, "--from", "root@sender.test", "--to", to, "--subject", "disk"}, flags...)
	out := p.run("", append(args, "full")...)
	m := regexp.MustCompile(`queued as ([0-9a-z]{26})`).FindStringSubmatch(out)
	if m == nil {
		p.t.Fatalf("send: %s", out)
	}
	return m[1]
}

// traceWith waits until the trace of a message says something.
func (p *postrider) traceWith(id, text string) string {
	p.t.Helper()
	var trace string
	waitFor(p.t, fmt.Sprintf("%q in the trace of %s", text, id), func() bool {
		trace = p.run("", "trace", "--config", p.config, id)
		return strings.Contains(trace, text)
	})
	return trace
}

// metric answers the value of a series, "" where it is not there.
func (p *postrider) metric(series string) string {
	p.t.Helper()
	resp, err := http.Get("http://" + p.http + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), series+" "); ok {
			return value
		}
	}
	return ""
}

func (p *postrider) wantMetric(series, want string) {
	p.t.Helper()
	if got := p.metric(series); got != want {
		p.t.Errorf("%s is %q, want %s", series, got, want)
	}
}

func (p *postrider) wantExplained(address, text string) {
	p.t.Helper()
	if got := p.run("", "explain", "--config", p.config, address); !strings.Contains(got, text) {
		p.t.Errorf("explain %s:\n%s\nwant %q", address, got, text)
	}
}

// TestDANE: a real validating resolver, a real Postfix with STARTTLS. The
// domain whose TLSA record is right is delivered to, authenticated by it; the
// one whose record is of another key is not, and waits.
func TestDANE(t *testing.T) {
	const good, bad, bogus = "signed.test", "bad.signed.test", "bogus.test"
	r := startReceivingPostfix(t, good, map[string]string{
		"smtpd_tls_security_level": "encrypt", "virtual_mailbox_domains": good + ", " + bad,
	})
	zone := signZone(t, good, false,
		good+". 300 IN MX 10 mx."+good+".", "mx."+good+". 300 IN A "+receivingHost,
		fmt.Sprintf("_%d._tcp.mx.%s. 300 IN TLSA 3 1 1 %s", r.port, good, r.keyDigest()),
		bad+". 300 IN MX 10 mx."+bad+".", "mx."+bad+". 300 IN A "+receivingHost,
		fmt.Sprintf("_%d._tcp.mx.%s. 300 IN TLSA 3 1 1 %s", r.port, bad, strings.Repeat("5a", 32)))
	broken := signZone(t, bogus, true, bogus+". 300 IN MX 10 mx."+good+".", bogus+". 300 IN A 127.0.0.1")
	t.Setenv("POSTRIDER_RESOLVER_PROBE_SIGNED", good)
	t.Setenv("POSTRIDER_RESOLVER_PROBE_BOGUS", bogus)
	p := newPostrider(t, startUnbound(t, zone, broken), r.port, "")
	p.start()

	p.wantExplained("ops@"+good, "TLS: dane, from DANE")
	p.traceWith(p.submitTo("ops@"+good), " dane (asked for: dane (DANE)): 250 ")
	if got := r.first(); !strings.Contains(string(got), "using TLSv1.3") {
		t.Errorf("Postfix's Received field does not speak of TLS 1.3:\n%s", got)
	}
	trace := p.traceWith(p.submitTo("ops@"+bad), "deferred")
	if !strings.Contains(trace, "4.7.5 the TLS handshake with mx.bad.signed.test") || !strings.Contains(trace, "no TLSA record matches") {
		t.Errorf("the trace does not tell why:\n%s", trace)
	}
	p.traceWith(p.submitTo("ops@"+bogus), "4.4.3 looking up MX of bogus.test")
	if n := len(r.messages()); n != 1 {
		t.Errorf("%d messages arrived", n)
	}
	p.wantMetric(`postrider_connections_total{demand="dane",reached="dane",source="DANE"}`, "1")
	if n := p.metric(`postrider_tls_failures_total{result="tlsa-invalid"}`); n == "" || n == "0" {
		t.Errorf("%q failures by TLSA records are counted", n)
	}
	log, err := os.ReadFile(p.proc.Log)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"the name servers validate and are trusted, DANE is in use", ` dane" demand="dane (DANE)"`} {
		if strings.Count(string(log), text) != 1 {
			t.Errorf("the log does not say once: %s", text)
		}
	}
}

// TestOldTLS: a Postfix that knows TLS 1.0 and nothing newer is delivered to
// where TLS is a wish, over TLS 1.0, and not where it is demanded.
func TestOldTLS(t *testing.T) {
	const domain = "old.test"
	r := startReceivingPostfix(t, domain, map[string]string{
		"smtpd_tls_security_level":  "may",
		"smtpd_tls_protocols":       "TLSv1",
		"smtpd_tls_ciphers":         "medium",
		"tls_medium_cipherlist":     "ALL:@SECLEVEL=0",
		"smtpd_tls_eecdh_grade":     "auto",
		"virtual_mailbox_domains":   domain + ", strict." + domain,
		"smtpd_tls_loglevel":        "1",
		"smtpd_tls_exclude_ciphers": "aNULL",
	})
	z := zoneFor(t, domain)
	z.Add("strict." + domain + ". 300 IN MX 10 mx." + domain + ".")
	p := newPostrider(t, z.Addr(), r.port, "[[destination]]\ndomain = \"strict."+domain+"\"\ntls = \"require\"\n")
	p.start()
	trace := p.traceWith(p.submitTo("ops@"+domain), "delivered")
	if !strings.Contains(trace, " over TLS1.0 ") || !strings.Contains(trace, "(asked for: enable; from TLS 1.0 up: the TLS handshake with mx.old.test ") {
		t.Errorf("the trace does not tell which TLS and why:\n%s", trace)
	}
	if got := r.first(); !strings.Contains(string(got), "using TLSv1 ") {
		t.Errorf("Postfix's Received field does not speak of TLS 1.0:\n%s", got)
	}
	p.traceWith(p.submitTo("ops@strict."+domain), "4.7.5 the TLS handshake with mx.old.test ")
	if n := len(r.messages()); n != 1 {
		t.Errorf("%d messages arrived", n)
	}
}
