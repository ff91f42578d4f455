package delivery

import (
	"strings"
	"testing"
	"unicode/utf8"

	"postrider/mta/smtptest"
	"postrider/queue"
)

func TestBounceClassOfReplies(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		stage queue.Stage
		code  int
		text  string
		want  queue.Class
	}{
		{queue.StageRCPT, 550, "5.1.1 <r@a.test>: Recipient address rejected: User unknown in local recipient table", queue.ClassInvalidRecipient},
		{queue.StageRCPT, 550, "5.1.1 The email account that you tried to reach does not exist", queue.ClassInvalidRecipient},
		{queue.StageRCPT, 550, "No such user here", queue.ClassInvalidRecipient},
		{queue.StageRCPT, 550, "5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", queue.ClassInvalidRecipient},
		{queue.StageRCPT, 550, "5.4.1 Recipient address rejected: Access denied. [x.protection.test]", queue.ClassInvalidRecipient},
		{queue.StageFinal, 554, "delivery error: dd This user doesn't have a provider.test account (r@a.test) [0]", queue.ClassInvalidRecipient},
		{queue.StageRCPT, 551, "not here", queue.ClassInvalidRecipient},
		{queue.StageRCPT, 550, "5.1.6 moved", queue.ClassInvalidRecipient},

		// What must never look like a missing recipient.
		{queue.StageRCPT, 550, "5.1.1 rejected: 192.0.2.1 is listed at zen.spamhaus.org, user unknown", queue.ClassReputation},
		{queue.StageRCPT, 550, "blocked using zen.spamhaus.org", queue.ClassReputation},
		{queue.StageRCPT, 550, "refused", queue.ClassOther},
		{queue.StageRCPT, 550, "", queue.ClassOther},
		{queue.StageMAIL, 550, "5.1.1 user unknown", queue.ClassInvalidSender},
		{queue.StageRCPT, 552, "5.1.1 mailbox full, user does not exist for now", queue.ClassMailboxFull},
		{queue.StageRCPT, 450, "4.2.1 The user you are trying to contact is receiving mail too quickly", queue.ClassRate},

		{queue.StageRCPT, 550, "5.1.1 <spamhaus.blacklist@a.test> user unknown", queue.ClassInvalidRecipient},
		{queue.StageRCPT, 550, "5.1.2 bad destination", queue.ClassInvalidDomain},
		{queue.StageRCPT, 556, "5.1.10 takes no mail", queue.ClassInvalidDomain},
		{queue.StageRCPT, 550, "5.2.1 mailbox closed", queue.ClassMailboxDisabled},
		{queue.StageRCPT, 554, "30 Sorry, your message cannot be delivered. This mailbox is disabled", queue.ClassMailboxDisabled},
		{queue.StageRCPT, 452, "4.2.2 The email account that you tried to reach is over quota", queue.ClassMailboxFull},
		{queue.StageRCPT, 552, "denied", queue.ClassMailboxFull},
		{queue.StageFinal, 552, "denied", queue.ClassTooLarge},
		{queue.StageMAIL, 552, "5.3.4 no", queue.ClassTooLarge},
		{queue.StageMAIL, 553, "5.1.8 no such domain of yours", queue.ClassInvalidSender},
		{queue.StageMAIL, 550, "5.7.27 Sender address has null MX", queue.ClassInvalidSender},
		{queue.StageFinal, 550, "5.7.26 This mail has been blocked because the sender is unauthenticated", queue.ClassAuthentication},
		{queue.StageFinal, 550, "5.7.23 no", queue.ClassAuthentication},
		{queue.StageRCPT, 550, "5.7.25 refused", queue.ClassAuthentication},
		{queue.StageRCPT, 454, "4.7.1 <r@a.test>: Relay access denied", queue.ClassRelaying},
		{queue.StageFinal, 554, "5.4.6 hop count exceeded", queue.ClassRouting},
		{queue.StageFinal, 554, "5.7.1 refused", queue.ClassPolicy},
		{queue.StageRCPT, 550, "5.7.606 Access denied", queue.ClassReputation},
		{queue.StageRCPT, 550, "5.7.650 Access denied", queue.ClassRate},
		{queue.StageFinal, 550, "5.7.1 this message is likely unsolicited mail", queue.ClassContent},
		{queue.StageFinal, 552, "5.7.0 its attachment presents a potential security issue", queue.ClassContent},
		{queue.StageFinal, 550, "5.6.0 bad", queue.ClassContent},
		{queue.StageRCPT, 450, "4.7.1 Greylisted", queue.ClassGreylisted},
		{queue.StageRCPT, 550, "5.7.1 Greylisted for ever", queue.ClassPolicy},
		{queue.StageMAIL, 421, "4.7.0 too many connections", queue.ClassRate},
		{queue.StageMAIL, 421, "service not available", queue.ClassSystem},
		{queue.StageFinal, 451, "4.3.0 oops", queue.ClassSystem},
		{queue.StageMAIL, 530, "5.7.0 Must issue a STARTTLS command first", queue.ClassTLS},
		{queue.StageMAIL, 550, "5.7.30 REQUIRETLS", queue.ClassTLS},
		{queue.StageMAIL, 503, "bad sequence", queue.ClassProtocol},
		{queue.StageMAIL, 501, "5.5.4 what", queue.ClassProtocol},
	} {
		o := queue.Outcome{Verdict: queue.Deferred, Stage: tt.stage, Code: tt.code, Text: tt.text}
		o.Status = withClass(codeStatus(tt.code, tt.stage), byte('0'+tt.code/100))
		if first, _, _ := strings.Cut(tt.text, " "); strings.Count(first, ".") == 2 {
			o.Status = first
		}
		if classifyReason(&o); o.Class != tt.want {
			t.Errorf("%d %s: %q, want %q", tt.code, tt.text, o.Class, tt.want)
		}
	}
}

func TestBounceClassWithoutReply(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		o    queue.Outcome
		want queue.Class
	}{
		"delivered":      {queue.Outcome{Verdict: queue.Delivered}, queue.ClassNone},
		"untried":        {queue.Outcome{}, queue.ClassNone},
		"a rule's":       {queue.Outcome{Verdict: queue.Failed, Class: queue.ClassRate, Status: "5.1.1"}, queue.ClassRate},
		"null MX":        {queue.Outcome{Verdict: queue.Failed, Stage: queue.StageDNS, Status: "5.1.10"}, queue.ClassInvalidDomain},
		"no such domain": {queue.Outcome{Verdict: queue.Failed, Stage: queue.StageDNS, Status: "5.1.2"}, queue.ClassInvalidDomain},
		"DNS fails":      {queue.Outcome{Verdict: queue.Deferred, Stage: queue.StageDNS, Status: "4.4.3"}, queue.ClassDNS},
		"loop":           {queue.Outcome{Verdict: queue.Failed, Stage: queue.StageDNS, Status: "5.4.6"}, queue.ClassRouting},
		"connect":        {queue.Outcome{Verdict: queue.Deferred, Stage: queue.StageConnect, Status: "4.4.1"}, queue.ClassNetwork},
		"lost":           {queue.Outcome{Verdict: queue.Deferred, Stage: queue.StageFinal, Status: "4.4.2"}, queue.ClassNetwork},
		"handshake":      {queue.Outcome{Verdict: queue.Deferred, Stage: queue.StageSTARTTLS, Status: "4.7.5"}, queue.ClassTLS},
		"demand":         {queue.Outcome{Verdict: queue.Deferred, Stage: queue.StagePolicy, Status: "4.7.10"}, queue.ClassTLS},
		"protocol":       {queue.Outcome{Verdict: queue.Deferred, Stage: queue.StageEHLO, Status: "4.5.0"}, queue.ClassProtocol},
		"too large":      {queue.Outcome{Verdict: queue.Failed, Stage: queue.StagePolicy, Status: "5.3.4"}, queue.ClassTooLarge},
		"conversion":     {queue.Outcome{Verdict: queue.Failed, Stage: queue.StagePolicy, Status: "5.6.3"}, queue.ClassContent},
		"unreadable":     {openOutcome(smtptestError{}), queue.ClassLocal},
	} {
		if classifyReason(&tt.o); tt.o.Class != tt.want {
			t.Errorf("%s: %q, want %q", name, tt.o.Class, tt.want)
		}
	}
}

type smtptestError struct{}

func (smtptestError) Error() string { return "input/output error" }

func TestEveryFailureOfAnAttemptHasABounceClass(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script smtptest.Script
		want   queue.Class
	}{
		"recipient":      {smtptest.Script{On: map[string][]smtptest.Step{"RCPT": smtptest.Say("550 5.1.1 no such user")}}, queue.ClassInvalidRecipient},
		"greeting":       {smtptest.Script{On: map[string][]smtptest.Step{smtptest.OnConnect: smtptest.Say("554 5.7.1 blocked using bl.test")}}, queue.ClassReputation},
		"closed at MAIL": {smtptest.Script{On: map[string][]smtptest.Step{"MAIL": smtptest.Say("421 4.3.2 going down")}}, queue.ClassSystem},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.host("mx1.a.test", tt.script)
			s.mx("a.test", "mx1.a.test")
			m := mail("r@a.test")
			s.deliver(m)
			if o := m.outcome(t); o.Class != tt.want {
				t.Errorf("%+v: %q, want %q", o, o.Class, tt.want)
			}
		})
	}
}

func FuzzBounceClass(f *testing.F) {
	f.Add(550, "5.1.1 user unknown")
	f.Add(421, "\xff@ 4.7.")
	f.Fuzz(func(t *testing.T, code int, text string) {
		if !utf8.ValidString(text) {
			text = strings.ToValidUTF8(text, "?")
		}
		o := queue.Outcome{Verdict: queue.Failed, Stage: queue.StageRCPT, Code: code, Status: "5.1.1", Text: text}
		classifyReason(&o)
		if !o.Class.Known() {
			t.Errorf("%d %q: %q is not in the closed set", code, text, o.Class)
		}
	})
}
