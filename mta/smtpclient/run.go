package smtpclient

import (
	"context"
	"slices"
	"sync"
	"time"
)

// flow is one Run of a session: what is taken from next goes through the
// session's queue to done.
type flow struct {
	*Session
	next    func() (*Transaction, bool)
	done    func(*Transaction, *Result)
	hasMore bool

	isChunked, isPipelined bool
	isReused               bool // the session was idle before
	hasReply               bool // any, in this Run
}

// buffers holds what flights are composed in, so that an idle session holds
// none.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxKeptBuffer is what a flight of one small message needs; larger buffers
// are left to the garbage collector.
const maxKeptBuffer = MaxOneFlight + 16<<10

// Run carries transactions until next has no more (ok false) or the session
// ends. It asks next for the following transaction early, while one is under
// way, so that its envelope can travel with the content of the former; done is
// called once for each, in order, on the same goroutine. A nil error means
// that the session is idle and may be used again.
//
// When ctx ends, next is not asked any more, and what is under way is
// finished; Close ends it at once. next, done and Open must not wait, as replies
// are not read meanwhile, nor call the session's methods other than Close,
// Extensions, Greeting and TLS.
func (s *Session) Run(ctx context.Context, next func() (*Transaction, bool), done func(*Transaction, *Result)) error {
	if s.err != nil {
		return s.err
	}
	if s.wasUsed {
		// Before a transaction is asked for: a server that hung up while the
		// session was idle costs nobody an attempt.
		if err := s.CheckIdle(); err != nil {
			return err
		}
	}
	f := flow{Session: s, next: next, done: done, hasMore: true, isReused: s.wasUsed}
	f.isChunked = s.ext.Chunking && !s.opts.NoChunking
	f.isPipelined = s.ext.Pipelining && !s.opts.NoPipelining
	s.wasUsed = true
	buffer := buffers.Get().(*[]byte)
	s.out = (*buffer)[:0]
	defer func() {
		if cap(s.out) <= maxKeptBuffer {
			*buffer = s.out[:0]
		}
		buffers.Put(buffer)
		s.out = nil
	}()
	for {
		err := f.send(ctx)
		if err == nil && len(f.queue) == 0 {
			return nil
		}
		if err == nil {
			err = f.receive()
		}
		if err != nil {
			return f.fail(err)
		}
	}
}

// send writes what may be written now: envelopes, the content of the
// transaction at the head, or the next command where the server cannot
// pipeline.
func (f *flow) send(ctx context.Context) error {
	if len(f.queue) == 0 && f.in.Buffered() > 0 {
		return f.CheckIdle()
	}
	f.offer(ctx)
	if len(f.queue) == 0 {
		return nil
	}
	head := f.queue[0]
	if head.due == 0 {
		if head.next == awaitContent {
			return f.sendContent(ctx, head)
		}
		f.appendStep(head)
	}
	return f.flush()
}

// flush writes what was composed.
func (f *flow) flush() error {
	if len(f.out) == 0 {
		return nil
	}
	if err := f.writeFlight(); err != nil {
		return f.lastWords(f.ioError(f.writingStage(), err))
	}
	return nil
}

// writeFlight writes what was composed, and notes what was sent of whom.
func (f *flow) writeFlight() error {
	n, err := f.write()
	for _, sl := range f.queue {
		sl.wrote(n)
	}
	return err
}

// writingStage names what a failed write was about.
func (f *flow) writingStage() Stage {
	if f.queue[0].isWritten {
		return StageContent
	}
	return f.queue[0].stage()
}

// receive takes the replies that are there, and waits for the first.
func (f *flow) receive() error {
	for isFirst := true; len(f.queue) > 0 && f.queue[0].due > 0; isFirst = false {
		if !isFirst && f.in.Buffered() == 0 {
			return nil
		}
		if _, err := f.receiveOne(f.timeout(f.queue[0])); err != nil {
			return err
		}
	}
	return nil
}

// receiveOne takes one reply to the transaction at the head.
func (f *flow) receiveOne(timeout time.Duration) (Reply, error) {
	head := f.queue[0]
	stage := head.stage()
	reply, err := f.reply(timeout)
	if err != nil {
		return reply, f.ioError(stage, err)
	}
	f.hasReply = true
	if err := head.take(reply); err != nil {
		return reply, &Error{Stage: stage, Kind: KindProtocol, Reply: reply, Err: err}
	}
	f.reap()
	if reply.Code == 421 && f.err == nil {
		f.err = replyError(stage, reply)
		return reply, f.lastWords(f.err)
	}
	return reply, nil
}

func (f *flow) timeout(sl *slot) time.Duration {
	switch sl.next {
	case awaitData:
		return f.opts.Timeouts.Data
	case awaitFinal:
		return f.opts.Timeouts.Final
	}
	return f.opts.Timeouts.Command
}

// lastWords reads what a server still says after a write failed or it said
// 421: a reply that is on its way tells more than a broken connection. It
// returns the better reason of the two.
func (f *flow) lastWords(reason *Error) error {
	end := time.Now().Add(f.patience)
	f.limit = end
	for len(f.queue) > 0 && f.queue[0].due > 0 {
		stage := f.queue[0].stage()
		reply, err := f.receiveOne(max(1, time.Until(end)))
		if err != nil {
			break
		}
		if reply.Code >= 400 && reason.Kind != KindReply {
			reason = replyError(stage, reply)
		}
	}
	return reason
}

// reap gives finished transactions back, in order.
func (f *flow) reap() {
	for len(f.queue) > 0 && f.queue[0].next == finished {
		sl := f.queue[0]
		copy(f.queue, f.queue[1:])
		f.queue = f.queue[:len(f.queue)-1]
		switch {
		case sl.res.Err != nil:
		case isSuccess(sl.res.Final.Code) && !sl.refused:
			f.window = min(f.window+1, f.opts.InFlight)
		default:
			f.window = 1
		}
		// What follows it in the queue has brought its own RSET.
		if sl.isOpen() && !f.hasLive() {
			f.needReset = true
		}
		now := time.Now()
		sl.res.EndedAt = now
		if len(f.queue) > 0 {
			f.limitFor(f.queue[0], now)
		}
		f.done(sl.tx, &sl.res)
		sl.tx = nil
		f.spare = append(f.spare, sl)
	}
}

// limitFor begins the time that the transaction at the head may take.
func (f *flow) limitFor(sl *slot, now time.Time) {
	whole := f.opts.Timeouts.Message
	if whole == 0 {
		const pace = 10_000 // octets a second
		whole = 30*time.Minute + time.Duration(sl.body.Size/pace)*time.Second
	}
	f.limit = now.Add(whole)
}

// fail ends the session and all that is under way.
func (f *flow) fail(err error) error {
	reason := f.ioError(StageIdle, err)
	f.end(reason)
	reason = f.err
	wasBye := reason.Kind == KindReply && reason.Reply.Code == 421
	isQuiet := reason.Kind == KindClosed && f.isReused && !f.hasReply
	for i, sl := range f.queue {
		if sl.next != finished {
			sl.lose(reason, i == 0, wasBye, isQuiet)
		}
	}
	f.reap()
	return reason
}

func (f *flow) newSlot() *slot {
	if n := len(f.spare); n > 0 {
		sl := f.spare[n-1]
		f.spare = f.spare[:n-1]
		return sl
	}
	return new(slot)
}

// offer puts transactions into the queue, and their commands into the buffer,
// for as long as they may follow what is there.
func (f *flow) offer(ctx context.Context) {
	for f.hasMore && f.mayFollow() && ctx.Err() == nil {
		tx, ok := f.next()
		if !ok {
			f.hasMore = false
			return
		}
		now := time.Now()
		sl := f.newSlot()
		sl.begin(tx, f.isChunked, now)
		isWhole := f.fits(sl)
		f.queue = append(f.queue, sl)
		if len(f.queue) == 1 {
			f.limitFor(sl, now)
		}
		switch {
		case sl.next == finished:
			f.reap()
		case f.isPipelined:
			f.appendEnvelope(sl, isWhole)
		case f.needReset:
			sl.next = awaitReset
		}
	}
}

// mayFollow tells whether anything may be written behind what is in the queue.
func (f *flow) mayFollow() bool {
	if len(f.queue) == 0 {
		return true
	}
	// Not behind an envelope that waits for its content; not where a recipient
	// was refused, before it is seen what becomes of the others; and not behind
	// one that failed before it was written and waits for its turn.
	last := f.queue[len(f.queue)-1]
	if !f.isPipelined || !last.isWritten || last.refused || last.isHollow {
		return false
	}
	if !f.isChunked {
		return len(f.queue) == 1
	}
	// Behind a large content an envelope may always go: that spares the next
	// one, if it is large as well, the round trip for its recipients.
	return f.inFlight() < f.window || !last.isSmall()
}

// inFlight is the number of transactions written whole.
func (f *flow) inFlight() int {
	n := 0
	for _, sl := range f.queue {
		if sl.isWritten {
			n++
		}
	}
	return n
}

// fits tells whether the content of sl may go along with its envelope.
func (f *flow) fits(sl *slot) bool {
	if !f.isPipelined || !f.isChunked || !sl.isSmall() || f.inFlight() >= f.window {
		return false
	}
	octets := sl.body.Size
	for _, other := range f.queue {
		octets += other.body.Size
	}
	return octets <= maxInFlight
}

// hasLive tells whether a transaction in the queue is not finished.
func (f *flow) hasLive() bool {
	return slices.ContainsFunc(f.queue, func(sl *slot) bool { return sl.next != finished })
}

// appendEnvelope appends MAIL, RCPT and, unless its content goes along, DATA.
func (f *flow) appendEnvelope(sl *slot, isWhole bool) {
	// A BDAT that fails leaves the server in a state that nobody knows (RFC
	// 3030, section 2), and so may an envelope without an accepted recipient:
	// the next MAIL would be "nested", and its content go out under the former
	// sender. So whatever follows a transaction that is not yet decided begins
	// with RSET. After the end of DATA the state is known.
	if f.needReset || f.isChunked && f.queue[0] != sl {
		f.out = append(f.out, "RSET\r\n"...)
		sl.next = awaitReset
		sl.due++
		f.needReset = false
	}
	f.out = appendMail(f.out, sl.tx)
	for i := range sl.tx.Rcpts {
		f.out = appendRcpt(f.out, &sl.tx.Rcpts[i])
	}
	sl.due += 1 + len(sl.tx.Rcpts)
	switch {
	case isWhole:
		f.appendSmall(sl)
	case !f.isChunked:
		f.out = append(f.out, "DATA\r\n"...)
		sl.due++
	}
}

// appendStep appends the one command that a server without PIPELINING may have.
func (f *flow) appendStep(sl *slot) {
	switch sl.next {
	case awaitReset:
		f.out = append(f.out, "RSET\r\n"...)
		f.needReset = false
	case awaitMail:
		f.out = appendMail(f.out, sl.tx)
	case awaitRcpt:
		f.out = appendRcpt(f.out, &sl.tx.Rcpts[sl.rcpt])
	case awaitData:
		f.out = append(f.out, "DATA\r\n"...)
	}
	sl.due++
}

func appendMail(dst []byte, tx *Transaction) []byte {
	dst = append(dst, "MAIL FROM:<"...)
	dst = append(dst, tx.From...)
	return appendParams(dst, tx.Params)
}

func appendRcpt(dst []byte, r *Rcpt) []byte {
	dst = append(dst, "RCPT TO:<"...)
	dst = append(dst, r.Address...)
	return appendParams(dst, r.Params)
}

func appendParams(dst []byte, params string) []byte {
	dst = append(dst, '>')
	if params != "" {
		dst = append(dst, ' ')
		dst = append(dst, params...)
	}
	return append(dst, '\r', '\n')
}
