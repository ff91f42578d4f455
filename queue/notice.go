package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"postrider/queue/store"
)

// Notice is one recipient's fate that somebody may be owed a report about.
// None is written for the null sender, or where NOTIFY forbids it.
type Notice struct {
	Kind       NoticeKind
	Recipient  Recipient
	Outcome    Outcome // the last one
	Attempts   int
	At         time.Time
	RetryUntil time.Time // for NoticeDelay: when we give up
}

// NoticeKind is the RFC 3464 action that a notice reports.
type NoticeKind uint8

const (
	NoticeFailure NoticeKind = iota + 1
	NoticeDelay
	NoticeSuccess // taken by a remote that does not report itself: "relayed"
)

// asks is the NOTIFY keyword that a notice of this kind needs.
func (k NoticeKind) asks() Notify {
	switch k {
	case NoticeFailure:
		return NotifyFailure
	case NoticeDelay:
		return NotifyDelay
	}
	return NotifySuccess
}

// NoticeBatch is every notice of one message that may be reported now.
type NoticeBatch struct {
	Envelope *Envelope
	Notices  []Notice

	records []noticeRecord
}

// noticeRecord is a notice as it is stored.
type noticeRecord struct{ key, value []byte }

const (
	// Failures of one message are gathered until no claim of it is in flight,
	// but no longer than this.
	gatherNotices = 5 * time.Minute
	// How long notices rest that could not be reported.
	noticeRest = 5 * time.Minute
)

// noticeSet is the unreported notices of one message. The notices themselves
// are on the disk.
type noticeSet struct {
	id        ID
	n         int
	unwritten int   // changes on their way to the disk
	firstAt   int64 // when the oldest of them was written
	laterAt   int64 // when the oldest of those was written that came while a batch was taken; 0: none
	restUntil int64
	taken     bool
	number    int32
	pos       int32 // in the heap; -1: not there
}

// notices are the sets by message, and in the order in which they are due.
type notices struct {
	sets  map[ID]*noticeSet
	all   []*noticeSet
	free  []int32
	heap  timeHeap
	total int64
	moved func(ref, pos int32)

	changed chan struct{} // see NoticesChanged
}

func (n *notices) init() {
	n.sets = make(map[ID]*noticeSet)
	n.changed = make(chan struct{}, 1)
	n.moved = func(ref, pos int32) { n.all[ref].pos = pos }
}

// add counts one more notice of a message.
func (n *notices) add(id ID, at int64) *noticeSet {
	s := n.sets[id]
	if s == nil {
		s = &noticeSet{id: id, firstAt: at, pos: -1}
		if k := len(n.free); k > 0 {
			s.number = n.free[k-1]
			n.free = n.free[:k-1]
			n.all[s.number] = s
		} else {
			s.number = int32(len(n.all))
			n.all = append(n.all, s)
		}
		n.sets[id] = s
	}
	if s.n == 0 || at < s.firstAt {
		s.firstAt = at
	}
	if s.taken && (s.laterAt == 0 || at < s.laterAt) {
		s.laterAt = at
	}
	s.n++
	n.total++
	return s
}

func (n *notices) drop(s *noticeSet) {
	if s.pos >= 0 {
		n.heap.remove(s.pos, n.moved)
		s.pos = -1
	}
	n.total -= int64(s.n)
	delete(n.sets, s.id)
	n.all[s.number] = nil
	n.free = append(n.free, s.number)
}

// place puts a set where it belongs in the order of due times. Work that falls
// due later may still move it back, see DueNotices.
func (n *notices) place(q *Queue, s *noticeSet, now int64) {
	if s.taken || s.unwritten > 0 || s.n == 0 {
		if s.pos >= 0 {
			n.heap.remove(s.pos, n.moved)
			s.pos = -1
		}
		return
	}
	at := s.firstAt
	if q.workAtHand(s.id, now) {
		at += int64(gatherNotices)
	}
	at = max(at, s.restUntil)
	first := n.first()
	if s.pos < 0 {
		n.heap.push(q.timed(at, s.number), n.moved)
	} else {
		n.heap.fix(s.pos, at, n.moved)
	}
	if s.pos == 0 && n.first() != first {
		n.signal()
	}
}

// owe writes a notice, where the sender wants to know.
func (q *Queue) owe(m *message, r int32, kind NoticeKind, at, until int64) {
	to := &m.env.Recipients[r]
	if m.env.Sender == "" || !to.Notify.Wants(kind.asks()) {
		return
	}
	s := &m.states[r]
	w := &q.writer
	w.record.b = w.record.b[:0]
	w.record.begin()
	w.record.uint(uint64(s.attempts))
	w.record.int(at)
	w.record.int(until)
	o := s.last
	if o == nil {
		o = &Outcome{}
	}
	w.record.outcome(o)
	record := w.record.end()
	key, value := w.batch.Reserve(noticeKeySize, len(record))
	putNoticeKey(key, m.id, int(r), kind)
	copy(value, record)
	q.notices.add(m.id, at)
}

func decodeNotice(env *Envelope, key, value []byte) (n Notice, err error) {
	if len(key) != noticeKeySize {
		return n, errDamaged
	}
	recipient := int(key[idKeySize])<<24 | int(key[idKeySize+1])<<16 | int(key[idKeySize+2])<<8 | int(key[idKeySize+3])
	n.Kind = NoticeKind(key[idKeySize+4])
	if recipient >= len(env.Recipients) || n.Kind < NoticeFailure || n.Kind > NoticeSuccess {
		return n, errDamaged
	}
	n.Recipient = env.Recipients[recipient]
	r, err := openRecord(value)
	if err != nil {
		return n, err
	}
	n.Attempts = int(r.uint())
	n.At = timeOf(r.int())
	n.RetryUntil = timeOf(r.int())
	n.Outcome = *r.outcome()
	return n, r.end()
}

// DueNotices takes a message's notices, once none of its claims is in flight
// or five minutes after the first of them. The caller answers them with
// Submit, or with Dismiss, or gives them back with Return. next: when to ask
// again (zero: when NoticesChanged says so).
func (q *Queue) DueNotices(now time.Time) (b *NoticeBatch, next time.Time) {
	at := nanos(now)
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.notices.heap) > 0 && !q.refusing() {
		s := q.notices.all[q.notices.heap[0].ref]
		q.notices.place(q, s, at)
		if s.pos != 0 {
			continue
		}
		if first := q.notices.heap[0].at; first > at {
			return nil, timeOf(first)
		}
		s.taken = true
		q.notices.place(q, s, at)
		b, err := q.readNotices(s)
		if err == nil {
			return b, now
		}
		q.noNotices(s, b, err, at)
	}
	return nil, time.Time{}
}

var errNoNotices = errors.New("queue: no notice can be read")

// noNotices deals with a set that readNotices has brought nothing of.
func (q *Queue) noNotices(s *noticeSet, b *NoticeBatch, err error, at int64) {
	var d *damage
	switch {
	case errors.Is(err, errNoNotices) && s.laterAt == 0:
		// Answered by a write that was thought to have failed, or damaged.
		c := q.writer.begin(nil)
		for _, r := range b.records {
			q.writer.batch.Delete(r.key)
		}
		q.writer.commit(c)
		q.answered(b, at)
	case errors.As(err, &d):
		q.notices.drop(s)
		q.setAside(s.id, at, err)
	default: // the store has failed, or a notice came while they were read
		s.taken, s.laterAt = false, 0
		s.restUntil = at + int64(noticeRest)
		q.notices.place(q, s, at)
	}
}

// readNotices reads a set from the disk. The lock is given up meanwhile.
func (q *Queue) readNotices(s *noticeSet) (*NoticeBatch, error) {
	m, err := q.hot(s.id)
	if err != nil {
		return nil, err
	}
	q.mu.Unlock()
	b := &NoticeBatch{Envelope: m.env}
	lower, upper := keysOfMessage(keyNotice, s.id)
	err = q.store.Scan(lower, upper, func(key, value []byte) error {
		n, err := decodeNotice(m.env, key, value)
		if err != nil {
			q.log.Error("a notice cannot be read and is given up", "id", s.id, "key", fmt.Sprintf("%x", key), "error", err)
			n.Kind = 0
		}
		b.records = append(b.records, noticeRecord{append([]byte(nil), key...), append([]byte(nil), value...)})
		if n.Kind != 0 {
			b.Notices = append(b.Notices, n)
		}
		return nil
	})
	q.mu.Lock()
	q.unpin(m)
	if err != nil {
		return nil, q.readError(s.id, "read its notices", err)
	}
	if len(b.Notices) == 0 {
		return b, errNoNotices
	}
	return b, nil
}

// fillAnswers deletes notices in the batch of what reports them.
func (q *Queue) fillAnswers(b *store.Batch, w *recordWriter, answers *NoticeBatch, report *Envelope) {
	for _, r := range answers.records {
		b.Delete(r.key)
	}
	q.mu.Lock()
	number := q.historyNumber()
	q.mu.Unlock()
	at := nanos(report.ArrivedAt)
	w.b = w.b[:0]
	encodeHistory(w, nil, Timing{}, at, []happening{{recipient: -1, kind: EventReported, text: report.ID.String()}})
	record := w.end()
	key, value := b.Reserve(historyKeySize, len(record))
	putHistoryKey(key, answers.Envelope.ID, at, number)
	copy(value, record)
}

// restore puts notices back that were deleted in a write which is undone.
func (b *NoticeBatch) restore(batch *store.Batch) {
	for _, r := range b.records {
		batch.Set(r.key, r.value)
	}
}

// answered forgets notices that are no longer on the disk. Where they were the
// last thing a message was kept for, it ends.
func (q *Queue) answered(b *NoticeBatch, at int64) {
	id := b.Envelope.ID
	s := q.notices.sets[id]
	if s == nil || !s.taken {
		return
	}
	s.taken = false
	if s.laterAt != 0 {
		s.firstAt, s.laterAt = s.laterAt, 0 // what came first is answered
	}
	answered := min(len(b.records), s.n)
	if len(b.Notices) == 0 {
		answered = s.n // none is there any more
	}
	s.n -= answered
	q.notices.total -= int64(answered)
	b.records = nil
	if s.n > 0 {
		q.notices.place(q, s, at)
		return
	}
	q.notices.drop(s)
	if q.index.first(id) == noEntry {
		q.endMessage(b.Envelope, at)
	}
}

// endMessage deletes a message whose recipients are all final and whose
// notices are all reported.
func (q *Queue) endMessage(env *Envelope, at int64) {
	m := q.messages[env.ID]
	c := q.writer.begin(m)
	c.ended = m != nil
	if m != nil {
		m.ended = true
	} else if env.large {
		c.unlink = env.ID
	}
	q.erase(env, true)
	q.happened = q.happened[:0]
	q.putHistory(env.ID, env, true, Timing{}, at)
	q.writer.commit(c)
}

// Dismiss deletes notices without a report.
func (q *Queue) Dismiss(b *NoticeBatch, now time.Time) error {
	var batch store.Batch
	for _, r := range b.records {
		batch.Delete(r.key)
	}
	if err := q.store.Commit(context.Background(), &batch); err != nil {
		return fmt.Errorf("queue: dismiss the notices of %s: %w", b.Envelope.ID, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.answered(b, nanos(now))
	return nil
}

// Return gives notices back after a failure to report them; they are due
// again after a while.
func (q *Queue) Return(b *NoticeBatch, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s := q.notices.sets[b.Envelope.ID]; s != nil && s.taken {
		s.taken, s.laterAt = false, 0
		s.restUntil = nanos(now) + int64(noticeRest)
		q.notices.place(q, s, nanos(now))
	}
}

// OpenMessage opens the content of a message that has open recipients or
// unreported notices, for reports and for people.
func (q *Queue) OpenMessage(id ID) (*Content, error) {
	q.mu.Lock()
	m := q.messages[id]
	known := q.index.first(id) != noEntry || q.notices.sets[id] != nil
	q.mu.Unlock()
	if !known {
		return nil, ErrNotFound
	}
	if m != nil {
		return q.content(m)
	}
	return q.readContent(id)
}
