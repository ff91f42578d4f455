package pickup

import (
	"fmt"
	"strings"
	"testing"

	"postrider/queue"
)

func TestReadEnvelope(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in   string
		sender     string // "-": not said
		recipients string // address/orcpt/notify
		tag, envID string
		ret        queue.Ret
		rest       string // what is left of in behind the lines at the start
		bad        string
	}{
		{name: "PowerMTA", in: "x-sender: ann@a.test\nx-receiver: bob@b.test\nx-receiver: carl@c.test\nx-envid: e7\nx-job: spring\nFrom: x\n\ntext",
			sender: "ann@a.test", recipients: "bob@b.test//0 carl@c.test//0", tag: "spring", envID: "e7", rest: "From: x\n\ntext"},
		{name: ".NET", in: "X-Sender: ann@a.test\r\nX-Receiver: bob@b.test\r\nMIME-Version: 1.0\r\nFrom: ann@a.test\r\n\r\n",
			sender: "ann@a.test", recipients: "bob@b.test//0", rest: "MIME-Version: 1.0\r\nFrom: ann@a.test\r\n\r\n"},
		{name: "in the midst of the header", in: "From: x\nX-RECEIVER: bob@b.test\nSubject: y\nx-sender : ann@a.test\n\n",
			sender: "ann@a.test", recipients: "bob@b.test//0", rest: "From: x\nX-RECEIVER: bob@b.test\nSubject: y\nx-sender : ann@a.test\n\n"},
		{name: "in the text", in: "From: x\n\nX-Receiver: bob@b.test\n", sender: "-", rest: "From: x\n\nX-Receiver: bob@b.test\n"},
		{name: "folded", in: "X-Receiver:\r\n\tbob@b.test\r\nX-Sender:\n ann@a.test\nTo: x\n\n", sender: "ann@a.test", recipients: "bob@b.test//0", rest: "To: x\n\n"},
		{name: "folded by a CR, as intake sees it", in: "To: x\rX-Receiver: bob@b.test\r\r", sender: "-", recipients: "bob@b.test//0", rest: "To: x\rX-Receiver: bob@b.test\r\r"},
		{name: "in a folded field", in: "Subject: x\n X-Receiver: bob@b.test\n\n", sender: "-", rest: "Subject: x\n X-Receiver: bob@b.test\n\n"},
		{name: "null sender", in: "X-Sender: <>\nX-Receiver: <bob@b.test>\n\n", sender: "", recipients: "bob@b.test//0", rest: "\n"},
		{name: "empty sender", in: "X-Sender:\n\n", sender: "", rest: "\n"},
		{name: "the same sender twice", in: "X-Sender: a@b.test\nX-Sender: <a@b.test>\n\n", sender: "a@b.test", rest: "\n"},
		{name: "Exchange", in: "X-Sender: <ann@a.test> BODY=7bit ret=HDRS ENVID=x7\nX-Receiver: <bob@b.test> NOTIFY=failure,delay ORcpt=rfc822;b@old.test\nX-CreatedBy: MSExchange15\nX-EndOfInjectedXHeaders: 14\nFrom: x\n\n",
			sender: "ann@a.test", recipients: "bob@b.test/rfc822;b@old.test/12", envID: "x7", ret: queue.RetHeaders, rest: "From: x\n\n"},
		{name: "parameters without brackets", in: "X-Receiver: bob@b.test NOTIFY=NEVER\n\n", sender: "-", recipients: "bob@b.test//1", rest: "\n"},
		{name: "bare name", in: "X-Receiver: root\n\n", sender: "-", recipients: "root//0", rest: "\n"},
		{name: "x-job elsewhere is the message's", in: "From: x\nx-job: spring\n\n", sender: "-", rest: "From: x\nx-job: spring\n\n"},
		{name: "empty file", in: "", sender: "-"},
		{name: "no line end", in: "X-Receiver: bob@b.test", sender: "-", recipients: "bob@b.test//0", rest: ""},

		{name: "bad receiver", in: "X-Sender: a@b.test\nX-Receiver: bob@\n\n", bad: `line 2: x-receiver: address "bob@": nothing after`},
		{name: "empty receiver", in: "From: x\nY: z\n w\nX-Receiver:\n\n", bad: `line 4: x-receiver: address "": it is empty`},
		{name: "name and address", in: "X-Receiver: Bob bob@b.test\n\n", bad: "line 1: x-receiver: "},
		{name: "two senders", in: "X-Sender: a@b.test\nX-Sender: c@d.test\n\n", bad: `line 2: x-sender: a second sender, beside "a@b.test"`},
		{name: "unknown parameter", in: "X-Receiver: <a@b.test> FOO=1\n\n", bad: `line 1: x-receiver: the parameter "FOO" is unknown`},
		{name: "unknown NOTIFY", in: "X-Receiver: <a@b.test> NOTIFY=OFTEN\n\n", bad: "line 1: x-receiver: NOTIFY is"},
		{name: "NEVER and more", in: "X-Receiver: <a@b.test> NOTIFY=NEVER,DELAY\n\n", bad: "NOTIFY=NEVER goes"},
		{name: "unknown RET", in: "X-Sender: <a@b.test> RET=SOME\n\n", bad: "RET is FULL or HDRS"},
		{name: "bad ORCPT", in: "X-Receiver: <a@b.test> ORCPT=b@c.test\n\n", bad: "ORCPT is a type and an address"},
		{name: "long envelope ID", in: "x-envid: " + strings.Repeat("x", 101) + "\n\n", bad: "line 1: x-envid: "},
		{name: "job beyond ASCII", in: "x-job: Frühling\n\n", bad: "line 1: x-job: "},
		{name: "endless folding", in: "X-Receiver: a@b.test\n" + strings.Repeat(" x\n", 5000) + "\n", bad: "line 1: x-receiver: longer than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, err := readEnvelope([]byte(tt.in))
			if tt.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tt.bad) {
					t.Errorf("got %v; want %q", err, tt.bad)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			sender := "-"
			if e.sender != nil {
				sender = *e.sender
			}
			var got []string
			for _, r := range e.recipients {
				got = append(got, fmt.Sprintf("%s/%s/%d", r.Address, r.ORcpt, r.Notify))
			}
			if g := strings.Join(got, " "); sender != tt.sender || g != tt.recipients {
				t.Errorf("from %q to %q; want %q to %q", sender, g, tt.sender, tt.recipients)
			}
			if e.tag != tt.tag || e.envID != tt.envID || e.ret != tt.ret {
				t.Errorf("got %+v", e)
			}
			if rest := tt.in[e.skip:]; rest != tt.rest {
				t.Errorf("left %q; want %q", rest, tt.rest)
			}
			if want := strings.Count(tt.in[:e.skip], "\n"); e.skipLines != want && strings.HasSuffix(tt.in[:e.skip], "\n") {
				t.Errorf("%d lines skipped; want %d", e.skipLines, want)
			}
		})
	}
}

// TestReadEnvelopeIsLinear: a hostile head of 2 MiB must not cost minutes.
func TestReadEnvelopeIsLinear(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"X: y\n x\n", " \n", "X-Receiver: a@b.test\n", "\r", "x\r", "x-\n"} {
		_, _ = readEnvelope([]byte("X: y\n" + strings.Repeat(line, maxHead/len(line))))
	}
}

func FuzzReadEnvelope(f *testing.F) {
	f.Add("x-sender: ann@a.test\nx-receiver: bob@b.test\nx-job: y\nFrom: x\n\n")
	f.Add("X-Sender: <a@b.test> RET=FULL\r\nX-Receiver: <a@b.test> NOTIFY=DELAY ORCPT=rfc822;x\r\n\r\n")
	f.Add("X-Receiver:\r a@b.test\r\r")
	f.Fuzz(func(t *testing.T, head string) {
		e, err := readEnvelope([]byte(head))
		if err != nil {
			return
		}
		if e.skip > len(head) || e.skipLines > strings.Count(head, "\n")+strings.Count(head, "\r")+1 {
			t.Fatalf("%q: %+v", head, e)
		}
		for _, r := range e.recipients {
			if strings.ContainsAny(r.Address+r.ORcpt, "\r\n\x00") {
				t.Fatalf("%q: %+v", head, r)
			}
		}
	})
}
