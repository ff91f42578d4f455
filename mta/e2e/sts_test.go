//go:build e2e

package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"postrider/mta/smtptest"
	"postrider/resolver/resolvertest"
)

// webHost is where the HTTPS server of the tests listens, on port 443.
const webHost = "127.0.0.31"

// web serves MTA-STS policies by domain and takes TLS reports at /reports,
// over real HTTPS with certificates of an authority of its own.
type web struct {
	mu       sync.Mutex
	policies map[string]string
	reports  [][]byte // unpacked
}

func startWeb(t *testing.T, ca *smtptest.CA) *web {
	t.Helper()
	w := &web{policies: make(map[string]string)}
	l, err := net.Listen("tcp", webHost+":443")
	if err != nil {
		needs(t, err)
	}
	s := httptest.NewUnstartedServer(w)
	s.Listener.Close()
	s.Listener = l
	s.TLS = &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := ca.Issue(hello.ServerName)
		return &cert, err
	}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return w
}

func (w *web) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	policy, ok := w.policies[strings.TrimPrefix(r.Host, "mta-sts.")]
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/reports":
		if packed, err := gzip.NewReader(r.Body); err == nil {
			if text, err := io.ReadAll(packed); err == nil {
				w.reports = append(w.reports, text)
			}
		}
		out.WriteHeader(http.StatusCreated)
	case ok && r.URL.Path == "/.well-known/mta-sts.txt":
		out.Header().Set("Content-Type", "text/plain")
		io.WriteString(out, policy)
	default:
		http.NotFound(out, r)
	}
}

func (w *web) publish(domain, policy string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.policies[domain] = policy; policy == "" {
		delete(w.policies, domain)
	}
}

// report is the first one about a domain; empty while there is none.
func (w *web) report(domain string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.reports {
		if bytes.Contains(r, []byte(`"policy-domain": "`+domain+`"`)) {
			return string(r)
		}
	}
	return ""
}

// summary is what a report says: "sts 1/2 a-failure" is one success and two
// failures under an MTA-STS policy.
func summary(t *testing.T, text string) string {
	t.Helper()
	var report struct {
		Policies []struct {
			Policy struct {
				Type string `json:"policy-type"`
			} `json:"policy"`
			Summary struct {
				Successes int `json:"total-successful-session-count"`
				Failures  int `json:"total-failure-session-count"`
			} `json:"summary"`
			Details []struct {
				Result string `json:"result-type"`
			} `json:"failure-details"`
		} `json:"policies"`
	}
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		t.Fatalf("%v in the report:\n%s", err, text)
	}
	var said []string
	for _, p := range report.Policies {
		s := fmt.Sprintf("%s %d/%d", p.Policy.Type, p.Summary.Successes, p.Summary.Failures)
		for _, d := range p.Details {
			s += " " + d.Result
		}
		said = append(said, s)
	}
	return strings.Join(said, ", ")
}

// trustOnly makes an authority the only one that the daemon knows.
func trustOnly(t *testing.T, ca *smtptest.CA) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate.Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	t.Setenv("SSL_CERT_DIR", t.TempDir())
}

// TestMTASTSAndReports: policies over real HTTPS, a Postfix whose certificate
// nobody vouches for, hosts whose certificate is valid; a restart while the
// policies' server is away; and the reports of all this, by signed mail and by
// HTTPS.
func TestMTASTSAndReports(t *testing.T) {
	const good, bad, lenient, plain = "good.test", "bad.test", "lenient.test", "plain.test"
	ca, err := smtptest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	trustOnly(t, ca)
	w := startWeb(t, ca)
	r := startReceivingPostfix(t, bad, map[string]string{"virtual_mailbox_domains": bad + ", " + lenient + ", " + plain})
	z := resolvertest.Start(t)
	host := verifiedHost(t, ca, z, r.port)
	for domain, mode := range map[string]string{good: "enforce", bad: "enforce", lenient: "testing"} {
		mx := "mx." + bad
		if domain == good {
			mx = host.name
		}
		z.Add(domain+". 300 IN MX 10 "+mx+".", "_mta-sts."+domain+`. 300 IN TXT "v=STSv1; id=1"`, "mta-sts."+domain+". 300 IN A "+webHost)
		w.publish(domain, "version: STSv1\r\nmode: "+mode+"\r\nmx: "+mx+"\r\nmax_age: 86400\r\n")
	}
	z.Add("mx."+bad+". 300 IN A "+receivingHost, plain+". 300 IN MX 10 mx."+bad+".", "reports.test. 300 IN MX 10 "+host.name+".", "web.test. 300 IN A "+webHost,
		"_smtp._tls."+lenient+`. 300 IN TXT "v=TLSRPTv1; rua=mailto:tls@reports.test,https://web.test/reports"`,
		"_smtp._tls."+plain+`. 300 IN TXT "v=TLSRPTv1; rua=https://web.test/reports"`)
	t.Setenv("POSTRIDER_DELIVERY_MAX_CONNECTIONS_PER_SITE", "1") // so that domains share them
	p := newPostrider(t, z.Addr(), r.port, "[tlsrpt]\ninterval = \"4s\"\n")
	publishKeys(t, p, z, "sender.test")
	publishKeys(t, p, z, "mta.sender.test")
	p.start()

	p.wantExplained("a@"+good, "TLS: verify, from MTA-STS")
	p.traceWith(p.submitTo("a@"+good), " verified (asked for: verify (MTA-STS)): 250 ")
	waiting := p.submitTo("a@" + bad)
	p.traceWith(waiting, "4.7.5 the TLS handshake with mx.bad.test ")
	// Two domains, one connection: each has its own reason, and its own report.
	both := p.submitTo("a@"+lenient, "--to", "a@"+plain)
	p.traceWith(both, " unverified (asked for: enable (MTA-STS only testing)): 250 ")
	p.traceWith(both, " unverified (asked for: enable): 250 ")
	p.wantMetric(`postrider_connections_total{demand="enable",reached="unverified",source="configuration"}`, "1")
	p.wantMetric(`postrider_connections_total{demand="verify",reached="verified",source="MTA-STS"}`, "1")

	// What a message itself asks for (RFC 8689).
	p.traceWith(p.submitTo("required@"+good, "--require-tls"), " verified (asked for: verify (MTA-STS)): 250 ")
	if params := host.params("required@" + good); !strings.Contains(params, " REQUIRETLS") {
		t.Errorf("MAIL had the parameters %q, without REQUIRETLS", params)
	}
	p.traceWith(p.submitTo("a@"+plain, "--require-tls"), "5.7.30 mx.bad.test is not used: the message demands TLS to an authenticated host")
	p.traceWith(p.submitTo("a@"+bad, "--header", "TLS-Required: No"), " unverified (asked for: enable (message)): 250 ")

	// The report by mail walks the ring, signed; the one by HTTPS has the same.
	waitFor(t, "the reports", func() bool {
		return w.report(lenient) != "" && w.report(plain) != "" && len(host.mailTo("tls@reports.test")) > 0
	})
	for what, tt := range map[string]struct{ text, want string }{
		"by HTTPS":                  {w.report(lenient), "sts 0/1 certificate-host-mismatch"},
		"by mail":                   {reportOf(t, z, host.mailTo("tls@reports.test")[0]), "sts 0/1 certificate-host-mismatch"},
		"of the domain that shares": {w.report(plain), "no-policy-found 1/0"},
	} {
		if got := summary(t, tt.text); got != tt.want {
			t.Errorf("the report %s says %q, want %q:\n%s", what, got, tt.want, tt.text)
		}
	}

	// What is remembered holds after a restart without the policies' server.
	for _, domain := range []string{good, bad, lenient} {
		w.publish(domain, "")
		z.Remove("mta-sts." + domain)
		z.Remove("_mta-sts." + domain)
	}
	if err := p.proc.Terminate(); err != nil {
		t.Fatal(err)
	}
	p.start()
	p.traceWith(p.submitTo("a@"+bad), "4.7.5 the TLS handshake with mx.bad.test ")
	p.wantExplained("a@"+bad, "TLS: verify, from MTA-STS")
	if n := len(r.messages()); n != 3 {
		t.Errorf("%d messages arrived at the host without a valid certificate, want that of mode testing, that without a policy, and that which demands no TLS", n)
	}
}

// verified is a mail host with a valid certificate.
type verified struct {
	name string
	*smtptest.Server
}

func verifiedHost(t *testing.T, ca *smtptest.CA, z *resolvertest.Zone, port int) verified {
	t.Helper()
	const name, addr = "mx.verified.test", "127.0.0.32"
	config, err := ca.TLS(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := smtptest.Start(net.JoinHostPort(addr, strconv.Itoa(port)), smtptest.Script{Name: name, Extensions: []string{"STARTTLS", "PIPELINING", "8BITMIME", "REQUIRETLS"}, TLS: config})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	z.Add(name + ". 300 IN A " + addr)
	return verified{name, s}
}

func (v verified) mailTo(address string) [][]byte {
	var all [][]byte
	for _, tx := range v.Transactions() {
		for _, to := range tx.Rcpts {
			if to.Address == address && tx.IsAccepted {
				all = append(all, tx.Content)
			}
		}
	}
	return all
}

// params are those of the MAIL command of a message that was taken over TLS.
func (v verified) params(to string) string {
	for _, tx := range v.Transactions() {
		if tx.IsTLS && tx.IsAccepted && tx.Rcpts[0].Address == to {
			return " " + tx.FromParams
		}
	}
	return ""
}

// reportOf unpacks the report in a message, whose signatures must be good.
func reportOf(t *testing.T, z *resolvertest.Zone, message []byte) string {
	t.Helper()
	verifyWithPython(t, z, message)
	if !bytes.Contains(message, []byte("\r\nTLS-Report-Domain: lenient.test\r\n")) || !bytes.Contains(message, []byte("\r\nTLS-Required: No\r\n")) {
		t.Errorf("the header of the report:\n%s", message)
	}
	_, part, _ := bytes.Cut(message, []byte("Content-Type: application/tlsrpt+gzip"))
	_, body, _ := bytes.Cut(part, []byte("\r\n\r\n"))
	body, _, _ = bytes.Cut(body, []byte("\r\n--"))
	packed, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(body), "\r\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
