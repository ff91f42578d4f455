package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"postrider/mta/api/wire"
	"postrider/mta/mailaddr"
	"postrider/resolver"
)

const explainTimeout = 20 * time.Second // for the questions to DNS

// explain answers how mail to an address would go: GET /v1/explain?address=.
func (s *Server) explain(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	for name := range q {
		if name != "address" {
			return problem(400, "parameter %q is unknown", name)
		}
	}
	if s.opts.Destinations == nil {
		return unavailable("explain")
	}
	address, err := mailaddr.ParseUnqualified(q.Get("address"))
	if err != nil {
		return problem(400, "%v", err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), explainTimeout)
	defer cancel()
	return answer(w, http.StatusOK, s.explanation(ctx, address))
}

func (s *Server) explanation(ctx context.Context, address mailaddr.Address) wire.Explanation {
	now := s.opts.Now()
	domain := address.ASCIIDomain()
	out := wire.Explanation{Address: address.String(), Domain: domain, Route: "none", Hosts: []wire.Host{}}
	if address.Domain == "" {
		out.Address = address.Local
	}
	if domain == "" || s.opts.Destinations.Local(domain) {
		out.Local = true
		return out
	}
	settings, port := s.opts.Destinations.Settings(domain)
	out.Settings = settings
	if s.opts.Lanes != nil {
		if lane, ok := s.opts.Lanes.Lane(now, domain); ok {
			out.Lane = &lane
		}
	}
	for _, suspension := range s.suspended(now) {
		if suspends(&suspension, domain, out.Lane) {
			out.Suspensions = append(out.Suspensions, suspension)
		}
	}
	route, err := s.opts.Destinations.Route(ctx, domain)
	if err != nil {
		out.RouteError = err.Error()
		var known *resolver.Error
		out.Permanent = errors.As(err, &known) && !known.Temporary()
		return out
	}
	out.Site, out.DNSSEC, out.Route = route.Site, route.Secure, "mx"
	switch {
	case route.Fixed:
		out.Route = "fixed"
	case route.Literal:
		out.Route = "literal"
	case route.Implicit:
		out.Route = "implicit"
	}
	demands := s.opts.Destinations.Demands(ctx, domain, route)
	for i := range route.Hosts {
		out.Hosts = append(out.Hosts, s.hostOf(&route.Hosts[i], port, demands[i]))
	}
	for i := range route.Skipped {
		h := &route.Skipped[i]
		out.Skipped = append(out.Skipped, s.hostOf(h, port, wire.Demand{Error: fmt.Sprintf("nothing is asked of it: %v", h.Err)}))
	}
	return out
}

func (s *Server) hostOf(h *resolver.Host, port int, demand wire.Demand) wire.Host {
	if h.Port != 0 {
		port = h.Port
	}
	out := wire.Host{Name: h.Name, Preference: h.Preference, Port: port, Addresses: []wire.HostAddress{}, TLS: demand}
	if h.Err != nil {
		out.Error = h.Err.Error()
	}
	for _, ip := range h.Addrs {
		a := wire.HostAddress{IP: ip.String()}
		if err := s.opts.Destinations.Dialable(netip.AddrPortFrom(ip, uint16(port))); err != nil {
			a.Refused = err.Error()
		}
		out.Addresses = append(out.Addresses, a)
	}
	return out
}

func (s *Server) suspended(now time.Time) []wire.Suspension {
	if s.opts.Suspensions == nil {
		return nil
	}
	return s.opts.Suspensions.Suspensions(now)
}

// suspends tells whether a suspension holds mail to a domain, whoever sends it.
func suspends(s *wire.Suspension, domain string, lane *wire.Lane) bool {
	if s.Sender+s.Tag != "" {
		return false
	}
	if s.Site != "" && (lane == nil || lane.Site != s.Site) {
		return false
	}
	return s.Domain == "" || matchDomain(s.Domain, domain)
}
