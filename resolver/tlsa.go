package resolver

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// HostTLSA is what binds a host's certificate.
type HostTLSA struct {
	Records   []TLSA // DNSSEC-validated; none: DANE does not apply to the host
	Base      string // the name that has them, without _port._tcp: one that the certificate may bear
	ExpiresAt time.Time
}

// HostTLSA finds the TLSA records of a host for a port (RFC 7672, section
// 2.2.3): at the name after aliases where all of the way is validated, else
// and then at the name itself where at least its own alias is. It is for hosts
// whose name comes from a validated or a fixed route (Route.Secure).
//
// An error means that nobody knows whether there are any: the host must not be
// used now (section 2.1.2).
func (r *Resolver) HostTLSA(ctx context.Context, h Host, port int) (HostTLSA, error) {
	for _, base := range tlsaBases(h) {
		found, err := r.TLSA(ctx, fmt.Sprintf("_%d._tcp.%s", port, base))
		var e *Error
		switch {
		case err == nil && found.Secure:
			return HostTLSA{found.Records, base, found.ExpiresAt}, nil
		case err == nil:
			// Records that anybody could have made bind nothing (section 2.1.1).
		case errors.As(err, &e) && (e.Kind == NoSuchDomain || e.Kind == NoData):
		default:
			return HostTLSA{}, err
		}
	}
	return HostTLSA{}, nil
}

func tlsaBases(h Host) []string {
	switch {
	case h.Name == "":
		return nil // an address has no TLSA records
	case h.Secure && h.Canonical != h.Name:
		return []string{h.Canonical, h.Name}
	case h.Secure, h.AliasSecure:
		return []string{h.Name}
	}
	return nil
}
