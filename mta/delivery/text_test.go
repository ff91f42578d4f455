package delivery

import (
	"strings"
	"testing"
	"unicode/utf8"

	"postrider/mta/smtpclient"
	"postrider/queue"
)

func TestReplyText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		enhanced string
		lines    []string
		want     string
	}{
		{"one line", "5.1.1", []string{"5.1.1 no such user"}, "5.1.1 no such user"},
		{"status once", "5.1.1", []string{"5.1.1 no", "5.1.1 such", "5.1.1 user"}, "5.1.1 no such user"},
		{"empty lines", "", []string{"a", "", "  ", "b"}, "a b"},
		{"control characters", "", []string{"a\tb\x1b[31mc\x00d"}, "a b [31mc d"},
		{"not UTF-8", "", []string{"a\xffb"}, "a\uFFFDb"},
		{"line separators", "", []string{"a\u2028b"}, "a b"},
		{"nothing", "", nil, ""},
	} {
		if got := replyText(smtpclient.Reply{Code: 550, Enhanced: tt.enhanced, Lines: tt.lines}); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func FuzzReplyText(f *testing.F) {
	f.Add("5.1.1 no", "5.1.1 such user", "5.1.1")
	f.Add(strings.Repeat("\u00e4", 600), "\xff\xfe", "")
	f.Fuzz(func(t *testing.T, a, b, enhanced string) {
		got := replyText(smtpclient.Reply{Code: 550, Enhanced: enhanced, Lines: []string{a, b}})
		if len(got) > maxText || !utf8.ValidString(got) || strings.ContainsAny(got, "\r\n\x00\x7f\u0085\u2028") {
			t.Errorf("%q", got)
		}
	})
}

func TestCodeStatus(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code  int
		stage queue.Stage
		want  string
	}{
		{250, queue.StageFinal, "2.0.0"}, {421, queue.StageMAIL, "4.3.2"}, {450, queue.StageRCPT, "4.2.0"},
		{452, queue.StageRCPT, "4.5.3"}, {452, queue.StageFinal, "4.3.1"}, {454, queue.StageSTARTTLS, "4.0.0"},
		{500, queue.StageMAIL, "5.5.1"}, {501, queue.StageRCPT, "5.5.4"}, {521, queue.StageGreeting, "5.3.2"},
		{550, queue.StageRCPT, "5.1.1"}, {550, queue.StageFinal, "5.7.1"}, {551, queue.StageRCPT, "5.1.6"},
		{552, queue.StageRCPT, "5.2.2"}, {552, queue.StageFinal, "5.3.4"}, {553, queue.StageRCPT, "5.1.3"},
		{554, queue.StageFinal, "5.0.0"}, {555, queue.StageMAIL, "5.5.4"}, {556, queue.StageRCPT, "5.1.10"}, {599, queue.StageRCPT, "5.0.0"},
	} {
		if got := replyStatus(smtpclient.Reply{Code: tt.code}, tt.stage); got != tt.want {
			t.Errorf("%d at stage %d: %s, want %s", tt.code, tt.stage, got, tt.want)
		}
	}
}
