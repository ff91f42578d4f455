// Package smtptest is a scripted mail server for tests and for the demo, named
// after net/http/httptest. It speaks real SMTP over real connections, and
// misbehaves exactly where its [Script] says so: refuses, hangs up, stalls,
// drips, talks nonsense or never ends.
//
// A [Server] listens ([Start]) or is handed connections ([Server.Serve], for
// net.Pipe). Without a script it takes all mail. It keeps what it was told
// ([Server.Transactions]), what came in one flight, without the client having
// waited for a reply ([Server.Flights]), and what the client did wrong
// ([Server.Violations]).
//
// Replies are written when nothing more has arrived, as RFC 2920, section 3.2,
// asks of a server, so that a flight of commands is answered by a flight of
// replies.
package smtptest

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Server is a scripted mail server. Its methods may be called by any
// goroutine.
type Server struct {
	script   Script
	listener net.Listener
	closing  chan struct{}
	sessions sync.WaitGroup
	count    atomic.Int64 // of sessions

	mu           sync.Mutex
	conns        map[net.Conn]bool
	used         map[string]int // how often a key of the script was taken
	transactions []Transaction
	flights      []Flight
	commands     []string
	violations   []string
	changed      chan struct{} // closed and replaced when something is recorded
}

// New makes a server that does not listen.
func New(script Script) *Server {
	return &Server{
		script:  script.withDefaults(),
		closing: make(chan struct{}),
		conns:   make(map[net.Conn]bool),
		used:    make(map[string]int),
		changed: make(chan struct{}),
	}
}

// Start makes a server that listens at address, for example "127.0.0.1:0" or
// "[::1]:0", until Close.
func Start(address string, script Script) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for a scripted mail server: %w", err)
	}
	s := New(script)
	s.listener = l
	s.sessions.Go(s.accept)
	return s, nil
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.Serve(conn)
	}
}

// Addr is where the server listens; nil if it does not.
func (s *Server) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Serve holds a session over conn in a goroutine of its own, and closes it.
func (s *Server) Serve(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closing:
		conn.Close()
		return
	default:
	}
	s.conns[conn] = true
	id := int(s.count.Add(1))
	s.sessions.Go(func() {
		newSession(s, conn, id).run()
		conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.signal()
		s.mu.Unlock()
	})
}

// Pipe returns the client's end of a connection in memory.
func (s *Server) Pipe() net.Conn {
	client, server := net.Pipe()
	s.Serve(server)
	return client
}

// Close stops listening, ends all sessions and waits for them.
func (s *Server) Close() error {
	s.mu.Lock()
	select {
	case <-s.closing:
	default:
		close(s.closing)
	}
	for conn := range s.conns {
		conn.Close()
	}
	s.mu.Unlock()
	var err error
	if s.listener != nil {
		err = s.listener.Close()
	}
	s.sessions.Wait()
	return err
}

// Transaction is a mail transaction that came to its end, one way or the other.
type Transaction struct {
	Session    int // counted from 1
	HELO       string
	IsTLS      bool
	From       string
	FromParams string
	Rcpts      []Rcpt // also the refused ones
	IsChunked  bool   // BDAT
	Content    []byte // with dots removed
	IsAccepted bool   // a 2yz reply was given at its end
}

// Rcpt is a recipient of a Transaction.
type Rcpt struct {
	Address, Params string
	IsAccepted      bool
}

// Flight is what came from a client between two times that the server answered:
// its commands, and "(123 octets)" where content came.
type Flight struct {
	Session int
	Parts   []string
}

// Transactions are those so far, in the order of their end.
func (s *Server) Transactions() []Transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Transaction(nil), s.transactions...)
}

// Flights are those so far.
func (s *Server) Flights() []Flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Flight(nil), s.flights...)
}

// Violations are what clients did that RFC 5321, 2920 or 3030 forbid.
func (s *Server) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.violations...)
}

// Sessions is how many sessions there were.
func (s *Server) Sessions() int { return int(s.count.Load()) }

// WaitTransactions waits until n transactions came to their end, or timeout.
func (s *Server) WaitTransactions(n int, timeout time.Duration) bool {
	return s.wait(timeout, func() bool { return len(s.transactions) >= n })
}

// WaitCommand waits until a command line that begins with prefix has come, or
// timeout.
func (s *Server) WaitCommand(prefix string, timeout time.Duration) bool {
	return s.wait(timeout, func() bool {
		return slices.ContainsFunc(s.commands, func(c string) bool { return strings.HasPrefix(c, prefix) })
	})
}

// WaitIdle waits until no session is open, or timeout.
func (s *Server) WaitIdle(timeout time.Duration) bool {
	return s.wait(timeout, func() bool { return len(s.conns) == 0 })
}

func (s *Server) wait(timeout time.Duration, isDone func() bool) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		s.mu.Lock()
		ok, changed := isDone(), s.changed
		s.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		}
	}
}

// signal wakes who waits; s.mu is held.
func (s *Server) signal() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Server) record(t Transaction) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.transactions = append(s.transactions, t)
	s.signal()
}

func (s *Server) recordFlight(f Flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flights = append(s.flights, f)
	s.signal()
}

func (s *Server) recordCommand(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commands = append(s.commands, line)
	s.signal()
}

func (s *Server) violation(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violations = append(s.violations, fmt.Sprintf(format, args...))
}
