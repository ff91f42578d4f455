package smtpclient

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"
)

// inbox is a backend of go-smtp, the server that shares no code with this
// package.
type inbox struct {
	mu       sync.Mutex
	messages []inboxMessage
}

type inboxMessage struct {
	from    string
	mail    smtp.MailOptions
	to      []string
	rcpt    []smtp.RcptOptions
	content []byte
}

func (b *inbox) NewSession(*smtp.Conn) (smtp.Session, error) { return &inboxSession{inbox: b}, nil }

type inboxSession struct {
	inbox *inbox
	m     inboxMessage
}

func (s *inboxSession) Reset()        { s.m = inboxMessage{} }
func (s *inboxSession) Logout() error { return nil }

func (s *inboxSession) Mail(from string, o *smtp.MailOptions) error {
	s.m.from, s.m.mail = from, *o
	return nil
}

func (s *inboxSession) Rcpt(to string, o *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "no@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	s.m.to, s.m.rcpt = append(s.m.to, to), append(s.m.rcpt, *o)
	return nil
}

func (s *inboxSession) Data(r io.Reader) error {
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if bytes.Contains(content, []byte("refuse me")) {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "refused"}
	}
	s.m.content = content
	s.inbox.mu.Lock()
	defer s.inbox.mu.Unlock()
	s.inbox.messages = append(s.inbox.messages, s.m)
	return nil
}

func goSMTP(t *testing.T, box *inbox, change func(*smtp.Server)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := smtp.NewServer(box)
	server.Domain = "gosmtp.test"
	server.EnableDSN, server.EnableSMTPUTF8, server.EnableREQUIRETLS = true, true, true
	server.MaxMessageBytes = 10 << 20
	change(server)
	var wg sync.WaitGroup
	wg.Go(func() { server.Serve(l) })
	t.Cleanup(func() { server.Close(); wg.Wait() })
	return l.Addr().String()
}

// go-smtp announces PIPELINING and CHUNKING always.
func TestGoSMTP(t *testing.T) {
	t.Parallel()
	ca := testCA(t)
	config := serverTLS(t, ca)
	manners := map[string]Options{
		"BDAT":               {},
		"BDAT 4 in flight":   {InFlight: 4},
		"DATA":               {NoChunking: true},
		"command by command": {NoChunking: true, NoPipelining: true},
		"BDAT alone":         {NoPipelining: true},
	}
	for name, o := range manners {
		for _, isTLS := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " TLS ", isTLS), func(t *testing.T) {
				t.Parallel()
				box := new(inbox)
				address := goSMTP(t, box, func(s *smtp.Server) { s.TLSConfig = config })
				conn, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				s := over(t, conn, o)
				if err := s.Greet(t.Context()); err != nil {
					t.Fatal(err)
				}
				if isTLS {
					if err := s.StartTLS(t.Context(), &tls.Config{ServerName: "mx.test", RootCAs: ca.Pool()}); err != nil {
						t.Fatal(err)
					}
				}
				talkToGoSMTP(t, s, box)
			})
		}
	}
}

func talkToGoSMTP(t *testing.T, s *Session, box *inbox) {
	ext := s.Extensions()
	if !ext.DSN || !ext.SMTPUTF8 || ext.Size != 10<<20 || ext.Name == "" {
		t.Errorf("%+v", ext)
	}
	first := message("größe@a.test", "\r\n.first\r\n..\r\n", "no@b.test", "ok@b.test")
	first.Params = MailParams(ext, MailOptions{Size: 34, Body: "8BITMIME", SMTPUTF8: true, Ret: "HDRS", EnvID: "id+=1"})
	first.Rcpts[1].Params = RcptParams(ext, RcptOptions{NotifyFailure: true, NotifyDelay: true, ORCPT: "rfc822;orig@b.test"})
	txs := []*Transaction{first, message("", "\r\nrefuse me\r\n", "ok@b.test"), message("a@a.test", large(), "ok@b.test"),
		message("b@a.test", "\r\n", "no@b.test")}
	txs = append(txs, messages(20)...)
	results, err := run(t, s, txs...)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		switch i {
		case 0:
			if r.Rcpts[0].Code != 550 || r.Rcpts[0].Enhanced != "5.1.1" || r.Rcpts[1].Code != 250 || r.Final.Code != 250 {
				t.Errorf("the first: %+v", r)
			}
		case 1:
			if r.Final.Code != 554 || r.Final.Enhanced != "5.6.0" {
				t.Errorf("refused content: %+v", r)
			}
		case 3:
			if r.Rcpts[0].Code != 550 || r.Final.Code == 250 {
				t.Errorf("refused recipient: %+v", r)
			}
		default:
			if r.Final.Code != 250 {
				t.Errorf("message %d: %+v", i, r)
			}
		}
	}
	s.Quit()
	box.mu.Lock()
	defer box.mu.Unlock()
	if len(box.messages) != 22 {
		t.Fatalf("%d messages arrived", len(box.messages))
	}
	m := box.messages[0]
	if m.from != "größe@a.test" || m.mail.Size != 34 || !m.mail.UTF8 || m.mail.EnvelopeID != "id+=1" || m.mail.Return != smtp.DSNReturnHeaders ||
		len(m.to) != 1 || m.to[0] != "ok@b.test" || len(m.rcpt[0].Notify) != 2 || m.rcpt[0].OriginalRecipient != "orig@b.test" ||
		string(m.content) != sent("\r\n.first\r\n..\r\n") {
		t.Errorf("the first arrived as %+v", m)
	}
	if string(box.messages[1].content) != sent(large()) {
		t.Errorf("the large one arrived with %d octets", len(box.messages[1].content))
	}
	for i, m := range box.messages[2:] {
		if m.from != fmt.Sprintf("from%d@a.test", i) || m.to[0] != fmt.Sprintf("to%d@b.test", i) || string(m.content) != sent(fmt.Sprintf("\r\nbody %d\r\n", i)) {
			t.Errorf("message %d arrived as %+v", i, m)
		}
	}
}

// A server that says early what it thinks of the size.
func TestGoSMTPTooLarge(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {NoChunking: true}} {
		box := new(inbox)
		address := goSMTP(t, box, func(s *smtp.Server) { s.MaxMessageBytes = 100_000 })
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		s := over(t, conn, o)
		if err := s.Greet(t.Context()); err != nil {
			t.Fatal(err)
		}
		results, _ := run(t, s, message("a@a.test", large(), "ok@b.test"))
		if r := results[0]; r.Final.Code != 552 || r.Untried {
			t.Errorf("%+v", r)
		}
	}
}
