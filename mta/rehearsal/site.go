package rehearsal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// SiteOptions configure a site.
type SiteOptions struct {
	Listen []string // for SMTP, at least one
	DNS    string   // empty: no nameserver
	Stats  string   // where the counts are served over HTTP, on loopback; empty: nowhere
	Sink   SinkOptions
	// Nameserver.Addresses may be empty: where SMTP is listened for.
	Nameserver NameserverOptions
}

// Site is a sink with the nameserver that leads to it.
type Site struct {
	Sink *Sink
	// Where they listen; nil where they do not.
	SMTP  []net.Addr
	DNS   net.Addr
	Stats net.Addr

	listeners []net.Listener
	udp       net.PacketConn
	tcp       net.Listener
	names     *Nameserver
	http      net.Listener
}

// OpenSite checks the options and listens; Run serves. After an error nothing
// is open.
func OpenSite(o SiteOptions) (s *Site, err error) {
	s = new(Site)
	defer func() {
		if err != nil {
			s.close()
			s = nil
		}
	}()
	if s.Sink, err = NewSink(o.Sink); err != nil {
		return s, err
	}
	for _, address := range o.Listen {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return s, err
		}
		s.listeners = append(s.listeners, l)
		s.SMTP = append(s.SMTP, l.Addr())
	}
	if len(s.listeners) == 0 {
		return s, errors.New("sink: nowhere to listen")
	}
	if o.DNS != "" {
		if err := s.openDNS(o); err != nil {
			return s, err
		}
	}
	if o.Stats != "" {
		return s, s.openStats(o.Stats)
	}
	return s, nil
}

func (s *Site) openDNS(o SiteOptions) (err error) {
	if len(o.Nameserver.Addresses) == 0 {
		if o.Nameserver.Addresses, err = s.addresses(); err != nil {
			return err
		}
	}
	if s.names, err = NewNameserver(o.Nameserver); err != nil {
		return err
	}
	if s.udp, s.tcp, err = ListenDNS(o.DNS); err != nil {
		return err
	}
	s.DNS = s.udp.LocalAddr()
	return nil
}

// addresses are those that SMTP is listened for on.
func (s *Site) addresses() ([]netip.Addr, error) {
	var all []netip.Addr
	for _, a := range s.SMTP {
		ip := a.(*net.TCPAddr).AddrPort().Addr().Unmap()
		if ip.IsUnspecified() {
			return nil, fmt.Errorf("sink: %v is every address: name the one that mail hosts shall have", a)
		}
		if !slices.Contains(all, ip) {
			all = append(all, ip)
		}
	}
	return all, nil
}

func (s *Site) openStats(address string) (err error) {
	if s.http, err = net.Listen("tcp", address); err != nil {
		return err
	}
	if !s.http.Addr().(*net.TCPAddr).IP.IsLoopback() {
		return fmt.Errorf("sink: the counts are for this host alone, and %s is not on loopback", address)
	}
	s.Stats = s.http.Addr()
	return nil
}

func (s *Site) close() {
	for _, l := range s.listeners {
		l.Close()
	}
	for _, l := range []net.Listener{s.tcp, s.http} {
		if l != nil {
			l.Close()
		}
	}
	if s.udp != nil {
		s.udp.Close()
	}
}

// Run serves until ctx ends, or one of the servers does.
func (s *Site) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.Sink.Run(ctx, s.listeners...) })
	if s.names != nil {
		g.Go(func() error { return s.names.Run(ctx, s.udp, s.tcp) })
	}
	if s.http != nil {
		server := &http.Server{Handler: s.Sink, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
		g.Go(func() error {
			if err := server.Serve(s.http); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		g.Go(func() error {
			<-ctx.Done()
			return server.Close()
		})
	}
	return g.Wait()
}
