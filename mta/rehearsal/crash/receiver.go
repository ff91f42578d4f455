package crash

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"
)

// receiver counts how often each message arrives.
type receiver struct {
	server   *smtp.Server
	listener net.Listener
	sessions atomic.Int64 // open connections

	mu     sync.Mutex
	seen   map[string]int // by Message-ID
	recent []arrival      // since it was last asked for, in order
	conns  int            // so far
}

// arrival is a message that came whole.
type arrival struct {
	id     string // its Message-ID
	queued string // the server's own, from its trace field
	conn   int
	at     time.Time // shortly before our final reply
}

// take gives what has arrived since the last call.
func (r *receiver) take() []arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	recent := r.recent
	r.recent = nil
	return recent
}

// connect numbers a connection.
func (r *receiver) connect() int {
	r.sessions.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns++
	return r.conns
}

func newReceiver(addr string) (*receiver, error) {
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		return nil, err
	}
	r := &receiver{listener: l, seen: make(map[string]int)}
	r.server = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) {
		return &session{receiver: r, conn: r.connect()}, nil
	}))
	r.server.Domain = "mx.crash.test"
	r.server.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	r.server.ReadTimeout = 5 * time.Minute
	go func() { _ = r.server.Serve(l) }() // ends with close
	return r, nil
}

func (r *receiver) close() { _ = r.server.Close() }

func (r *receiver) port() string {
	_, port, _ := net.SplitHostPort(r.listener.Addr().String())
	return port
}

// open is the number of connections. What a server that was killed has sent on
// one may lie in the socket, not yet read, until its end was met.
func (r *receiver) open() int { return int(r.sessions.Load()) }

func (r *receiver) distinct() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seen)
}

func (r *receiver) all() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen
}

type session struct {
	receiver *receiver
	conn     int
}

func (s *session) Mail(string, *smtp.MailOptions) error { return nil }

func (s *session) Rcpt(string, *smtp.RcptOptions) error { return nil }

func (s *session) Data(body io.Reader) error {
	a := arrival{conn: s.conn}
	lines := bufio.NewReader(body)
	for {
		line, err := lines.ReadString('\n')
		if value, ok := strings.CutPrefix(line, "Message-ID:"); ok && a.id == "" {
			a.id = strings.TrimSpace(value)
		}
		// RFC 5321, section 4.4: "id" in the trace field is the word of the
		// server that wrote it for the message.
		if _, value, ok := strings.Cut(line, " id "); ok && a.id == "" && a.queued == "" {
			a.queued = strings.TrimRight(strings.Fields(value + " ;")[0], ";")
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err // the content did not come whole: not an arrival
		}
	}
	s.receiver.mu.Lock()
	s.receiver.seen[a.id]++
	a.at = time.Now()
	s.receiver.recent = append(s.receiver.recent, a)
	s.receiver.mu.Unlock()
	return nil
}

func (s *session) Reset() {}

func (s *session) Logout() error {
	s.receiver.sessions.Add(-1)
	return nil
}

// queued asks the server how many messages it holds.
func queued(addr string) (int, error) {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + addr + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("GET /metrics: %s", resp.Status)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return 0, err
	}
	return parseGauge(string(text), "postrider_queue_messages")
}
