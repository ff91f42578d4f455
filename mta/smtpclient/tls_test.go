package smtpclient

import (
	"crypto/tls"
	"testing"
	"time"

	"postrider/mta/smtptest"
)

func testCA(t testing.TB) *smtptest.CA {
	t.Helper()
	ca, err := smtptest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func serverTLS(t testing.TB, ca *smtptest.CA) *tls.Config {
	t.Helper()
	c, err := ca.TLS("mx.test")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSTARTTLS(t *testing.T) {
	t.Parallel()
	ca := testCA(t)
	server := start(t, smtptest.Script{Extensions: append([]string{"STARTTLS", "X-CLEAR"}, chunking...), TLS: serverTLS(t, ca)})
	s := greeted(t, server, Options{})
	if !s.Extensions().StartTLS || s.TLS() != nil {
		t.Fatalf("%+v, %+v", s.Extensions(), s.TLS())
	}
	if err := s.StartTLS(t.Context(), &tls.Config{ServerName: "mx.test", RootCAs: ca.Pool()}); err != nil {
		t.Fatal(err)
	}
	if s.Extensions().StartTLS || !s.Extensions().Chunking || s.TLS() == nil || s.TLS().Version != tls.VersionTLS13 {
		t.Fatalf("%+v, %+v", s.Extensions(), s.TLS())
	}
	mustDeliver(t, s, message("a@a.test", "\r\n", "b@b.test"), message("a@a.test", large(), "b@b.test"), messages(1)[0])
	for _, tx := range server.Transactions() {
		if !tx.IsTLS {
			t.Errorf("in clear: %+v", tx)
		}
	}
	wantNoViolations(t, server)
	wantArrived(t, server, sent("\r\n"), sent(large()), sent("\r\nbody 0\r\n"))
	// One flight for a message under TLS, too.
	if got := flights(server); len(got) != 7 || len(got[3]) != 4 || len(got[6]) != 2 {
		t.Errorf("flights: %q", got)
	}
}

// What a server offered in clear is forgotten: it may have been somebody else.
func TestExtensionsAreForgottenAfterSTARTTLS(t *testing.T) {
	t.Parallel()
	ca := testCA(t)
	server := start(t, smtptest.Script{TLS: serverTLS(t, ca), On: map[string][]smtptest.Step{"EHLO": {
		{Reply: "250 mx.test\nSTARTTLS\nPIPELINING\nCHUNKING\nSIZE 1\nLIMITS RCPTMAX=1\nAUTH PLAIN"},
		{Reply: "250 mx.test"},
	}}})
	s := greeted(t, server, Options{})
	if err := s.StartTLS(t.Context(), &tls.Config{ServerName: "mx.test", RootCAs: ca.Pool()}); err != nil {
		t.Fatal(err)
	}
	if e := s.Extensions(); e.Pipelining || e.Chunking || e.SizeKnown || e.RcptMax != 0 || e.Auth != nil || e.Name != "mx.test" {
		t.Errorf("%+v", e)
	}
	mustDeliver(t, s, messages(1)...)
	if n := len(server.Flights()); n != 7 { // EHLO, STARTTLS, EHLO, MAIL, RCPT, DATA, content
		t.Errorf("%d flights: %q", n, flights(server))
	}
}

func TestSTARTTLSFailures(t *testing.T) {
	t.Parallel()
	ca := testCA(t)
	good := serverTLS(t, ca)
	wrongName, err := ca.TLS("other.test")
	if err != nil {
		t.Fatal(err)
	}
	expiredCert, err := ca.IssueUntil(time.Now().Add(-time.Hour), "mx.test")
	if err != nil {
		t.Fatal(err)
	}
	old, err := ca.OldTLS("mx.test")
	if err != nil {
		t.Fatal(err)
	}
	offered := []string{"starttls"}
	tests := []struct {
		name   string
		script smtptest.Script
		stage  Stage
		kind   Kind
		cause  error
	}{
		{"not offered", smtptest.Script{TLS: good}, StageSTARTTLS, KindProtocol, ErrNotOffered},
		{"refused", smtptest.Script{Extensions: offered, On: map[string][]smtptest.Step{"STARTTLS": smtptest.Say("454 4.7.0 not now")}}, StageSTARTTLS, KindReply, nil},
		{"wrong code", smtptest.Script{Extensions: offered, On: map[string][]smtptest.Step{"STARTTLS": smtptest.Say("250 fine")}}, StageSTARTTLS, KindProtocol, ErrUnexpectedReply},
		{"injected", smtptest.Script{Extensions: offered, TLS: good, On: map[string][]smtptest.Step{"STARTTLS": {{Raw: "220 go\r\n250 mx.test\r\n"}}}}, StageSTARTTLS, KindProtocol, ErrInjected},
		{"injected half a line", smtptest.Script{Extensions: offered, TLS: good, On: map[string][]smtptest.Step{"STARTTLS": {{Raw: "220 go\r\n2"}}}}, StageSTARTTLS, KindProtocol, ErrInjected},
		{"closed", smtptest.Script{Extensions: offered, TLS: good, On: map[string][]smtptest.Step{"STARTTLS": {{Then: smtptest.Close}}}}, StageSTARTTLS, KindClosed, nil},
		{"closed in the handshake", smtptest.Script{Extensions: offered, TLS: good, On: map[string][]smtptest.Step{smtptest.OnTLS: {{Then: smtptest.Close}}}}, StageTLS, KindTLS, nil},
		{"garbage in the handshake", smtptest.Script{Extensions: offered, TLS: good, On: map[string][]smtptest.Step{smtptest.OnTLS: {{Raw: "500 what is this?\r\n"}}}}, StageTLS, KindTLS, nil},
		{"wrong name", smtptest.Script{Extensions: offered, TLS: wrongName}, StageTLS, KindTLS, nil},
		{"expired", smtptest.Script{Extensions: offered, TLS: &tls.Config{Certificates: []tls.Certificate{expiredCert}}}, StageTLS, KindTLS, nil},
		{"TLS 1.0 only", smtptest.Script{Extensions: offered, TLS: old}, StageTLS, KindTLS, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := start(t, tt.script)
			s := greeted(t, server, Options{})
			err := s.StartTLS(t.Context(), &tls.Config{ServerName: "mx.test", RootCAs: ca.Pool()})
			wantError(t, err, tt.stage, tt.kind, tt.cause)
			if err := s.Run(t.Context(), nil, nil); err == nil {
				t.Error("a dead session runs")
			}
			if n := len(server.Transactions()); n > 0 {
				t.Errorf("%d transactions", n)
			}
		})
	}
	t.Run("TLS 1.0 where allowed", func(t *testing.T) {
		t.Parallel()
		server := start(t, smtptest.Script{Extensions: offered, TLS: old})
		s := greeted(t, server, Options{})
		if err := s.StartTLS(t.Context(), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10}); err != nil {
			t.Fatal(err)
		}
		mustDeliver(t, s, messages(2)...)
	})
	t.Run("handshake stalls", func(t *testing.T) {
		t.Parallel()
		server := start(t, smtptest.Script{Extensions: offered, TLS: good, On: map[string][]smtptest.Step{smtptest.OnTLS: {{Then: smtptest.Hang}}}})
		o := Options{Timeouts: long}
		o.Timeouts.TLS = 50 * time.Millisecond
		s := greeted(t, server, o)
		wantError(t, s.StartTLS(t.Context(), &tls.Config{ServerName: "mx.test"}), StageTLS, KindTimeout, nil)
	})
}

func TestEarlyReplyInContentUnderTLS(t *testing.T) {
	t.Parallel()
	ca := testCA(t)
	for _, then := range []smtptest.Then{smtptest.Close, smtptest.Hang} {
		server := start(t, smtptest.Script{Extensions: append([]string{"STARTTLS"}, chunking...), TLS: serverTLS(t, ca),
			On: map[string][]smtptest.Step{smtptest.OnContent: {{After: 1000, Reply: "552 5.3.4 too much", Then: then}}}})
		s := greeted(t, server, Options{})
		if err := s.StartTLS(t.Context(), &tls.Config{ServerName: "mx.test", RootCAs: ca.Pool()}); err != nil {
			t.Fatal(err)
		}
		tx, _ := fileMessage(dotLines(30<<20), 30<<20)
		results, err := run(t, s, tx)
		wantError(t, err, StageContent, KindReply, nil)
		if r := results[0]; r.Final.Code != 552 || r.Sent {
			t.Errorf("%+v", r)
		}
	}
}
