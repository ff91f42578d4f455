package smtpserver

import (
	"context"
	"io"
	"strconv"
)

func (c *Conn) dataCommand(ctx context.Context, args []byte) {
	if len(args) > 0 {
		c.refuse(replyNoArgs)
		return
	}
	if c.tx.content != nil {
		c.refuse(replyMixed)
		return
	}
	if r := c.notReady(); r != nil {
		c.refuse(r)
		return
	}
	content, err := c.tx.backend.Content(ctx)
	if err != nil {
		c.tell(c.refusal(err, "data"))
		c.endTransaction()
		return
	}
	c.tx.content = content
	c.out = append(c.out, "354 end with <CRLF>.<CRLF>\r\n"...)
	c.beginContent()
	c.data.Reset(c.in)
	for {
		b, err := c.data.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			c.badInput(err)
			return
		}
		if !c.take(b) {
			return
		}
	}
	c.commit(ctx)
}

// notReady tells why content cannot come now.
func (c *Conn) notReady() *Reply {
	switch {
	case c.tx.backend == nil:
		return replyNeedsMail
	case c.tx.rcpts == 0:
		return replyNeedsRcpt
	}
	return nil
}

// maxDropped is how many octets of content are read that nobody wants, so that
// the client may come to its end and hear why.
const maxDropped = 128 << 20

// take hands octets of content on. It returns false where the session ends.
func (c *Conn) take(b []byte) bool {
	t := &c.tx
	t.size += int64(len(b))
	if t.failure == nil {
		limit := c.server.opts.MaxMessageSize
		// The backend sees first what goes over the limit: it may have
		// counted otherwise, and more to say.
		if _, err := t.content.Write(b); err != nil {
			t.failure = c.refusal(err, "content")
		} else if limit > 0 && t.size > limit {
			t.failure = replyTooBig
		} else {
			return true
		}
	}
	return c.drop(len(b))
}

// drop counts octets that nobody wants. It returns false where the session ends.
func (c *Conn) drop(n int) bool {
	c.tx.dropped += int64(n)
	if c.tx.dropped > maxDropped {
		c.leaveWith(replyEndlessData)
		return false
	}
	return true
}

// commit ends the content: the client hears what became of the message.
func (c *Conn) commit(ctx context.Context) {
	defer c.endTransaction()
	if c.tx.failure != nil {
		c.tell(c.tx.failure)
		return
	}
	text, err := c.tx.content.Commit(ctx, c.buffers.text[:0])
	if err != nil {
		c.tell(c.refusal(err, "commit"))
		return
	}
	c.buffers.text = text[:0]
	text = text[:min(len(text), maxReplyText)]
	clean(text)
	c.out = append(append(append(c.out, "250 2.0.0 "...), text...), '\r', '\n')
	c.errors, c.junk = 0, 0
}

// bdatCommand takes one chunk (RFC 3030, section 2). Whatever is wrong, the
// octets of the chunk are read first: they must never be taken for commands.
func (c *Conn) bdatCommand(ctx context.Context, args []byte) {
	size, last, ok := parseChunk(args)
	if !ok {
		c.refuse(replyBadChunk)
		c.leave = true
		return
	}
	refused := c.openChunk(ctx)
	if !c.readChunk(size, refused != nil) {
		return
	}
	switch {
	case refused != nil:
		c.refuse(refused)
		c.endTransaction()
	case last:
		c.commit(ctx)
	case c.tx.failure != nil:
		c.tell(c.tx.failure)
		c.endTransaction()
	default:
		c.out = append(c.out, "250 2.0.0 "...)
		c.out = append(strconv.AppendInt(c.out, size, 10), " octets received\r\n"...)
	}
}

// openChunk makes ready for a chunk, or tells why none can be taken.
func (c *Conn) openChunk(ctx context.Context) *Reply {
	if !c.offers(ExtChunking) {
		return replyUnknown
	}
	if r := c.notReady(); r != nil || c.tx.content != nil {
		return r
	}
	content, err := c.tx.backend.Content(ctx)
	if err != nil {
		return c.refusal(err, "bdat")
	}
	c.tx.content = content
	return nil
}

// readChunk reads the octets of a chunk. It returns false where the session ends.
func (c *Conn) readChunk(size int64, drop bool) bool {
	c.beginContent()
	for size > 0 {
		b, err := c.in.Next(int(min(size, 1<<20)))
		if err != nil {
			c.badInput(err)
			return false
		}
		size -= int64(len(b))
		if drop && !c.drop(len(b)) || !drop && !c.take(b) {
			return false
		}
	}
	return true
}

// parseChunk reads the arguments of BDAT.
func parseChunk(args []byte) (size int64, last, ok bool) {
	number, rest := args, []byte(nil)
	for i, b := range args {
		if b == ' ' {
			number, rest = args[:i], trimSpace(args[i:])
			break
		}
	}
	size, ok = parseNumber(number)
	var buf [verbLength]byte
	switch string(upper(rest, buf[:])) {
	case "LAST":
		last = true
	case "":
		ok = ok && len(rest) == 0
	default:
		ok = false
	}
	return size, last, ok
}
