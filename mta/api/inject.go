package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"postrider/config"
	"postrider/mta/api/wire"
	"postrider/mta/compose"
	"postrider/mta/intake"
	"postrider/mta/mailaddr"
	"postrider/queue"
)

// inject takes a message in: POST /v1/messages. It answers 201 when the
// message is on stable storage.
func (s *Server) inject(w http.ResponseWriter, r *http.Request) error {
	kind, err := contentType(r, typeMessage, typeJSON)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	wait, err := waitOf(q)
	if err != nil {
		return err
	}
	if wait > 0 {
		select {
		case s.waiters <- struct{}{}:
			defer func() { <-s.waiters }()
		default:
			return problem(http.StatusServiceUnavailable, "%d requests wait for the fate of their messages already: ask without wait", maxWaiters)
		}
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(messageTimeout)) // not every writer of a test has one
	extendWrite(w, messageTimeout+wait)

	var id queue.ID
	if kind == typeMessage {
		id, err = s.injectRaw(w, r, q)
	} else {
		id, err = s.injectComposed(w, r, q)
	}
	if err != nil {
		return err
	}
	out := wire.Injected{ID: id.String()}
	if wait > 0 {
		// The message is ours, whatever comes of looking at it.
		if out.Message, err = s.await(r.Context(), id, wait); err != nil {
			s.log.Warn("cannot tell what became of a message", "id", out.ID, "error", err)
		} else {
			s.holds(s.opts.Now()).tell(out.Message)
		}
	}
	w.Header().Set("Location", "/v1/messages/"+out.ID)
	return answer(w, http.StatusCreated, out)
}

const maxWait = 10 * time.Minute

func waitOf(q url.Values) (time.Duration, error) {
	text := q.Get("wait")
	if text == "" {
		return 0, nil
	}
	d, err := config.ParseDuration(text)
	if err != nil {
		return 0, problem(400, "wait: %v", err)
	}
	return min(d, maxWait), nil
}

// originOf says where a request came from, as the envelope keeps it.
func originOf(r *http.Request, via string) queue.Origin {
	p := peerOf(r)
	return queue.Origin{Via: via, Client: p.remote, User: p.user}
}

// injectRaw takes a whole message, with its envelope in the query.
func (s *Server) injectRaw(w http.ResponseWriter, r *http.Request, q url.Values) (queue.ID, error) {
	meta, err := metaOf(r, q)
	if err != nil {
		return queue.ID{}, err
	}
	draft, err := s.opts.Begin(s.opts.Now(), meta)
	if err != nil {
		return queue.ID{}, err
	}
	defer draft.Abort()
	// Intake counts and refuses; this is for a body that ends nowhere.
	n, err := io.Copy(draft, http.MaxBytesReader(w, r.Body, 2*s.opts.MaxMessageSize))
	switch {
	case err != nil:
		return queue.ID{}, bodyFault(err)
	case n == 0:
		return queue.ID{}, problem(400, "the body is empty: send the whole message, header and content")
	}
	return commit(r, draft)
}

// commit makes a message durable, also for a client that has gone meanwhile:
// who is cut off here would not know whether it is queued.
func commit(r *http.Request, draft Draft) (queue.ID, error) {
	return draft.Commit(context.WithoutCancel(r.Context()))
}

// bodyFault tells a client that broke off from a refusal of what it sent.
func bodyFault(err error) error {
	var refused *intake.Error
	var tooLarge *http.MaxBytesError
	if errors.As(err, &refused) || errors.As(err, &tooLarge) {
		return err
	}
	return problem(400, "the message broke off, nothing was queued: %v", err)
}

// metaOf reads the envelope from query parameters.
func metaOf(r *http.Request, q url.Values) (intake.Meta, error) {
	var opts wire.NewMessage
	via, fromHeader := "http", false
	for name, values := range q {
		if len(values) > 1 && name != "recipient" && name != "notify" {
			return intake.Meta{}, problem(400, "parameter %q may be given once", name)
		}
		v := values[0]
		var err error
		switch name {
		case "sender":
			opts.Sender = &v
		case "recipient":
			opts.Recipients = values
		case "recipients_from_header":
			fromHeader, err = boolean(name, v)
		case "via":
			if via = v; via != "http" && !(via == "sendmail" && peerOf(r).socket) {
				err = problem(400, "via %q is not possible here", v)
			}
		case "tag":
			opts.Tag = v
		case "priority":
			opts.Priority = v
		case "hold":
			opts.Hold, err = boolean(name, v)
		case "hold_for":
			opts.HoldFor = v
		case "not_before":
			opts.NotBefore, err = timeOf(name, v)
		case "deliver_by":
			opts.DeliverBy, err = timeOf(name, v)
		case "notify":
			opts.Notify = values
		case "ret":
			opts.Ret = v
		case "envid":
			opts.EnvID = v
		case "require_tls":
			opts.RequireTLS, err = boolean(name, v)
		case "wait":
		default:
			err = problem(400, "parameter %q is unknown", name)
		}
		if err != nil {
			return intake.Meta{}, err
		}
	}
	if fromHeader == (len(opts.Recipients) > 0) {
		return intake.Meta{}, problem(400, "give either recipient, once or more, or recipients_from_header=true")
	}
	if fromHeader && len(opts.Notify) > 0 {
		return intake.Meta{}, problem(400, "notify goes with recipient, not with recipients_from_header")
	}
	meta, err := meta(&opts, originOf(r, via))
	meta.RecipientsFromHeader = fromHeader
	return meta, err
}

func boolean(name, text string) (bool, error) {
	switch text {
	case "true", "1", "":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, problem(400, "%s is true or false, not %q", name, text)
}

func timeOf(name, text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, problem(400, "%s is a time like 2026-12-24T18:00:00Z, not %q", name, text)
	}
	return t, nil
}

const maxEnvID = 100 // RFC 3461, section 5.4

// meta makes what intake needs of a message's options.
func meta(m *wire.NewMessage, origin queue.Origin) (intake.Meta, error) {
	env := &queue.Envelope{
		Origin: origin, Held: m.Hold, NotBefore: m.NotBefore, DeliverBy: m.DeliverBy,
		RequireTLS: m.RequireTLS, EnvID: m.EnvID, Tag: m.Tag,
	}
	var err error
	if env.Priority, err = value[queue.Priority](priorityWords, m.Priority, "priority"); err != nil {
		return intake.Meta{}, err
	}
	if env.Ret, err = value[queue.Ret](retWords, m.Ret, "ret"); err != nil {
		return intake.Meta{}, err
	}
	notify, err := notifyOf(m.Notify)
	if err != nil {
		return intake.Meta{}, err
	}
	if err := intake.CheckTag(m.Tag); err != nil {
		return intake.Meta{}, problem(400, "tag: %v", err)
	}
	holdFor, err := holdForOf(m.HoldFor)
	if err != nil {
		return intake.Meta{}, err
	}
	if len(m.EnvID) > maxEnvID || !printable(m.EnvID) {
		return intake.Meta{}, problem(400, "the envid has at most %d characters of printable ASCII, without blanks", maxEnvID)
	}
	for _, address := range m.Recipients {
		env.Recipients = append(env.Recipients, queue.Recipient{Address: address, Notify: notify})
	}
	if m.Sender != nil {
		env.Sender = strings.TrimSuffix(strings.TrimPrefix(*m.Sender, "<"), ">")
	}
	return intake.Meta{Envelope: env, Protocol: "HTTP", SenderFromHeader: m.Sender == nil, HoldFor: holdFor}, nil
}

func holdForOf(text string) (*time.Duration, error) {
	if text == "" {
		return nil, nil
	}
	d, err := config.ParseDuration(text)
	if err != nil {
		return nil, problem(400, "hold_for: %v", err)
	}
	return &d, nil
}

func printable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// jsonMessageLimit is how large a JSON message may be: base64 makes four of
// three, and there is room for the rest.
func jsonMessageLimit(maxMessage int64) int64 { return maxMessage/3*4 + maxJSON }

// injectComposed makes a message of JSON. Such a body is held in memory, so
// only so many octets of them are read at a time.
func (s *Server) injectComposed(w http.ResponseWriter, r *http.Request, q url.Values) (queue.ID, error) {
	for name := range q {
		if name != "wait" {
			return queue.ID{}, problem(400, "parameter %q does not go with JSON: put it into the body", name)
		}
	}
	limit := jsonMessageLimit(s.opts.MaxMessageSize)
	room := limit
	if r.ContentLength >= 0 {
		room = min(r.ContentLength, limit)
	}
	if err := s.jsonRoom.Acquire(r.Context(), room); err != nil {
		return queue.ID{}, err
	}
	defer s.jsonRoom.Release(room)
	var m wire.NewMessage
	if err := readJSON(w, r, limit, &m); err != nil {
		return queue.ID{}, err
	}
	return s.submit(r, &m)
}

func (s *Server) submit(r *http.Request, m *wire.NewMessage) (queue.ID, error) {
	var err error
	if len(m.Recipients) == 0 {
		if m.Recipients, err = addresses(slices.Concat(m.To, m.Cc, m.Bcc)); err != nil {
			return queue.ID{}, err
		}
	}
	if len(m.Recipients) == 0 {
		return queue.ID{}, problem(400, "there is no recipient: give one in to, cc, bcc or recipients")
	}
	meta, err := meta(m, originOf(r, "http"))
	if err != nil {
		return queue.ID{}, err
	}
	draft, err := s.opts.Begin(s.opts.Now(), meta)
	if err != nil {
		return queue.ID{}, err
	}
	defer draft.Abort()
	if _, err := composed(m).WriteTo(draft); err != nil {
		return queue.ID{}, err
	}
	return commit(r, draft)
}

// composed is the content of a JSON message.
func composed(m *wire.NewMessage) *compose.Message {
	out := &compose.Message{
		From: m.From, ReplyTo: m.ReplyTo, To: m.To, Cc: m.Cc, Subject: m.Subject, Text: m.Text, HTML: m.HTML,
	}
	for _, h := range m.Headers {
		out.Headers = append(out.Headers, compose.Field(h))
	}
	for _, a := range m.Attachments {
		out.Attachments = append(out.Attachments, compose.Attachment{
			Name: cmp.Or(a.Name, "attachment"), Type: a.Type, ContentID: a.ContentID,
			Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(a.Content)), nil },
		})
	}
	return out
}

// addresses takes the bare addresses out of header values.
func addresses(values []string) ([]string, error) {
	var out []string
	for _, v := range values {
		for box, err := range mailaddr.List(v) {
			if err != nil {
				return nil, err
			}
			out = append(out, box.Address.String())
		}
	}
	return out, nil
}
