// Package client speaks Postrider's HTTP API over the control socket: it is
// the other end of package api, for the commands of this host.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"postrider/config"
	"postrider/mta/api/wire"
)

// Client is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// New makes a client for a control socket. It connects when it is first used.
func New(socket string) *Client {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	return &Client{socket: socket, http: &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "unix", socket)
			},
			DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close drops the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Unreachable says that no Postrider answers at the socket, and what to do.
type Unreachable struct {
	Socket string
	Err    error
}

func (e *Unreachable) Error() string {
	switch {
	case errors.Is(e.Err, fs.ErrPermission):
		return fmt.Sprintf("control socket %s: permission denied: be a member of the group postrider, or root", e.Socket)
	case errors.Is(e.Err, fs.ErrNotExist):
		return fmt.Sprintf("control socket %s: not there: start the server with \"postrider serve\", or name its configuration with --config", e.Socket)
	case errors.Is(e.Err, syscall.ECONNREFUSED):
		return fmt.Sprintf("control socket %s: nobody answers: the server is not running, start it with \"postrider serve\"", e.Socket)
	}
	return fmt.Sprintf("control socket %s: %v", e.Socket, e.Err)
}

func (e *Unreachable) Unwrap() error { return e.Err }

// Refused is an answer that is not a success.
type Refused struct {
	HTTP int // the status
	wire.Problem
}

func (e *Refused) Error() string { return e.Text }

// Temporary reports whether the same request may succeed later.
func (e *Refused) Temporary() bool {
	return e.HTTP >= 500 || e.HTTP == http.StatusTooManyRequests
}

// do asks and reads the answer into out, unless that is nil.
func (c *Client) do(ctx context.Context, method, path string, q url.Values, kind string, body io.Reader, out any) error {
	response, err := c.ask(ctx, method, path, q, kind, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(out); err != nil {
		return fmt.Errorf("control socket %s: the answer to %s %s broke off: %w", c.socket, method, path, err)
	}
	return nil
}

func (c *Client) ask(ctx context.Context, method, path string, q url.Values, kind string, body io.Reader) (*http.Response, error) {
	target := "http://localhost" + path
	if len(q) > 0 {
		target += "?" + q.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.fault(err)
	}
	if response.StatusCode/100 == 2 {
		return response, nil
	}
	defer response.Body.Close()
	refused := &Refused{HTTP: response.StatusCode}
	const most = 64 << 10
	text, _ := io.ReadAll(io.LimitReader(response.Body, most))
	if json.Unmarshal(text, &refused.Problem) != nil || refused.Text == "" {
		refused.Text = fmt.Sprintf("control socket %s: %s", c.socket, response.Status)
	}
	return nil, refused
}

// fault tells a server that is not there from one that broke off, and from
// a body that could not be read.
func (c *Client) fault(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return &Unreachable{c.socket, op.Err}
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err // its text repeats an address that is not a real one
	}
	return fmt.Errorf("control socket %s: %w", c.socket, err)
}

func (c *Client) get(ctx context.Context, path string, q url.Values, out any) error {
	return c.do(ctx, http.MethodGet, path, q, "", nil, out)
}

// Info says who answers.
func (c *Client) Info(ctx context.Context) (info wire.Info, err error) {
	return info, c.get(ctx, "/v1/info", nil, &info)
}

// Message answers a message by its ID or a unique beginning of it.
func (c *Client) Message(ctx context.Context, id string) (m wire.Message, err error) {
	return m, c.get(ctx, "/v1/messages/"+url.PathEscape(id), nil, &m)
}

// History answers what happened to a message.
func (c *Client) History(ctx context.Context, id string) (h wire.History, err error) {
	return h, c.get(ctx, "/v1/messages/"+url.PathEscape(id)+"/history", nil, &h)
}

// Content opens a message as it is sent. The caller closes it.
func (c *Client) Content(ctx context.Context, id string) (io.ReadCloser, error) {
	response, err := c.ask(ctx, http.MethodGet, "/v1/messages/"+url.PathEscape(id)+"/content", nil, "", nil)
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

// Export opens a message with its envelope in the form that a pickup directory
// takes, for the open recipients that match: the held ones where sel.Status says
// so, else the others. The caller closes it.
func (c *Client) Export(ctx context.Context, id string, sel wire.Selector) (io.ReadCloser, error) {
	response, err := c.ask(ctx, http.MethodGet, "/v1/messages/"+url.PathEscape(id)+"/export", query(&sel), "", nil)
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

// Check reads the whole store and answers what does not fit.
func (c *Client) Check(ctx context.Context) (out wire.Check, err error) {
	return out, c.get(ctx, "/v1/check", nil, &out)
}

// List answers a part of the queue, at most limit messages (0: as many as the
// server likes) behind the one that after names.
func (c *Client) List(ctx context.Context, sel wire.Selector, after string, limit int) (l wire.MessageList, err error) {
	q := query(&sel)
	if after != "" {
		q.Set("after", after)
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	return l, c.get(ctx, "/v1/queue", q, &l)
}

func query(sel *wire.Selector) url.Values {
	q := url.Values{"id": sel.IDs, "status": sel.Status}
	for name, text := range map[string]string{
		"domain": sel.Domain, "site": sel.Site, "sender": sel.Sender, "recipient": sel.Recipient,
		"tag": sel.Tag, "class": sel.Class, "older_than": sel.OlderThan,
	} {
		if text != "" {
			q.Set(name, text)
		}
	}
	return q
}

// Stats answers the figures of the queue, with at most so many destinations
// (0: as many as the server likes).
func (c *Client) Stats(ctx context.Context, domains int) (s wire.Stats, err error) {
	q := url.Values{}
	if domains > 0 {
		q.Set("domains", strconv.Itoa(domains))
	}
	return s, c.get(ctx, "/v1/stats", q, &s)
}

// Explain answers how mail to an address would go.
func (c *Client) Explain(ctx context.Context, address string) (e wire.Explanation, err error) {
	return e, c.get(ctx, "/v1/explain", url.Values{"address": {address}}, &e)
}

// Act steers the queue.
func (c *Client) Act(ctx context.Context, name string, a wire.Action) (r wire.ActionResult, err error) {
	return r, c.post(ctx, "/v1/queue/"+name, a, &r)
}

// Envelope is what goes along with a message that is already written. Of the
// options only those of the envelope count.
type Envelope struct {
	Sender     string // empty: the null reverse-path
	Recipients []string
	Via        string // "sendmail"; empty: http
	Options    wire.NewMessage
	Wait       time.Duration
}

// Submit hands a message over. It is queued when this returns nil.
func (c *Client) Submit(ctx context.Context, env Envelope, content io.Reader) (in wire.Injected, err error) {
	q := url.Values{"sender": {env.Sender}, "recipient": env.Recipients, "notify": env.Options.Notify}
	set := func(name, text string) {
		if text != "" {
			q.Set(name, text)
		}
	}
	set("via", env.Via)
	set("tag", env.Options.Tag)
	set("priority", env.Options.Priority)
	set("hold_for", env.Options.HoldFor)
	set("ret", env.Options.Ret)
	set("envid", env.Options.EnvID)
	if env.Options.Hold {
		set("hold", "true")
	}
	if env.Options.RequireTLS {
		set("require_tls", "true")
	}
	if !env.Options.NotBefore.IsZero() {
		set("not_before", env.Options.NotBefore.Format(time.RFC3339))
	}
	if !env.Options.DeliverBy.IsZero() {
		set("deliver_by", env.Options.DeliverBy.Format(time.RFC3339))
	}
	if env.Wait > 0 {
		set("wait", config.FormatDuration(env.Wait))
	}
	return in, c.do(ctx, http.MethodPost, "/v1/messages", q, "message/rfc822", content, &in)
}

// Suppressions answers a part of the suppression list: of an address or of a
// domain, where those are given, behind the address after.
func (c *Client) Suppressions(ctx context.Context, address, domain, after string, limit int) (l wire.SuppressionList, err error) {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	for name, text := range map[string]string{"address": address, "domain": domain, "after": after} {
		if text != "" {
			q.Set(name, text)
		}
	}
	return l, c.get(ctx, "/v1/suppressions", q, &l)
}

// Suppress puts addresses on the suppression list.
func (c *Client) Suppress(ctx context.Context, s wire.Suppress) (r wire.SuppressionResult, err error) {
	return r, c.post(ctx, "/v1/suppressions", s, &r)
}

// Unsuppress takes addresses off the suppression list.
func (c *Client) Unsuppress(ctx context.Context, u wire.Unsuppress) (r wire.SuppressionResult, err error) {
	return r, c.post(ctx, "/v1/suppressions/remove", u, &r)
}

func (c *Client) post(ctx context.Context, path string, body, out any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, path, nil, "application/json", bytes.NewReader(text), out)
}
