package queue

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"pgregory.net/rapid"
)

var modelDomains = []string{"a.test", "b.test", "c.test"}

func (m *model) submit(t *rapid.T) {
	e := &Envelope{
		ID:        m.q.NewID(m.now),
		Sender:    rapid.SampledFrom([]string{"", "x@src.test", "y@src.test", "z@other.test"}).Draw(t, "sender"),
		Priority:  rapid.SampledFrom([]Priority{PriorityNormal, PriorityBulk, PriorityUrgent}).Draw(t, "priority"),
		Tag:       rapid.SampledFrom([]string{"", "news"}).Draw(t, "tag"),
		ArrivedAt: m.now,
		Held:      rapid.IntRange(0, 9).Draw(t, "held") == 0,
	}
	if rapid.IntRange(0, 4).Draw(t, "scheduled") == 0 {
		e.NotBefore = m.now.Add(time.Duration(rapid.IntRange(-10, 90).Draw(t, "not before")) * time.Minute)
	}
	if rapid.IntRange(0, 4).Draw(t, "deadline") == 0 {
		e.DeliverBy = m.now.Add(time.Duration(rapid.IntRange(1, 120).Draw(t, "deliver by")) * time.Minute)
	}
	n := rapid.IntRange(1, 5).Draw(t, "recipients")
	if rapid.IntRange(0, 19).Draw(t, "many") == 0 {
		n = 150
	}
	for i := range n {
		d := rapid.SampledFrom(modelDomains).Draw(t, "domain")
		e.Recipients = append(e.Recipients, Recipient{Address: fmt.Sprintf("r%d@%s", i, d), Domain: d,
			Notify: rapid.SampledFrom([]Notify{0, 0, NotifyNever, NotifySuccess, NotifyFailure, NotifySuccess | NotifyFailure | NotifyDelay}).Draw(t, "notify")})
	}
	size := rapid.SampledFrom([]int{10, 3000, smallBody + 10}).Draw(t, "size")
	m.put(t, e, size, nil)
}

func (m *model) put(t *rapid.T, e *Envelope, size int, answers *NoticeBatch) {
	b := m.q.NewBody()
	defer b.Discard()
	b.Write(make([]byte, size))
	if err := m.q.Submit(context.Background(), Submission{Envelope: e, Prefix: []byte("P: x\r\n"), Body: b, Answers: answers}); err != nil {
		t.Fatalf("submit: %v", err)
	}
	mm := &modelMessage{env: e}
	mm.state.notices = make(map[string]time.Time)
	for range e.Recipients {
		r := modelRecipient{due: mm.firstDue()}
		if e.Held {
			r.status, r.heldAt = StatusHeld, e.ArrivedAt
		}
		mm.state.recipients = append(mm.state.recipients, r)
	}
	mm.history = []modelState{mm.state.clone()} // on stable storage
	m.messages = append(m.messages, mm)
}

func (m *model) candidates(mm *modelMessage, domain string) (all []int) {
	for i := range mm.state.recipients {
		r := &mm.state.recipients[i]
		if mm.env.Recipients[i].Domain == domain && r.status == StatusWaiting && !r.active && !r.due.After(m.now) {
			all = append(all, i)
		}
	}
	return all
}

func (m *model) take(t *rapid.T) {
	domain := rapid.SampledFrom(modelDomains).Draw(t, "domain")
	limit := rapid.SampledFrom([]int{1, 2, 100}).Draw(t, "limit")
	best := -1 // the best priority with work
	oldest := make(map[string]time.Time)
	for _, mm := range m.live() {
		for _, i := range m.candidates(mm, domain) {
			rank := 3 - roundOf(mm.env.Priority)
			key := fmt.Sprint(mm.env.Sender, rank)
			if at, ok := oldest[key]; !ok || mm.state.recipients[i].due.Before(at) {
				oldest[key] = mm.state.recipients[i].due
			}
			best = max(best, rank)
		}
	}
	c, ok := m.q.Take(m.now, domain, limit)
	if ok != (best >= 0) {
		t.Fatalf("take for %s: %v, model has work: %v", domain, ok, best >= 0)
	}
	if !ok {
		return
	}
	k := slices.IndexFunc(m.messages, func(mm *modelMessage) bool { return mm.env.ID == c.Envelope.ID })
	mm := m.messages[k]
	want := m.candidates(mm, domain)
	first := mm.state.recipients[want[0]].due
	for _, i := range want {
		if due := mm.state.recipients[i].due; due.Before(first) {
			first = due
		}
	}
	want = want[:min(len(want), limit)]
	if !slices.Equal(want, toInts(c.picked)) {
		t.Fatalf("claim of %v, want %v", c.picked, want)
	}
	attempts := 0
	for n, i := range want {
		attempts = max(attempts, mm.state.recipients[i].attempts)
		if c.Recipients[n] != mm.env.Recipients[i] {
			t.Fatalf("claim of %+v", c.Recipients)
		}
	}
	rank := 3 - roundOf(mm.env.Priority)
	if rank != best {
		t.Fatalf("claim of priority %d before %d", rank, best)
	}
	if at := oldest[fmt.Sprint(mm.env.Sender, rank)]; !first.Equal(at) {
		t.Fatalf("claim of a message due at %v, the sender's oldest is due at %v", first, at)
	}
	if c.Attempts != attempts {
		t.Fatalf("claim after %d attempts, want %d", c.Attempts, attempts)
	}
	for _, i := range want {
		mm.state.recipients[i].active = true
	}
	m.claims = append(m.claims, modelClaim{mm, want, c})
}

func toInts(in []int32) (out []int) {
	for _, i := range in {
		out = append(out, int(i))
	}
	return out
}

func (m *model) settle(t *rapid.T) {
	if len(m.claims) == 0 {
		t.Skip("nothing is claimed")
	}
	k := rapid.IntRange(0, len(m.claims)-1).Draw(t, "claim")
	c := m.claims[k]
	m.claims = slices.Delete(m.claims, k, k+1)
	content, err := c.claim.Content()
	if err != nil {
		t.Fatalf("content: %v", err)
	}
	io.Copy(io.Discard, contentReader(content))
	content.Close()
	outcomes := make([]Outcome, len(c.recipients))
	told := false
	for n, i := range c.recipients {
		o := rapid.SampledFrom([]Outcome{{}, delivered(), deferred(), failed()}).Draw(t, "outcome")
		if o.Verdict == Deferred && rapid.Bool().Draw(t, "hint") {
			o.RetryAfter = 90 * time.Second
		}
		if o.Verdict == Delivered {
			o.Passed = rapid.Bool().Draw(t, "passed")
		}
		outcomes[n] = o
		r := &c.m.state.recipients[i]
		r.active = false
		told = m.settleOne(c.m, i, &o) || told
		if r.order != 0 {
			order := r.order
			r.order = 0
			if r.status < StatusDelivered {
				told = m.obey(c.m, i, order) || told
			}
		}
	}
	if told {
		c.m.changed()
	}
	c.claim.Settle(m.now, outcomes, Timing{})
}

func (m *model) settleOne(mm *modelMessage, i int, o *Outcome) bool {
	r := &mm.state.recipients[i]
	switch o.Verdict {
	case Untried:
		return false
	case Delivered:
		r.status = StatusDelivered
		r.last = o.Text
		if !o.Passed {
			mm.owe(i, NoticeSuccess, m.now)
		}
	case Failed:
		r.status = StatusFailed
		r.last = o.Text
		mm.owe(i, NoticeFailure, m.now)
	case Deferred:
		wait := modelSchedule.Retry[min(r.attempts, len(modelSchedule.Retry)-1)]
		switch {
		case o.RetryAfter > 0 && r.hinted: // it asks again
			wait = max(wait, o.RetryAfter)
		case o.RetryAfter > 0:
			wait = o.RetryAfter
		}
		end := mm.expiry(r)
		left := end.Sub(m.now)
		switch {
		case m.now.Add(wait).Before(end):
			r.due = m.now.Add(wait)
			r.last, r.hinted = o.Text, o.RetryAfter > 0
		case left >= 150*time.Second:
			r.due = end.Add(-min(time.Minute, left/2))
			r.last, r.hinted = o.Text, o.RetryAfter > 0
		default:
			r.status = StatusFailed
			r.last = "expired"
			mm.owe(i, NoticeFailure, m.now)
		}
	}
	r.attempts++
	return true
}

func (m *model) release(t *rapid.T) {
	if len(m.claims) == 0 {
		t.Skip("nothing is claimed")
	}
	k := rapid.IntRange(0, len(m.claims)-1).Draw(t, "claim")
	c := m.claims[k]
	m.claims = slices.Delete(m.claims, k, k+1)
	told := false
	for _, i := range c.recipients {
		r := &c.m.state.recipients[i]
		r.active = false
		if order := r.order; order != 0 {
			r.order = 0
			told = m.obey(c.m, i, order) || told
		}
	}
	if told {
		c.m.changed()
	}
	c.claim.Release(m.now)
}
