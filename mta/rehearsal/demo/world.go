package demo

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
	"math/big"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/emersion/go-smtp"
	"golang.org/x/sync/errgroup"

	"postrider/mta/rehearsal"
	"postrider/resolver/resolvertest"
)

// world is the rehearsal internet: a DNS server and several receiving servers
// on addresses of their own in 127.0.0.0/8, all on one port, as real ones are.
type world struct {
	dns       *resolvertest.Zone
	port      int
	receivers []*receiver
	listeners []net.Listener
	addrs     map[string]string // manner -> address
}

// A site's first address in the rehearsal internet; the next ones follow.
const firstHost = 11

// downAddr is the address of a mail host that is down: nothing listens there.
const downAddr = "127.0.0.10"

// newWorld listens for every manner of server in the table, and publishes the
// records that lead there.
func newWorld(servers map[string][]string, l *ledger) (*world, error) {
	cert, err := selfSigned()
	if err != nil {
		return nil, err
	}
	w := &world{dns: resolvertest.New(), addrs: make(map[string]string)}
	if err := w.dns.Listen("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("rehearsal DNS: %w", err)
	}
	names := make([]string, 0, len(servers))
	for name := range servers {
		names = append(names, name)
	}
	slices.Sort(names)
	if err := w.listen(names); err != nil {
		w.close()
		return nil, err
	}
	for i, name := range names {
		w.receivers = append(w.receivers, newReceiver(name+".mx.test", mannersOf(name, cert), l))
		addr := w.listeners[i].Addr().(*net.TCPAddr).IP.String()
		w.addrs[name] = addr
		for _, domain := range servers[name] {
			w.publish(domain, name, addr)
		}
	}
	return w, nil
}

// listen finds one port that is free on the addresses of all servers.
func (w *world) listen(names []string) error {
	var last error
	for range 20 {
		w.port, w.listeners = 0, w.listeners[:0]
		for i := range names {
			l, err := net.Listen("tcp4", net.JoinHostPort(hostAddr(i), strconv.Itoa(w.port)))
			if err != nil {
				last = err
				break
			}
			w.port = l.Addr().(*net.TCPAddr).Port
			w.listeners = append(w.listeners, l)
		}
		if len(w.listeners) == len(names) {
			return nil
		}
		for _, l := range w.listeners {
			l.Close()
		}
	}
	return fmt.Errorf("no port is free on all addresses of the rehearsal internet: %w", last)
}

func hostAddr(i int) string { return "127.0.0." + strconv.Itoa(firstHost+i) }

// publish makes the records that lead from a domain to its server.
func (w *world) publish(domain, manner, addr string) {
	if manner == "firstdown" {
		w.dns.Add(
			domain+". 300 IN MX 10 mx1."+domain+".",
			domain+". 300 IN MX 20 mx2."+domain+".",
			"mx1."+domain+". 300 IN A "+downAddr,
			"mx2."+domain+". 300 IN A "+addr,
		)
		return
	}
	w.dns.Add(
		domain+". 300 IN MX 10 mx."+domain+".",
		"mx."+domain+". 300 IN A "+addr,
	)
}

func mannersOf(name string, cert tls.Certificate) manners {
	secured := &tls.Config{Certificates: []tls.Certificate{cert}}
	switch name {
	case "modern", "sender", "firstdown":
		return manners{tls: secured}
	case "slow":
		return manners{tls: secured, pause: 400 * time.Millisecond}
	case "greylist":
		return manners{tls: secured, greylist: 2 * time.Second}
	case "strict":
		return manners{tls: secured, unknown: "nobody@strict.test"}
	default:
		return manners{plainOnly: true}
	}
}

// run serves until ctx ends.
func (w *world) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, r := range w.receivers {
		g.Go(func() error {
			if err := r.serve(w.listeners[i]); err != nil && !errors.Is(err, smtp.ErrServerClosed) && ctx.Err() == nil {
				return fmt.Errorf("receiving server %s: %w", r.name, err)
			}
			return nil
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		for _, r := range w.receivers {
			_ = r.close()
		}
		return nil
	})
	err := g.Wait()
	w.dns.Close()
	return err
}

// close gives up a world that does not run.
func (w *world) close() {
	for _, l := range w.listeners {
		l.Close()
	}
	w.dns.Close()
}

// selfSigned is what most receiving servers show: a certificate that nobody
// can check.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "mx.test"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"mx.test"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// domainsOf lists the domains that deliver at once, for injected messages.
func domainsOf(e *rehearsal.Expected) []string {
	var all []string
	for _, manner := range []string{"modern", "plain", "firstdown"} {
		all = append(all, e.Servers[manner]...)
	}
	return all
}
