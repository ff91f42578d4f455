package api

import (
	"cmp"
	"net/http"
	"time"

	"postrider/mta/api/wire"
	"postrider/queue"
)

const maxDomains = 10_000

// stats answers the figures of the queue: GET /v1/stats?domains=100.
func (s *Server) stats(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	for name := range q {
		if name != "domains" {
			return problem(400, "parameter %q is unknown", name)
		}
	}
	most, err := number(q, "domains", defaultDomainsInGrid, maxDomains)
	if err != nil {
		return err
	}
	now := s.opts.Now()
	d := s.opts.Queue.Depth(now)
	out := wire.Stats{
		At: instant(now), Mode: cmp.Or(s.opts.Mode, "live"),
		Messages: d.Messages, Recipients: d.Recipients,
		Waiting: d.Waiting, Due: d.Due, Active: d.Active, Held: d.Held,
		Oldest: instant(d.Oldest), UnreportedNotices: d.UnreportedNotices, BodyMemory: d.BodyMemory,
		Domains: []wire.Domain{}, Suspensions: []wire.Suspension{},
	}
	if err := s.opts.Ready(); err != nil {
		out.Error = err.Error()
	}
	domains := s.opts.Queue.Domains(now, 0)
	out.DomainCount = len(domains)
	for i := range domains {
		for column, n := range domains[i].Age {
			out.Ages[column] += n
		}
		if i < most {
			out.Domains = append(out.Domains, s.domainOf(now, &domains[i]))
		}
	}
	out.Suspensions = append(out.Suspensions, s.suspended(now)...)
	return answer(w, http.StatusOK, out)
}

func (s *Server) domainOf(now time.Time, d *queue.DomainDepth) wire.Domain {
	out := wire.Domain{
		Domain: d.Domain, Waiting: d.Waiting, Due: d.Due, Active: d.Active, Held: d.Held,
		Oldest: instant(d.Oldest), Next: instant(d.Next), Ages: d.Age,
	}
	if s.opts.Lanes != nil {
		if lane, ok := s.opts.Lanes.Lane(now, d.Domain); ok {
			out.Lane = &lane
		}
	}
	return out
}
