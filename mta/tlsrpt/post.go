package tlsrpt

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	postTimeout = time.Minute
	maxHeader   = 16 << 10
)

// Poster takes reports to web servers. The zero value dials anything and
// trusts the authorities of the system.
type Poster struct {
	// Dial makes connections. The URL is chosen by strangers: Dial must refuse
	// addresses that they must not reach through us. Nil: a plain net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// RootCAs vouch for the web server; nil: those of the system.
	RootCAs *x509.CertPool
}

// Post sends a report (section 5.4), without redirects, in at most a minute.
func (p *Poster) Post(ctx context.Context, url string, r *Report) error {
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(r.gzip))
	if err != nil {
		return fmt.Errorf("posting a TLS report: %w", err)
	}
	req.Header.Set("Content-Type", "application/tlsrpt+gzip")
	req.Header.Set("User-Agent", "") // keeps net/http from naming itself
	dial := p.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	transport := &http.Transport{
		DialContext:            dial,
		TLSClientConfig:        &tls.Config{RootCAs: p.RootCAs, MinVersion: tls.VersionTLS12},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
	defer transport.CloseIdleConnections()
	client := http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("posting a TLS report: %w", err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, maxHeader)) // lets the server finish
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("posting a TLS report: %s answers %d", url, resp.StatusCode)
	}
	return nil
}
