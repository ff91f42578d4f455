package delivery

import (
	"testing"

	"postrider/mta/smtptest"
	"postrider/queue"
)

// Whoever reads the trace of mail that waits for a host that speaks no SMTP
// learns at which command, and what was wrong with the reply.
func TestHostileReplyIsToldInTheTrace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		key, raw string
		stage    queue.Stage
		scope    queue.Scope
		text     string
	}{
		{smtptest.OnConnect, "HTTP/1.1 400 Bad Request\r\n", queue.StageGreeting, queue.ScopeSite, "broke the protocol at: greeting: not an SMTP reply: \"HTTP/1.1 400 Bad Request\""},
		{"EHLO", "250-mx\r\n550 no\r\n", queue.StageEHLO, queue.ScopeSite, "broke the protocol at: EHLO: code changes within a reply"},
		{"MAIL", "250 ok\n250 ok\r\n", queue.StageMAIL, queue.ScopeSite, "broke the protocol at: MAIL: line feed without carriage return"},
		{"RCPT", "250 gr\xf6\xdfe\r\n", queue.StageRCPT, queue.ScopeSite, "broke the protocol at: RCPT: reply text with control characters or octets that are not UTF-8"},
		{"DATA", "250 2.0.0 ok\r\n", queue.StageDATA, queue.ScopeSite, "broke the protocol at: DATA: reply does not answer the command: 250 to DATA"},
		// The content was sent: whether the host has it, nobody knows.
		{smtptest.OnEnd, "250 \x00\r\n", queue.StageFinal, queue.ScopeHost, "broke the protocol at: end of the content: NUL in a line"},
	} {
		t.Run(tt.key, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.host("mx1.a.test", smtptest.Script{On: map[string][]smtptest.Step{tt.key: {{Raw: tt.raw}}}})
			s.mx("a.test", "mx1.a.test")
			o := s.one("r@a.test")
			check(t, o, want{queue.Deferred, tt.scope, tt.stage, 0, "4.5.0", tt.text})
			if o.InDoubt != (tt.key == smtptest.OnEnd) || o.Remote == nil || o.Remote.Host != "mx1.a.test" {
				t.Errorf("%s, %+v", show(o), o.Remote)
			}
		})
	}
}
