package submission_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postrider/mta/intake"
	"postrider/mta/smtpserver"
	"postrider/mta/submission"
	"postrider/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shelf is an intake that keeps what it gets, or fails as told.
type shelf struct {
	rcptErr, beginErr, writeErr, commitErr error

	mu      sync.Mutex
	metas   []intake.Meta
	content []string
	aborted int
}

var shelfID = queue.ID{0x01, 0x93, 0x5f}

func (s *shelf) CheckRecipient(address string) error {
	if strings.HasPrefix(address, "refused") {
		return s.rcptErr
	}
	return nil
}

func (s *shelf) Begin(_ time.Time, m intake.Meta) (submission.Message, error) {
	if s.beginErr != nil {
		return nil, s.beginErr
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metas = append(s.metas, m)
	return &shelved{shelf: s}, nil
}

type shelved struct {
	shelf *shelf
	body  strings.Builder
}

func (m *shelved) Write(p []byte) (int, error) {
	if m.shelf.writeErr != nil {
		return 0, m.shelf.writeErr
	}
	return m.body.Write(p)
}

func (m *shelved) Commit(context.Context) (queue.ID, error) {
	if m.shelf.commitErr != nil {
		return queue.ID{}, m.shelf.commitErr
	}
	m.shelf.mu.Lock()
	defer m.shelf.mu.Unlock()
	m.shelf.content = append(m.shelf.content, m.body.String())
	return shelfID, nil
}

func (m *shelved) Abort() {
	m.shelf.mu.Lock()
	defer m.shelf.mu.Unlock()
	m.shelf.aborted++
}

// refusals counts what an observer is told, by status.
type refusals struct {
	mu  sync.Mutex
	all []string
}

func (r *refusals) Refused(via string, err *intake.Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, via+" "+err.Status)
}

func (r *refusals) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.all, ", ")
}

// from makes connections seem to come from another address.
type from struct {
	net.Listener
	client string
}

func (f from) Accept() (net.Conn, error) {
	c, err := f.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return fromConn{c, &net.TCPAddr{IP: net.ParseIP(f.client), Port: 1025}}, nil
}

type fromConn struct {
	net.Conn
	remote net.Addr
}

func (c fromConn) RemoteAddr() net.Addr { return c.remote }

func loopback() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

// start serves on loopback; client, if not empty, is where all seem to come from.
func start(t testing.TB, o submission.Options, p submission.Policy, client string) (addr string, s *submission.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	if client != "" {
		l = from{l, client}
	}
	o.Hostname = "mail.sender.test"
	s, err = submission.New(o, submission.Listener{Listener: l, Policy: p})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return addr, s
}

// client is a raw SMTP client over textproto, which reads replies by itself.
type client struct {
	t    testing.TB
	conn net.Conn
	text *textproto.Conn
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := wrap(t, conn)
	c.reads("220 mail.sender.test")
	return c
}

func wrap(t testing.TB, conn net.Conn) *client {
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	t.Cleanup(func() { conn.Close() })
	return &client{t, conn, textproto.NewConn(conn)}
}

func (c *client) reads(want string) string {
	c.t.Helper()
	code, text, err := c.text.ReadResponse(0)
	if err != nil && code == 0 {
		c.t.Fatal(err)
	}
	got := fmt.Sprint(code, " ", text)
	if !strings.HasPrefix(got, want) {
		c.t.Fatalf("reply %q, want %q", got, want)
	}
	return got
}

func (c *client) says(line, want string) string {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, line+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
	c.t.Log(line)
	return c.reads(want)
}

func (c *client) startTLS() {
	c.t.Helper()
	c.says("STARTTLS", "220")
	conn := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	if err := conn.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.conn, c.text = conn, textproto.NewConn(conn)
}

func certificate(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// passwords knows one user.
type passwords struct{}

func (passwords) Authenticate(_ context.Context, user, password string) error {
	if user == "shop" && password == "s3cret" {
		return nil
	}
	return smtpserver.ErrCredentials
}

func plain(user, password string) string {
	return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password))
}
