package intake_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"postrider/mta/intake"
	"postrider/queue"
)

func TestTraceAndMissingFields(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r := newReceiver(t, s, nil)
	m := meta()
	m.Envelope.Origin = queue.Origin{Via: "smtp", Client: netip.MustParseAddr("::ffff:192.0.2.7"), HELO: "app.a.test"}
	mustTake(t, r, m, "Subject: x\n\ntext\n")
	id := s.last.env.ID.String()
	want := "Received: from app.a.test ([192.0.2.7])\r\n\tby mx.home.test with ESMTP id " + id + "\r\n\tfor <bob@b.test>;\r\n\tSat, 4 Jul 2026 09:30:00 +0200\r\n" +
		"From: ann@a.test\r\nDate: Sat, 4 Jul 2026 09:30:00 +0200\r\nMessage-ID: <" + id + "@mx.home.test>\r\n"
	if s.last.prefix != want {
		t.Errorf("prefix\n%s\nwant\n%s", s.last.prefix, want)
	}
	if s.last.body != "Subject: x\r\n\r\ntext\r\n" {
		t.Errorf("body %q", s.last.body)
	}
	if s.last.env.MessageID != "<"+id+"@mx.home.test>" || !s.last.env.ArrivedAt.Equal(now) {
		t.Errorf("envelope %+v", s.last.env)
	}
}

func TestReceived(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*intake.Meta)
		want   string // up to the id
		lacks  string
	}{
		{"pickup", func(m *intake.Meta) { m.Protocol = "pickup"; m.Envelope.Origin = queue.Origin{Via: "pickup"} }, "Received: by mx.home.test (pickup) id ", "from"},
		{"HTTP", func(m *intake.Meta) { m.Protocol = "HTTP" }, "Received: by mx.home.test with HTTP id ", "from"},
		{"IPv6", func(m *intake.Meta) {
			m.Envelope.Origin.Client, m.Envelope.Origin.HELO = netip.MustParseAddr("fe80::1%eth0"), "[IPv6:fe80::1]"
		}, "Received: from [IPv6:fe80::1] ([IPv6:fe80::1])\r\n\tby mx.home.test with ESMTP id ", "%eth0"},
		{"HELO with a line end", func(m *intake.Meta) { m.Envelope.Origin.HELO = "a\r\nX-Evil: y" }, "Received: from unknown\r\n\tby ", "Evil"},
		{"HELO with a comment", func(m *intake.Meta) { m.Envelope.Origin.HELO = "a(b" }, "Received: from unknown\r\n\tby ", "a(b"},
		{"several recipients", func(m *intake.Meta) {
			m.Envelope.Recipients = append(m.Envelope.Recipients, queue.Recipient{Address: "carl@c.test"})
		}, "Received: by mx.home.test with ESMTP id ", "for <"},
		{"the same recipient twice", func(m *intake.Meta) {
			m.Envelope.Recipients = append(m.Envelope.Recipients, queue.Recipient{Address: "bob@B.test"})
		}, "Received: by mx.home.test with ESMTP id ", "\r\n\tfor <bob@B"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newShelf(t)
			r := newReceiver(t, s, nil)
			m := meta()
			tt.change(&m)
			mustTake(t, r, m, full+"\r\n")
			if !strings.HasPrefix(s.last.prefix, tt.want) || strings.Contains(s.last.prefix, tt.lacks) {
				t.Errorf("prefix %q; want %q and no %q", s.last.prefix, tt.want, tt.lacks)
			}
		})
	}
}

func TestOwnReportsHaveNoTraceAndNoWait(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r := newReceiver(t, s, func(o *intake.Options) { o.HoldFor = func(string) time.Duration { return time.Minute } })
	m := meta()
	m.Envelope.Sender, m.SkipReceived = "", true
	batch := &queue.NoticeBatch{}
	m.Answers, m.Mark = batch, "x"
	mustTake(t, r, m, full+"\r\n")
	if s.last.prefix != "" || !s.last.env.NotBefore.IsZero() || s.last.answers != batch || s.last.mark != "x" {
		t.Errorf("got %+v", s.last)
	}
	mustTake(t, r, meta(), full+"\r\n")
	if !s.last.env.NotBefore.Equal(now.Add(time.Minute)) {
		t.Errorf("not before %v", s.last.env.NotBefore)
	}
}

// TestHeader shows what becomes of header fields. The prefix but for its trace
// field and the body's header are compared.
func TestHeader(t *testing.T) {
	t.Parallel()
	date, id := "Date: Sat, 4 Jul 2026 09:29:59 +0200\r\n", "Message-ID: <1@a.test>\r\n"
	tests := []struct{ name, in, want string }{
		{"complete", full + "Subject: x\r\n\r\n", full + "Subject: x\r\n"},
		{"Bcc", full + "Bcc: carl@c.test,\r\n dora@d.test\r\nSubject: x\r\n\r\n", full + "Subject: x\r\n"},
		{"bcc in another case, with a blank", full + "bCC : carl@c.test\r\n\r\n", full},
		{"Return-Path", "Return-Path: <x@y.test>\r\n" + full + "\r\n", full},
		{"Resent-Bcc", full + "Resent-Bcc: carl@c.test\r\n\r\n", full},
		{"blank before the colon", "From : ann@a.test\r\n" + date + id + "\r\n", "From: ann@a.test\r\n" + date + id},
		{"folded", full + "Subject: x\r\n\ty\r\n z\r\n\r\n", full + "Subject: x\r\n\ty\r\n z\r\n"},
		{"mbox separator", "From ann@a.test Sat Jul  4 09:29:59 2026\r\n" + full + "\r\n", full},
		{"empty Date and Message-ID", "From: ann@a.test\r\nDate: \r\nMessage-ID:\r\n\r\n", "Date: NOW\r\nMessage-ID: <ID@mx.home.test>\r\nFrom: ann@a.test\r\n"},
		{"no From", date + id + "\r\n", "From: ann@a.test\r\n" + date + id},
		{"empty From", "From:\r\n" + date + id + "\r\n", "From: ann@a.test\r\n" + date + id},
		{"cron", "From: root (Cron Daemon)\r\nTo: root\r\n" + date + id + "\r\n", "From: root@mx.home.test (Cron Daemon)\r\nTo: root@mx.home.test\r\n" + date + id},
		{"bare names in a list", full + "Cc: www-data, Bob <bob@b.test>,\r\n \"A B\" <ann>\r\n\r\n", full + "Cc: www-data@mx.home.test, Bob <bob@b.test>,\r\n \"A B\" <ann@mx.home.test>\r\n"},
		{"unreadable To is left alone", full + "To: undisclosed recipients\r\n\r\n", full + "To: undisclosed recipients\r\n"},
		{"raw UTF-8 in text", full + "Subject: Grüße\r\n\r\n", full + "Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n"},
		{"raw UTF-8 in a name", "From: Jürgen <j@a.test>\r\n" + date + id + "\r\n", "From: =?utf-8?b?SsO8cmdlbg==?= <j@a.test>\r\n" + date + id},
		{"long line", full + "References: " + strings.Repeat("<0123456789@a.test> ", 60) + "\r\n\r\n", ""},
		{"no header, no blank line", "text\r\n", "From: ann@a.test\r\nDate: NOW\r\nMessage-ID: <ID@mx.home.test>\r\n"},
		{"header alone", "Subject: x\r\n", "From: ann@a.test\r\nDate: NOW\r\nMessage-ID: <ID@mx.home.test>\r\nSubject: x\r\n"},
		{"header alone, no line end", "Subject: x", "From: ann@a.test\r\nDate: NOW\r\nMessage-ID: <ID@mx.home.test>\r\nSubject: x\r\n"},
		{"nothing at all", "", "From: ann@a.test\r\nDate: NOW\r\nMessage-ID: <ID@mx.home.test>\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newShelf(t)
			r := newReceiver(t, s, nil)
			for _, size := range []int{0, 1, 7} {
				if err := take(r, meta(), tt.in, size); err != nil {
					t.Fatal(err)
				}
				header, _ := split(s.last.body)
				_, rest, _ := strings.Cut(s.last.prefix, "+0200\r\n")
				got := strings.ReplaceAll(rest+header, s.last.env.ID.String(), "ID")
				got = strings.ReplaceAll(got, "Sat, 4 Jul 2026 09:30:00 +0200", "NOW")
				if tt.want == "" { // folded somewhere
					for _, l := range strings.Split(got, "\r\n") {
						if len(l) > 998 {
							t.Errorf("a line of %d octets", len(l))
						}
					}
					if strings.ReplaceAll(got, "\r\n ", " ")+"\r\n" != tt.in && strings.ReplaceAll(got, "\r\n <", " <")+"\r\n" != strings.Replace(tt.in, "> \r\n", ">\r\n", 1) {
						t.Errorf("got %q", got)
					}
					continue
				}
				if got != tt.want {
					t.Errorf("in pieces of %d:\n%s\nwant\n%s", size, got, tt.want)
				}
				if !strings.HasPrefix(s.last.body, header+"\r\n") {
					t.Error("no blank line behind the header")
				}
			}
		})
	}
}

func TestReceivedFieldsUpToTheLimit(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, newShelf(t), nil)
	mustTake(t, r, meta(), strings.Repeat("Received: from x by y\r\n", 50)+full+"\r\n")
}

func TestMessageSize(t *testing.T) {
	t.Parallel()
	content := full + "\r\n" + strings.Repeat("0123456789abcd\r\n", 1000)
	s := newShelf(t)
	r := newReceiver(t, s, func(o *intake.Options) { o.MaxMessageSize = int64(len(content)) })
	mustTake(t, r, meta(), content)
	if e := refusal(t, take(r, meta(), content+"x\r\n", 512)); e.Code != 552 || e.Status != "5.3.4" {
		t.Errorf("got %v", e)
	}
	m := meta()
	m.MaxSize = 100
	if e := refusal(t, take(r, m, content, 0)); e.Code != 552 {
		t.Errorf("got %v", e)
	}
}

func TestTransportFields(t *testing.T) {
	t.Parallel()
	tests := []struct {
		field    string
		require  bool
		ignored  bool
		priority queue.Priority
		was      queue.Priority
	}{
		{field: "TLS-Required: No", ignored: true},
		{field: "tls-required:\r\n no", ignored: true},
		{field: "TLS-Required: No", require: true},
		{field: "TLS-Required: Yes"},
		{field: "Precedence: bulk", priority: queue.PriorityBulk},
		{field: "Precedence: LIST", priority: queue.PriorityBulk},
		{field: "Priority: urgent", priority: queue.PriorityUrgent},
		{field: "Priority: non-urgent", priority: queue.PriorityBulk},
		{field: "X-Priority: 1"},
		{field: "Precedence: bulk", was: queue.PriorityUrgent, priority: queue.PriorityUrgent},
	}
	for _, tt := range tests {
		s := newShelf(t)
		r := newReceiver(t, s, nil)
		m := meta()
		m.Envelope.RequireTLS, m.Envelope.Priority = tt.require, tt.was
		mustTake(t, r, m, full+tt.field+"\r\n\r\n")
		if s.last.env.TLSIgnored != tt.ignored || s.last.env.Priority != tt.priority {
			t.Errorf("%s: TLSIgnored %t, priority %d", tt.field, s.last.env.TLSIgnored, s.last.env.Priority)
		}
	}
}

func TestDropFields(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r := newReceiver(t, s, nil)
	m := meta()
	m.DropFields = []string{"x-receiver"}
	mustTake(t, r, m, full+"X-RECEIVER : a@b.test,\r\n c@d.test\r\nX-Receivers: stays\r\n\r\n")
	if s.last.body != full+"X-Receivers: stays\r\n\r\n" {
		t.Errorf("got %q", s.last.body)
	}
}

func TestQueueRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		err    error
		code   int
		status string
	}{
		{queue.ErrFull, 452, "4.3.1"},
		{fmt.Errorf("submit: %w", queue.ErrFull), 452, "4.3.1"},
		{queue.ErrClosed, 451, "4.3.2"},
		{errors.New("disk on fire"), 451, "4.3.0"},
		{context.Canceled, 451, "4.3.0"},
	}
	for _, tt := range tests {
		s := newShelf(t)
		s.err = tt.err
		counts := &counter{}
		r := newReceiver(t, s, func(o *intake.Options) { o.Observer = counts })
		e := refusal(t, take(r, meta(), full+"\r\n", 0))
		if e.Code != tt.code || e.Status != tt.status || !e.Temporary() || !errors.Is(e, tt.err) {
			t.Errorf("%v became %v", tt.err, e)
		}
		if strings.Contains(e.Text, "fire") {
			t.Errorf("the client is told %q", e.Text)
		}
		if counts.accepted != 0 || counts.refused != 1 {
			t.Errorf("the observer was told %+v", *counts)
		}
	}
}

// TestNoRoom: a client hears that there is no room before it sends content.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	s.room = fmt.Errorf("%w: 3 MB are free", queue.ErrFull)
	counts := &counter{}
	r := newReceiver(t, s, func(o *intake.Options) { o.Observer = counts })
	_, err := r.Begin(now, meta())
	if e := refusal(t, err); e.Code != 452 || e.Status != "4.3.1" || strings.Contains(e.Text, "MB") || counts.refused != 1 {
		t.Errorf("got %v, %+v", e, *counts)
	}
}

func TestDisabled(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, newShelf(t), func(o *intake.Options) { o.Disabled = true })
	_, err := r.Begin(now, meta())
	if e := refusal(t, err); e.Code != 451 || e.Status != "4.3.2" {
		t.Errorf("got %v", e)
	}
}

func TestMessageIsDoneOnce(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r := newReceiver(t, s, nil)
	for _, end := range []func(*intake.Message){
		func(m *intake.Message) { m.Abort() },
		func(m *intake.Message) { m.Commit(context.Background()) },
	} {
		msg, err := r.Begin(now, meta())
		if err != nil {
			t.Fatal(err)
		}
		msg.Write([]byte(full + "\r\n"))
		end(msg)
		if _, err := msg.Commit(context.Background()); err == nil {
			t.Error("a message that is done was committed")
		}
		if _, err := msg.Write([]byte("x")); err == nil {
			t.Error("a message that is done was written to")
		}
		msg.Abort()
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	for _, o := range []intake.Options{
		{Hostname: "mx.home.test"},
		{Queue: s},
		{Queue: s, Hostname: "not a name"},
		{Queue: s, Hostname: "mx.home.test", LocalMailTo: "root"},
		{Queue: s, Hostname: "mx.home.test", LocalMailTo: "root@MX.home.test"},
		{Queue: s, Hostname: "mx.home.test", LocalNames: []string{"home.test"}, LocalMailTo: "root@home.test"},
	} {
		if _, err := intake.New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// TestStoredAsSent goes through a real queue.
func TestStoredAsSent(t *testing.T) {
	t.Parallel()
	q := openQueue(t)
	r := newReceiver(t, q, nil)
	for _, text := range []string{"short\r\n", strings.Repeat("a line of a large message\r\n", 10_000)} {
		msg, err := r.Begin(now, meta())
		if err != nil {
			t.Fatal(err)
		}
		msg.Write([]byte(full + "\r\n" + text))
		id, err := msg.Commit(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		content := readBack(t, q, id)
		trace, rest, _ := strings.Cut(content, "From: ")
		if !strings.HasPrefix(trace, "Received: by mx.home.test") || "From: "+rest != full+"\r\n"+text {
			t.Errorf("stored %.300q", content)
		}
		m, err := q.Message(id)
		if err != nil || m.Envelope.Size != int64(len(content)) || m.Envelope.Recipients[0].Domain != "b.test" {
			t.Errorf("envelope %+v, %v", m, err)
		}
	}
}
