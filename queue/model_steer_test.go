package queue

import (
	"context"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"
)

func (m *model) obey(mm *modelMessage, i int, order EventKind) bool {
	r := &mm.state.recipients[i]
	switch order {
	case EventHeld:
		if r.status == StatusHeld {
			return false
		}
		r.status, r.heldAt = StatusHeld, m.now
	case EventReleased:
		if r.status != StatusHeld {
			return false
		}
		r.status = StatusWaiting
		from := r.heldAt
		if mm.firstDue().After(from) {
			from = mm.firstDue()
		}
		r.paused += max(m.now.Sub(from), 0)
	case EventRetried:
		if r.status == StatusHeld {
			return false
		}
		r.due = m.now
	case EventCancelled:
		r.status = StatusCancelled
	case EventFailed:
		r.status = StatusFailed
		r.last = "by hand"
		mm.owe(i, NoticeFailure, m.now)
	}
	return true
}

func (m *model) pass(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(1, 3000).Draw(t, "seconds")) * time.Second)
	m.sweep()
}

func (m *model) sweep() {
	for _, mm := range m.live() {
		told := false
		for i := range mm.state.recipients {
			r := &mm.state.recipients[i]
			late := !mm.env.DeliverBy.IsZero() && !m.now.Before(mm.env.DeliverBy)
			if r.status != StatusWaiting && !(r.status == StatusHeld && late) || r.active {
				continue
			}
			n := mm.env.Recipients[i].Notify
			wants := mm.env.Sender != "" && n&NotifyNever == 0 && (n == 0 || n&NotifyDelay != 0)
			switch {
			case !m.now.Before(mm.expiry(r)):
				r.status = StatusFailed
				r.last = "expired"
				mm.owe(i, NoticeFailure, m.now)
				told = true
			case wants && !r.warned && !m.now.Before(mm.firstDue().Add(r.paused).Add(modelSchedule.DelayNoticeAfter)):
				r.warned = true
				mm.owe(i, NoticeDelay, m.now)
				told = true
			}
		}
		if told {
			mm.changed()
		}
	}
	m.q.Sweep(m.now)
}

func (m *model) steer(t *rapid.T) {
	order := rapid.SampledFrom([]EventKind{EventHeld, EventReleased, EventReleased, EventRetried, EventCancelled, EventFailed}).Draw(t, "order")
	var s Selector
	switch rapid.IntRange(0, 4).Draw(t, "selector") {
	case 0:
		if live := m.live(); len(live) > 0 {
			s.IDs = []ID{rapid.SampledFrom(live).Draw(t, "message").env.ID}
		}
	case 1:
		s.Domain = rapid.SampledFrom([]string{"a.test", "*.test"}).Draw(t, "domain")
	case 2:
		s.Sender = rapid.SampledFrom([]string{"x@src.test", "@src.test"}).Draw(t, "sender")
	case 3:
		s.Tag = "news"
	case 4:
		s.Status = []Status{StatusActive}
	}
	want := 0
	for _, mm := range m.live() {
		told := false
		for i := range mm.state.recipients {
			r := &mm.state.recipients[i]
			if r.status >= StatusDelivered || !modelMatch(&s, mm, i) {
				continue
			}
			if r.active {
				r.order = order
				want++
			} else if m.obey(mm, i, order) {
				told = true
				want++
			}
		}
		if told {
			mm.changed()
		}
	}
	ctx := context.Background()
	act := map[EventKind]func(context.Context, time.Time, Selector, string) (int, error){
		EventHeld: m.q.Hold, EventReleased: m.q.Unhold, EventRetried: m.q.Retry, EventCancelled: m.q.Cancel, EventFailed: m.q.Fail,
	}[order]
	n, err := act(ctx, m.now, s, "by hand")
	if err != nil || n != want {
		t.Fatalf("%d by order %d: %d touched, want %d (%v)", order, order, n, want, err)
	}
	m.durable()
}

func modelMatch(s *Selector, mm *modelMessage, i int) bool {
	r := &mm.env.Recipients[i]
	switch {
	case len(s.IDs) > 0:
		return s.IDs[0] == mm.env.ID
	case s.Domain != "":
		return s.Domain == "*.test" || s.Domain == r.Domain
	case s.Sender == "@src.test":
		return mm.env.Sender == "x@src.test" || mm.env.Sender == "y@src.test"
	case s.Sender != "":
		return s.Sender == mm.env.Sender
	case s.Tag != "":
		return s.Tag == mm.env.Tag
	case s.Status != nil:
		return mm.state.recipients[i].active
	}
	return true
}

func (m *model) report(t *rapid.T) {
	if len(m.batches) > 0 && rapid.Bool().Draw(t, "answer") {
		b := m.batches[0]
		m.batches = m.batches[1:]
		m.answer(t, b)
		return
	}
	if err := m.q.flush(context.Background()); err != nil {
		t.Fatalf("flush: %v", err)
	}
	b, _ := m.q.DueNotices(m.now)
	var due []*modelMessage
	for _, mm := range m.live() {
		if len(mm.state.notices) > 0 && mm.state.taken == 0 && !mm.state.restUntil.After(m.now) && m.noticesDue(mm) {
			due = append(due, mm)
		}
	}
	if b == nil {
		if len(due) > 0 {
			t.Fatalf("notices of %s are due", due[0].env.ID)
		}
		return
	}
	k := slices.IndexFunc(due, func(mm *modelMessage) bool { return mm.env.ID == b.Envelope.ID })
	if k < 0 {
		t.Fatalf("notices of %s are not due", b.Envelope.ID)
	}
	mm := due[k]
	if len(b.Notices) != len(mm.state.notices) {
		t.Fatalf("%d notices, want %v", len(b.Notices), mm.state.notices)
	}
	for _, n := range b.Notices {
		i := slices.Index(mm.env.Recipients, n.Recipient)
		at, ok := mm.state.notices[fmt.Sprint(i, n.Kind)]
		if !ok || !n.At.Equal(at) {
			t.Fatalf("notice %+v, want %v", n, mm.state.notices)
		}
	}
	mm.state.taken = len(b.Notices)
	m.batches = append(m.batches, b)
}

func (m *model) noticesDue(mm *modelMessage) bool {
	var first time.Time
	for _, at := range mm.state.notices {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	if !m.now.Before(first.Add(5 * time.Minute)) {
		return true
	}
	atHand := false
	m.q.mu.Lock()
	atHand = m.q.workAtHand(mm.env.ID, nanos(m.now))
	m.q.mu.Unlock()
	return !atHand
}

func (m *model) answer(t *rapid.T, b *NoticeBatch) {
	k := slices.IndexFunc(m.messages, func(mm *modelMessage) bool { return mm.env.ID == b.Envelope.ID })
	mm := m.messages[k]
	keys := make([]string, 0, len(b.Notices))
	for _, n := range b.Notices {
		keys = append(keys, fmt.Sprint(slices.Index(mm.env.Recipients, n.Recipient), n.Kind))
	}
	mm.state.taken = 0
	switch rapid.IntRange(0, 2).Draw(t, "answer") {
	case 0:
		m.q.Return(b, m.now)
		mm.state.restUntil = m.now.Add(noticeRest)
		return
	case 1:
		if err := m.q.Dismiss(b, m.now); err != nil {
			t.Fatalf("dismiss: %v", err)
		}
	case 2:
		e := &Envelope{ID: m.q.NewID(m.now), ArrivedAt: m.now,
			Recipients: []Recipient{{Address: "x@a.test", Domain: "a.test"}}}
		m.put(t, e, 100, b)
	}
	for _, key := range keys {
		delete(mm.state.notices, key)
	}
	mm.changed()
	mm.history = mm.history[len(mm.history)-1:] // both wait for the disk
	if mm.state.ended {
		// The notices are gone for sure, the rest of the message a little later.
		last := mm.state.clone()
		last.ended = false
		mm.history = append([]modelState{last}, mm.history...)
	}
}
