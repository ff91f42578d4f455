package smtpclient

import (
	"fmt"
	"io"
	"time"

	"postrider/mta/smtpwire"
)

// maxReplies bounds the octets of all replies to one transaction, so that a
// server cannot make each of a hundred recipients cost MaxReplyBytes.
const maxReplies = 128 << 10

// await is the reply that a transaction waits for next.
type await uint8

const (
	awaitReset await = iota
	awaitMail
	awaitRcpt
	awaitData
	awaitContent // none: its content is to be sent
	awaitFinal
	finished
)

// slot is a transaction under way. Replies come in the order of the commands,
// so the one at the head of the queue takes all until it is finished.
type slot struct {
	tx       *Transaction
	res      Result
	body     Body
	closer   io.Closer
	next     await
	due      int // replies to what was written
	rcpt     int // whose reply is next
	accepted int // recipients
	refused  bool
	octets   int  // of its replies
	hasReply bool // any
	saidBye  bool // 421 came as one of its replies

	isChunked bool // BDAT, not DATA
	isWritten bool // with its content, at least into the buffer
	isHollow  bool // DATA was accepted without a recipient: a lone dot ends it

	// Where the content lies in what is being written; contentTo 0: not in it.
	// They tell what was sent when a write fails.
	contentFrom, contentTo int
	hasContent             bool // at least the beginning of it was sent
}

// stage names what the transaction is at.
func (sl *slot) stage() Stage {
	switch sl.next {
	case awaitReset:
		return StageReset
	case awaitMail:
		return StageMail
	case awaitRcpt:
		return StageRcpt
	case awaitData:
		return StageData
	case awaitFinal:
		if sl.isWritten {
			return StageFinal
		}
	}
	return StageContent
}

var errEarlySuccess = fmt.Errorf("%w: success before the content was sent", ErrUnexpectedReply)

// begin takes a transaction and opens its content. What is wrong with the
// transaction itself finishes it at once.
func (sl *slot) begin(tx *Transaction, isChunked bool, now time.Time) {
	*sl = slot{tx: tx, res: sl.res, isChunked: isChunked, next: awaitMail}
	sl.res.reset(len(tx.Rcpts), now)
	err := tx.check()
	if err == nil {
		sl.body, sl.closer, err = tx.Open()
	}
	if err == nil {
		err = sl.body.check()
	}
	if err == nil && sl.body.File != nil && sl.isSmall() {
		err = sl.body.load()
	}
	if err != nil {
		sl.res.Err = &Error{Stage: StageContent, Kind: KindInput, Err: err}
		sl.finish()
	}
}

// check looks for what would be noticed too late while content is being sent.
func (b *Body) check() error {
	memory := int64(len(b.Head)) + int64(len(b.Data))
	if b.Size < memory || b.File == nil && b.Size != memory {
		return fmt.Errorf("%w: %d octets instead of %d", ErrContentSize, memory, b.Size)
	}
	last := b.Data
	if len(last) == 0 {
		last = b.Head
	}
	if n := len(last); b.File == nil && n > 0 && (n < 2 || last[n-2] != '\r' || last[n-1] != '\n') {
		return ErrContentEnd
	}
	return nil
}

func (sl *slot) isSmall() bool { return sl.body.Size <= MaxOneFlight }

// finish is the end of the transaction, whatever came of it.
func (sl *slot) finish() {
	sl.next = finished
	sl.due = 0
	sl.close()
}

// close gives the content back.
func (sl *slot) close() {
	if sl.closer != nil {
		sl.closer.Close()
	}
	sl.closer, sl.body = nil, Body{Size: sl.body.Size}
}

func isSuccess(code int) bool {
	// 220 and 221 belong to a greeting and to QUIT: here they mean that client
	// and server do not speak of the same command.
	return code/100 == 2 && code != 220 && code != 221
}

// take gives the transaction the reply that it waits for.
func (sl *slot) take(reply Reply) error {
	sl.due--
	sl.hasReply = true
	if reply.Code == 421 {
		sl.saidBye = true
	}
	for _, line := range reply.Lines {
		sl.octets += len(line)
	}
	if sl.octets > maxReplies {
		return fmt.Errorf("%w, all replies together", smtpwire.ErrReplyLong)
	}
	isPositive := isSuccess(reply.Code)
	if !isPositive && reply.Code < 400 && !(sl.next == awaitData && reply.Code == 354) {
		return fmt.Errorf("%w: %d", ErrUnexpectedReply, reply.Code)
	}
	switch sl.next {
	case awaitReset:
		if !isPositive && reply.Code != 421 {
			return fmt.Errorf("%w: %d to RSET", ErrUnexpectedReply, reply.Code)
		}
		sl.next = awaitMail
	case awaitMail:
		sl.res.Mail = reply
		sl.refused = !isPositive
		sl.next = awaitRcpt
	case awaitRcpt:
		sl.takeRcpt(reply, isPositive)
	case awaitData:
		sl.res.Data = reply
		if isPositive {
			return fmt.Errorf("%w: %d to DATA", ErrUnexpectedReply, reply.Code)
		}
		sl.next = awaitContent
		if reply.Code != 354 {
			sl.finish()
		} else if sl.accepted == 0 {
			sl.isHollow = true
		}
	case awaitFinal:
		if isPositive && !sl.res.Sent && !sl.isHollow {
			return errEarlySuccess
		}
		if !sl.isHollow {
			sl.res.Final = reply
		}
		sl.finish()
	}
	if sl.due == 0 && sl.isHopeless() {
		sl.finish()
	}
	return nil
}

func (sl *slot) takeRcpt(reply Reply, isPositive bool) {
	sl.res.Rcpts[sl.rcpt] = reply
	sl.rcpt++
	if !isPositive {
		sl.refused = true
	} else if isSuccess(sl.res.Mail.Code) {
		sl.accepted++
	}
	if sl.rcpt < len(sl.res.Rcpts) {
		return
	}
	switch {
	case !sl.isChunked:
		sl.next = awaitData
	case sl.isWritten:
		sl.next = awaitFinal
	default:
		sl.next = awaitContent
	}
}

// isHopeless tells whether nobody is left to send the content to.
func (sl *slot) isHopeless() bool {
	if sl.next == finished || sl.isHollow {
		return false
	}
	if sl.next > awaitMail && !isSuccess(sl.res.Mail.Code) {
		return true
	}
	return sl.next > awaitRcpt && sl.accepted == 0
}

// isOpen tells whether the server may still have the transaction open after it
// finished: it needs RSET then (RFC 3030, section 2; RFC 5321, section 4.1.4).
func (sl *slot) isOpen() bool {
	if isSuccess(sl.res.Final.Code) || sl.isHollow {
		return false
	}
	if sl.hasContent {
		return sl.isChunked // the end of DATA closes it, a failed BDAT may not
	}
	return isSuccess(sl.res.Mail.Code)
}

// wrote learns that n octets of the buffer with its content were written.
func (sl *slot) wrote(n int) {
	if sl.contentTo == 0 {
		return
	}
	if isWhole := n >= sl.contentTo; isWhole || n > sl.contentFrom {
		sl.hasContent = true
		sl.res.Sent = isWhole && !sl.isHollow
	}
	sl.contentFrom, sl.contentTo = 0, 0
}

// lose is called when the session ends before the transaction did. isQuiet
// tells that the server had gone before it could know of this one.
func (sl *slot) lose(err *Error, isHead, wasBye, isQuiet bool) {
	sl.res.Err = err
	switch {
	case sl.saidBye:
		sl.answer421(err.Reply)
	case wasBye:
		// After 421 a server takes nothing more (RFC 5321, section 3.8); where
		// it did go on, the content was not sent any more.
		sl.res.Untried = !sl.hasReply || !sl.hasContent
	case !isHead, isQuiet, err.Kind == KindAborted:
		sl.res.Untried = !sl.hasContent
	}
	sl.finish()
}

// answer421 lets 421 stand for the replies that the server then closed on, so
// that nothing of a transaction that it surely did not take is in doubt.
func (sl *slot) answer421(reply Reply) {
	if sl.res.Mail.Code == 0 {
		sl.res.Mail = reply
	}
	for i := range sl.res.Rcpts {
		if sl.res.Rcpts[i].Code == 0 {
			sl.res.Rcpts[i] = reply
		}
	}
	if sl.res.Final.Code == 0 && sl.hasContent {
		sl.res.Final = reply
	}
}
