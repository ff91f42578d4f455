package bounce

import (
	"errors"
	"fmt"
	"io"
	"time"

	"postrider/mta/dsn"
	"postrider/queue"
)

// compose makes the report about a message's notices, and its envelope.
func (r *Reporter) compose(now time.Time, b *queue.NoticeBatch) (*dsn.Report, *queue.Envelope) {
	about := b.Envelope
	env := &queue.Envelope{
		ID:         r.opts.Queue.NewID(now),
		Recipients: []queue.Recipient{{Address: about.Sender}},
		// RFC 8689, section 5: what was to travel safely travels back so.
		RequireTLS: about.RequireTLS,
		Origin:     queue.Origin{Via: "bounce"},
	}
	report := &dsn.Report{
		ID: env.ID.String(), Date: now, Hostname: r.opts.Hostname, From: r.opts.From, To: about.Sender,
		Message: dsn.Message{ID: about.ID.String(), EnvID: about.EnvID, ArrivedAt: about.ArrivedAt},
	}
	failed := false
	for i := range b.Notices {
		report.Recipients = append(report.Recipients, recipient(&b.Notices[i]))
		failed = failed || b.Notices[i].Kind == queue.NoticeFailure
	}
	// RFC 3461, section 4.3: the whole message comes back with failures only.
	whole := failed && about.Ret != queue.RetHeaders && !about.RequireTLS
	content, complete, err := r.returned(about.ID, whole)
	if err != nil {
		r.log.Warn("a report goes without the message it is about", "id", about.ID.String(), "error", err)
	}
	report.Message.Content, report.Message.Whole = content, whole && complete
	return report, env
}

func recipient(n *queue.Notice) dsn.Recipient {
	c := dsn.Recipient{
		Address: n.Recipient.Address, ORcpt: n.Recipient.ORcpt,
		Status: n.Outcome.Status, Code: n.Outcome.Code, Text: n.Outcome.Text,
		Attempts: n.Attempts, At: n.At, RetryUntil: n.RetryUntil,
	}
	switch n.Kind {
	case queue.NoticeFailure:
		c.Action = dsn.Failed
	case queue.NoticeDelay:
		c.Action = dsn.Delayed
	default:
		c.Action = dsn.Relayed
	}
	if remote := n.Outcome.Remote; remote != nil {
		c.RemoteHost, c.RemoteIP = remote.Host, remote.IP
	}
	return c
}

// returned reads what comes back of a message: all of it where that is wanted
// and it is small enough, else its beginning, which holds the header.
func (r *Reporter) returned(id queue.ID, whole bool) (content []byte, complete bool, err error) {
	c, err := r.opts.Queue.OpenMessage(id)
	if err != nil {
		return nil, false, err
	}
	defer c.Close()
	complete = c.Size <= dsn.MaxReturned
	content = make([]byte, 0, min(c.Size, dsn.MaxReturned))
	for _, p := range [][]byte{c.Head, c.Data} {
		content = append(content, p[:min(len(p), cap(content)-len(content))]...)
	}
	if rest := cap(content) - len(content); rest > 0 && c.File != nil {
		n, err := io.ReadFull(c.File, content[len(content):cap(content)])
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, false, fmt.Errorf("read its content: %w", err)
		}
		content = content[:len(content)+n]
	}
	if complete && c.File != nil { // damage shows at the end
		if _, err := c.File.Read(make([]byte, 1)); err != io.EOF {
			return nil, false, fmt.Errorf("read its content: %w", err)
		}
	}
	return content, complete && whole, nil
}
