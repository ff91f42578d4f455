package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"postrider/mta/api/wire"
)

// showList writes one line for each recipient, and below it what its last
// attempt came to.
func showList(w io.Writer, messages []wire.Message, now time.Time) {
	var t table
	for i := range messages {
		m := &messages[i]
		id, age, size, from := m.ID, span(now.Sub(m.ArrivedAt)), octets(m.Size), angle(m.Sender)
		var last *row
		for j := range m.Recipients {
			r := &m.Recipients[j]
			last = t.add(id, age, size, statusText(r), nextText(r, now), from, angle(r.Address))
			if r.Last != nil || r.Waits != "" {
				last.below = stateWords(r, now)
			}
			id, age, size, from = "", "", "", ""
		}
		if more := m.RecipientCount - len(m.Recipients); more > 0 {
			t.add("", "", "", "", "", "", fmt.Sprintf("and %d more, see \"queue show\"", more))
		}
	}
	t.write(w)
}

func statusText(r *wire.Recipient) string {
	if r.Attempts == 0 {
		return r.Status
	}
	return fmt.Sprintf("%s, %s", r.Status, count(r.Attempts, "try", "tries"))
}

// stateWords is what the last attempt came to, and what holds the next one.
func stateWords(r *wire.Recipient, now time.Time) string {
	text := lastWords(r.Last)
	if r.Waits != "" {
		text += "; " + waitsText(r.Waits, r.WaitsUntil, now)
	}
	return text
}

// waitsText says what is waited for, and for how much longer.
func waitsText(what string, until, now time.Time) string {
	text := plain(what)
	if !until.IsZero() {
		text += ", for " + span(max(0, until.Sub(now))) + " more"
	}
	return text
}

func nextText(r *wire.Recipient, now time.Time) string {
	if r.Status != "waiting" {
		return ""
	}
	return in(r.DueAt, now)
}

// clock writes an instant for people.
func clock(t time.Time, zone *time.Location) string { return t.In(zone).Format("2006-01-02 15:04:05") }

// showMessage writes all of an envelope.
func showMessage(w io.Writer, m *wire.Message, now time.Time, zone *time.Location) {
	var t table
	line := func(name, text string) {
		if text != "" {
			t.add(name, text)
		}
	}
	line("id", m.ID)
	line("from", angle(m.Sender))
	line("message-id", plain(m.MessageID))
	line("size", octets(m.Size))
	line("arrived", fmt.Sprintf("%s, %s ago, %s", clock(m.ArrivedAt, zone), span(now.Sub(m.ArrivedAt)), originText(&m.Origin)))
	if !m.NotBefore.IsZero() {
		line("not before", clock(m.NotBefore, zone))
	}
	if !m.DeliverBy.IsZero() {
		line("deliver by", clock(m.DeliverBy, zone))
	}
	line("wishes", wishes(m))
	t.write(w)
	fmt.Fprintln(w)
	t = table{}
	for i := range m.Recipients {
		r := &m.Recipients[i]
		when := nextText(r, now)
		if !r.Open() && !r.LastAt.IsZero() {
			when = clock(r.LastAt, zone)
		}
		t.add(angle(r.Address), statusText(r), when).below = stateWords(r, now)
	}
	t.write(w)
}

func originText(o *wire.Origin) string {
	text := "by " + o.Via
	if o.Client != "" {
		text += " from " + o.Client
	}
	if o.HELO != "" {
		text += " (" + plain(o.HELO) + ")"
	}
	if o.User != "" {
		text += ", user " + plain(o.User)
	}
	if o.TLS {
		text += ", over TLS"
	}
	return text
}

// wishes are what the sender asked for beyond delivery.
func wishes(m *wire.Message) string {
	var list []string
	add := func(is bool, text string) {
		if is {
			list = append(list, text)
		}
	}
	add(m.Priority != "" && m.Priority != "normal", "priority "+m.Priority)
	add(m.Tag != "", "tag "+plain(m.Tag))
	add(m.EnvID != "", "envelope ID "+plain(m.EnvID))
	add(m.Ret != "", "return "+m.Ret)
	add(m.RequireTLS, "TLS required on the whole way")
	add(m.TLSIgnored, "TLS not required")
	add(m.SMTPUTF8, "SMTPUTF8")
	return strings.Join(list, ", ")
}

// showStats writes the grid of age and destination, and why each row waits.
func showStats(w io.Writer, s *wire.Stats) {
	fmt.Fprintf(w, "%s in %s: %d waiting, %d due, %d being sent, %d held",
		count(int(s.Recipients), "recipient", "recipients"), count(int(s.Messages), "message", "messages"), s.Waiting, s.Due, s.Active, s.Held)
	if !s.Oldest.IsZero() {
		fmt.Fprintf(w, "; the oldest is %s old", span(s.At.Sub(s.Oldest)))
	}
	fmt.Fprintln(w)
	if s.Mode != "live" {
		fmt.Fprintf(w, "mode is %s\n", s.Mode)
	}
	if s.Error != "" {
		fmt.Fprintf(w, "no mail is taken: %s\n", plain(s.Error))
	}
	if len(s.Domains) > 0 {
		fmt.Fprintln(w)
		showGrid(w, s)
	}
	for i := range s.Suspensions {
		fmt.Fprintf(w, "suspended: %s\n", suspensionText(&s.Suspensions[i], s.At))
	}
}

func showGrid(w io.Writer, s *wire.Stats) {
	t := table{right: 1}
	head := []string{"minutes", "all"}
	for _, limit := range wire.AgeLimits {
		head = append(head, fmt.Sprint(limit))
	}
	t.add(append(head, fmt.Sprintf("%d+", wire.AgeLimits[len(wire.AgeLimits)-1]), "next", "conns")...)
	t.add(ageCells("TOTAL", s.Recipients, s.Ages)...)
	for i := range s.Domains {
		d := &s.Domains[i]
		cells := ageCells(plain(d.Domain), d.Waiting+d.Due+d.Active+d.Held, d.Ages)
		t.add(append(cells, in(d.Next, s.At), connections(d.Lane))...).below = laneText(d.Lane, s.At)
	}
	t.write(w)
	if more := s.DomainCount - len(s.Domains); more > 0 {
		fmt.Fprintf(w, "and %s with less: --domains %d shows all\n", count(more, "destination", "destinations"), s.DomainCount)
	}
}

func ageCells(name string, all int64, ages [10]int64) []string {
	cells := []string{name, fmt.Sprint(all)}
	for _, n := range ages {
		cells = append(cells, fmt.Sprint(n))
	}
	return cells
}

// connections tells how many are open, and how many may be.
func connections(l *wire.Lane) string {
	switch {
	case l == nil:
		return ""
	case l.Window == 0:
		return fmt.Sprint(l.Connections)
	}
	return fmt.Sprintf("%d of %d", l.Connections, l.Window)
}

// laneText says what a destination waits for.
func laneText(l *wire.Lane, now time.Time) string {
	if l == nil {
		return ""
	}
	var parts []string
	if l.Waits != "" {
		parts = append(parts, waitsText(l.Waits, l.Until, now))
	}
	if l.LastError != "" {
		when := "" // mail may flow again since then
		if !l.LastErrorAt.IsZero() {
			when = " " + span(now.Sub(l.LastErrorAt)) + " ago"
		}
		parts = append(parts, "last failure"+when+": "+plain(l.LastError))
	}
	return strings.Join(parts, "; ")
}

func suspensionText(s *wire.Suspension, now time.Time) string {
	var parts []string
	for _, f := range []struct{ name, value string }{{"domain", s.Domain}, {"site", s.Site}, {"sender", s.Sender}, {"tag", s.Tag}} {
		if f.value != "" {
			parts = append(parts, f.name+" "+plain(f.value))
		}
	}
	if len(parts) == 0 {
		parts = []string{"everything"}
	}
	if !s.Until.IsZero() {
		parts = append(parts, "ends "+in(s.Until, now))
	}
	text := strings.Join(parts, ", ")
	if s.Reason != "" {
		text += ": " + plain(s.Reason)
	}
	return text
}
