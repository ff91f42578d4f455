package api

import (
	"strings"
	"time"

	"postrider/mta/api/wire"
	"postrider/queue"
)

// holds tells in words what holds the mail of one answer. Each destination is
// asked about once.
type holds struct {
	now         time.Time
	everything  string // what holds all mail
	suspensions []wire.Suspension
	lanes       Lanes // may be nil
	asked       map[string]wire.Lane
}

func (s *Server) holds(now time.Time) *holds {
	h := &holds{now: now, suspensions: s.suspended(now), lanes: s.opts.Lanes, asked: map[string]wire.Lane{}}
	if err := s.opts.Queue.Err(); err != nil {
		h.everything = err.Error()
	} else if s.opts.Mode == modeDisabled {
		h.everything = "the mode is disabled: nothing leaves"
	}
	return h
}

// modeDisabled is Options.Mode where nothing is sent.
const modeDisabled = "disabled"

func (h *holds) lane(domain string) wire.Lane {
	lane, ok := h.asked[domain]
	if !ok && h.lanes != nil {
		lane, _ = h.lanes.Lane(h.now, domain)
		h.asked[domain] = lane
	}
	return lane
}

// tell says of each recipient that waits what it waits for.
func (h *holds) tell(m *wire.Message) {
	for i := range m.Recipients {
		if r := &m.Recipients[i]; r.Status == "waiting" {
			r.Waits, r.WaitsUntil = h.waits(m, r)
		}
	}
}

// waits is the first that holds a recipient, from the widest on. What is not
// due is held by its schedule, whose reason the last outcome tells, and not by
// what its destination waits for at present.
func (h *holds) waits(m *wire.Message, r *wire.Recipient) (string, time.Time) {
	if h.everything != "" {
		return h.everything, time.Time{}
	}
	lane := h.lane(r.Domain)
	for i := range h.suspensions {
		if s := queue.Suspension(h.suspensions[i]); s.Matches(m.Sender, m.Tag, r.Domain, lane.Site) {
			return suspensionWords(&s), instant(s.Until)
		}
	}
	switch {
	case !r.DueAt.After(h.now):
		return lane.Waits, instant(lane.Until)
	case r.Attempts == 0:
		return "not to be sent before its time", instant(r.DueAt)
	}
	return "", time.Time{}
}

func suspensionWords(s *queue.Suspension) string {
	var scope []string
	for _, part := range [...]struct{ name, value string }{{"domain", s.Domain}, {"site", s.Site}, {"sender", s.Sender}, {"tag", s.Tag}} {
		if part.value != "" {
			scope = append(scope, part.name+" "+part.value)
		}
	}
	text := "suspended by hand"
	if len(scope) > 0 {
		text += " (" + strings.Join(scope, ", ") + ")"
	}
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	return text
}
