package intake

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"postrider/queue"
)

// Header fields by which a message says how it is to be handled. They are
// removed, and a fault in one of them refuses the message: who writes them
// relies on them. What the way in was told beside the content goes before them.
const (
	wishFields    = "x-postrider-"
	wishPriority  = "priority"   // normal, bulk, urgent
	wishTag       = "tag"        // the sender's own label
	wishHold      = "hold"       // yes: wait for a release
	wishHoldFor   = "hold-for"   // a span, in place of the configured undo window
	wishNotBefore = "not-before" // RFC 3339
	wishDeliverBy = "deliver-by" // RFC 3339
)

// MaxTag is the most octets of a tag.
const MaxTag = 128

// maxAhead is how far away a time that a message asks for may be. What is
// further away is a slip in the year, or a number of milliseconds.
const maxAhead = 366 * 24 * time.Hour

// wishes are what the fields of a header ask for.
type wishes struct {
	priority             *queue.Priority
	tag                  string
	hold                 bool
	holdFor              *time.Duration
	notBefore, deliverBy time.Time
}

// take reads the field whose name goes on after wishFields.
func (w *wishes) take(name, value string) (err error) {
	value = strings.TrimSpace(value)
	switch name {
	case wishPriority:
		var p queue.Priority
		p, err = ParsePriority(value)
		w.priority = &p
	case wishTag:
		w.tag, err = strings.Clone(value), CheckTag(value)
	case wishHold:
		w.hold = strings.EqualFold(value, "yes")
		if !w.hold && !strings.EqualFold(value, "no") {
			err = fmt.Errorf("%q is neither yes nor no", value)
		}
	case wishHoldFor:
		var d time.Duration
		d, err = parseSpan(value)
		w.holdFor = &d
	case wishNotBefore:
		w.notBefore, err = parseTime(value)
	case wishDeliverBy:
		w.deliverBy, err = parseTime(value)
	default:
		err = errors.New("there is no such field: X-Postrider- goes on with Priority, Tag, Hold, Hold-For, Not-Before or Deliver-By")
	}
	return err
}

// ParsePriority reads the word for a priority.
func ParsePriority(text string) (queue.Priority, error) {
	for p, word := range [...]string{queue.PriorityNormal: "normal", queue.PriorityBulk: "bulk", queue.PriorityUrgent: "urgent"} {
		if strings.EqualFold(text, word) {
			return queue.Priority(p), nil
		}
	}
	return 0, fmt.Errorf("%q is not normal, bulk or urgent", text)
}

// CheckTag says what is wrong with a tag.
func CheckTag(tag string) error {
	bad := func(r rune) bool { return r <= ' ' || r > '~' }
	if len(tag) > MaxTag || strings.ContainsFunc(tag, bad) {
		return fmt.Errorf("a tag has at most %d characters of printable ASCII, without blanks", MaxTag)
	}
	return nil
}

// parseSpan reads a number with one of the units s, m, h and d.
func parseSpan(text string) (time.Duration, error) {
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}
	if n := len(text) - 1; n > 0 {
		number, err := strconv.ParseUint(text[:n], 10, 32)
		unit := units[text[n]]
		if err == nil && unit > 0 && number <= uint64(maxAhead/unit) {
			return time.Duration(number) * unit, nil
		}
	}
	return 0, fmt.Errorf("%q is not a span like 90s, 10m, 4h or 2d, of a year at most", text)
}

func parseTime(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("%q is not a time like 2026-12-24T18:00:00Z (RFC 3339)", text)
	}
	return t, nil
}

// grant completes the envelope by what the header wishes, and by the undo
// window.
func (m *Message) grant(h *header) *Error {
	env, w := m.env, &h.wishes
	if env.Priority == queue.PriorityNormal {
		env.Priority = h.priority
		if w.priority != nil {
			env.Priority = *w.priority
		}
	}
	if env.Tag == "" {
		env.Tag = w.tag
	}
	env.Held = env.Held || w.hold
	if env.NotBefore.IsZero() {
		env.NotBefore = w.notBefore
	}
	if env.DeliverBy.IsZero() {
		env.DeliverBy = w.deliverBy
	}
	for _, t := range [...]struct {
		at   time.Time
		what string
	}{{env.NotBefore, "not to be sent before"}, {env.DeliverBy, "to be delivered by"}} {
		if t.at.Sub(m.now) > maxAhead {
			return &Error{Code: 554, Status: "5.6.0", Text: fmt.Sprintf("the message is %s %s, which is more than a year away", t.what, t.at.Format(time.RFC3339))}
		}
	}
	if until := m.now.Add(m.holdFor(w)); until.After(m.now) && until.After(env.NotBefore) {
		env.NotBefore = until
	}
	return nil
}

// holdFor is how long the message waits for second thoughts: as it says
// itself, else as its sender's mail, else as all mail.
func (m *Message) holdFor(w *wishes) time.Duration {
	switch {
	case m.meta.SkipReceived:
		return 0
	case m.meta.HoldFor != nil:
		return *m.meta.HoldFor
	case w.holdFor != nil:
		return *w.holdFor
	case m.r.opts.HoldFor != nil:
		return m.r.opts.HoldFor(m.env.Sender)
	}
	return 0
}
