package smtpclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"postrider/mta/smtpwire"
)

// pieceSize is how much of a large content goes into one write.
const pieceSize = 64 << 10

const endOfData = ".\r\n"

// sendContent sends the content of the transaction at the head, and what may
// follow it in the same flight.
func (f *flow) sendContent(ctx context.Context, head *slot) error {
	switch {
	case f.in.Buffered() > 0:
		return f.cutShort(head, nil, errEarlyReply)
	case head.isHollow:
		// RFC 2920, section 3.1: DATA was accepted, so its content must end,
		// and it has none, as there is nobody to take it.
		f.out = append(f.out, endOfData...)
		head.contentTo = len(f.out)
		f.awaitFinal(head)
	case head.isSmall():
		f.appendSmall(head)
		f.offer(ctx)
	default:
		return f.sendLarge(ctx, head)
	}
	return f.flush()
}

// awaitFinal notes that all of the transaction is in the buffer.
func (f *flow) awaitFinal(sl *slot) {
	sl.isWritten = true
	sl.due++
	if sl.next == awaitContent {
		sl.next = awaitFinal
	}
	sl.close()
}

// appendSmall appends content that lies in memory, with its command or its end.
func (f *flow) appendSmall(sl *slot) {
	if sl.isChunked {
		f.out = appendBDAT(f.out, sl.body.Size)
		sl.contentFrom = len(f.out)
		f.out = append(append(f.out, sl.body.Head...), sl.body.Data...)
	} else {
		sl.contentFrom = len(f.out)
		var dots smtpwire.Stuffer
		f.out = dots.Append(dots.Append(f.out, sl.body.Head), sl.body.Data)
		f.out = append(f.out, endOfData...)
	}
	sl.contentTo = len(f.out)
	f.awaitFinal(sl)
}

func appendBDAT(dst []byte, size int64) []byte {
	dst = append(dst, "BDAT "...)
	dst = strconv.AppendInt(dst, size, 10)
	return append(dst, " LAST\r\n"...)
}

// load reads a File that fits into one flight.
func (b *Body) load() error {
	data := make([]byte, b.Size-int64(len(b.Head)))
	n := copy(data, b.Data)
	if _, err := io.ReadFull(b.File, data[n:]); err != nil {
		return shortContent(err)
	}
	if err := expectEnd(b.File); err != nil {
		return err
	}
	b.Data, b.File = data, nil
	return b.check()
}

func shortContent(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: it ends early", ErrContentSize)
	}
	return err
}

func expectEnd(r io.Reader) error {
	var b [1]byte
	if n, err := io.ReadFull(r, b[:]); n > 0 {
		return fmt.Errorf("%w: it goes on", ErrContentSize)
	} else if err != io.EOF {
		return err
	}
	return nil
}

// pieces cuts a Body into pieces.
type pieces struct {
	body    Body
	left    int64 // of all
	scratch []byte
}

// next returns at most limit octets, valid until the next call. That the File
// is as long as announced is known before the last piece is returned.
func (p *pieces) next(limit int) ([]byte, error) {
	from := &p.body.Head
	if len(*from) == 0 {
		from = &p.body.Data
	}
	if len(*from) > 0 {
		b := (*from)[:min(limit, len(*from))]
		*from = (*from)[len(b):]
		p.left -= int64(len(b))
		return b, nil
	}
	b := p.scratch[:min(int64(limit), p.left)]
	if _, err := io.ReadFull(p.body.File, b); err != nil {
		return nil, shortContent(err)
	}
	p.left -= int64(len(b))
	if p.left == 0 {
		return b, expectEnd(p.body.File)
	}
	return b, nil
}

// errEarlyReply tells the loop that writes content that the server has spoken,
// or hung up.
var errEarlyReply = errors.New("server spoke before the content was sent")

// sendLarge sends large content piece by piece, and the next envelope with the
// last one, while it listens for a reply that comes too early.
func (f *flow) sendLarge(ctx context.Context, head *slot) error {
	l := f.listen()
	err := f.writePieces(head, l)
	if err == nil {
		err = l.allSent()
	}
	if err == nil {
		f.awaitFinal(head)
		f.offer(ctx)
		err = f.writeFlight()
	}
	if err == nil {
		if err := l.wait(f.opts.Timeouts.Final); err != nil {
			return f.ioError(StageFinal, err)
		}
		return nil
	}
	return f.cutShort(head, l, err)
}

// cutShort hears what the server has to say to content that was not sent to
// its end. Without a listener it has been said already.
func (f *flow) cutShort(head *slot, l *listener, err error) error {
	var own *Error
	if errors.As(err, &own) {
		f.conn.Close() // content that cannot be read on cannot be taken back either
		l.wait(f.patience)
		return own
	}
	if head.next == awaitContent {
		head.next = awaitFinal
		head.due++
	}
	var heard error
	if l != nil {
		heard = l.wait(f.patience)
	}
	if heard == nil {
		return f.lastWords(&Error{Stage: StageContent, Kind: KindProtocol, Err: errEarlyReply})
	}
	if err == errEarlyReply {
		err = heard
	}
	return f.ioError(StageContent, err)
}

// writePieces writes the content but for what then lies in the buffer.
func (f *flow) writePieces(sl *slot, l *listener) error {
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	if sl.body.File != nil && cap(*buffer) < pieceSize {
		*buffer = make([]byte, pieceSize)
	}
	p := pieces{body: sl.body, left: sl.body.Size, scratch: (*buffer)[:cap(*buffer)]}
	var dots smtpwire.Stuffer
	if sl.isChunked {
		f.out = appendBDAT(f.out, sl.body.Size)
	}
	for p.left > 0 {
		piece, err := p.next(pieceSize - len(f.out))
		if err != nil {
			return &Error{Stage: StageContent, Kind: KindInput, Err: err}
		}
		if sl.isChunked && len(f.out) == 0 && p.left > 0 {
			if err := f.writePiece(sl, l, piece); err != nil {
				return err
			}
			continue
		}
		if sl.isChunked {
			f.out = append(f.out, piece...)
		} else {
			f.out = dots.Append(f.out, piece)
		}
		if p.left > 0 && len(f.out) >= pieceSize {
			if err := f.writePiece(sl, l, f.out); err != nil {
				return err
			}
			f.out = f.out[:0]
		}
	}
	if !sl.isChunked {
		if !dots.EndsLine() {
			return &Error{Stage: StageContent, Kind: KindInput, Err: ErrContentEnd}
		}
		f.out = append(f.out, endOfData...)
	}
	sl.contentTo = len(f.out)
	return nil
}

// writePiece writes a piece under a deadline of its own.
func (f *flow) writePiece(sl *slot, l *listener, piece []byte) error {
	sl.hasContent = true
	if err := l.extend(f.opts.Timeouts.Block); err != nil {
		return err
	}
	_, err := f.stream.Write(piece)
	if err != nil && l.hasHeard() {
		return errEarlyReply
	}
	return err
}

// listener waits for the server to speak, in a goroutine of its own, while
// content is written; it then interrupts the write, which may be stuck. Until
// wait has returned, nobody else reads.
type listener struct {
	s    *Session
	done chan struct{}
	err  error // of the read; valid after done

	mu     sync.Mutex
	heard  bool
	isLate bool // all of the content is sent: a reply is welcome
}

// listen begins to listen.
func (s *Session) listen() *listener {
	l := &listener{s: s, done: make(chan struct{})}
	s.wait = 0 // the deadline is set here, and by wait
	now := time.Now()
	s.deadlines.Read(now, s.limit.Sub(now), s.limit)
	go func() {
		defer close(l.done)
		err := s.in.Fill()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.err, l.heard = err, true
		if !l.isLate {
			s.conn.SetWriteDeadline(time.Unix(1, 0))
		}
	}()
	return l
}

// extend gives the next write its deadline.
func (l *listener) extend(timeout time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.heard {
		return errEarlyReply
	}
	return l.s.deadlines.Write(time.Now(), timeout, l.s.limit)
}

// allSent ends the time in which a reply is too early.
func (l *listener) allSent() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.isLate = true
	if l.heard {
		return errEarlyReply
	}
	return nil
}

func (l *listener) hasHeard() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heard
}

// wait waits until the server has been heard, and stops listening.
func (l *listener) wait(timeout time.Duration) error {
	l.s.deadlines.Read(time.Now(), timeout, l.s.limit)
	<-l.done
	return l.err
}
