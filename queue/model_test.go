package queue

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

// The model is the queue as one would explain it: a list of messages, each
// with its recipients, and no cleverness. Random operations are done to both,
// with explicit time; after each the two must say the same.
type model struct {
	q        *Queue
	fs       *vfs.MemFS
	opts     Options
	stop     func()
	now      time.Time
	messages []*modelMessage
	claims   []modelClaim
	batches  []*NoticeBatch
}

type modelMessage struct {
	env     *Envelope
	state   modelState
	history []modelState // those that a crash may fall back to, oldest first
}

// modelState is what is stored of a message. A nil one has ended.
type modelState struct {
	ended      bool
	recipients []modelRecipient
	notices    map[string]time.Time // "recipient kind": when it was written
	taken      int                  // notices in a batch
	restUntil  time.Time
}

func (s modelState) clone() modelState {
	s.recipients = slices.Clone(s.recipients)
	s.notices = maps.Clone(s.notices)
	return s
}

type modelRecipient struct {
	status   Status
	active   bool
	order    EventKind
	attempts int
	due      time.Time
	last     string
	heldAt   time.Time
	paused   time.Duration
	warned   bool
}

type modelClaim struct {
	m          *modelMessage
	recipients []int
	claim      *Claim
}

var modelSchedule = &Schedule{
	Retry:            []time.Duration{5 * time.Minute, 20 * time.Minute, time.Hour},
	ExpireAfter:      4 * time.Hour,
	DelayNoticeAfter: 30 * time.Minute,
}

func (m *model) open(t *rapid.T) {
	var err error
	if m.q, err = Open(m.opts); err != nil {
		t.Fatalf("open: %v", err)
	}
	m.q.chance = func() float64 { return 0.5 }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	q := m.q
	go func() { done <- q.Run(ctx) }()
	m.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := q.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

func (mm *modelMessage) firstDue() time.Time {
	if mm.env.NotBefore.After(mm.env.ArrivedAt) {
		return mm.env.NotBefore
	}
	return mm.env.ArrivedAt
}

func (mm *modelMessage) expiry(r *modelRecipient) time.Time {
	at := mm.firstDue().Add(r.paused).Add(modelSchedule.ExpireAfter)
	if by := mm.env.DeliverBy; !by.IsZero() && by.Before(at) {
		return by
	}
	return at
}

func (mm *modelMessage) owe(r int, kind NoticeKind, now time.Time) {
	n := mm.env.Recipients[r].Notify
	wants := n&kind.asks() != 0
	if n == 0 {
		wants = kind != NoticeSuccess
	}
	if n&NotifyNever != 0 || mm.env.Sender == "" || !wants {
		return
	}
	mm.state.notices[fmt.Sprint(r, kind)] = now
}

// conclude ends a message that has nothing left.
func (mm *modelMessage) conclude() {
	for i := range mm.state.recipients {
		if mm.state.recipients[i].status < StatusDelivered {
			return
		}
	}
	mm.state.ended = len(mm.state.notices) == 0
}

// changed keeps a state that a crash may bring back.
func (mm *modelMessage) changed() {
	mm.conclude()
	mm.history = append(mm.history, mm.state.clone())
}

func (m *model) live() (all []*modelMessage) {
	for _, mm := range m.messages {
		if !mm.state.ended {
			all = append(all, mm)
		}
	}
	return all
}

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

// candidates are the recipients that may be claimed now.
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
		if o.RetryAfter > 0 {
			wait = o.RetryAfter
		}
		end := mm.expiry(r)
		left := end.Sub(m.now)
		switch {
		case m.now.Add(wait).Before(end):
			r.due = m.now.Add(wait)
			r.last = o.Text
		case left >= 150*time.Second:
			r.due = end.Add(-min(time.Minute, left/2))
			r.last = o.Text
		default:
			r.status = StatusFailed
			r.last = "expired"
			mm.owe(i, NoticeFailure, m.now)
		}
	}
	r.attempts++
	return true
}

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

func (m *model) pass(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(1, 3000).Draw(t, "seconds")) * time.Second)
	m.sweep()
}

func (m *model) sweep() {
	for _, mm := range m.live() {
		told := false
		for i := range mm.state.recipients {
			r := &mm.state.recipients[i]
			if r.status != StatusWaiting || r.active {
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

// noticesDue: nothing of the message is at hand, or five minutes are over.
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

// durable notes that everything so far is on stable storage.
func (m *model) durable() {
	for _, mm := range m.messages {
		mm.history = []modelState{mm.state.clone()}
	}
}

func (m *model) forgetClaims() {
	m.claims, m.batches = nil, nil
	for _, mm := range m.messages {
		mm.state.taken = 0
		mm.state.restUntil = time.Time{}
		for i := range mm.state.recipients {
			mm.state.recipients[i].active = false
			mm.state.recipients[i].order = 0
		}
	}
}

func (m *model) restart(t *rapid.T) {
	m.stop()
	m.durable()
	m.forgetClaims()
	m.open(t)
}

func (m *model) crash(t *rapid.T) {
	after := m.fs.CrashClone(vfs.CrashCloneCfg{})
	m.stop()
	m.fs, m.opts.fs = after, after
	m.forgetClaims()
	m.open(t)
	for _, mm := range m.messages {
		found, err := m.q.Message(mm.env.ID)
		if err != nil {
			found = nil
		}
		owed := 0
		if set := m.q.notices.sets[mm.env.ID]; set != nil {
			owed = set.n
		}
		k := slices.IndexFunc(mm.history, func(s modelState) bool {
			return s.ended && found == nil || !s.ended && found != nil && same(&s, found) == "" && len(s.notices) == owed
		})
		if k < 0 {
			t.Fatalf("after a crash %s is in a state that it never had: %v %+v, known: %+v", mm.env.ID, err, found, mm.history)
		}
		mm.state = mm.history[k].clone()
		for i := range mm.state.recipients {
			mm.state.recipients[i].active = false
			mm.state.recipients[i].order = 0
		}
		mm.state.taken, mm.state.restUntil = 0, time.Time{}
		mm.conclude()
	}
	m.durable()
}

// same compares a state of the model with the queue's.
func same(s *modelState, got *Message) string {
	for i := range s.recipients {
		r, g := &s.recipients[i], &got.States[i]
		status := g.Status
		if status == StatusActive {
			status = StatusWaiting
		}
		want := r.status
		if status != want || g.Attempts != r.attempts || r.status == StatusWaiting && !g.DueAt.Equal(r.due) {
			return fmt.Sprintf("recipient %d is %+v, want %+v", i, *g, *r)
		}
		if (g.Last == nil) != (r.last == "") {
			return fmt.Sprintf("recipient %d has outcome %+v, want %q", i, g.Last, r.last)
		}
		if g.Last != nil && r.last != "expired" && g.Last.Text != r.last {
			return fmt.Sprintf("recipient %d has outcome %q, want %q", i, g.Last.Text, r.last)
		}
	}
	return ""
}

func (m *model) check(t *rapid.T) {
	var depth Depth
	for _, mm := range m.messages {
		found, err := m.q.Message(mm.env.ID)
		if mm.state.ended {
			if err == nil {
				t.Fatalf("%s has ended and is there: %+v", mm.env.ID, found)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", mm.env.ID, err)
		}
		if diff := same(&mm.state, found); diff != "" {
			t.Fatalf("%s: %s", mm.env.ID, diff)
		}
		depth.Messages++
		depth.UnreportedNotices += int64(len(mm.state.notices))
		for i := range mm.state.recipients {
			r := &mm.state.recipients[i]
			switch {
			case r.active:
				depth.Active++
			case r.status == StatusHeld:
				depth.Held++
			case r.status == StatusWaiting:
				depth.Waiting++
			}
			if r.active || r.status < StatusDelivered {
				depth.Recipients++
			}
		}
	}
	d := m.q.Depth(m.now)
	d.Waiting, d.Due = d.Waiting+d.Due, 0
	d.Oldest, d.BodyMemory = time.Time{}, 0
	if d != depth {
		t.Fatalf("depth %+v, want %+v", d, depth)
	}
	tq := &testQueue{Queue: m.q}
	for _, p := range tq.memoryProblems() {
		t.Fatalf("memory: %s", p)
	}
}

func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		fs := vfs.NewCrashableMem()
		m := &model{fs: fs, now: epoch, opts: testOptions(fs)}
		m.opts.Schedule = func(string) *Schedule { return modelSchedule }
		m.opts.BodyMemory = 20000
		m.opts.Logger = slog.New(slog.DiscardHandler)
		m.open(t)
		defer func() { m.stop() }()
		t.Repeat(map[string]func(*rapid.T){
			"":        m.check,
			"submit":  m.submit,
			"submit2": m.submit,
			"take":    m.take,
			"take2":   m.take,
			"take3":   m.take,
			"settle":  m.settle,
			"settle2": m.settle,
			"release": m.release,
			"pass":    m.pass,
			"steer":   m.steer,
			"report":  m.report,
			"report2": m.report,
			"due":     func(*rapid.T) { m.q.Due(m.now, nil) },
			"restart": m.restart,
			"crash":   m.crash,
		})
		if err := m.q.flush(context.Background()); err != nil {
			t.Fatal(err)
		}
		report, err := m.q.Check(context.Background())
		if err != nil || len(report.Problems) > 0 {
			t.Fatalf("check: %v %v", report.Problems, err)
		}
	})
}

// contentReader reads all of a content.
func contentReader(c *Content) io.Reader {
	readers := []io.Reader{bytes.NewReader(c.Head), bytes.NewReader(c.Data)}
	if c.File != nil {
		readers = append(readers, c.File)
	}
	return io.MultiReader(readers...)
}
