package smtpserver_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postrider/mta/smtpserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// message is what the recorder took.
type message struct {
	mail       smtpserver.Mail
	from       string
	rcpts      []string
	rcptParams []smtpserver.Rcpt
	content    string
}

// recorder is a backend that keeps what it gets. Its hooks may refuse.
type recorder struct {
	onConnect func(*smtpserver.Conn) error
	onMail    func(from string) error
	onRcpt    func(to string) error
	onContent func() error
	onWrite   func(p []byte) error
	onCommit  func(context.Context) error
	text      string

	mu       sync.Mutex
	messages []message
	helo     string
	ended    int
}

func (r *recorder) all() []message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]message(nil), r.messages...)
}

func (r *recorder) Connect(c *smtpserver.Conn) (smtpserver.Session, error) {
	if r.onConnect != nil {
		if err := r.onConnect(c); err != nil {
			return nil, err
		}
	}
	return &recording{r: r, conn: c}, nil
}

type recording struct {
	r    *recorder
	conn *smtpserver.Conn
	now  message
	body bytes.Buffer
}

func (s *recording) Mail(_ context.Context, m *smtpserver.Mail) (smtpserver.Transaction, error) {
	if s.r.onMail != nil {
		if err := s.r.onMail(string(m.Path)); err != nil {
			return nil, err
		}
	}
	s.now = message{mail: *m, from: string(m.Path)}
	s.body.Reset()
	return s, nil
}

func (s *recording) Rcpt(_ context.Context, r *smtpserver.Rcpt) error {
	if s.r.onRcpt != nil {
		if err := s.r.onRcpt(string(r.Path)); err != nil {
			return err
		}
	}
	s.now.rcpts = append(s.now.rcpts, string(r.Path))
	s.now.rcptParams = append(s.now.rcptParams, *r)
	return nil
}

func (s *recording) Content(context.Context) (smtpserver.Content, error) {
	if s.r.onContent != nil {
		if err := s.r.onContent(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *recording) Write(p []byte) (int, error) {
	if s.r.onWrite != nil {
		if err := s.r.onWrite(p); err != nil {
			return 0, err
		}
	}
	return s.body.Write(p)
}

func (s *recording) Commit(ctx context.Context, text []byte) ([]byte, error) {
	if s.r.onCommit != nil {
		if err := s.r.onCommit(ctx); err != nil {
			return nil, err
		}
	}
	s.now.content = s.body.String()
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.r.messages = append(s.r.messages, s.now)
	s.r.helo = s.conn.HELO()
	if s.r.text != "" {
		return append(text, s.r.text...), nil
	}
	return append(text, "taken"...), nil
}

func (s *recording) End() {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.r.ended++
}

// start serves o on loopback and returns where.
func start(t testing.TB, o smtpserver.Options) (addr string, server *smtpserver.Server) {
	t.Helper()
	addr, server, _ = startStoppable(t, o)
	return addr, server
}

// startStoppable also returns what stops the server and waits for its end.
func startStoppable(t testing.TB, o smtpserver.Options) (addr string, server *smtpserver.Server, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, o, l)
}

func startOn(t testing.TB, o smtpserver.Options, l net.Listener) (addr string, server *smtpserver.Server, stop func()) {
	t.Helper()
	if o.Hostname == "" {
		o.Hostname = "mx.sink.test"
	}
	server, err := smtpserver.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return l.Addr().String(), server, stop
}

// client is a raw SMTP client.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// dial connects and reads the greeting.
func dial(t testing.TB, addr string) *client {
	t.Helper()
	c := dialRaw(t, addr)
	c.expect("220 mx.sink.test ESMTP")
	return c
}

func dialRaw(t testing.TB, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return wrap(t, conn)
}

func wrap(t testing.TB, conn net.Conn) *client {
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &client{t: t, conn: conn, r: bufio.NewReader(conn)}
}

func (c *client) write(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// reply reads one reply, its lines joined by "\n".
func (c *client) reply() string {
	c.t.Helper()
	s, err := c.tryReply()
	if err != nil {
		c.t.Fatalf("after %q: %v", s, err)
	}
	return s
}

func (c *client) tryReply() (string, error) {
	var lines []string
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return strings.Join(lines, "\n"), err
		}
		line = strings.TrimSuffix(line, "\r\n")
		lines = append(lines, line)
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n"), nil
		}
	}
}

// expect reads a reply that must begin with want.
func (c *client) expect(want string) string {
	c.t.Helper()
	got := c.reply()
	if !strings.HasPrefix(got, want) {
		c.t.Fatalf("reply %q, want %q", got, want)
	}
	return got
}

// says sends a line and reads a reply that must begin with want.
func (c *client) says(line, want string) string {
	c.t.Helper()
	c.write(line + "\r\n")
	got := c.reply()
	if !strings.HasPrefix(got, want) {
		c.t.Fatalf("%.80q got reply %q, want %q", line, got, want)
	}
	return got
}

// expectEnd waits for the server to close.
func (c *client) expectEnd() {
	c.t.Helper()
	if got, err := c.tryReply(); !errors.Is(err, io.EOF) {
		c.t.Fatalf("got %q, %v; want the connection closed", got, err)
	}
}

func (c *client) startTLS() {
	c.t.Helper()
	c.says("STARTTLS", "220 2.0.0")
	tc := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.conn, c.r = tc, bufio.NewReader(tc)
}

// certificate is a server's configuration with a key of its own.
func certificate(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mx.sink.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func TestDialogue(t *testing.T) {
	t.Parallel()
	r := &recorder{text: "0123456789 queued"}
	addr, _ := start(t, smtpserver.Options{Backend: r, MaxMessageSize: 1000, MaxRecipients: 100})
	c := dial(t, addr)
	want := "250-mx.sink.test\n250-PIPELINING\n250-SIZE 1000\n250-8BITMIME\n250-SMTPUTF8\n250-CHUNKING\n250-DSN\n" +
		"250-LIMITS RCPTMAX=100\n250-ENHANCEDSTATUSCODES\n250 HELP"
	if got := c.says("EHLO client.test", "250"); got != want {
		t.Errorf("EHLO: %q, want %q", got, want)
	}
	c.says("MAIL FROM:<a@client.test> SIZE=20 BODY=8BITMIME RET=HDRS ENVID=QQ+2B1", "250 2.1.0")
	c.says("RCPT TO:<b@sink.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;B+2B@sink.test", "250 2.1.5")
	c.says("RCPT TO:<postmaster>", "250 2.1.5")
	c.says("DATA", "354 ")
	c.write("Subject: x\r\n\r\n..two\r\n.one\r\n...\r\n.\r\n")
	c.expect("250 2.0.0 0123456789 queued")
	c.says("QUIT", "221 2.0.0")
	c.expectEnd()

	all := r.all()
	if len(all) != 1 {
		t.Fatalf("%d messages", len(all))
	}
	m := all[0]
	if m.content != "Subject: x\r\n\r\n.two\r\none\r\n..\r\n" {
		t.Errorf("content %q", m.content)
	}
	if m.from != "a@client.test" || m.mail.Size != 20 || !m.mail.EightBit || m.mail.Ret != smtpserver.RetHeaders || m.mail.EnvID != "QQ+1" {
		t.Errorf("mail %+v", m.mail)
	}
	if got := fmt.Sprint(m.rcpts); got != "[b@sink.test postmaster]" {
		t.Errorf("recipients %s", got)
	}
	if p := m.rcptParams[0]; p.Notify != smtpserver.NotifySuccess|smtpserver.NotifyDelay || p.ORcpt != "rfc822;B+@sink.test" {
		t.Errorf("rcpt %+v", p)
	}
	if r.helo != "client.test" {
		t.Errorf("HELO %q", r.helo)
	}
	if r.ended != 1 {
		t.Errorf("End was called %d times", r.ended)
	}
}

// One write of the client, one of the server: the replies of a group leave
// together (RFC 2920, section 3.2).
func TestPipelinedRepliesLeaveTogether(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	counting := &countingListener{Listener: l}
	addr, _, _ := startOn(t, smtpserver.Options{Backend: r}, counting)
	c := dial(t, addr)
	c.says("EHLO client.test", "250")
	before := counting.writes()
	c.write("MAIL FROM:<a@b.test>\r\nRCPT TO:<1@c.test>\r\nRCPT TO:<2@c.test>\r\nDATA\r\n")
	for _, want := range []string{"250 2.1.0", "250 2.1.5", "250 2.1.5", "354"} {
		c.expect(want)
	}
	c.write("x\r\n.\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<3@c.test>\r\nDATA\r\n")
	for _, want := range []string{"250 2.0.0", "250 2.1.0", "250 2.1.5", "354"} {
		c.expect(want)
	}
	if n := counting.writes() - before; n != 2 {
		t.Errorf("%d writes for two groups of commands", n)
	}
}

type countingListener struct {
	net.Listener
	mu sync.Mutex
	n  int
}

func (l *countingListener) writes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countingConn{Conn: c, l: l}, nil
}

type countingConn struct {
	net.Conn
	l *countingListener
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.l.mu.Lock()
	c.l.n++
	c.l.mu.Unlock()
	return c.Conn.Write(p)
}

// TestCommands is what each command gets, one after the other in one session.
func TestCommands(t *testing.T) {
	t.Parallel()
	type step struct{ line, want string }
	mail, rcpt := step{"MAIL FROM:<a@b.test>", "250 2.1.0"}, step{"RCPT TO:<c@d.test>", "250 2.1.5"}
	ehlo := step{"EHLO client.test", "250-"}
	tests := map[string][]step{
		"MAIL before EHLO":         {{"MAIL FROM:<a@b.test>", "503 5.5.1"}},
		"EHLO without a name":      {{"EHLO", "501 5.5.4"}, {"HELO ", "501 5.5.4"}},
		"HELO":                     {{"HELO client.test", "250 mx.sink.test"}, mail},
		"lower case":               {{"ehlo client.test", "250-"}, {"mail from:<a@b.test>", "250"}, {"rcpt to:<c@d.test>", "250"}, {"data", "354"}},
		"nested MAIL":              {ehlo, mail, {"MAIL FROM:<a@b.test>", "503 5.5.1"}},
		"RSET ends a transaction":  {ehlo, mail, {"RSET", "250 2.0.0"}, {"RCPT TO:<c@d.test>", "503 5.5.1"}, mail},
		"RSET with an argument":    {ehlo, {"RSET x", "501 5.5.4"}},
		"EHLO ends a transaction":  {ehlo, mail, ehlo, {"RCPT TO:<c@d.test>", "503 5.5.1"}},
		"RCPT before MAIL":         {ehlo, {"RCPT TO:<c@d.test>", "503 5.5.1"}},
		"DATA before MAIL":         {ehlo, {"DATA", "503 5.5.1"}},
		"DATA before RCPT":         {ehlo, mail, {"DATA", "503 5.5.1"}, rcpt, {"DATA", "354"}},
		"DATA with an argument":    {ehlo, mail, rcpt, {"DATA x", "501 5.5.4"}},
		"null sender":              {ehlo, {"MAIL FROM:<>", "250 2.1.0"}},
		"empty recipient":          {ehlo, mail, {"RCPT TO:<>", "501 5.5.4"}},
		"blank before the path":    {ehlo, {"MAIL FROM: <a@b.test>", "250"}, {"RCPT TO: <c@d.test>", "250"}},
		"no brackets":              {ehlo, {"MAIL FROM:a@b.test", "501 5.5.4"}},
		"open bracket":             {ehlo, {"MAIL FROM:<a@b.test", "501 5.5.4"}},
		"rubbish after the path":   {ehlo, {"MAIL FROM:<a@b.test>x", "501 5.5.4"}},
		"unknown parameter":        {ehlo, {"MAIL FROM:<a@b.test> FOO=bar", "555 5.5.4"}, mail, {"RCPT TO:<c@d.test> FOO", "555 5.5.4"}},
		"long unknown parameter":   {ehlo, {"MAIL FROM:<a@b.test> SIZESIZESIZESIZE=1", "555 5.5.4"}},
		"malformed parameter":      {ehlo, {"MAIL FROM:<a@b.test> SIZE==1", "501 5.5.4"}, {"MAIL FROM:<a@b.test> -X", "501 5.5.4"}},
		"parameter twice":          {ehlo, {"MAIL FROM:<a@b.test> BODY=7BIT BODY=7BIT", "501 5.5.4"}, {"MAIL FROM:<a@b.test> SIZE=0 SIZE=0", "501 5.5.4"}, mail, {"RCPT TO:<c@d.test> NOTIFY=NEVER NOTIFY=NEVER", "501 5.5.4"}},
		"REQUIRETLS in clear":      {ehlo, {"MAIL FROM:<a@b.test> REQUIRETLS", "555 5.5.4"}},
		"AUTH= where none is":      {ehlo, {"MAIL FROM:<a@b.test> AUTH=<>", "555 5.5.4"}},
		"SIZE over the limit":      {ehlo, {"MAIL FROM:<a@b.test> SIZE=1001", "552 5.3.4"}, {"MAIL FROM:<a@b.test> SIZE=1000", "250"}},
		"SIZE is no number":        {ehlo, {"MAIL FROM:<a@b.test> SIZE=-1", "501 5.5.4"}, {"MAIL FROM:<a@b.test> SIZE", "501"}, {"MAIL FROM:<a@b.test> SIZE=9999999999999999999", "501"}},
		"BODY":                     {ehlo, {"MAIL FROM:<a@b.test> BODY=BINARYMIME", "501 5.5.4"}, {"MAIL FROM:<a@b.test> BODY=7bit", "250"}},
		"SMTPUTF8 with a value":    {ehlo, {"MAIL FROM:<a@b.test> SMTPUTF8=1", "501 5.5.4"}},
		"UTF-8 without SMTPUTF8":   {ehlo, {"MAIL FROM:<jürgen@b.test>", "553 5.6.7"}, {"MAIL FROM:<jürgen@b.test> SMTPUTF8", "250"}, {"RCPT TO:<søren@d.test>", "250"}},
		"UTF-8 recipient":          {ehlo, mail, {"RCPT TO:<søren@d.test>", "553 5.6.7"}},
		"Latin-1":                  {ehlo, {"MAIL FROM:<j\xfcrgen@b.test> SMTPUTF8", "553 5.1.3"}},
		"RET and ENVID":            {ehlo, {"MAIL FROM:<a@b.test> RET=ALL", "501"}, {"MAIL FROM:<a@b.test> ENVID=a+0D", "501"}, {"MAIL FROM:<a@b.test> ENVID=" + strings.Repeat("x", 101), "501"}},
		"NOTIFY":                   {ehlo, mail, {"RCPT TO:<c@d.test> NOTIFY=NEVER,DELAY", "501 5.5.4"}, {"RCPT TO:<c@d.test> NOTIFY=", "501"}, {"RCPT TO:<c@d.test> NOTIFY=SOON", "501"}, {"RCPT TO:<c@d.test> notify=never", "250"}},
		"ORCPT":                    {ehlo, mail, {"RCPT TO:<c@d.test> ORCPT=c@d.test", "501"}, {"RCPT TO:<c@d.test> ORCPT=rfc822;a+0Ab", "501"}, {"RCPT TO:<c@d.test> ORCPT=rfc822;" + strings.Repeat("x", 500), "501"}},
		"too many recipients":      {ehlo, mail, rcpt, rcpt, {"RCPT TO:<c@d.test>", "452 4.5.3"}, {"DATA", "354"}},
		"NOOP, VRFY, HELP, EXPN":   {{"NOOP", "250 2.0.0"}, {"NOOP x y", "250 2.0.0"}, {"VRFY root", "252 2.0.0"}, {"HELP", "214 2.0.0"}, {"EXPN list", "502 5.5.1"}},
		"unknown":                  {{"XYZZY", "500 5.5.2"}, {"", "500 5.5.2"}, {"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "500 5.5.2"}, {"MAILFROM:<a@b.test>", "500 5.5.2"}},
		"control character":        {ehlo, {"MAIL FROM:<a\x01@b.test>", "500 5.5.2"}, {"MAIL FROM:<a\x00@b.test>", "500 5.5.2"}, {"NO\rOP", "500 5.5.2"}, {"NOOP", "250"}},
		"bare line feed":           {ehlo, {"MAIL FROM:<a@b.test>\nRCPT TO:<c@d.test>", "500 5.5.2"}, {"RCPT TO:<c@d.test>", "503 5.5.1"}},
		"line too long":            {{"NOOP " + strings.Repeat("x", 4090), "500 5.5.2"}, {"NOOP " + strings.Repeat("x", 4089), "250"}, {"NOOP " + strings.Repeat("x", 20000), "500 5.5.2"}, {"NOOP", "250"}},
		"STARTTLS without a key":   {ehlo, {"STARTTLS", "502 5.5.1"}},
		"AUTH without passwords":   {ehlo, {"AUTH PLAIN AGEAYg==", "502 5.5.1"}},
		"quoted local part":        {ehlo, mail, {`RCPT TO:<"a > b"@d.test>`, "250"}, {`RCPT TO:<"a\">"@d.test> NOTIFY=NEVER`, "250"}},
		"source route":             {ehlo, mail, {"RCPT TO:<@x.test,@y.test:c@d.test>", "250"}, {"RCPT TO:<@x.test>", "501"}},
		"BDAT before MAIL":         {ehlo, {"BDAT 6 LAST\r\nNOOP", "503 5.5.1"}, mail},
		"BDAT before RCPT":         {ehlo, mail, {"BDAT 6 LAST\r\nQUIT", "503 5.5.1"}, mail},
		"BDAT then RCPT":           {ehlo, mail, rcpt, {"BDAT 4\r\nab", "250 2.0.0 4 octets"}, {"RCPT TO:<e@d.test>", "503 5.5.1"}, {"DATA", "503 5.5.1"}, {"BDAT 0 LAST", "250 2.0.0"}, mail},
		"BDAT then RSET":           {ehlo, mail, rcpt, {"BDAT 4\r\nab", "250"}, {"RSET", "250"}, mail},
		"BDAT with a long line":    {ehlo, mail, rcpt, {"BDAT 902 LAST\r\n" + strings.Repeat("x", 900), "250"}},
		"BDAT over the size limit": {ehlo, mail, rcpt, {"BDAT 602\r\n" + strings.Repeat("x", 600), "250"}, {"BDAT 602\r\n" + strings.Repeat("y", 600), "552 5.3.4"}, {"BDAT 5 LAST\r\nabc", "503 5.5.1"}, mail},
		"announced size exactly":   {ehlo, {"MAIL FROM:<a@b.test> SIZE=1000", "250"}, rcpt, {"DATA", "354"}, {strings.Repeat("x", 998) + "\r\n.", "250 2.0.0"}},
		"one octet too many":       {ehlo, mail, rcpt, {"DATA", "354"}, {strings.Repeat("x", 999) + "\r\n.", "552 5.3.4"}, mail},
		"far over the size limit":  {ehlo, mail, rcpt, {"DATA", "354"}, {strings.Repeat(strings.Repeat("x", 998)+"\r\n", 2000) + ".", "552 5.3.4"}, mail},
		"empty content":            {ehlo, mail, rcpt, {"DATA", "354"}, {".", "250 2.0.0"}},
		"one long line":            {ehlo, mail, rcpt, {"DATA", "354"}, {strings.Repeat("x", 900) + "\r\n.", "250 2.0.0"}},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, _ := start(t, smtpserver.Options{Backend: &recorder{}, MaxMessageSize: 1000, MaxRecipients: 2})
			c := dial(t, addr)
			for _, s := range steps {
				c.says(s.line, s.want)
			}
		})
	}
}
