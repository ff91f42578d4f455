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
	hinted   bool // the last deferral said when to come back
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

// candidates are the recipients that may be claimed now.

// noticesDue: nothing of the message is at hand, or five minutes are over.

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
