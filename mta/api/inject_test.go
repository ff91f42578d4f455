package api

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/mta/api/client"
	"postrider/mta/api/wire"
	"postrider/mta/intake"
	"postrider/queue"
)

func queue1() queue.Envelope { return queue.Envelope{} }

func (r *room) contentOf(id string) string {
	r.t.Helper()
	c, err := r.client.Content(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	text, err := io.ReadAll(c)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

func TestInjectRaw(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	var in wire.Injected
	status, body := r.socket(SocketName, "POST", "/v1/messages?sender=a@sender.test&recipient=b@shop.test&recipient=c@bank.test"+
		"&tag=week47&priority=bulk&hold=true&hold_for=90s&not_before=2026-11-23T00:00:00Z&deliver_by=2026-11-24T00:00:00Z&notify=failure&notify=delay&ret=headers&envid=e1&require_tls=true",
		typeMessage, "Subject: hi\r\n\r\nhello\r\n")
	if err := json.Unmarshal([]byte(body), &in); status != http.StatusCreated || err != nil {
		t.Fatalf("%d %s", status, body)
	}
	if got := r.contentOf(in.ID); got != "Received: here\r\nSubject: hi\r\n\r\nhello\r\n" {
		t.Errorf("content is %q", got)
	}
	m, err := r.client.Message(t.Context(), in.ID)
	if err != nil {
		t.Fatal(err)
	}
	if m.Sender != "a@sender.test" || m.Tag != "week47" || m.Priority != "bulk" || m.Ret != "headers" || m.EnvID != "e1" || !m.RequireTLS ||
		!m.NotBefore.Equal(time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)) || !m.DeliverBy.Equal(time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("message is %+v", m)
	}
	if len(m.Recipients) != 2 || m.Recipients[1].Address != "c@bank.test" || m.Recipients[0].Status != "held" || !slices.Equal(m.Recipients[0].Notify, []string{"failure", "delay"}) {
		t.Errorf("recipients are %+v", m.Recipients)
	}
	meta := r.lastMeta()
	if meta.SenderFromHeader || meta.RecipientsFromHeader || meta.Protocol != "HTTP" || meta.Envelope.Origin.Via != "http" || meta.HoldFor == nil || *meta.HoldFor != 90*time.Second {
		t.Errorf("meta is %+v", meta)
	}
}

func TestInjectRawSenders(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	for name, c := range map[string]struct {
		query                  string
		sender                 string
		fromHeader, rcptHeader bool
	}{
		"null sender":        {"sender=&recipient=b@shop.test", "", false, false},
		"null sender, angle": {"sender=%3C%3E&recipient=b@shop.test", "", false, false},
		"from the header":    {"recipient=b@shop.test", "reports@sender.test", true, false},
		"all from header":    {"recipients_from_header=true", "reports@sender.test", true, true},
	} {
		status, body := r.socket(SocketName, "POST", "/v1/messages?"+c.query, typeMessage, "Subject: hi\r\n\r\n")
		if status != http.StatusCreated {
			t.Errorf("%s: %d %s", name, status, body)
			continue
		}
		m := r.lastMeta()
		if m.Envelope.Sender != c.sender || m.SenderFromHeader != c.fromHeader || m.RecipientsFromHeader != c.rcptHeader {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestInjectRefusals(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	const to = "sender=a@sender.test&recipient=b@shop.test"
	for name, c := range map[string]struct {
		query, kind, body string
		status            int
		text              string
	}{
		"unknown parameter":   {to + "&recipent=c@shop.test", typeMessage, "x", 400, `"recipent"`},
		"no recipient":        {"sender=a@sender.test", typeMessage, "x", 400, "either recipient"},
		"both":                {to + "&recipients_from_header=true", typeMessage, "x", 400, "either recipient"},
		"bad address":         {"sender=a@sender.test&recipient=b@@shop.test", typeMessage, "x", 422, "b@@shop.test"},
		"empty body":          {to, typeMessage, "", 400, "empty"},
		"too large":           {to, typeMessage, strings.Repeat("x", 150_000), 413, "100000"},
		"priority":            {to + "&priority=high", typeMessage, "x", 400, "normal, bulk, urgent"},
		"two senders":         {to + "&sender=c@sender.test", typeMessage, "x", 400, `"sender" may be given once`},
		"hold for":            {to + "&hold_for=5", typeMessage, "x", 400, "hold_for"},
		"time":                {to + "&not_before=tomorrow", typeMessage, "x", 400, "2026-12-24T18:00:00Z"},
		"notify never and":    {to + "&notify=never&notify=delay", typeMessage, "x", 400, "cannot go with others"},
		"notify":              {to + "&notify=often", typeMessage, "x", 400, "never, or some of"},
		"notify and header":   {"recipients_from_header=1&notify=never", typeMessage, "x", 400, "notify goes with recipient"},
		"tag with a line end": {to + "&tag=a%0Ab", typeMessage, "x", 400, "printable ASCII"},
		"long envid":          {to + "&envid=" + strings.Repeat("x", 101), typeMessage, "x", 400, "envid"},
		"hold":                {to + "&hold=perhaps", typeMessage, "x", 400, "true or false"},
		"via":                 {to + "&via=bounce", typeMessage, "x", 400, "via"},
		"wait":                {to + "&wait=long", typeMessage, "x", 400, "wait"},
		"no JSON":             {"", typeJSON, "{", 400, "JSON"},
		"unknown field":       {"", typeJSON, `{"form":"a@sender.test"}`, 400, `form`},
		"two values":          {"", typeJSON, `{} {}`, 400, "more after"},
		"query and JSON":      {"tag=x", typeJSON, `{"from":"a@sender.test","to":["b@shop.test"]}`, 400, "into the body"},
		"JSON, nobody":        {"", typeJSON, `{"from":"a@sender.test"}`, 400, "no recipient"},
		"JSON, no from":       {"", typeJSON, `{"to":["b@shop.test"]}`, 422, "from"},
		"JSON, bad to":        {"", typeJSON, `{"from":"a@sender.test","to":["Anna"]}`, 422, "Anna"},
		"JSON, injection":     {"", typeJSON, `{"from":"a@sender.test","to":["b@shop.test"],"subject":"x\r\nBcc: c@shop.test"}`, 422, "subject"},
		"JSON, too large":     {"", typeJSON, `{"from":"a@sender.test","to":["b@shop.test"],"text":"` + strings.Repeat("x", 2_000_000) + `"}`, 413, "larger"},
		"JSON, large message": {"", typeJSON, `{"from":"a@sender.test","to":["b@shop.test"],"text":"` + strings.Repeat("x", 200_000) + `"}`, 413, "larger"},
		"JSON, bad base64":    {"", typeJSON, `{"from":"a@sender.test","to":["b@shop.test"],"attachments":[{"name":"x","content":"§"}]}`, 400, "JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := r.socket(SocketName, "POST", "/v1/messages?"+c.query, c.kind, c.body)
			var p wire.Problem
			if err := json.Unmarshal([]byte(body), &p); err != nil || status != c.status || !strings.Contains(p.Text, c.text) {
				t.Errorf("%d %s, want %d with %q", status, body, c.status, c.text)
			}
		})
	}
	if d := r.q.Depth(start); d.Messages != 0 {
		t.Errorf("%d messages were queued", d.Messages)
	}
}

func TestInjectWhileFull(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	r.full = &intake.Error{Code: 452, Status: "4.3.1", Text: "no room", Err: errors.New("disk /dev/x is full")}
	_, err := r.client.Submit(t.Context(), client.Envelope{Sender: "a@sender.test", Recipients: []string{"b@shop.test"}}, strings.NewReader("x"))
	var refused *client.Refused
	if !errors.As(err, &refused) || !refused.Temporary() || refused.Code != 452 || refused.Problem.Status != "4.3.1" || refused.Text != "no room" {
		t.Errorf("%#v", err)
	}
}

// A client that dies midway must leave nothing, however the body was framed.
func TestDisconnectInMessage(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	for name, framing := range map[string]string{
		"length":  "Content-Length: 1000\r\n\r\nSubject: x\r\n\r\nhalf",
		"chunked": "Transfer-Encoding: chunked\r\n\r\n10\r\nSubject: x\r\n\r\nhe\r\n",
	} {
		c, err := net.Dial("unix", filepath.Join(r.dir, SocketName))
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, "POST /v1/messages?sender=a@sender.test&recipient=b@shop.test HTTP/1.1\r\nHost: localhost\r\nContent-Type: message/rfc822\r\n"+framing)
		c.(*net.UnixConn).CloseWrite()
		response, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || response.StatusCode != 400 {
			t.Errorf("%s: %v %v", name, response, err)
		}
		c.Close()
	}
	if d := r.q.Depth(start); d.Messages != 0 {
		t.Errorf("%d messages were queued", d.Messages)
	}
}

func TestInjectJSON(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	var in wire.Injected
	body, err := json.Marshal(map[string]any{
		"from": "Anna <a@sender.test>", "to": []string{"Ben <b@shop.test>, c@bank.test"}, "cc": []string{"d@city.test"}, "bcc": []string{"e@city.test"},
		"subject": "Grüße", "text": "hello", "html": "<p>hello", "headers": []wire.Header{{Name: "X-Job", Value: "7"}},
		"attachments": []map[string]string{{"name": "a.txt", "content": base64.StdEncoding.EncodeToString([]byte("file"))}},
		"tag":         "t1", "priority": "urgent",
	})
	if err != nil {
		t.Fatal(err)
	}
	if status := r.ask("POST", "/v1/messages", string(body), &in); status != http.StatusCreated {
		t.Fatal(status)
	}
	env := r.lastMeta().Envelope
	var to []string
	for _, rcpt := range env.Recipients {
		to = append(to, rcpt.Address)
	}
	if got := strings.Join(to, " "); got != "b@shop.test c@bank.test d@city.test e@city.test" {
		t.Errorf("recipients are %s", got)
	}
	if env.Tag != "t1" || env.Priority != queue.PriorityUrgent || !r.lastMeta().SenderFromHeader {
		t.Errorf("%+v", env)
	}
	content := r.contentOf(in.ID)
	for _, want := range []string{"From: Anna <a@sender.test>\r\n", "Subject: =?utf-8?", "X-Job: 7\r\n", "multipart/mixed", "multipart/alternative", "filename=a.txt", base64.StdEncoding.EncodeToString([]byte("file"))} {
		if !strings.Contains(content, want) {
			t.Errorf("%q is missing in\n%s", want, content)
		}
	}
	if strings.Contains(content, "e@city.test") {
		t.Error("the blind copy's recipient is in the content")
	}
}

func TestInjectJSONEnvelope(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	var in wire.Injected
	status := r.ask("POST", "/v1/messages", `{"from":"a@sender.test","to":["list@sender.test"],"sender":"","recipients":["b@shop.test"],"text":"x"}`, &in)
	meta := r.lastMeta()
	if status != http.StatusCreated || meta.Envelope.Sender != "" || meta.SenderFromHeader || len(meta.Envelope.Recipients) != 1 {
		t.Errorf("%d %+v", status, meta)
	}
}

func TestWaitForTheVerdict(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	type result struct {
		in  wire.Injected
		err error
	}
	submit := func(ctx context.Context, wait time.Duration) <-chan result {
		done := make(chan result, 1)
		go func() {
			in, err := r.client.Submit(ctx, client.Envelope{Sender: "a@sender.test", Recipients: []string{"b@shop.test"}, Wait: wait}, strings.NewReader("x"))
			done <- result{in, err}
		}()
		return done
	}
	done := submit(t.Context(), time.Minute)
	waitFor(t, func() bool { return r.q.Depth(start).Due == 1 })
	select {
	case got := <-done:
		t.Fatalf("answered before the verdict: %+v", got)
	default:
	}
	r.settle("shop.test", deliveredOutcome)
	got := <-done
	if got.err != nil || got.in.Message == nil || !got.in.Message.Ended || got.in.Message.Recipients[0].Status != "delivered" || got.in.Message.Recipients[0].Last.Text != "queued as 17" {
		t.Errorf("%+v", got)
	}

	got = <-submit(t.Context(), 20*time.Millisecond)
	if got.err != nil || got.in.Message == nil || got.in.Message.Ended || got.in.Message.Recipients[0].Status != "waiting" {
		t.Errorf("when the time is over: %+v", got)
	}
}

// waitFor waits for a condition.
func waitFor(t *testing.T, is func() bool) {
	t.Helper()
	over := time.Now().Add(10 * time.Second)
	for !is() {
		if time.Now().After(over) {
			t.Fatal("waited in vain")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestWaitEndsAtTheStop(t *testing.T) {
	t.Parallel()
	r := newRoom(t, nil)
	done := make(chan wire.Injected, 1)
	go func() {
		in, err := r.client.Submit(t.Context(), client.Envelope{Sender: "a@sender.test", Recipients: []string{"b@shop.test"}, Wait: 10 * time.Minute}, strings.NewReader("x"))
		if err != nil {
			t.Error(err)
		}
		done <- in
	}()
	waitFor(t, func() bool { return r.q.Depth(start).Due == 1 })
	r.stop()
	if in := <-done; in.ID == "" || in.Message == nil {
		t.Errorf("%+v", in)
	}
}
