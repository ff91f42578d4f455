package sendmail

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"postrider/mta/api/client"
	"postrider/mta/smtpserver"
)

// smtp is -bs: one SMTP session on standard input and output. Each message of
// it is handed over as if it had come by itself; a client is told 250 when
// the server has said so.
func (c *Command) smtp(ctx context.Context) error {
	server, err := smtpserver.New(smtpserver.Options{
		Hostname: "localhost",
		Backend:  session{c},
		// A message is handed over with one set of DSN wishes, where SMTP has
		// one for each recipient.
		Without: smtpserver.ExtDSN,
		Grace:   time.Second,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	go func() { // ends with the process at the latest: standard input cannot be interrupted
		_, err := io.Copy(w, c.Stdin)
		w.CloseWithError(err)
	}()
	return server.Run(ctx, &single{conn: &stdio{in: r, out: c.Stdout, closed: cancel}, done: ctx.Done()})
}

// single is a listener with one connection.
type single struct {
	conn net.Conn
	done <-chan struct{}
}

func (s *single) Accept() (net.Conn, error) {
	if c := s.conn; c != nil {
		s.conn = nil
		return c, nil
	}
	<-s.done
	return nil, net.ErrClosed
}

func (s *single) Close() error   { return nil }
func (s *single) Addr() net.Addr { return stdioAddr }

// stdio is standard input and output as a connection. Who calls the command
// decides how long it waits, so deadlines are kept only when they are over:
// that is how a session is told to stop.
type stdio struct {
	in     *io.PipeReader
	out    io.Writer
	closed func()
}

var stdioAddr = &net.UnixAddr{Name: "standard input", Net: "unix"}

func (s *stdio) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *stdio) Write(p []byte) (int, error) { return s.out.Write(p) }
func (s *stdio) LocalAddr() net.Addr         { return stdioAddr }
func (s *stdio) RemoteAddr() net.Addr        { return stdioAddr }

func (s *stdio) Close() error {
	defer s.closed()
	return s.in.CloseWithError(net.ErrClosed)
}

func (s *stdio) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

func (s *stdio) SetReadDeadline(t time.Time) error {
	if !t.IsZero() && time.Until(t) <= 0 {
		return s.in.CloseWithError(os.ErrDeadlineExceeded)
	}
	return nil
}

func (s *stdio) SetWriteDeadline(time.Time) error { return nil }

type session struct{ command *Command }

func (s session) Connect(*smtpserver.Conn) (smtpserver.Session, error) { return s, nil }

func (s session) Mail(_ context.Context, m *smtpserver.Mail) (smtpserver.Transaction, error) {
	return &transaction{command: s.command, env: client.Envelope{Sender: string(m.Path), Via: "sendmail"}}, nil
}

// transaction streams one message to the server while it comes in.
type transaction struct {
	command *Command
	env     client.Envelope
	pipe    *io.PipeWriter
	done    chan struct{}
	text    string
	err     error
}

func (t *transaction) Rcpt(_ context.Context, r *smtpserver.Rcpt) error {
	t.env.Recipients = append(t.env.Recipients, string(r.Path))
	return nil
}

func (t *transaction) Content(ctx context.Context) (smtpserver.Content, error) {
	var r *io.PipeReader
	r, t.pipe = io.Pipe()
	t.done = make(chan struct{})
	go func() {
		defer close(t.done)
		t.text, t.err = t.command.handOver(ctx, t.env, r, false)
		r.CloseWithError(errors.Join(t.err, io.ErrClosedPipe)) // so that no write waits for a reader
	}()
	return t, nil
}

func (t *transaction) Write(p []byte) (int, error) {
	n, err := t.pipe.Write(p)
	if err != nil {
		return n, replyTo(err)
	}
	return n, nil
}

func (t *transaction) Commit(_ context.Context, text []byte) ([]byte, error) {
	t.pipe.Close()
	<-t.done
	if t.err != nil {
		return text, replyTo(t.err)
	}
	return append(text, t.text...), nil
}

func (t *transaction) End() {
	if t.pipe == nil {
		return
	}
	t.pipe.CloseWithError(errors.New("the client gave the message up"))
	<-t.done
}

// replyTo is what the client of a session is told.
func replyTo(err error) error {
	var refused *client.Refused
	if errors.As(err, &refused) && refused.Code != 0 {
		return &smtpserver.Reply{Code: refused.Code, Status: refused.Status, Text: refused.Text}
	}
	if errors.As(err, &refused) && !refused.Temporary() {
		return &smtpserver.Reply{Code: 554, Status: "5.6.0", Text: refused.Text}
	}
	return &smtpserver.Reply{Code: 451, Status: "4.3.0", Text: strings.ReplaceAll(err.Error(), "\n", "; ")}
}
