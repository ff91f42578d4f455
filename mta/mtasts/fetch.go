package mtasts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"time"
)

const (
	fetchTimeout = time.Minute // RFC 8461, section 3.3
	maxHeader    = 16 << 10
)

// Fetcher gets policies over HTTPS. The zero value dials anything and trusts
// the authorities of the system.
type Fetcher struct {
	// Dial makes connections. A domain is chosen by strangers and says where
	// its web server is: Dial must refuse addresses that they must not reach
	// through us. Nil: a plain net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// RootCAs vouch for the web server; nil: those of the system.
	RootCAs *x509.CertPool
	// UserAgent is sent along; empty: none.
	UserAgent string
}

// Fetch gets the policy of a domain in A-labels: with all checks of the
// certificate, without redirects, caches and proxies (section 3.3), at most 64
// KB in at most a minute. The error is an *Error.
func (f *Fetcher) Fetch(ctx context.Context, domain string) (Policy, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	body, err := f.get(ctx, "https://mta-sts."+domain+"/.well-known/mta-sts.txt")
	if err != nil {
		kind := FetchFailed
		if isCertificateError(err) {
			kind = CertificateInvalid
		}
		return Policy{}, &Error{kind, domain, err}
	}
	p, err := ParsePolicy(body)
	if err != nil {
		return Policy{}, &Error{PolicyInvalid, domain, err}
	}
	return p, nil
}

func (f *Fetcher) get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	// An empty value keeps net/http from naming itself.
	req.Header.Set("User-Agent", f.UserAgent)
	transport := f.transport()
	defer transport.CloseIdleConnections()
	client := http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %d, not 200", url, resp.StatusCode)
	}
	if media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || media != "text/plain" {
		// The check keeps user content of a web host from being taken for a policy.
		return nil, fmt.Errorf("%s is of type %q, not text/plain", url, resp.Header.Get("Content-Type"))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPolicy+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", url, err)
	}
	return body, nil
}

func (f *Fetcher) transport() *http.Transport {
	dial := f.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return &http.Transport{
		DialContext:            dial,
		TLSClientConfig:        &tls.Config{RootCAs: f.RootCAs, MinVersion: tls.VersionTLS12},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
}

func isCertificateError(err error) bool {
	var verification *tls.CertificateVerificationError
	var name x509.HostnameError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &verification) || errors.As(err, &name) || errors.As(err, &authority) || errors.As(err, &invalid)
}
