package resolver

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// ServerReport is what one name server showed when it was asked by itself.
type ServerReport struct {
	Addr netip.AddrPort
	Took time.Duration
	EDNS bool  // it understands EDNS (RFC 6891): without it there is no DNSSEC
	AD   bool  // it says that it has validated the answer
	Err  error // no usable answer came; nothing else is known then
}

// Examine asks each server in use, past the cache and all at once, for the SOA
// record of a name; empty: the root. It is for people who look for what is
// wrong: nothing that it finds changes whom the resolver asks or believes.
func (r *Resolver) Examine(ctx context.Context, name string) ([]ServerReport, error) {
	q := question{qtype: dns.TypeSOA}
	if name != "" {
		var err error
		if q.name, err = asciiDomain(name); err != nil {
			return nil, err
		}
	}
	list := r.servers.current(r.now())
	reports := make([]ServerReport, len(list))
	var wg sync.WaitGroup
	for i, s := range list {
		wg.Go(func() { reports[i] = examine(ctx, s.addr, q, r.options.Timeout) })
	}
	wg.Wait()
	return reports, nil
}

func examine(ctx context.Context, server netip.AddrPort, q question, timeout time.Duration) ServerReport {
	began := time.Now()
	m, failed := query(ctx, server, q, timeout)
	report := ServerReport{Addr: server, Took: time.Since(began)}
	switch {
	case failed != nil:
		report.Err = failed
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError: // that it has no such name is an answer
		report.Err = fmt.Errorf("it answers %s for %s", rcodeName(m.Rcode), quoteName(q.name))
	default:
		report.EDNS, report.AD = m.IsEdns0() != nil, m.AuthenticatedData
	}
	return report
}
