package intake_test

import (
	"strings"
	"testing"
	"time"

	"postrider/mta/intake"
	"postrider/queue"
)

// TestWishes shows what the fields for us do to the envelope, and that none of
// them travels.
func TestWishes(t *testing.T) {
	t.Parallel()
	minute := time.Minute
	at := now.Add(26 * time.Hour).Truncate(time.Second)
	global := func(sender string) time.Duration {
		if sender == "ann@a.test" {
			return time.Hour
		}
		return 0
	}
	for name, c := range map[string]struct {
		fields string
		change func(*intake.Meta)
		config func(string) time.Duration
		want   func(e *queue.Envelope) bool
	}{
		"priority":              {fields: "X-Postrider-Priority: Urgent", want: func(e *queue.Envelope) bool { return e.Priority == queue.PriorityUrgent }},
		"before Precedence":     {fields: "X-Postrider-Priority: normal\r\nPrecedence: bulk", want: func(e *queue.Envelope) bool { return e.Priority == queue.PriorityNormal }},
		"behind Precedence":     {fields: "Precedence: bulk\r\nX-Postrider-Priority: urgent", want: func(e *queue.Envelope) bool { return e.Priority == queue.PriorityUrgent }},
		"priority of the way":   {fields: "X-Postrider-Priority: urgent", change: func(m *intake.Meta) { m.Envelope.Priority = queue.PriorityBulk }, want: func(e *queue.Envelope) bool { return e.Priority == queue.PriorityBulk }},
		"tag":                   {fields: "x-postrider-TAG:\r\n week47", want: func(e *queue.Envelope) bool { return e.Tag == "week47" }},
		"tag of the way":        {fields: "X-Postrider-Tag: week47", change: func(m *intake.Meta) { m.Envelope.Tag = "mine" }, want: func(e *queue.Envelope) bool { return e.Tag == "mine" }},
		"hold":                  {fields: "X-Postrider-Hold: yes", want: func(e *queue.Envelope) bool { return e.Held }},
		"no hold":               {fields: "X-Postrider-Hold: No", want: func(e *queue.Envelope) bool { return !e.Held }},
		"not before":            {fields: "X-Postrider-Not-Before: " + at.Format(time.RFC3339), want: func(e *queue.Envelope) bool { return e.NotBefore.Equal(at) }},
		"deliver by":            {fields: "X-Postrider-Deliver-By: " + at.Format(time.RFC3339), want: func(e *queue.Envelope) bool { return e.DeliverBy.Equal(at) }},
		"hold for":              {fields: "X-Postrider-Hold-For: 10m", want: func(e *queue.Envelope) bool { return e.NotBefore.Equal(now.Add(10 * minute)) }},
		"hold for days":         {fields: "X-Postrider-Hold-For: 2d", want: func(e *queue.Envelope) bool { return e.NotBefore.Equal(now.Add(48 * time.Hour)) }},
		"hold for nothing":      {fields: "X-Postrider-Hold-For: 0s", config: global, want: func(e *queue.Envelope) bool { return e.NotBefore.IsZero() }},
		"hold for of the way":   {fields: "X-Postrider-Hold-For: 10m", config: global, change: func(m *intake.Meta) { m.HoldFor = &minute }, want: func(e *queue.Envelope) bool { return e.NotBefore.Equal(now.Add(minute)) }},
		"of the sender":         {config: global, want: func(e *queue.Envelope) bool { return e.NotBefore.Equal(now.Add(time.Hour)) }},
		"of another sender":     {config: global, change: func(m *intake.Meta) { m.Envelope.Sender = "b@a.test" }, want: func(e *queue.Envelope) bool { return e.NotBefore.IsZero() }},
		"of the sender written": {config: global, change: func(m *intake.Meta) { m.Envelope.Sender, m.SenderFromHeader = "", true }, want: func(e *queue.Envelope) bool { return e.NotBefore.Equal(now.Add(time.Hour)) }},
		"the later one":         {fields: "X-Postrider-Hold-For: 10m\r\nX-Postrider-Not-Before: " + at.Format(time.RFC3339), want: func(e *queue.Envelope) bool { return e.NotBefore.Equal(at) }},
		"the window is later":   {fields: "X-Postrider-Hold-For: 2d\r\nX-Postrider-Not-Before: " + at.Format(time.RFC3339), want: func(e *queue.Envelope) bool { return e.NotBefore.Equal(now.Add(48 * time.Hour)) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShelf(t)
			r := newReceiver(t, s, func(o *intake.Options) { o.HoldFor = c.config })
			m := meta()
			if c.change != nil {
				c.change(&m)
			}
			fields := c.fields
			if fields != "" {
				fields += "\r\n"
			}
			mustTake(t, r, m, full+fields+"Subject: x\r\n\r\nX-Postrider-Text: stays\r\n")
			if !c.want(&s.last.env) {
				t.Errorf("envelope %+v", s.last.env)
			}
			header, text := split(s.last.prefix + s.last.body)
			if strings.Contains(strings.ToLower(header), "x-postrider") || !strings.Contains(header, "Subject: x\r\n") || text != "X-Postrider-Text: stays\r\n" {
				t.Errorf("sent is %q %q", header, text)
			}
		})
	}
}

func TestBadWishesAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ field, want string }{
		"priority":    {"Priority: 1", `line 4: X-Postrider-Priority: "1" is not normal, bulk or urgent`},
		"tag":         {"Tag: two words", "without blanks"},
		"long tag":    {"Tag: " + strings.Repeat("x", 129), "at most 128"},
		"hold":        {"Hold: maybe", `"maybe" is neither yes nor no`},
		"span":        {"Hold-For: 10", "like 90s"},
		"no span":     {"Hold-For:", "like 90s"},
		"two spans":   {"Hold-For: 1h30m", "like 90s"},
		"endless":     {"Hold-For: 4000000000d", "a year at most"},
		"negative":    {"Hold-For: -5m", "like 90s"},
		"time":        {"Not-Before: tomorrow", "RFC 3339"},
		"far away":    {"Not-Before: 2206-12-24T18:00:00Z", "more than a year away"},
		"by the end":  {"Deliver-By: 9999-12-24T18:00:00Z", "more than a year away"},
		"unknown":     {"Prio: urgent", "there is no such field"},
		"long":        {"Not-Before-Or-After-That: x", "there is no such field"},
		"nothing yet": {": urgent", "there is no such field"},
	} {
		s := newShelf(t)
		err := refusal(t, take(newReceiver(t, s, nil), meta(), full+"X-Postrider-"+c.field+"\r\n\r\n", 0))
		if err.Code != 554 || !strings.Contains(err.Text, c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}
