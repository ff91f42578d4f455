package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"postrider/config"
	"postrider/mta/api/wire"
	"postrider/mta/mailaddr"
	"postrider/queue"
)

// selection is a selector as the queue knows it, and what it does not know:
// the class of the last outcome and the null sender.
type selection struct {
	queue.Selector
	class      queue.Class
	nullSender bool
	// nothing: it names a site of which no domain is known. An empty list of
	// domains would mean all of them.
	nothing bool
}

// selectionOf checks a selector and finds what it names.
func (s *Server) selectionOf(w wire.Selector) (selection, error) {
	sel := selection{class: queue.Class(w.Class)}
	if w.Class != "" && !sel.class.Known() {
		return sel, problem(400, "class %q is unknown: use one of %s", w.Class, classList())
	}
	sel.Tag = w.Tag
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
	if sel.nullSender = w.Sender == "<>"; !sel.nullSender {
		if sel.Sender, err = senderPattern(w.Sender); err != nil {
			return sel, err
		}
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

// senderPattern takes an address or "@domain".
func senderPattern(text string) (string, error) {
	if text == "" {
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

// matches tells whether a recipient of a message is one that is meant.
func (sel *selection) matches(m *queue.Message, i int, now time.Time) bool {
	r, state := m.Envelope.Recipients[i], m.States[i]
	switch {
	case !open(state.Status),
		sel.nothing,
		len(sel.IDs) > 0 && !contains(sel.IDs, m.Envelope.ID),
		len(sel.Status) > 0 && !contains(sel.Status, state.Status),
		!sel.matchesDomain(r.Domain),
		sel.Sender != "" && !matchSender(sel.Sender, m.Envelope.Sender),
		sel.nullSender && m.Envelope.Sender != "",
		sel.Recipient != "" && !strings.EqualFold(sel.Recipient, r.Address),
		sel.Tag != "" && sel.Tag != m.Envelope.Tag,
		sel.OlderThan > 0 && now.Sub(m.Envelope.ArrivedAt) < sel.OlderThan,
		sel.class != "" && (state.Last == nil || state.Last.Class != sel.class):
		return false
	}
	return true
}

// byDomain: nothing but domain and status are asked for.
func (sel *selection) byDomain() bool {
	return len(sel.IDs) == 0 && sel.Sender+sel.Recipient+sel.Tag+string(sel.class) == "" && sel.OlderThan == 0 && !sel.nullSender
}

// countIn counts the recipients of a domain that match, where byDomain.
func (sel *selection) countIn(d *queue.DomainDepth) (n int64) {
	if !sel.matchesDomain(d.Domain) {
		return 0
	}
	for status, count := range map[queue.Status]int64{queue.StatusWaiting: d.Waiting + d.Due, queue.StatusActive: d.Active, queue.StatusHeld: d.Held} {
		if len(sel.Status) == 0 || contains(sel.Status, status) {
			n += count
		}
	}
	return n
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

func matchSender(pattern, sender string) bool {
	if strings.HasPrefix(pattern, "@") {
		sender = sender[max(0, strings.LastIndexByte(sender, '@')):]
	}
	return strings.EqualFold(pattern, sender)
}

// page is how many messages are looked at in one step of a walk over all: each
// step goes over the whole schedule once, and holds so many messages in memory.
const page = 2000

// walk gives the messages that match and come behind after, oldest first, with
// the indices of the recipients that match, until visit answers false. It asks
// for step messages at a time.
func (s *Server) walk(ctx context.Context, sel *selection, after queue.ID, step int, visit func(m *queue.Message, hits []int) bool) error {
	if sel.nothing {
		return nil
	}
	now := s.opts.Now()
	for {
		messages, err := s.opts.Queue.List(ctx, now, sel.Selector, after, step)
		if err != nil {
			return err
		}
		for _, m := range messages {
			var hits []int
			for i := range m.States {
				if sel.matches(m, i, now) {
					hits = append(hits, i)
				}
			}
			if len(hits) > 0 && !visit(m, hits) {
				return nil
			}
			after = m.Envelope.ID
		}
		if len(messages) < step {
			return nil
		}
	}
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
