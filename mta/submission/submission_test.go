package submission_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"postrider/mta/intake"
	"postrider/mta/submission"
	"postrider/queue"
)

func TestEnvelope(t *testing.T) {
	t.Parallel()
	s := &shelf{}
	addr, _ := start(t, submission.Options{Intake: s, Users: passwords{}}, submission.Policy{Auth: submission.AuthOptional, TLS: certificate(t), MaxMessageSize: 5000}, "")
	c := dial(t, addr)
	c.says("EHLO shop.sender.test", "250")
	c.startTLS()
	c.says("EHLO shop.sender.test", "250")
	c.says(plain("shop", "s3cret"), "235")
	c.says("MAIL FROM:<jürgen@sender.test> BODY=8BITMIME SMTPUTF8 REQUIRETLS RET=HDRS ENVID=QQ+2B1", "250")
	c.says("RCPT TO:<a@c.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;A@c.test", "250")
	c.says("RCPT TO:<postmaster> NOTIFY=NEVER", "250")
	c.says("RCPT TO:<root> NOTIFY=DELAY", "250")
	c.says("DATA", "354")
	c.says("Subject: x\r\n\r\n..\r\n.", "250 2.0.0 "+shelfID.String()+" queued")
	c.says("MAIL FROM:<> RET=FULL", "250")
	c.says("RCPT TO:<a@c.test>", "250")
	c.says("DATA", "354")
	c.says("y\r\n.", "250 2.0.0")
	c.says("MAIL FROM:<>", "250")
	c.says("RSET", "250") // gives nothing back a second time
	c.says("QUIT", "221")

	want := &queue.Envelope{
		Sender: "jürgen@sender.test", Body: queue.Body8BitMIME, SMTPUTF8: true, RequireTLS: true, Ret: queue.RetHeaders, EnvID: "QQ+1",
		Recipients: []queue.Recipient{
			{Address: "a@c.test", Notify: queue.NotifySuccess | queue.NotifyFailure, ORcpt: "rfc822;A@c.test"},
			{Address: "postmaster", Notify: queue.NotifyNever},
			{Address: "root", Notify: queue.NotifyDelay},
		},
		Origin: queue.Origin{Via: "smtp", Client: netip.MustParseAddr("127.0.0.1"), HELO: "shop.sender.test", User: "shop", TLS: true},
	}
	if got := s.metas[0]; !reflect.DeepEqual(got.Envelope, want) || got.Protocol != "UTF8SMTPSA" || got.MaxSize != 5000 || got.StrictLineEnds || got.SkipReceived {
		t.Errorf("got %+v of %+v, want %+v", got, got.Envelope, want)
	}
	if s.content[0] != "Subject: x\r\n\r\n.\r\n" {
		t.Errorf("content %q", s.content[0])
	}
	if e := s.metas[1].Envelope; e.Sender != "" || e.Ret != queue.RetFull || e.SMTPUTF8 || e.RequireTLS || len(e.Recipients) != 1 {
		t.Errorf("second envelope %+v", e)
	}
	if s.metas[1].Protocol != "ESMTPSA" {
		t.Errorf("protocol %q", s.metas[1].Protocol)
	}
	if s.aborted != 2 {
		t.Errorf("Abort was called %d times", s.aborted)
	}
}

func TestProtocol(t *testing.T) {
	t.Parallel()
	s := &shelf{}
	addr, _ := start(t, submission.Options{Intake: s}, submission.Policy{TrustedNetworks: loopback()}, "")
	for _, hello := range []string{"HELO", "EHLO"} {
		c := dial(t, addr)
		c.says(hello+" x", "250")
		c.says("MAIL FROM:<a@b.test>", "250")
		c.says("RCPT TO:<c@d.test>", "250")
		c.says("DATA", "354")
		c.says("x\r\n.", "250")
	}
	if s.metas[0].Protocol != "SMTP" || s.metas[1].Protocol != "ESMTP" {
		t.Errorf("%q, %q", s.metas[0].Protocol, s.metas[1].Protocol)
	}
}

// Who may submit: where from, with what policy, authenticated or not.
func TestWhoMaySubmit(t *testing.T) {
	t.Parallel()
	trusted := append(loopback(), netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32"))
	const yes, auth, authTLS, no = "250 2.1.0", "530 5.7.0 authentication required", "530 5.7.0 authentication required, which is offered inside TLS only", "550 5.7.1 relaying denied"
	tests := []struct {
		client string
		auth   submission.Auth
		users  bool
		plain  string // first
		tls    string // after STARTTLS
		login  string // after AUTH; empty: none is offered
	}{
		{"127.0.0.1", submission.AuthNone, true, yes, yes, ""},
		{"192.0.2.7", submission.AuthNone, true, yes, yes, ""},
		{"2001:db8::7", submission.AuthNone, true, yes, yes, ""},
		{"::ffff:192.0.2.7", submission.AuthNone, true, yes, yes, ""},
		{"198.51.100.7", submission.AuthNone, true, no, no, ""},
		{"2001:db9::7", submission.AuthNone, true, no, no, ""},
		{"127.0.0.1", submission.AuthOptional, true, yes, yes, yes},
		{"198.51.100.7", submission.AuthOptional, true, authTLS, auth, yes},
		{"198.51.100.7", submission.AuthOptional, false, no, no, ""},
		{"127.0.0.1", submission.AuthRequired, true, auth, auth, yes},
		{"192.0.2.7", submission.AuthRequired, true, authTLS, auth, yes},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(test.client, ", ", test.auth, ", ", test.users), func(t *testing.T) {
			t.Parallel()
			seen := &refusals{}
			o := submission.Options{Intake: &shelf{}, Observer: seen}
			if test.users {
				o.Users = passwords{}
			}
			addr, _ := start(t, o, submission.Policy{TrustedNetworks: trusted, Auth: test.auth, TLS: certificate(t)}, test.client)
			c := dial(t, addr)
			c.says("EHLO x", "250")
			c.says("MAIL FROM:<a@b.test>", test.plain)
			c.startTLS()
			c.says("EHLO x", "250")
			c.says("MAIL FROM:<a@b.test>", test.tls)
			c.says("RSET", "250")
			if test.login == "" {
				c.says(plain("shop", "s3cret"), "502 5.5.1")
			} else {
				c.says(plain("shop", "guess"), "535 5.7.8")
				c.says(plain("shop", "s3cret"), "235")
				c.says("MAIL FROM:<a@b.test>", test.login)
			}
			wantSeen := ""
			if test.plain != yes {
				status := test.plain[4:9]
				wantSeen = "smtp " + status + ", smtp " + status
			}
			if got := seen.String(); got != wantSeen {
				t.Errorf("observer saw %q, want %q", got, wantSeen)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	of := func(code int, status string) *intake.Error {
		return &intake.Error{Code: code, Status: status, Text: "because", Err: errors.New("cause")}
	}
	tests := map[string]struct {
		shelf *shelf
		step  int // 0 MAIL, 1 RCPT, 2 DATA, 3 the content
		want  string
	}{
		"recipient":          {&shelf{rcptErr: of(550, "5.1.1")}, 1, "550 5.1.1 because"},
		"recipient, unknown": {&shelf{rcptErr: io.ErrUnexpectedEOF}, 1, "451 4.3.0"},
		"begin":              {&shelf{beginErr: of(451, "4.3.2")}, 2, "451 4.3.2 because"},
		"begin, unknown":     {&shelf{beginErr: io.ErrUnexpectedEOF}, 2, "451 4.3.0"},
		"write":              {&shelf{writeErr: of(552, "5.3.4")}, 3, "552 5.3.4 because"},
		"commit":             {&shelf{commitErr: of(554, "5.6.0")}, 3, "554 5.6.0 because"},
		"commit, full":       {&shelf{commitErr: fmt.Errorf("submit: %w", queue.ErrFull)}, 3, "452 4.3.1"},
		"commit, closed":     {&shelf{commitErr: queue.ErrClosed}, 3, "421 4.3.2"},
		"commit, unknown":    {&shelf{commitErr: io.ErrUnexpectedEOF}, 3, "451 4.3.0"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := test.shelf
			addr, _ := start(t, submission.Options{Intake: s}, submission.Policy{TrustedNetworks: loopback()}, "")
			c := dial(t, addr)
			c.says("EHLO x", "250")
			good := []string{"250 2.1.0", "250 2.1.5", "354", "250 2.0.0"}
			for i, line := range []string{"MAIL FROM:<a@b.test>", "RCPT TO:<refused@d.test>", "DATA", "hello\r\n."} {
				if i == test.step {
					c.says(line, test.want)
					break
				}
				c.says(line, good[i])
			}
			if len(s.content) != 0 {
				t.Error("the message was taken")
			}
			if begun := len(s.metas); s.aborted != begun {
				t.Errorf("%d messages begun, %d given back", begun, s.aborted)
			}
		})
	}
}

func TestAddressesAndLimits(t *testing.T) {
	t.Parallel()
	seen := &refusals{}
	addr, _ := start(t, submission.Options{Intake: &shelf{}, Observer: seen}, submission.Policy{TrustedNetworks: loopback(), MaxRecipients: 2, MaxMessageSize: 100}, "")
	c := dial(t, addr)
	ehlo := c.says("EHLO x", "250")
	for _, word := range []string{"PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE 100", "LIMITS RCPTMAX=2", "ENHANCEDSTATUSCODES"} {
		if !strings.Contains(ehlo, word) {
			t.Errorf("EHLO without %s: %q", word, ehlo)
		}
	}
	c.says("MAIL FROM:<a@b..c>", "553 5.1.7")
	c.says("MAIL FROM:<a@-%$>", "553 5.1.7")
	c.says(`MAIL FROM:<a b@c.test>`, "553 5.1.7")
	c.says("MAIL FROM:<root>", "250")
	for range 2 {
		c.says(`RCPT TO:<"a b"@c.test>`, "250")
	}
	c.says("RCPT TO:<c@d.test>", "452 4.5.3")
	c.says("DATA", "354")
	c.says(strings.Repeat("x", 99)+"\r\n.", "552 5.3.4")
	if got := seen.String(); got != "smtp 5.1.7, smtp 5.1.7, smtp 5.1.7" {
		t.Errorf("observer saw %q", got)
	}
}

func TestDisabled(t *testing.T) {
	t.Parallel()
	seen := &refusals{}
	addr, _ := start(t, submission.Options{Intake: &shelf{}, Disabled: true, Observer: seen}, submission.Policy{TrustedNetworks: loopback()}, "")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := wrap(t, conn)
	c.reads("421 4.3.2")
	if _, err := c.text.ReadLine(); err != io.EOF {
		t.Errorf("after the 421: %v", err)
	}
	if seen.String() != "smtp 4.3.2" {
		t.Errorf("observer saw %q", seen)
	}
}

func TestConnectionsOfAllListeners(t *testing.T) {
	t.Parallel()
	var all []submission.Listener
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, submission.Listener{Listener: l, Policy: submission.Policy{TrustedNetworks: loopback()}})
	}
	s, err := submission.New(submission.Options{Hostname: "mail.sender.test", Intake: &shelf{}, MaxConnections: 2}, all...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	first, second := dial(t, all[0].Addr().String()), dial(t, all[1].Addr().String())
	for _, l := range all {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		wrap(t, conn).reads("421 4.7.0")
	}
	if st := s.Stats(); s.Open() != 2 || st.Open != 2 || st.Refused != 2 || st.Connections != 4 {
		t.Errorf("%d open, %+v", s.Open(), st)
	}
	cancel()
	first.reads("421 4.3.2")
	second.reads("421 4.3.2")
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A listener that breaks ends the server, with the reason.
func TestBrokenListener(t *testing.T) {
	t.Parallel()
	var all []submission.Listener
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, submission.Listener{Listener: l})
	}
	s, err := submission.New(submission.Options{Hostname: "mail.sender.test", Intake: &shelf{}}, all...)
	if err != nil {
		t.Fatal(err)
	}
	all[1].Close()
	if err := s.Run(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
}

// addrOnly is a listener of which only the address matters.
type addrOnly struct {
	net.Listener
	ip string
}

func (a addrOnly) Addr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(a.ip), Port: 25} }

// What would be open to strangers, or to nobody, does not start.
func TestNewRefuses(t *testing.T) {
	t.Parallel()
	net24, cfg := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, certificate(t)
	tests := map[string]struct {
		ip     string
		users  bool
		policy submission.Policy
		want   string // in the error; empty: fine
	}{
		"loopback":                   {"127.0.0.1", false, submission.Policy{TrustedNetworks: loopback()}, ""},
		"beyond, nobody":             {"192.0.2.1", false, submission.Policy{TrustedNetworks: loopback()}, "nobody there could submit"},
		"all addresses, nobody":      {"::", false, submission.Policy{TrustedNetworks: loopback(), Auth: submission.AuthOptional}, "nobody there could submit"},
		"beyond, trusted":            {"192.0.2.1", false, submission.Policy{TrustedNetworks: net24}, ""},
		"beyond, AUTH":               {"192.0.2.1", true, submission.Policy{Auth: submission.AuthRequired, TLS: cfg}, ""},
		"beyond, AUTH in clear":      {"192.0.2.1", true, submission.Policy{Auth: submission.AuthOptional}, "nobody there could submit"},
		"trusted, but AUTH in clear": {"192.0.2.1", true, submission.Policy{TrustedNetworks: net24, Auth: submission.AuthRequired}, "nobody there could submit"},
		"AUTH without users":         {"127.0.0.1", false, submission.Policy{Auth: submission.AuthRequired}, "no users"},
		"open relay":                 {"127.0.0.1", false, submission.Policy{TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}, "open relay"},
		"open relay over IPv6":       {"::1", false, submission.Policy{TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("2000::/3")}}, "open relay"},
		"the widest networks":        {"::1", false, submission.Policy{TrustedNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fc00::/7")}}, ""},
		"implicit TLS without a key": {"127.0.0.1", false, submission.Policy{ImplicitTLS: true}, "certificate"},
	}
	for name, test := range tests {
		o := submission.Options{Hostname: "mail.sender.test", Intake: &shelf{}}
		if test.users {
			o.Users = passwords{}
		}
		_, err := submission.New(o, submission.Listener{Listener: addrOnly{ip: test.ip}, Policy: test.policy})
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	if _, err := submission.New(submission.Options{Hostname: "x"}); err == nil {
		t.Error("no intake was taken")
	}
	if _, err := submission.New(submission.Options{Intake: &shelf{}, Hostname: "a b"}, submission.Listener{Listener: addrOnly{ip: "127.0.0.1"}}); err == nil {
		t.Error("a bad host name was taken")
	}
}

func TestImplicitTLS(t *testing.T) {
	t.Parallel()
	s := &shelf{}
	addr, _ := start(t, submission.Options{Intake: s}, submission.Policy{TrustedNetworks: loopback(), TLS: certificate(t), ImplicitTLS: true}, "")
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	c := wrap(t, conn)
	c.reads("220")
	if got := c.says("EHLO x", "250"); strings.Contains(got, "STARTTLS") {
		t.Errorf("EHLO %q", got)
	}
	c.says("MAIL FROM:<a@b.test> REQUIRETLS", "250")
	c.says("RCPT TO:<c@d.test>", "250")
	c.says("BDAT 3 LAST\r\nx", "250 2.0.0")
	if len(s.metas) != 1 || s.metas[0].Protocol != "ESMTPS" || !s.metas[0].Envelope.Origin.TLS {
		t.Errorf("%+v", s.metas)
	}
}
