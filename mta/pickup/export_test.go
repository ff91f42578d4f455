package pickup_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postrider/mta/intake"
	"postrider/mta/pickup"
	"postrider/queue"
)

// TestExportRoundTrip: what one machine exports, the other one's pickup makes
// the same message of.
func TestExportRoundTrip(t *testing.T) {
	t.Parallel()
	later := time.Now().Add(3 * time.Hour).Truncate(time.Millisecond)
	simple := func(to ...queue.Recipient) queue.Envelope {
		return queue.Envelope{Sender: "ann@a.test", Recipients: to}
	}
	with := func(change func(e *queue.Envelope)) queue.Envelope {
		e := simple(queue.Recipient{Address: "bob@b.test"})
		change(&e)
		return e
	}
	for name, c := range map[string]struct {
		env     queue.Envelope
		content string
		held    bool
	}{
		"plain":       {env: simple(queue.Recipient{Address: "bob@b.test"})},
		"null sender": {env: with(func(e *queue.Envelope) { e.Sender = "" })},
		"several": {env: simple(queue.Recipient{Address: "bob@b.test", Notify: queue.NotifyNever},
			queue.Recipient{Address: "carl@c.test", Notify: queue.NotifySuccess | queue.NotifyFailure | queue.NotifyDelay, ORcpt: "rfc822;c.old+tag@c.test"},
			queue.Recipient{Address: `"a> b"@c.test`, ORcpt: `rfc822;"a> b"@c.test`})},
		"RET and ENVID": {env: with(func(e *queue.Envelope) { e.Ret, e.EnvID = queue.RetHeaders, "week 47/+=x" })},
		"RET full":      {env: with(func(e *queue.Envelope) { e.Ret = queue.RetFull })},
		"times":         {env: with(func(e *queue.Envelope) { e.NotBefore, e.DeliverBy = later, later.Add(time.Hour) })},
		"tag, urgent":   {env: with(func(e *queue.Envelope) { e.Tag, e.Priority = "week47", queue.PriorityUrgent })},
		"bulk":          {env: with(func(e *queue.Envelope) { e.Priority = queue.PriorityBulk })},
		"normal, whatever the message says": {env: with(func(*queue.Envelope) {}),
			content: "From: ann@a.test\r\nX-Envelope: urgent\r\nPriority: urgent\r\n\r\nx\r\n"},
		"held":       {env: with(func(e *queue.Envelope) { e.Held = true }), held: true},
		"REQUIRETLS": {env: with(func(e *queue.Envelope) { e.RequireTLS = true })},
		"SMTPUTF8": {env: queue.Envelope{Sender: "änn@ä.test", SMTPUTF8: true, Recipients: []queue.Recipient{{Address: "bøb@b.test", ORcpt: "utf-8;bøb@b.test"}}},
			content: "From: änn@ä.test\r\nSubject: Grüße\r\n\r\nx\r\n"},
		"SMTPUTF8 in the header alone": {env: with(func(e *queue.Envelope) { e.SMTPUTF8 = true }),
			content: "From: ann@a.test\r\nSubject: Grüße\r\n\r\nx\r\n"},
		"fields like ours": {env: simple(queue.Recipient{Address: "bob@b.test"}),
			content: "X-Receiver: <mallory@m.test>\r\nX-Sender: somebody else\r\nFrom: ann@a.test\r\nX-Job: 7\r\n\r\nX-Receiver: a@b.test\r\n"},
		"8-bit text": {env: simple(queue.Recipient{Address: "bob@b.test"}), content: "From: ann@a.test\r\nContent-Type: text/plain; charset=utf-8\r\nMIME-Version: 1.0\r\n\r\nGrüße\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := newSpool(t, nil), newSpool(t, nil)
			to.start()
			content := c.content
			if content == "" {
				content = "From: ann@a.test\r\nSubject: x\r\n\r\ntext\r\n"
			}
			id := from.submit(c.env, content)
			was, err := from.q.Message(id)
			if err != nil {
				t.Fatal(err)
			}
			recipients := make([]int, len(was.Envelope.Recipients))
			for i := range recipients {
				recipients[i] = i
			}
			file := pickup.AppendEnvelope(nil, was.Envelope, recipients, c.held)
			stored := from.content(id)
			to.moveIn("x.eml", string(file)+stored)
			id = to.next()
			got, err := to.q.Message(id)
			if err != nil {
				t.Fatal(err)
			}
			sameEnvelope(t, got.Envelope, was.Envelope)
			// The second machine writes its own trace field, and nothing else changes.
			if now := to.content(id); !strings.HasSuffix(now, stored) || strings.Count(now[:len(now)-len(stored)], "\r\n") > 3 || !strings.HasPrefix(now, "Received: ") {
				t.Errorf("was %q\nis  %q", stored, now)
			}
		})
	}
}

func sameEnvelope(t *testing.T, got, want *queue.Envelope) {
	t.Helper()
	g, w := *got, *want
	for _, e := range []*queue.Envelope{&g, &w} {
		e.ID, e.ArrivedAt, e.Size, e.Origin = queue.ID{}, time.Time{}, 0, queue.Origin{}
	}
	if !g.NotBefore.Equal(w.NotBefore) || !g.DeliverBy.Equal(w.DeliverBy) {
		t.Errorf("not before %v, by %v; want %v, %v", g.NotBefore, g.DeliverBy, w.NotBefore, w.DeliverBy)
	}
	for i := range w.Recipients {
		if i >= len(g.Recipients) || g.Recipients[i] != w.Recipients[i] {
			t.Fatalf("recipients %+v; want %+v", g.Recipients, w.Recipients)
		}
	}
	if g.Sender != w.Sender || g.Ret != w.Ret || g.EnvID != w.EnvID || g.Tag != w.Tag || g.Priority != w.Priority || g.Held != w.Held ||
		g.SMTPUTF8 != w.SMTPUTF8 || g.RequireTLS != w.RequireTLS || g.Body != w.Body || g.MessageID != w.MessageID || len(g.Recipients) != len(w.Recipients) {
		t.Errorf("envelope %+v; want %+v", g, w)
	}
}

// submit puts a message into the queue as a client would.
func (s *spool) submit(env queue.Envelope, content string) queue.ID {
	s.t.Helper()
	msg, err := s.receive.Begin(time.Now(), intake.Meta{Envelope: &env, Protocol: "ESMTP"})
	if err != nil {
		s.t.Fatal(err)
	}
	defer msg.Abort()
	if _, err := io.WriteString(msg, content); err != nil {
		s.t.Fatal(err)
	}
	id, err := msg.Commit(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

// A file whose recipients do not all fit into what is read of its head must not
// lose those that do not.
func TestEndlessHeadIsRefused(t *testing.T) {
	t.Parallel()
	s := newSpool(t, nil)
	s.start()
	lines := strings.Repeat("X-Receiver: <a@b.test> NOTIFY=FAILURE ORCPT=rfc822;"+strings.Repeat("x", 400)+"@b.test\n", 6000)
	s.moveIn("long.eml", "X-Sender: <>\n"+lines+"From: a@b.test\n\ntext\n")
	s.until("it is set aside", func() bool { return exists(s.dir, "bad", "long.eml") })
	if why, err := os.ReadFile(filepath.Join(s.dir, "bad", "long.eml.error")); err != nil || !strings.Contains(string(why), "larger than") {
		t.Errorf("%s %v", why, err)
	}
}
