package submission

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"postrider/mta/intake"
	"postrider/mta/mailaddr"
	"postrider/mta/smtpserver"
	"postrider/queue"
)

// via names this way in (queue.Origin).
const via = "smtp"

// backend is what one listener's server asks.
type backend struct {
	opts   *Options
	policy Policy
}

// Connect implements [smtpserver.Backend].
func (b *backend) Connect(c *smtpserver.Conn) (smtpserver.Session, error) {
	if b.opts.Disabled {
		return nil, b.refuse(&intake.Error{Code: 421, Status: "4.3.2", Text: "this server takes no mail at present (mode is disabled)"})
	}
	return &session{backend: b, conn: c, trusted: b.trusts(c.RemoteAddr().Addr())}, nil
}

// trusts tells whether a client is in a network that needs no AUTH.
func (b *backend) trusts(client netip.Addr) bool {
	return client.IsValid() && slices.ContainsFunc(b.policy.TrustedNetworks, func(p netip.Prefix) bool { return p.Contains(client) })
}

// refuse reports a refusal that intake knows nothing of, and makes it a reply.
func (b *backend) refuse(e *intake.Error) *smtpserver.Reply {
	if b.opts.Observer != nil {
		b.opts.Observer.Refused(via, e)
	}
	return replyTo(e)
}

func replyTo(e *intake.Error) *smtpserver.Reply {
	return &smtpserver.Reply{Code: e.Code, Status: e.Status, Text: e.Text}
}

// asReply maps what intake and the queue say. What it does not know comes back
// as it is, and the client hears 451 4.3.0.
func asReply(err error) error {
	if e, ok := errors.AsType[*intake.Error](err); ok {
		return replyTo(e)
	}
	if errors.Is(err, queue.ErrFull) {
		return &smtpserver.Reply{Code: 452, Status: "4.3.1", Text: "no room in the queue at present, try again later"}
	}
	if errors.Is(err, queue.ErrClosed) {
		return &smtpserver.Reply{Code: 421, Status: "4.3.2", Text: "shutting down, try again later"}
	}
	return err
}

// session is a client, and the transaction that it has under way.
type session struct {
	backend *backend
	conn    *smtpserver.Conn
	trusted bool
	warned  bool            // the log has a line about what this client tried
	env     *queue.Envelope // intake's, once Content was asked
	message Message         // nil before that
}

// Mail implements [smtpserver.Session].
func (s *session) Mail(_ context.Context, m *smtpserver.Mail) (smtpserver.Transaction, error) {
	if e := s.mayNotSubmit(); e != nil {
		if !s.warned {
			s.warned = true
			s.backend.opts.Logger.Warn("submission refused", "ip", s.conn.RemoteAddr().Addr(), "from", string(m.Path), "status", e.Status, "reply", e.Text)
		}
		return nil, s.backend.refuse(e)
	}
	path := string(m.Path)
	if path != "" {
		if _, err := mailaddr.ParseUnqualified(path); err != nil {
			return nil, s.backend.refuse(&intake.Error{Code: 553, Status: "5.1.7", Text: "sender " + err.Error()})
		}
	}
	s.env = &queue.Envelope{
		Sender: path, SMTPUTF8: m.SMTPUTF8, RequireTLS: m.RequireTLS, EnvID: m.EnvID,
		Origin: queue.Origin{
			Via: via, Client: s.conn.RemoteAddr().Addr(), HELO: s.conn.HELO(),
			User: s.conn.User(), TLS: s.conn.TLS() != nil,
		},
	}
	if m.EightBit {
		s.env.Body = queue.Body8BitMIME
	}
	switch m.Ret {
	case smtpserver.RetFull:
		s.env.Ret = queue.RetFull
	case smtpserver.RetHeaders:
		s.env.Ret = queue.RetHeaders
	}
	return s, nil
}

// mayNotSubmit says why this client may not send; nil where it may.
func (s *session) mayNotSubmit() *intake.Error {
	p := &s.backend.policy
	switch {
	case s.conn.User() != "":
		return nil
	case s.trusted && p.Auth != AuthRequired:
		return nil
	case p.Auth == AuthNone || s.backend.opts.Users == nil:
		return &intake.Error{Code: 550, Status: "5.7.1", Text: fmt.Sprintf("relaying denied: %v is in no trusted network", s.conn.RemoteAddr().Addr())}
	case s.conn.TLS() == nil && !s.conn.RemoteAddr().Addr().IsLoopback():
		return &intake.Error{Code: 530, Status: "5.7.0", Text: "authentication required, which is offered inside TLS only"}
	}
	return &intake.Error{Code: 530, Status: "5.7.0", Text: "authentication required"}
}

// Rcpt implements [smtpserver.Transaction].
func (s *session) Rcpt(_ context.Context, r *smtpserver.Rcpt) error {
	address := string(r.Path)
	if err := s.backend.opts.Intake.CheckRecipient(address); err != nil {
		if e, ok := errors.AsType[*intake.Error](err); ok {
			return s.backend.refuse(e)
		}
		return err
	}
	s.env.Recipients = append(s.env.Recipients, queue.Recipient{
		Address: address, Notify: notify(r.Notify), ORcpt: r.ORcpt,
	})
	return nil
}

func notify(n smtpserver.Notify) queue.Notify {
	var q queue.Notify
	for _, bit := range [...]struct {
		from smtpserver.Notify
		to   queue.Notify
	}{
		{smtpserver.NotifyNever, queue.NotifyNever},
		{smtpserver.NotifySuccess, queue.NotifySuccess},
		{smtpserver.NotifyFailure, queue.NotifyFailure},
		{smtpserver.NotifyDelay, queue.NotifyDelay},
	} {
		if n&bit.from != 0 {
			q |= bit.to
		}
	}
	return q
}

// Content implements [smtpserver.Transaction].
func (s *session) Content(context.Context) (smtpserver.Content, error) {
	m, err := s.backend.opts.Intake.Begin(time.Now(), intake.Meta{
		Envelope: s.env, Protocol: protocol(s.conn, s.env.SMTPUTF8), MaxSize: s.backend.policy.MaxMessageSize,
	})
	if err != nil {
		return nil, asReply(err)
	}
	s.message = m
	return s, nil
}

// protocol is the "with" keyword of the Received field (RFC 3848; RFC 6531,
// section 4.3).
func protocol(c *smtpserver.Conn, smtpUTF8 bool) string {
	if !c.Extended() {
		return "SMTP"
	}
	index := 0
	if c.TLS() != nil {
		index |= 1
	}
	if c.User() != "" {
		index |= 2
	}
	if smtpUTF8 {
		index |= 4
	}
	return [...]string{
		"ESMTP", "ESMTPS", "ESMTPA", "ESMTPSA",
		"UTF8SMTP", "UTF8SMTPS", "UTF8SMTPA", "UTF8SMTPSA",
	}[index]
}

// Write implements [smtpserver.Content].
func (s *session) Write(p []byte) (int, error) {
	n, err := s.message.Write(p)
	if err != nil {
		return n, asReply(err)
	}
	return n, nil
}

// Commit implements [smtpserver.Content].
func (s *session) Commit(ctx context.Context, text []byte) ([]byte, error) {
	id, err := s.message.Commit(ctx)
	if err != nil {
		return nil, asReply(err)
	}
	return append(append(text, id.String()...), " queued"...), nil
}

// End implements [smtpserver.Transaction].
func (s *session) End() {
	if s.message != nil {
		s.message.Abort()
	}
	s.env, s.message = nil, nil
}
