package smtpclient

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"postrider/mta/smtptest"
	"postrider/mta/smtpwire"
)

// manners are the three ways to carry a transaction.
var manners = map[string][]string{"BDAT": chunking, "DATA": pipelining(), "command by command": nil}

func TestHostileReplies(t *testing.T) {
	t.Parallel()
	hostile := []struct {
		name  string
		step  smtptest.Step
		kind  Kind
		cause error
	}{
		{"endless lines", smtptest.Step{Endless: "250-more\r\n"}, KindProtocol, smtpwire.ErrReplyLong},
		{"endless line", smtptest.Step{Endless: "2502502502502502502502502502502502502502"}, KindProtocol, smtpwire.ErrReplyLine},
		{"long line", smtptest.Step{Reply: "250 " + strings.Repeat("x", 2000)}, KindProtocol, smtpwire.ErrReplyLine},
		{"many lines", smtptest.Step{Reply: "250 " + strings.Repeat("x\n", 100)}, KindProtocol, smtpwire.ErrReplyLong},
		{"many octets", smtptest.Step{Reply: "250 " + strings.Repeat(strings.Repeat("x", 1900)+"\n", 50)}, KindProtocol, smtpwire.ErrReplyLong},
		{"garbage", smtptest.Step{Raw: "\x16\x03\x01\x00garbage\r\n"}, KindProtocol, nil},
		{"HTTP", smtptest.Step{Raw: "HTTP/1.1 400 Bad Request\r\n"}, KindProtocol, smtpwire.ErrReplySyntax},
		{"code changes", smtptest.Step{Raw: "250-fine\r\n550 not at all\r\n"}, KindProtocol, smtpwire.ErrReplyCode},
		{"8-bit", smtptest.Step{Raw: "250 gr\xf6\xdfe\r\n"}, KindProtocol, smtpwire.ErrReplyText},
		{"bare LF", smtptest.Step{Raw: "250 ok\n250 ok\r\n"}, KindProtocol, smtpwire.ErrBareLF},
		{"bare CR", smtptest.Step{Raw: "250 o\rk\r\n"}, KindProtocol, smtpwire.ErrBareCR},
		{"NUL", smtptest.Step{Raw: "250 \x00\r\n"}, KindProtocol, smtpwire.ErrNUL},
		{"wrong code", smtptest.Step{Reply: "221 bye"}, KindProtocol, ErrUnexpectedReply},
		{"3yz", smtptest.Step{Reply: "334 tell me more"}, KindProtocol, ErrUnexpectedReply},
		{"closed", smtptest.Step{Then: smtptest.Close}, KindClosed, nil},
		{"reset", smtptest.Step{Then: smtptest.Reset}, KindClosed, nil},
		{"closed within a line", smtptest.Step{Raw: "25", Then: smtptest.Close}, KindClosed, io.ErrUnexpectedEOF},
		{"closed within a reply", smtptest.Step{Raw: "250-a\r\n", Then: smtptest.Close}, KindClosed, io.ErrUnexpectedEOF},
	}
	stages := []struct {
		key   string
		stage Stage
	}{
		{smtptest.OnConnect, StageGreeting}, {"EHLO", StageEHLO}, {"MAIL", StageMail}, {"RCPT", StageRcpt}, {"DATA", StageData}, {smtptest.OnEnd, StageFinal},
	}
	for manner, extensions := range manners {
		for _, at := range stages {
			if at.key == "DATA" && manner == "BDAT" {
				continue
			}
			for _, h := range hostile {
				if at.stage == StageGreeting && h.name == "reset" {
					continue // may come before the connection is there
				}
				t.Run(fmt.Sprint(manner, "/", at.key, "/", h.name), func(t *testing.T) {
					t.Parallel()
					server := start(t, smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{at.key: {h.step}}})
					s := dial(t, server, Options{})
					err := s.Greet(t.Context())
					if at.stage <= StageEHLO {
						wantError(t, err, at.stage, h.kind, h.cause)
						return
					}
					results, err := run(t, s, messages(2)...)
					wantError(t, err, at.stage, h.kind, h.cause)
					r := results[0]
					if r.Final.Code != 0 || r.Err == nil || r.Untried {
						t.Errorf("%+v", r)
					}
					if isSent := at.stage == StageFinal || manner == "BDAT"; r.Sent != isSent {
						t.Errorf("sent is %v at %v", r.Sent, at.stage)
					}
					if len(results) == 2 && (!results[1].Untried || manner == "command by command") {
						t.Errorf("the second: %+v", results[1])
					}
					if err := s.Run(t.Context(), nil, nil); err == nil {
						t.Error("a dead session runs")
					}
				})
			}
		}
	}
}

// Each reply is within its bounds, and all together are not.
func TestManyLongReplies(t *testing.T) {
	t.Parallel()
	for manner, extensions := range manners {
		t.Run(manner, func(t *testing.T) {
			t.Parallel()
			server := start(t, smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{
				"RCPT": smtptest.Say("550 " + strings.Repeat(strings.Repeat("x", 1900)+"\n", 30))}})
			var to []string
			for i := range 100 {
				to = append(to, fmt.Sprintf("to%d@b.test", i))
			}
			results, err := run(t, greeted(t, server, Options{}), message("a@a.test", "\r\n", to...))
			wantError(t, err, StageRcpt, KindProtocol, smtpwire.ErrReplyLong)
			if r := results[0]; r.Rcpts[0].Code != 550 || r.Rcpts[99].Code != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// A server that takes DATA for done has not asked for the content: whatever it
// is sent next, it would take for commands.
func TestSuccessInPlaceOf354(t *testing.T) {
	t.Parallel()
	for manner, extensions := range manners {
		if manner == "BDAT" {
			continue
		}
		t.Run(manner, func(t *testing.T) {
			t.Parallel()
			server := start(t, smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{"DATA": smtptest.Say("250 2.0.0 ok")}})
			results, err := run(t, greeted(t, server, Options{}), messages(1)...)
			wantError(t, err, StageData, KindProtocol, ErrUnexpectedReply)
			if r := results[0]; r.Sent || r.Err == nil || r.Final.Code != 0 || len(server.Transactions()) != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}
