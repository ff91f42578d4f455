package api

import (
	"errors"
	"net/http"
	"strings"

	"postrider/mta/api/wire"
	"postrider/mta/suppress"
)

// suppressions answers a part of the suppression list: GET /v1/suppressions.
func (s *Server) suppressions(w http.ResponseWriter, r *http.Request) error {
	if s.opts.Suppressed == nil {
		return unavailable("the suppression list")
	}
	q := r.URL.Query()
	for name, values := range q {
		if name != "domain" && name != "address" && name != "after" && name != "limit" {
			return problem(400, "parameter %q is unknown", name)
		}
		if len(values) > 1 {
			return problem(400, "parameter %q may be given once", name)
		}
	}
	most, err := number(q, "limit", defaultListed, maxListed)
	if err != nil {
		return err
	}
	var wanted wire.Unsuppress
	if a := q.Get("address"); a != "" {
		wanted.Addresses = []string{a}
	}
	wanted.Domain = q.Get("domain")
	wanted.All = len(wanted.Addresses) == 0 && wanted.Domain == ""
	match, err := matchEntries(&wanted)
	if err != nil {
		return err
	}
	now := s.opts.Now()
	out := wire.SuppressionList{Enabled: s.opts.Suppressing, Entries: []wire.SuppressionEntry{}}
	entries := s.opts.Suppressed.Entries(match, q.Get("after"), most+1)
	if len(entries) > most {
		entries = entries[:most]
		out.Next = entries[most-1].Address
	}
	for i := range entries {
		e := &entries[i]
		out.Entries = append(out.Entries, wire.SuppressionEntry{
			Address: e.Address, Source: string(e.Source), Reason: e.Reason, Count: e.Count,
			FirstAt: instant(e.FirstAt), LastAt: instant(e.LastAt), InForce: s.opts.Suppressed.InForce(now, e),
		})
	}
	return answer(w, http.StatusOK, out)
}

// matchEntries picks the entries that a request means.
func matchEntries(u *wire.Unsuppress) (func(*suppress.Entry) bool, error) {
	given := 0
	for _, is := range []bool{len(u.Addresses) > 0, u.Domain != "", u.All} {
		if is {
			given++
		}
	}
	if given != 1 {
		return nil, problem(400, "name addresses, or a domain, or set \"all\" to mean everything")
	}
	if u.All {
		return func(*suppress.Entry) bool { return true }, nil
	}
	if u.Domain != "" {
		pattern, err := domainPattern(u.Domain)
		return func(e *suppress.Entry) bool {
			return matchDomain(pattern, e.Address[strings.LastIndexByte(e.Address, '@')+1:])
		}, err
	}
	named := make(map[string]bool)
	for _, a := range u.Addresses {
		key, err := suppress.Normal(a)
		if err != nil {
			return nil, problem(400, "%v", err)
		}
		named[key] = true
	}
	return func(e *suppress.Entry) bool { return named[e.Address] }, nil
}

// suppress puts addresses on the list: POST /v1/suppressions.
func (s *Server) suppress(w http.ResponseWriter, r *http.Request) error {
	var body wire.Suppress
	if err := s.readSuppression(w, r, &body); err != nil {
		return err
	}
	if len(body.Entries) == 0 {
		return problem(400, "\"entries\" is empty: what is to be added?")
	}
	add := make([]suppress.Entry, 0, len(body.Entries))
	for i := range body.Entries {
		e := &body.Entries[i]
		source := suppress.Source(e.Source)
		switch source {
		case "":
			source = suppress.Operator
		case suppress.Operator, suppress.Import, suppress.Bounce:
		default:
			return problem(400, "source %q is unknown: use operator, import or bounce", e.Source)
		}
		if e.Count < 0 || source == suppress.Bounce && e.Count == 0 {
			return problem(400, "%s: %d answers are no reason", e.Address, e.Count)
		}
		add = append(add, suppress.Entry{Address: e.Address, Source: source, Reason: e.Reason, Count: e.Count, FirstAt: e.FirstAt, LastAt: e.LastAt})
	}
	err := s.opts.Suppressed.Add(s.opts.Now(), add)
	if errors.Is(err, suppress.ErrFull) {
		return problem(http.StatusInsufficientStorage, "%v", err)
	}
	if err != nil {
		return err
	}
	s.log.Info("suppressed by hand", "user", peerOf(r).user, "entries", len(add))
	return answer(w, http.StatusOK, wire.SuppressionResult{Entries: len(add)})
}

// unsuppress takes addresses off the list: POST /v1/suppressions/remove.
func (s *Server) unsuppress(w http.ResponseWriter, r *http.Request) error {
	var body wire.Unsuppress
	if err := s.readSuppression(w, r, &body); err != nil {
		return err
	}
	match, err := matchEntries(&body)
	if err != nil {
		return err
	}
	if body.DryRun {
		n := len(s.opts.Suppressed.Entries(match, "", 0))
		return answer(w, http.StatusOK, wire.SuppressionResult{Entries: n, DryRun: true})
	}
	n, err := s.opts.Suppressed.Remove(match)
	if err != nil {
		return err
	}
	s.log.Info("suppression lifted by hand", "user", peerOf(r).user, "entries", n)
	return answer(w, http.StatusOK, wire.SuppressionResult{Entries: n})
}

func (s *Server) readSuppression(w http.ResponseWriter, r *http.Request, into any) error {
	if s.opts.Suppressed == nil {
		return unavailable("the suppression list")
	}
	if _, err := contentType(r, typeJSON); err != nil {
		return err
	}
	return readJSON(w, r, maxJSON, into)
}
