package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"postrider/config"
	"postrider/mta/api/wire"
	"postrider/mta/mailaddr"
	"postrider/queue"
)

// selection is a selector as the queue knows it.
type selection struct {
	queue.Selector
	// nothing: it names a site of which no domain is known. An empty list of
	// domains would mean all of them.
	nothing bool
}

// selectionOf checks a selector and finds what it names.
func (s *Server) selectionOf(w wire.Selector) (selection, error) {
	var sel selection
	sel.Tag, sel.Class = w.Tag, queue.Class(w.Class)
	if w.Class != "" && !sel.Class.Known() {
		return sel, problem(400, "class %q is unknown: use one of %s", w.Class, classList())
	}
	for _, text := range w.IDs {
		id, err := s.find(text)
		if err != nil {
			return sel, err
		}
		sel.IDs = append(sel.IDs, id)
	}
	for _, text := range w.Status {
		status, err := value[queue.Status](statusWords, text, "status")
		if err != nil || !open(status) {
			return sel, problem(400, "status %q is not one of mail in the queue: use waiting, active or held", text)
		}
		sel.Status = append(sel.Status, status)
	}
	var err error
	if sel.Domain, err = domainPattern(w.Domain); err != nil {
		return sel, err
	}
	if sel.Sender, err = senderPattern(w.Sender); err != nil {
		return sel, err
	}
	if w.Recipient != "" {
		a, err := mailaddr.Parse(w.Recipient)
		if err != nil {
			return sel, problem(400, "recipient: %v", err)
		}
		sel.Recipient = a.String()
	}
	if w.OlderThan != "" {
		if sel.OlderThan, err = config.ParseDuration(w.OlderThan); err != nil {
			return sel, problem(400, "older_than: %v", err)
		}
	}
	if w.Site != "" {
		if s.opts.Lanes == nil {
			return sel, unavailable("selecting by site")
		}
		sel.Domains = s.opts.Lanes.SiteDomains(w.Site)
		sel.nothing = len(sel.Domains) == 0
	}
	return sel, nil
}

func unavailable(what string) error {
	return problem(http.StatusNotImplemented, "%s is not available in this server", what)
}

// domainPattern brings a domain, or "*." and a domain, into the form of a lane.
func domainPattern(text string) (string, error) {
	name, wild := strings.CutPrefix(text, "*.")
	if text == "" {
		return "", nil
	}
	a, err := mailaddr.Parse("x@" + name)
	if err != nil {
		return "", problem(400, "domain %q is not one: write it as example.test or *.example.test", text)
	}
	if wild {
		return "*." + a.ASCIIDomain(), nil
	}
	return a.ASCIIDomain(), nil
}

// senderPattern takes an address, "@domain" or "<>".
func senderPattern(text string) (string, error) {
	if text == "" || text == queue.NullSender {
		return text, nil
	}
	local := ""
	if strings.HasPrefix(text, "@") {
		local = "x"
	}
	a, err := mailaddr.Parse(local + text)
	if err != nil {
		return "", problem(400, "sender %q is not one: write it as name@example.test, @example.test, or <> for the null sender", text)
	}
	return strings.TrimPrefix(a.String(), local), nil
}

func contains[T comparable](list []T, x T) bool {
	for _, y := range list {
		if x == y {
			return true
		}
	}
	return false
}

func (sel *selection) matchesDomain(domain string) bool {
	return (sel.Domain == "" || matchDomain(sel.Domain, domain)) && (len(sel.Domains) == 0 || contains(sel.Domains, domain))
}

func matchDomain(pattern, domain string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(domain, suffix)
	}
	return pattern == domain
}

// walk gives the messages that match and come behind after, oldest first, with
// the indices of the open recipients that match, until visit answers false.
func (s *Server) walk(ctx context.Context, sel *selection, after queue.ID, visit func(m *queue.Message, hits []int) bool) error {
	if sel.nothing {
		return nil
	}
	now := s.opts.Now()
	return s.opts.Queue.Walk(ctx, now, sel.Selector, after, func(m *queue.Message) bool {
		hits := slices.DeleteFunc(sel.Recipients(m, now), func(i int) bool { return !open(m.States[i].Status) })
		return len(hits) == 0 || visit(m, hits)
	})
}

// selectorOf reads a selector from query parameters, of which those in also
// are the caller's.
func selectorOf(q url.Values, also ...string) (wire.Selector, error) {
	var sel wire.Selector
	single := map[string]*string{
		"domain": &sel.Domain, "site": &sel.Site, "sender": &sel.Sender, "recipient": &sel.Recipient,
		"tag": &sel.Tag, "class": &sel.Class, "older_than": &sel.OlderThan,
	}
	for name, values := range q {
		switch field := single[name]; {
		case name == "id":
			sel.IDs = values
		case name == "status":
			sel.Status = values
		case contains(also, name):
		case field == nil:
			return sel, problem(400, "parameter %q is unknown", name)
		case len(values) > 1:
			return sel, problem(400, "parameter %q may be given once", name)
		default:
			*field = values[0]
		}
	}
	return sel, nil
}

func number(q url.Values, name string, otherwise, most int) (int, error) {
	text := q.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, problem(400, "%s %q is not a number from 1 to %d", name, text, most)
	}
	return n, nil
}
