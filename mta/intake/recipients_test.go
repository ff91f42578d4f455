package intake_test

import (
	"fmt"
	"strings"
	"testing"

	"postrider/mta/intake"
	"postrider/queue"
)

func withLocalMail(o *intake.Options) {
	o.LocalMailTo = "admin@Office.test"
	o.LocalNames = []string{"web1"}
}

func TestRecipients(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		to   []string
		want string // address/domain/orcpt, joined by a blank
		utf8 bool
		bad  string // the refusal's start
		bare bool   // without local_mail_to
	}{
		{name: "plain", to: []string{"bob@B.test"}, want: "bob@B.test/b.test/"},
		{name: "several domains", to: []string{"bob@b.test", "carl@c.test"}, want: "bob@b.test/b.test/ carl@c.test/c.test/"},
		{name: "repeated", to: []string{"bob@b.test", "carl@c.test", "bob@B.TEST", `"bob"@b.test`}, want: "bob@b.test/b.test/ carl@c.test/c.test/"},
		{name: "differ in the local part's case", to: []string{"bob@b.test", "Bob@b.test"}, want: "bob@b.test/b.test/ Bob@b.test/b.test/"},
		{name: "domain beyond ASCII", to: []string{"bob@bücher.test", "bob@xn--bcher-kva.test"}, want: "bob@xn--bcher-kva.test/xn--bcher-kva.test/"},
		{name: "all beyond ASCII", to: []string{"jürgen@bücher.test"}, want: "jürgen@bücher.test/xn--bcher-kva.test/", utf8: true},
		{name: "literal", to: []string{"bob@[192.0.2.1]"}, want: "bob@[192.0.2.1]/[192.0.2.1]/"},
		{name: "root", to: []string{"root"}, want: "admin@Office.test/office.test/rfc822;root@mx.home.test"},
		{name: "root here", to: []string{"root@MX.home.test"}, want: "admin@Office.test/office.test/rfc822;root@MX.home.test"},
		{name: "root on localhost", to: []string{"root@localhost"}, want: "admin@Office.test/office.test/rfc822;root@localhost"},
		{name: "root by another name of the host", to: []string{"root@web1"}, want: "admin@Office.test/office.test/rfc822;root@web1"},
		{name: "local mail joins", to: []string{"root", "www-data", "admin@office.test"}, want: "admin@Office.test/office.test/rfc822;root@mx.home.test"},
		{name: "nobody takes local mail", to: []string{"bob@b.test", "root"}, bare: true, bad: "550 5.1.1 no mailbox root@mx.home.test on this host, which only sends; set local_mail_to"},
		{name: "bad", to: []string{"bob@b.test", "bob@b..test"}, bad: `553 5.1.3 recipient address "bob@b..test": an empty label`},
		{name: "with a line end", to: []string{"bob@b.test\r\nDATA"}, bad: "553 5.1.3"},
		{name: "none", to: []string{}, bad: "554 5.5.1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newShelf(t)
			r := newReceiver(t, s, func(o *intake.Options) {
				if !tt.bare {
					withLocalMail(o)
				}
			})
			m := meta(tt.to...)
			if len(tt.to) == 0 {
				m.Envelope.Recipients = nil
			}
			err := take(r, m, full+"\r\n", 0)
			if tt.bad != "" {
				if e := refusal(t, err); !strings.HasPrefix(e.Error(), tt.bad) {
					t.Errorf("got %v; want %q", err, tt.bad)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, rcpt := range s.last.env.Recipients {
				got = append(got, rcpt.Address+"/"+rcpt.Domain+"/"+rcpt.ORcpt)
			}
			if g := strings.Join(got, " "); g != tt.want || s.last.env.SMTPUTF8 != tt.utf8 {
				t.Errorf("got %q, SMTPUTF8 %t; want %q", g, s.last.env.SMTPUTF8, tt.want)
			}
		})
	}
}

func TestRepeatsKeepTheFirst(t *testing.T) {
	t.Parallel()
	for _, n := range []int{3, 30} { // compared, and with a map
		s := newShelf(t)
		r := newReceiver(t, s, nil)
		m := meta()
		m.Envelope.Recipients = nil
		for i := range 2 * n {
			m.Envelope.Recipients = append(m.Envelope.Recipients, queue.Recipient{Address: fmt.Sprintf("r%d@b.test", i%n), ORcpt: fmt.Sprint(i)})
		}
		mustTake(t, r, m, full+"\r\n")
		got := s.last.env.Recipients
		if len(got) != n || got[n-1].ORcpt != fmt.Sprint(n-1) {
			t.Errorf("%d recipients, the last is %+v", len(got), got[len(got)-1])
		}
	}
}

func TestORcptIsKept(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r := newReceiver(t, s, withLocalMail)
	m := meta()
	m.Envelope.Recipients = []queue.Recipient{{Address: "root", ORcpt: "rfc822;list@a.test", Notify: queue.NotifySuccess}}
	mustTake(t, r, m, full+"\r\n")
	if got := s.last.env.Recipients[0]; got.ORcpt != "rfc822;list@a.test" || got.Notify != queue.NotifySuccess {
		t.Errorf("got %+v", got)
	}
}

func TestMaxRecipients(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r := newReceiver(t, s, func(o *intake.Options) { o.MaxRecipients = 2 })
	mustTake(t, r, meta("a@b.test", "c@d.test", "a@b.test"), full+"\r\n")
	if e := refusal(t, take(r, meta("a@b.test", "c@d.test", "e@f.test"), full+"\r\n", 0)); e.Code != 550 || e.Status != "5.5.3" {
		t.Errorf("got %v", e)
	}
	m := meta()
	m.RecipientsFromHeader = true
	if e := refusal(t, take(r, m, full+"To: a@b.test, c@d.test, e@f.test\r\n\r\n", 0)); !strings.Contains(e.Text, "more than 2 recipients") {
		t.Errorf("got %v", e)
	}
}

func TestCheckRecipient(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, newShelf(t), nil)
	if err := r.CheckRecipient("bob@b.test"); err != nil {
		t.Error(err)
	}
	if e := refusal(t, r.CheckRecipient("root")); e.Status != "5.1.1" {
		t.Errorf("got %v", e)
	}
	if e := refusal(t, r.CheckRecipient("@")); e.Status != "5.1.3" {
		t.Errorf("got %v", e)
	}
}

func TestSender(t *testing.T) {
	t.Parallel()
	tests := []struct {
		sender, want string
		utf8         bool
		bad          string
	}{
		{sender: "", want: ""},
		{sender: "ann@a.test", want: "ann@a.test"},
		{sender: "root", want: "root@mx.home.test"},
		{sender: "ann@bücher.test", want: "ann@xn--bcher-kva.test"},
		{sender: "jürgen@a.test", want: "jürgen@a.test", utf8: true},
		{sender: "a b@a.test", bad: `553 5.1.7 sender address "a b@a.test": a blank`},
		{sender: "ann@a.test> SIZE=1", bad: "553 5.1.7"},
	}
	for _, tt := range tests {
		s := newShelf(t)
		r := newReceiver(t, s, nil)
		m := meta()
		m.Envelope.Sender = tt.sender
		err := take(r, m, full+"\r\n", 0)
		if tt.bad != "" {
			if e := refusal(t, err); !strings.HasPrefix(e.Error(), tt.bad) {
				t.Errorf("%q: %v", tt.sender, err)
			}
			continue
		}
		if err != nil || s.last.env.Sender != tt.want || s.last.env.SMTPUTF8 != tt.utf8 {
			t.Errorf("%q became %q, SMTPUTF8 %t, %v", tt.sender, s.last.env.Sender, s.last.env.SMTPUTF8, err)
		}
	}
}

func TestNullSenderWithoutFrom(t *testing.T) {
	t.Parallel()
	s := newShelf(t)
	r := newReceiver(t, s, nil)
	m := meta()
	m.Envelope.Sender = ""
	mustTake(t, r, m, "Subject: x\n\n")
	if !strings.Contains(s.last.prefix, "\r\nFrom: MAILER-DAEMON@mx.home.test\r\n") {
		t.Errorf("prefix %q", s.last.prefix)
	}
}

// TestEnvelopeFromHeader is for messages that are handed over without an
// envelope, as files and by sendmail -t.
func TestEnvelopeFromHeader(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in   string
		sender     string
		recipients string
		bad        string
	}{
		{name: "From and To", in: "From: Ann <ann@a.test>\nTo: Bob <bob@b.test>\n\n", sender: "ann@a.test", recipients: "bob@b.test"},
		{name: "To, Cc and Bcc", in: "From: ann@a.test\nTo: bob@b.test,\n carl@c.test\nCc: bob@b.test\nBCC: dora@d.test\n\n", sender: "ann@a.test", recipients: "bob@b.test carl@c.test dora@d.test"},
		{name: "two To fields", in: "From: ann@a.test\nTo: bob@b.test\nTo: carl@c.test\n\n", sender: "ann@a.test", recipients: "bob@b.test carl@c.test"},
		{name: "Sender", in: "From: ann@a.test, eve@e.test\nSender: secretary@a.test\nTo: bob@b.test\n\n", sender: "secretary@a.test", recipients: "bob@b.test"},
		{name: "Sender behind From", in: "Sender: secretary@a.test\nFrom: ann@a.test\nTo: bob@b.test\n\n", sender: "secretary@a.test", recipients: "bob@b.test"},
		{name: "several authors", in: "From: ann@a.test, eve@e.test\nTo: bob@b.test\n\n", sender: "ann@a.test", recipients: "bob@b.test"},
		{name: "cron", in: "From: root (Cron Daemon)\nTo: root\n\n", sender: "root@mx.home.test", recipients: "admin@Office.test"},
		{name: "resent", in: "Resent-From: carl@c.test\nResent-To: dora@d.test\nResent-Bcc: emil@e.test\nFrom: ann@a.test\nTo: bob@b.test\n\n", sender: "carl@c.test", recipients: "dora@d.test emil@e.test"},
		{name: "resent twice", in: "Resent-From: carl@c.test\nResent-To: dora@d.test\nResent-From: ann@a.test\nResent-To: carl@c.test\nFrom: ann@a.test\nTo: bob@b.test\n\n", sender: "carl@c.test", recipients: "dora@d.test"},
		{name: "no recipients", in: "From: ann@a.test\nSubject: x\n\n", bad: "554 5.6.0 no recipients"},
		{name: "empty group", in: "From: ann@a.test\nTo: undisclosed-recipients:;\n\n", bad: "554 5.6.0 no recipients"},
		{name: "no sender", in: "To: bob@b.test\n\n", bad: "554 5.6.0 no sender"},
		{name: "unreadable To", in: "From: ann@a.test\nTo: Bob bob@b.test\n\n", bad: "554 5.6.0 line 2: To: "},
		{name: "unreadable Bcc", in: "From: ann@a.test\nTo: bob@b.test\nBcc: <carl\n\n", bad: "554 5.6.0 line 3: Bcc: "},
		{name: "mere text", in: "hello\n", bad: "554 5.6.0 no sender"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newShelf(t)
			r := newReceiver(t, s, withLocalMail)
			m := intake.Meta{Envelope: &queue.Envelope{}, RecipientsFromHeader: true, SenderFromHeader: true}
			err := take(r, m, tt.in, 0)
			if tt.bad != "" {
				if e := refusal(t, err); !strings.HasPrefix(e.Error(), tt.bad) {
					t.Errorf("got %v; want %q", err, tt.bad)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, rcpt := range s.last.env.Recipients {
				got = append(got, rcpt.Address)
			}
			if g := strings.Join(got, " "); s.last.env.Sender != tt.sender || g != tt.recipients {
				t.Errorf("from %q to %q; want %q to %q", s.last.env.Sender, g, tt.sender, tt.recipients)
			}
			if strings.Contains(strings.ToLower(s.last.body), "bcc:") {
				t.Errorf("a Bcc field is left in %q", s.last.body)
			}
		})
	}
}
