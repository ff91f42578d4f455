package queue

import (
	"context"
	"errors"
	"fmt"

	"postrider/queue/store"
)

// Submission is what Submit makes durable in one step.
type Submission struct {
	// Envelope has ID, ArrivedAt and at least one recipient set; Size is
	// filled in by Submit. It must not be changed any more.
	Envelope *Envelope
	Prefix   []byte // header fields to go before the body: Received, DKIM-Signature ...
	Body     *Body  // owned by the queue once Submit returns nil
	// Answers are notices that this message reports: they are deleted in the
	// same write, so that no crash repeats or loses a report.
	Answers *NoticeBatch
	// Mark is the pickup mark to set in the same write, see Marked; empty: none.
	Mark string
}

func (s *Submission) check() error {
	if err := s.Envelope.check(); err != nil {
		return err
	}
	if s.Body == nil {
		return fmt.Errorf("queue: submit %s without a body", s.Envelope.ID)
	}
	if s.Body.err != nil {
		return s.Body.err
	}
	if s.Body.buf == nil {
		return errBodyGone
	}
	return nil
}

// submitBatch is the memory of one Submit, kept for the next.
type submitBatch struct {
	store.Batch
	w recordWriter
}

// doubt is a message whose write failed on its way: its client was told to
// keep it, so it must not stay if it is found after all.
type doubt struct {
	env     *Envelope
	mark    string
	answers *NoticeBatch
}

// Submit returns nil only when the message is on stable storage. Concurrent
// calls share their syncs. Errors: ErrFull (space, inodes or a failed store:
// tell the client 452), ErrClosed. After ErrFull the body may be gone: a new
// attempt takes a new one. Once the write has begun, the end of ctx is not
// waited for: the answer must be true.
func (q *Queue) Submit(ctx context.Context, s Submission) error {
	if err := s.check(); err != nil {
		return err
	}
	if err := q.admit(s.Envelope.ID); err != nil {
		return err
	}
	err := q.submit(ctx, &s)
	if err != nil {
		q.mu.Lock()
		delete(q.submitting, s.Envelope.ID)
		q.mu.Unlock()
	}
	return err
}

func (q *Queue) submit(ctx context.Context, s *Submission) error {
	if err := q.room.check(); err != nil {
		return err
	}
	env, body := s.Envelope, s.Body
	env.large = body.large()
	env.Size = int64(len(s.Prefix)) + body.size
	if env.large {
		if err := body.settleFile(env.ID); err != nil {
			return err
		}
	}
	b, _ := q.batches.Get().(*submitBatch)
	if b == nil {
		b = new(submitBatch)
	}
	q.fill(b, s)
	err := q.store.Commit(ctx, &b.Batch)
	b.Reset()
	b.w.b = b.w.b[:0]
	q.batches.Put(b)
	switch {
	case err == nil:
		q.accept(s)
		return nil
	case errors.Is(err, store.ErrUnknown):
		q.suspect(s)
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, store.ErrFailed):
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return fmt.Errorf("queue: submit %s: %w", env.ID, err)
}

// admit tells whether the queue takes mail at present, and takes note of what
// comes in.
func (q *Queue) admit(id ID) error {
	if err := q.store.Err(); err != nil && !q.isClosed() {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	_, busy := q.submitting[id]
	switch {
	case q.closed:
		return ErrClosed
	case q.down:
		return fmt.Errorf("%w: the store has failed and is being opened again", ErrFull)
	case busy || q.known(id):
		return fmt.Errorf("queue: submit %s: it is in the queue already", id)
	}
	q.submitting[id] = struct{}{}
	return nil
}

func (q *Queue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

func (q *Queue) isSubmitting(id ID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, busy := q.submitting[id]
	return busy
}

// fill lays out what a message adds to the store.
func (q *Queue) fill(b *submitBatch, s *Submission) {
	env := s.Envelope
	b.w.begin()
	env.encode(&b.w)
	record := b.w.end()
	key, value := b.Reserve(idKeySize, len(record))
	putIDKey(key, keyEnvelope, env.ID)
	copy(value, record)
	if env.large {
		b.w.begin()
		(&largeRecord{size: s.Body.size, sum: s.Body.sum}).encode(&b.w, s.Prefix)
		record := b.w.end()
		key, value = b.Reserve(idKeySize, len(record))
		putIDKey(key, keyLargeBody, env.ID)
		copy(value, record)
	} else {
		key, value = b.Reserve(idKeySize, smallRecordSize(s.Prefix, s.Body.buf.b))
		putIDKey(key, keyBody, env.ID)
		putSmallRecord(value, s.Prefix, s.Body.buf.b)
	}
	if s.Mark != "" {
		b.Set(markKey(s.Mark), env.ID[:])
	}
	if s.Answers != nil {
		q.fillAnswers(&b.Batch, &b.w, s.Answers, env)
	}
}

// accept enters a message that is on stable storage into the schedule.
func (q *Queue) accept(s *Submission) {
	env, body := s.Envelope, s.Body
	m := newMessage(env)
	due := m.firstDue()
	now := nanos(env.ArrivedAt)
	if fresh := due <= now && !env.Held; fresh && !env.large {
		m.buf = q.buffers.grow(body.buf, len(s.Prefix))
		m.prefix = len(m.buf.b)
		m.buf.b = append(m.buf.b, s.Prefix...)
	} else {
		body.buf.drop()
	}
	body.buf, body.name = nil, ""

	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.submitting, m.id)
	q.enter(m, now)
	if m.buf != nil {
		q.messages[m.id] = m
		q.keep(m)
		q.cool(m)
	}
	if s.Answers != nil {
		q.answered(s.Answers, now)
	}
}

// enter makes the entries of a message that has none yet.
func (q *Queue) enter(m *message, now int64) {
	env := m.env
	if len(env.Recipients) == 1 {
		q.addEntry(m, env.Recipients[0].Domain)
	} else {
		var t domainTable
		env.domains(&t)
		for _, name := range t.names {
			q.addEntry(m, name)
		}
	}
	q.group(m)
	for i := q.index.first(m.id); i != noEntry; {
		next := q.slab.at(i).next
		q.recompute(m, i, now)
		q.attach(i, now)
		i = next
	}
}

func (q *Queue) addEntry(m *message, domain string) {
	i := q.slab.alloc()
	e := q.slab.at(i)
	*e = entry{
		id:        m.id,
		lane:      q.lanes.get(domain),
		sender:    q.senders.use(m.env.Sender),
		tag:       q.tags.use(m.env.Tag),
		priority:  m.env.Priority,
		scheduled: m.env.scheduled(),
	}
	q.lanes.all[e.lane].entries++
	q.index.add(i)
}

// suspect takes note of a message whose write may have reached the disk.
func (q *Queue) suspect(s *Submission) {
	if s.Body.buf != nil {
		s.Body.buf.drop()
	}
	s.Body.buf, s.Body.name = nil, "" // the file goes when the doubt is settled
	q.mu.Lock()
	defer q.mu.Unlock()
	q.down = true
	q.doubts = append(q.doubts, doubt{env: s.Envelope, mark: s.Mark, answers: s.Answers})
	q.writer.rouse() // in case the store was opened again meanwhile
}
