package delivery

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"postrider/mta/smtpclient"
	"postrider/mta/smtptest"
	"postrider/queue"
)

func TestSizeIsObeyedBeforeSending(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		size   string
		refuse bool
		params string
	}{
		"too small":    {"SIZE 10", true, ""},
		"large enough": {fmt.Sprintf("SIZE %d", len(hello)), false, fmt.Sprintf("SIZE=%d", len(hello))},
		"no limit":     {"SIZE 0", false, fmt.Sprintf("SIZE=%d", len(hello))},
		"no number":    {"SIZE", false, fmt.Sprintf("SIZE=%d", len(hello))},
		"not offered":  {"NOOP", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			mx := s.host("mx1.a.test", smtptest.Script{Extensions: []string{"PIPELINING", tt.size}})
			s.mx("a.test", "mx1.a.test")
			m, next := mail("r@a.test", "r2@a.test"), mail("r@a.test")
			next.attempt.Envelope.Size = 0
			s.deliver(m, next)
			if !tt.refuse {
				checkDelivered(t, m.report.Outcomes[1])
				if got := mx.Transactions()[0].FromParams; got != tt.params {
					t.Errorf("MAIL had %q", got)
				}
				return
			}
			for _, o := range m.report.Outcomes {
				check(t, o, want{queue.Failed, queue.ScopeMessage, queue.StagePolicy, 0, "5.3.4", "takes at most 10"})
			}
			checkDelivered(t, next.outcome(t))
			if mx.WaitCommand("MAIL FROM:<s@from.test> SIZE=53", 0) {
				t.Error("the host was asked all the same")
			}
		})
	}
}

func Test8BitMail(t *testing.T) {
	t.Parallel()
	failed, deferred := want{queue.Failed, queue.ScopeMessage, queue.StagePolicy, 0, "5.6.3", ""}, want{queue.Deferred, queue.ScopeMessage, queue.StageQueue, 0, "4.3.0", ""}
	says := func(w want, text string) want { w.text = text; return w }
	large := want{queue.Failed, queue.ScopeMessage, queue.StagePolicy, 0, "5.3.4", fmt.Sprintf("has %d octets", len(converted))}
	for name, tt := range map[string]struct {
		extensions []string
		convert    Converter
		params     string
		want       want // zero: delivered
	}{
		"offered":                           {[]string{"8BITMIME"}, nil, "BODY=8BITMIME", want{}},
		"not offered":                       {nil, nil, "", says(failed, "needs 8BITMIME")},
		"converted":                         {[]string{"SIZE"}, converter{}, fmt.Sprintf("SIZE=%d", len(converted)), want{}},
		"cannot be converted":               {nil, converter{err: &Unconvertible{"5.6.3", "it is signed"}}, "", says(failed, "cannot be converted: it is signed")},
		"conversion fails":                  {nil, converter{err: errBroken}, "", says(deferred, "converting it failed: checksum")},
		"too large when converted":          {[]string{fmt.Sprintf("SIZE %d", len(converted)-1)}, converter{}, "", large},
		"SMTPUTF8 does not stand in for it": {[]string{"SMTPUTF8"}, converter{}, "", want{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.options.Converter = tt.convert
			mx := s.host("mx1.a.test", smtptest.Script{Extensions: tt.extensions})
			s.mx("a.test", "mx1.a.test")
			m := mail("r@a.test")
			m.attempt.Envelope.Body = queue.Body8BitMIME
			m.attempt.Envelope.Size = 1
			s.deliver(m)
			if tt.want != (want{}) {
				check(t, m.outcome(t), tt.want)
				return
			}
			checkDelivered(t, m.outcome(t))
			tx := mx.Transactions()[0]
			if tx.FromParams != tt.params || (string(tx.Content) == converted) != (tt.convert != nil) {
				t.Errorf("MAIL had %q, content %q", tx.FromParams, tx.Content)
			}
		})
	}
}

const converted = "Subject: converted\r\n\r\nseven bits\r\n"

type converter struct {
	err  error
	fits bool // what has an ASCII header
}

func (c converter) Convert(o Opener, _ Need) (smtpclient.Body, io.Closer, error) {
	if c.fits {
		content, err := o.Content()
		if err != nil {
			return smtpclient.Body{}, nil, err
		}
		if isPlain, _ := asciiUntilBlankLine(content.Data); isPlain {
			return smtpclient.Body{}, nil, ErrFits
		}
	}
	if c.err != nil {
		return smtpclient.Body{}, nil, c.err
	}
	return smtpclient.Body{Data: []byte(converted), Size: int64(len(converted))}, io.NopCloser(nil), nil
}

func TestSMTPUTF8(t *testing.T) {
	t.Parallel()
	const utf8Header = "Subject: grüße\r\n\r\nx\r\n"
	for name, tt := range map[string]struct {
		offered  bool
		from, to string
		flag     bool
		content  string
		wantFrom string
		wantTo   string
		utf8     bool   // MAIL carries SMTPUTF8
		status   string // fails with it
		scope    queue.Scope
	}{
		"offered":                           {true, "jürg@from.test", "jürg@a.test", true, utf8Header, "jürg@from.test", "jürg@a.test", true, "", 0},
		"not needed":                        {true, "s@from.test", "r@a.test", false, hello, "s@from.test", "r@a.test", false, "", 0},
		"only the domain needs it":          {false, "s@bücher.test", "r@a.test", true, hello, "s@xn--bcher-kva.test", "r@a.test", false, "", 0},
		"the recipient's domain needs it":   {false, "s@from.test", "r@ä.a.test", true, hello, "s@from.test", "r@xn--4ca.a.test", false, "", 0},
		"the recipient needs it":            {false, "s@from.test", "jürg@a.test", true, hello, "", "", false, "5.6.7", queue.ScopeRecipient},
		"the sender needs it":               {false, "jürg@from.test", "r@a.test", true, hello, "", "", false, "5.6.7", queue.ScopeMessage},
		"a header field needs it":           {false, "s@from.test", "r@a.test", true, utf8Header, "", "", false, "5.6.7", queue.ScopeMessage},
		"what is offered without 8BITMIME":  {true, "s@from.test", "jürg@a.test", true, hello, "", "", false, "5.6.7", queue.ScopeRecipient},
		"only the body has octets over 127": {false, "s@from.test", "r@a.test", true, "Subject: x\r\n\r\ngrüße\r\n", "s@from.test", "r@a.test", false, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			script := smtptest.Script{Extensions: []string{"8BITMIME"}}
			if name == "what is offered without 8BITMIME" { // RFC 6531, section 3.1
				script.Extensions = nil
			}
			if tt.offered {
				script.Extensions = append(script.Extensions, "SMTPUTF8")
			}
			mx := s.host("mx1.a.test", script)
			s.mx("a.test", "mx1.a.test")
			m := mail(tt.to)
			env := m.attempt.Envelope
			env.Sender, env.SMTPUTF8 = tt.from, tt.flag
			m.content, env.Size = tt.content, int64(len(tt.content))
			m.attempt.Recipients[0].Domain = "a.test"
			s.deliver(m)
			if tt.status != "" {
				check(t, m.outcome(t), want{queue.Failed, tt.scope, queue.StagePolicy, 0, tt.status, "SMTPUTF8"})
				return
			}
			checkDelivered(t, m.outcome(t))
			tx := mx.Transactions()[0]
			if tx.From != tt.wantFrom || tx.Rcpts[0].Address != tt.wantTo || strings.Contains(tx.FromParams, "SMTPUTF8") != tt.utf8 || string(tx.Content) != tt.content {
				t.Errorf("received %+v", tx)
			}
		})
	}
}

// A header field that only its words make need SMTPUTF8 is encoded.
func TestSMTPUTF8HeaderIsConverted(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.options.Converter = converter{}
	mx := s.host("mx1.a.test", smtptest.Script{Extensions: []string{"8BITMIME"}})
	s.mx("a.test", "mx1.a.test")
	m := mail("r@a.test")
	m.content = "Subject: grüße\r\n\r\nx\r\n"
	m.attempt.Envelope.SMTPUTF8, m.attempt.Envelope.Body = true, queue.Body8BitMIME
	s.deliver(m)
	checkDelivered(t, m.outcome(t))
	if tx := mx.Transactions()[0]; string(tx.Content) != converted || tx.FromParams != "BODY=8BITMIME" {
		t.Errorf("received %+v", tx)
	}
}

// Messages that need conversion and such that do not, over one connection: each
// goes with the BODY that is true of it.
func TestConvertedAndOthersOverOneConnection(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.options.Converter = converter{fits: true}
	mx := s.host("mx1.a.test", smtptest.Script{Extensions: []string{"8BITMIME", "PIPELINING", "CHUNKING"}, On: map[string][]smtptest.Step{
		"RCPT TO:<no@": smtptest.Say("550 5.1.1 no such user")}})
	s.mx("a.test", "mx1.a.test")
	refused := mail("no@a.test") // what it leaves behind is reset
	refused.attempt.Envelope.Body = queue.Body8BitMIME
	var all []*letter
	var wants []string
	for _, tt := range []struct {
		content string
		utf8    bool
		body    queue.BodyType
		params  string
		sent    string
	}{
		{"Subject: grüße\r\n\r\nx\r\n", true, queue.Body8BitMIME, "BODY=8BITMIME", converted},
		{hello, false, queue.Body7Bit, "", hello},
		{"Subject: x\r\n\r\ngrüße\r\n", true, queue.Body8BitMIME, "BODY=8BITMIME", "Subject: x\r\n\r\ngrüße\r\n"}, // the converter says that it fits
		{"Subject: x\r\n\r\ngrüße\r\n", false, queue.Body8BitMIME, "BODY=8BITMIME", "Subject: x\r\n\r\ngrüße\r\n"},
		{hello, false, queue.Body7Bit, "", hello},
	} {
		m := mail("r@a.test")
		m.content = tt.content
		m.attempt.Envelope.SMTPUTF8, m.attempt.Envelope.Body = tt.utf8, tt.body
		m.attempt.Envelope.Size = int64(len(tt.content))
		all = append(all, m)
		wants = append(wants, tt.params+": "+tt.sent)
	}
	s.deliver(append([]*letter{all[0], refused}, all[1:]...)...)
	for _, m := range all {
		checkDelivered(t, m.outcome(t))
	}
	check(t, refused.outcome(t), want{queue.Failed, queue.ScopeRecipient, queue.StageRCPT, 550, "5.1.1", "no such user"})
	var got []string
	for _, tx := range mx.Transactions() {
		if tx.IsAccepted {
			got = append(got, tx.FromParams+": "+string(tx.Content))
		}
	}
	if !slices.Equal(got, wants) {
		t.Errorf("got %q\nwant %q", got, wants)
	}
	if v := mx.Violations(); mx.Sessions() != 1 || len(v) > 0 {
		t.Errorf("%d sessions, %q", mx.Sessions(), v)
	}
}

func TestSMTPUTF8HeaderInAFile(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		head, file string
		ascii      bool
	}{
		"plain":                    {"A: b\r\n", "Subject: x\r\n\r\n\xc3\xbc", true},
		"not plain":                {"A: b\r\n", "Subject: \xc3\xbc\r\n\r\nx", false},
		"ends across the border":   {"A: b\r\n", "\r\n\xc3\xbc", true},
		"ends across the border 2": {"A: b\r\n\r", "\n\xc3\xbc", true},
		"long":                     {"A: b\r\n", strings.Repeat("X: y\r\n", 20_000) + "\r\n\xc3\xbc", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &queue.Content{Head: []byte(tt.head), File: strings.NewReader(tt.file), Size: int64(len(tt.head) + len(tt.file))}
			ascii, err := hasASCIIHeader(c)
			if err != nil || ascii != tt.ascii {
				t.Errorf("ascii %v, %v", ascii, err)
			}
			var rest strings.Builder
			if _, err := io.Copy(&rest, c.File); err != nil || rest.String() != tt.file {
				t.Errorf("what was read was not put back: %d of %d octets, %v", rest.Len(), len(tt.file), err)
			}
		})
	}
}

func TestDSNParametersArePassedOn(t *testing.T) {
	t.Parallel()
	for _, offered := range []bool{true, false} {
		s := newScene(t)
		script := smtptest.Script{Extensions: []string{"PIPELINING"}}
		if offered {
			script.Extensions = append(script.Extensions, "DSN")
		}
		mx := s.host("mx1.a.test", script)
		s.mx("a.test", "mx1.a.test")
		m := mail("a@a.test", "b@a.test", "c@a.test", "d@a.test")
		m.attempt.Envelope.Ret, m.attempt.Envelope.EnvID = queue.RetHeaders, "x+y=1"
		r := m.attempt.Recipients
		r[0].Notify, r[0].ORcpt = queue.NotifySuccess|queue.NotifyDelay, "rfc822;a+b@c.test"
		r[1].Notify = queue.NotifyNever
		r[2].ORcpt = "utf-8;jürg@c.test"
		s.deliver(m)
		want := []string{"RET=HDRS ENVID=x+2By+3D1", "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@c.test", "NOTIFY=NEVER", `ORCPT=utf-8;j\x{FC}rg@c.test`, ""}
		if !offered {
			want = []string{"", "", "", "", ""}
		}
		tx := mx.Transactions()[0]
		got := []string{tx.FromParams, tx.Rcpts[0].Params, tx.Rcpts[1].Params, tx.Rcpts[2].Params, tx.Rcpts[3].Params}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("offered %v: %q\nwant %q", offered, got, want)
		}
		for _, o := range m.report.Outcomes {
			if o.Verdict != queue.Delivered || o.Passed != offered {
				t.Errorf("offered %v: %+v", offered, o)
			}
		}
	}
}

func TestRecipientLimitOfTheHost(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script smtptest.Script
		first  []queue.Verdict
	}{
		"RCPTMAX": {smtptest.Script{Extensions: []string{"PIPELINING", "LIMITS RCPTMAX=2"}},
			[]queue.Verdict{queue.Delivered, queue.Delivered, queue.Untried}},
		"452 4.5.3": {smtptest.Script{Extensions: []string{"PIPELINING"}, On: map[string][]smtptest.Step{
			"RCPT": smtptest.Do(smtptest.Step{}, smtptest.Step{}, smtptest.Step{Reply: "452 4.5.3 too many recipients"}, smtptest.Step{})}},
			[]queue.Verdict{queue.Delivered, queue.Delivered, queue.Untried}},
		"452 without a status": {smtptest.Script{On: map[string][]smtptest.Step{
			"RCPT": smtptest.Do(smtptest.Step{}, smtptest.Step{}, smtptest.Step{Reply: "452 too many"}, smtptest.Step{})}},
			[]queue.Verdict{queue.Delivered, queue.Delivered, queue.Untried}},
		"452 for a full disk": {smtptest.Script{On: map[string][]smtptest.Step{
			"RCPT": smtptest.Do(smtptest.Step{}, smtptest.Step{}, smtptest.Step{Reply: "452 4.3.1 full"}, smtptest.Step{})}},
			[]queue.Verdict{queue.Delivered, queue.Delivered, queue.Deferred}},
		"452 4.5.3 to the first": {smtptest.Script{On: map[string][]smtptest.Step{
			"RCPT": smtptest.Say("452 4.5.3 too many recipients")}},
			[]queue.Verdict{queue.Deferred, queue.Deferred, queue.Deferred}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.host("mx1.a.test", tt.script)
			s.mx("a.test", "mx1.a.test")
			m := mail("a@a.test", "b@a.test", "c@a.test")
			s.deliver(m)
			for i, v := range tt.first {
				if m.report.Outcomes[i].Verdict != v {
					t.Errorf("recipient %d: %s, want verdict %d", i, show(m.report.Outcomes[i]), v)
				}
			}
			if tt.first[2] == queue.Untried && m.report.MaxRecipients != 2 {
				t.Errorf("the limit that was learnt is %d", m.report.MaxRecipients)
			}
		})
	}
}

func TestAddressThatCannotBeWrittenFails(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	mx := s.host("mx1.a.test", smtptest.Script{Extensions: modern})
	s.mx("a.test", "mx1.a.test")
	m, next := mail("r> BODY=X\r\nRCPT TO:<x@a.test"), mail("r@a.test")
	m.attempt.Recipients[0].Domain = "a.test"
	s.deliver(m, next)
	check(t, m.outcome(t), want{queue.Failed, queue.ScopeMessage, queue.StagePolicy, 0, "5.1.3", "not sent"})
	checkDelivered(t, next.outcome(t))
	if n := len(mx.Transactions()); n != 1 {
		t.Errorf("%d transactions", n)
	}
}

func TestWireORCPT(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                    "",
		"no type":             "",
		"rfc822;a@b.test":     "rfc822;a@b.test",
		"rfc822;a b+c@d.test": "rfc822;a+20b+2Bc@d.test",
		"utf-8;a@b.test":      "utf-8;a@b.test",
		`utf-8;a+b=\ c@d`:     `utf-8;a\x{2B}b\x{3D}\x{5C}\x{20}c@d`,
		"UTF-8;Ω@b.test":      `UTF-8;\x{3A9}@b.test`,
	} {
		if got := wireORCPT(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
