package mtasts

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// authority issues certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert, key, pool}
}

func (a *authority) issue(t *testing.T, until time.Time, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: names,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// policyServer gives the address of an HTTPS server.
func policyServer(t *testing.T, cert tls.Certificate, handler http.Handler) string {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func dialTo(addr string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, asked string) (net.Conn, error) {
		if asked != "mta-sts.d.test:443" {
			return nil, fmt.Errorf("%s was to be dialled", asked)
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}

const goodPolicy = "version: STSv1\nmode: enforce\nmax_age: 86400\nmx: mx.d.test\n"

func TestFetch(t *testing.T) {
	t.Parallel()
	ca, stranger := newAuthority(t), newAuthority(t)
	hour := time.Now().Add(time.Hour)
	good := ca.issue(t, hour, "mta-sts.d.test")
	serve := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("Location", "/elsewhere")
			if r.URL.Path != "/.well-known/mta-sts.txt" || r.Host != "mta-sts.d.test" || r.Method != http.MethodGet {
				status, body = 200, strings.Replace(goodPolicy, "mx.d", "wrong", 1)
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	tests := []struct {
		name    string
		cert    tls.Certificate
		handler http.Handler
		kind    Kind
		text    string
	}{
		{"well", good, serve(200, "text/plain", goodPolicy), 0, ""},
		{"with a charset", good, serve(200, "Text/Plain; charset=utf-8", goodPolicy), 0, ""},
		{"redirect", good, serve(302, "text/plain", goodPolicy), FetchFailed, "302"},
		{"permanent redirect", good, serve(308, "text/plain", goodPolicy), FetchFailed, "308"},
		{"not found", good, serve(404, "text/plain", goodPolicy), FetchFailed, "404"},
		{"partial", good, serve(206, "text/plain", goodPolicy), FetchFailed, "206"},
		{"broken", good, serve(500, "text/plain", goodPolicy), FetchFailed, "500"},
		{"a web page", good, serve(200, "text/html", goodPolicy), FetchFailed, "text/html"},
		{"of no type", good, serve(200, "", goodPolicy), FetchFailed, "text/plain"},
		{"not a policy", good, serve(200, "text/plain", "hello"), PolicyInvalid, "line 1"},
		{"64 KB", good, serve(200, "text/plain", goodPolicy+strings.Repeat("\n", maxPolicy-len(goodPolicy))), 0, ""},
		{"more than 64 KB", good, serve(200, "text/plain", goodPolicy+strings.Repeat("\n", maxPolicy)), PolicyInvalid, "65536"},
		{"large header", good, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Large", strings.Repeat("x", 2*maxHeader))
			serve(200, "text/plain", goodPolicy)(w, r)
		}), FetchFailed, "header"},
		{"other name", ca.issue(t, hour, "d.test", "mx.d.test"), serve(200, "text/plain", goodPolicy), CertificateInvalid, "mta-sts.d.test"},
		{"wildcard", ca.issue(t, hour, "*.d.test"), serve(200, "text/plain", goodPolicy), 0, ""},
		{"expired", ca.issue(t, time.Now().Add(-time.Hour), "mta-sts.d.test"), serve(200, "text/plain", goodPolicy), CertificateInvalid, "expired"},
		{"unknown authority", stranger.issue(t, hour, "mta-sts.d.test"), serve(200, "text/plain", goodPolicy), CertificateInvalid, "authority"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := &Fetcher{Dial: dialTo(policyServer(t, tt.cert, tt.handler)), RootCAs: ca.pool}
			p, err := f.Fetch(t.Context(), "d.test")
			if tt.kind == 0 {
				if err != nil || p.Mode != Enforce || len(p.MX) != 1 || p.MX[0] != "mx.d.test" {
					t.Errorf("%+v, %v", p, err)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) || e.Kind != tt.kind || e.Domain != "d.test" || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%+v, %v, want kind %d, %q", p, err, tt.kind, tt.text)
			}
		})
	}
}

func TestFetchRefusedByTheDialer(t *testing.T) {
	t.Parallel()
	refusal := errors.New("a private address")
	f := &Fetcher{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, refusal }}
	_, err := f.Fetch(t.Context(), "d.test")
	var e *Error
	if !errors.As(err, &e) || e.Kind != FetchFailed || !errors.Is(err, refusal) {
		t.Error(err)
	}
}

// A server that sends slowly, or not at all, costs what its caller grants.
func TestFetchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	started, release := make(chan struct{}), make(chan struct{})
	addr := policyServer(t, ca.issue(t, time.Now().Add(time.Hour), "mta-sts.d.test"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		io.WriteString(w, goodPolicy)
		w.(http.Flusher).Flush()
		close(started)
		<-release
	}))
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	f := &Fetcher{Dial: dialTo(addr), RootCAs: ca.pool}
	_, err := f.Fetch(ctx, "d.test")
	var e *Error
	if !errors.As(err, &e) || e.Kind != FetchFailed || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// What lies behind the first 64 KB is not read, however long a server goes on.
func TestFetchReadsNoMoreThanAPolicy(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	const most = 64 << 20 // more than the buffers in between hold
	left := make(chan int, 1)
	addr := policyServer(t, ca.issue(t, time.Now().Add(time.Hour), "mta-sts.d.test"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		piece, n := []byte(strings.Repeat("\n", 64<<10)), 0
		for n < most {
			if _, err := w.Write(piece); err != nil {
				break
			}
			n += len(piece)
		}
		left <- n
	}))
	f := &Fetcher{Dial: dialTo(addr), RootCAs: ca.pool}
	_, err := f.Fetch(t.Context(), "d.test")
	var e *Error
	if !errors.As(err, &e) || e.Kind != PolicyInvalid {
		t.Error(err)
	}
	if n := <-left; n >= most {
		t.Errorf("%d octets were read", n)
	}
}

// A minute is all that a server has, whether it is silent or sends an octet now
// and then (RFC 8461, section 3.3).
func TestFetchEndsAfterAMinute(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]func(net.Conn){
		"silent":      func(c net.Conn) { io.Copy(io.Discard, c) },
		"not reached": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				f := &Fetcher{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
					if serve == nil {
						<-ctx.Done()
						return nil, ctx.Err()
					}
					client, server := net.Pipe()
					go serve(server)
					return client, nil
				}}
				_, err := f.Fetch(t.Context(), "d.test")
				var e *Error
				if !errors.As(err, &e) || e.Kind != FetchFailed || !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				if took := time.Since(began); took != time.Minute {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}
