package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// peer is who speaks to us. On the control socket it is a user of this host.
type peer struct {
	socket bool
	user   string
	local  netip.Addr // our side of a TCP connection
	remote netip.Addr
}

type peerKey struct{}

func withPeer(ctx context.Context, c net.Conn) context.Context {
	if wrapped, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = wrapped.NetConn()
	}
	p := peer{user: userOf(c)}
	if local, ok := c.LocalAddr().(*net.TCPAddr); ok {
		p.local = local.AddrPort().Addr().Unmap()
	}
	if remote, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		p.remote = remote.AddrPort().Addr().Unmap()
	}
	return context.WithValue(ctx, peerKey{}, p)
}

func peerOf(r *http.Request) peer {
	p, _ := r.Context().Value(peerKey{}).(peer)
	return p
}

// onSocket marks requests of the control socket. A browser cannot open it;
// one that was led to it by a proxy is refused all the same.
func onSocket(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := sameOrigin(r); err != nil {
			refuse(w, err)
			return
		}
		p := peerOf(r)
		p.socket = true
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, p)))
	})
}

// submitOnly lets through what hands a message in.
func submitOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Path == "/v1/messages" {
			next.ServeHTTP(w, r)
			return
		}
		refuse(w, problem(http.StatusForbidden, "this socket takes messages and nothing else: use %s, as a member of the group postrider", SocketName))
	})
}

// guard protects the TCP listener.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if err := s.ownHost(r); err != nil {
			refuse(w, err)
			return
		}
		if err := sameOrigin(r); err != nil {
			refuse(w, err)
			return
		}
		if needsToken(r.URL.Path) && !s.authorized(r) {
			h.Set("WWW-Authenticate", `Bearer realm="postrider"`)
			refuse(w, problem(http.StatusUnauthorized, "a bearer token is needed: it is in the file %s of the state directory", TokenName))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// needsToken: all but health, metrics and the page's shell, which hold no
// address and change nothing. What is not known needs one, too.
func needsToken(path string) bool {
	switch path {
	case "/", "/healthz", "/readyz", "/metrics":
		return false
	}
	return !strings.HasPrefix(path, "/page/")
}

func (s *Server) authorized(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	// Hashes are of one length, so that the comparison tells nothing of it.
	got, want := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(s.token))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// ownHost refuses a Host that is not ours: a name of a foreign page that was
// made to point here (DNS rebinding).
func (s *Server) ownHost(r *http.Request) error {
	host := hostName(r.Host)
	if host == "localhost" {
		return nil
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap() == peerOf(r).local {
		return nil
	}
	if listen, _, err := net.SplitHostPort(s.opts.Listen); err == nil && listen != "" && strings.EqualFold(listen, host) {
		return nil
	}
	for _, own := range s.opts.Hosts {
		if hostName(own) == host {
			return nil
		}
	}
	return problem(http.StatusMisdirectedRequest, "host %q is not one of this server: use a listen address, localhost, or add the name to http.hosts", r.Host)
}

// sameOrigin refuses what a page of another origin makes a browser send.
func sameOrigin(r *http.Request) error {
	switch site := r.Header.Get("Sec-Fetch-Site"); site {
	case "", "same-origin", "none":
	default:
		return problem(http.StatusForbidden, "requests of other origins are refused (Sec-Fetch-Site: %s)", site)
	}
	for _, origin := range r.Header.Values("Origin") {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return problem(http.StatusForbidden, "requests of other origins are refused (Origin: %s)", origin)
		}
	}
	return nil
}
