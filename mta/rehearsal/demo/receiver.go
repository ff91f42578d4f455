package demo

import (
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// manners are how a receiving server behaves.
type manners struct {
	tls       *tls.Config   // nil: no STARTTLS
	pause     time.Duration // before each reply to MAIL, RCPT and the content
	greylist  time.Duration // an unknown sender and recipient are told to come back after it
	unknown   string        // this recipient gets 550 5.1.1
	plainOnly bool          // no SMTPUTF8, no DSN
}

// arrival is one transaction that a receiving server took.
type arrival struct {
	server string
	from   string
	to     []string
	data   []byte
	tls    bool
	at     time.Time
}

// receiver is one receiving server of the rehearsal internet. It is built on
// a library that shares no code with what sends to it, so that a fault of ours
// on one side is not met by the same fault on the other.
type receiver struct {
	name    string
	manners manners
	server  *smtp.Server
	took    func(arrival)
	later   func(sender, recipient string) // was told to come back

	mu   sync.Mutex
	seen map[string]time.Time // greylisted: sender and recipient -> first seen
}

func newReceiver(name string, m manners, l *ledger) *receiver {
	r := &receiver{name: name, manners: m, took: l.took, later: l.postponed, seen: make(map[string]time.Time)}
	s := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &receiverSession{receiver: r, conn: c}, nil
	}))
	s.Domain = name
	s.TLSConfig = m.tls
	s.EnableSMTPUTF8 = !m.plainOnly
	s.EnableDSN = !m.plainOnly
	s.MaxMessageBytes = 64 << 20
	s.MaxRecipients = 1000
	// The whole DATA must end within it: large on purpose.
	s.ReadTimeout = 2 * time.Minute
	s.WriteTimeout = 2 * time.Minute
	s.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	r.server = s
	return r
}

func (r *receiver) serve(l net.Listener) error { return r.server.Serve(l) }
func (r *receiver) close() error               { return r.server.Close() }

// greylisted reports whether a pair has to come back.
func (r *receiver) greylisted(from, to string, now time.Time) bool {
	if r.manners.greylist == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := from + " " + to
	first, ok := r.seen[key]
	if !ok {
		r.seen[key] = now
		first = now
	}
	return now.Sub(first) < r.manners.greylist
}

type receiverSession struct {
	receiver *receiver
	conn     *smtp.Conn
	from     string
	to       []string
}

func (s *receiverSession) pause() {
	if p := s.receiver.manners.pause; p > 0 {
		<-time.After(p)
	}
}

func (s *receiverSession) Mail(from string, _ *smtp.MailOptions) error {
	s.pause()
	s.from = from
	return nil
}

func (s *receiverSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.pause()
	if u := s.receiver.manners.unknown; u != "" && strings.EqualFold(to, u) {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such user here"}
	}
	if s.receiver.greylisted(s.from, to, time.Now()) {
		s.receiver.later(s.from, to)
		return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "Greylisted, please come back in 2 seconds"}
	}
	s.to = append(s.to, to)
	return nil
}

func (s *receiverSession) Data(r io.Reader) error {
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		return err
	}
	s.pause()
	_, secured := s.conn.TLSConnectionState()
	s.receiver.took(arrival{
		server: s.receiver.name, from: s.from, to: s.to,
		data: b.Bytes(), tls: secured, at: time.Now(),
	})
	return nil
}

func (s *receiverSession) Reset()        { s.from, s.to = "", nil }
func (s *receiverSession) Logout() error { return nil }
