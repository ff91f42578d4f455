package smtpserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"postrider/mta/smtpwire"
)

// Conn is one connection. A backend reads from it who speaks; its methods may
// be called while a method of its Session, Transaction or Content runs.
type Conn struct {
	server       *Server
	raw          net.Conn // closed and given deadlines, whatever speaks over it
	conn         net.Conn // raw, or TLS over it
	tls          *tls.ConnectionState
	remote       netip.AddrPort
	local        netip.AddrPort
	session      Session
	helo         string
	extended     bool
	user         string
	deadlines    *smtpwire.Deadlines
	buffers      *buffers
	in           *smtpwire.Reader
	out          []byte
	input        inputState
	data         smtpwire.DataReader
	mail         Mail
	rcpt         Rcpt
	tx           transaction
	errors       int // mistakes since the last message
	junk         int // commands since the last message that brought it no nearer
	authFailures int
	leave        bool // the session ends when what is in out was written
	noLinger     bool // and nothing that the client still sends can harm the last reply
}

// RemoteAddr is the client's address; the zero value where the network has none.
func (c *Conn) RemoteAddr() netip.AddrPort { return c.remote }

// LocalAddr is the address that the client connected to.
func (c *Conn) LocalAddr() netip.AddrPort { return c.local }

// HELO is how the client greeted: printable ASCII without blanks, at most 255
// octets, otherwise unchecked.
func (c *Conn) HELO() string { return c.helo }

// Extended tells whether the client said EHLO.
func (c *Conn) Extended() bool { return c.extended }

// TLS is nil in clear.
func (c *Conn) TLS() *tls.ConnectionState { return c.tls }

// User is who authenticated; empty: nobody.
func (c *Conn) User() string { return c.user }

// buffers outlive a connection, so that a client which connects for each
// message costs no fresh ones.
type buffers struct {
	in   *smtpwire.Reader
	out  []byte
	text []byte
}

func newConn(s *Server, nc net.Conn) *Conn {
	raw := nc
	if t, ok := nc.(*tls.Conn); ok {
		raw = t.NetConn() // closing TLS may have to wait for the peer
	}
	return &Conn{
		server: s, raw: raw, conn: nc,
		remote: addrPort(nc.RemoteAddr()), local: addrPort(nc.LocalAddr()),
		deadlines: smtpwire.NewDeadlines(raw),
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
	}
	return netip.AddrPort{}
}

// wake ends a wait for input, so that the session sees that the server stops.
func (c *Conn) wake() { c.raw.SetReadDeadline(time.Unix(1, 0)) }

// kill ends the session at once.
func (c *Conn) kill() { c.raw.Close() }

// serve is the session.
func (c *Conn) serve(ctx context.Context) {
	c.takeBuffers()
	defer c.finish()
	if !c.begin(ctx) {
		return
	}
	for !c.leave {
		line, err := c.readCommand()
		if err != nil {
			c.badInput(err)
			continue
		}
		c.command(ctx, line)
		c.enforceLimits()
		if len(c.out) >= flushAt && c.flush(time.Now()) != nil {
			return
		}
	}
}

func (c *Conn) takeBuffers() {
	b, ok := c.server.pool.Get().(*buffers)
	if !ok {
		b = &buffers{out: make([]byte, 0, flushAt+512), text: make([]byte, 0, 512)}
		b.in = smtpwire.NewReader(nil, c.server.opts.BufferSize)
	}
	b.in.Reset((*input)(c))
	c.buffers, c.in, c.out = b, b.in, b.out[:0]
}

// begin brings the session to its greeting.
func (c *Conn) begin(ctx context.Context) bool {
	if t, ok := c.conn.(*tls.Conn); ok && !c.handshake(ctx, t) {
		return false
	}
	session, err := c.server.opts.Backend.Connect(c)
	if err != nil {
		r := c.refusal(err, "connect")
		if r == replyLocal {
			r = replyNotNow
		}
		c.leaveWith(r)
		return false
	}
	c.session = session
	c.out = append(append(append(c.out, "220 "...), c.server.opts.Hostname...), " ESMTP\r\n"...)
	return true
}

// maxJunk is how many commands may go by without a message.
const maxJunk = 1000

func (c *Conn) enforceLimits() {
	switch {
	case c.leave:
	case c.errors >= c.server.opts.MaxErrors:
		c.server.opts.Logger.Info("client sent away", "ip", c.remote.Addr(), "reason", replyErrors.Text)
		c.leaveWith(replyErrors)
	case c.junk >= maxJunk:
		c.server.opts.Logger.Info("client sent away", "ip", c.remote.Addr(), "reason", replyJunk.Text)
		c.leaveWith(replyJunk)
	}
}

// noteCommand writes the dialog into the log, where it is wanted. A password is
// never written: neither what follows AUTH, nor a line that is no command and
// may be an answer to an AUTH that failed.
func (c *Conn) noteCommand(ctx context.Context, verb, line []byte) {
	if !c.server.opts.Logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	text := string(verb) + " ..."
	switch string(verb) {
	case "EHLO", "HELO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "STARTTLS", "VRFY", "HELP":
		text = string(line)
	case "AUTH":
	default:
		text = "not a command"
	}
	c.server.opts.Logger.Debug("command", "ip", c.remote.Addr(), "line", text)
}

// command carries out one command.
func (c *Conn) command(ctx context.Context, line []byte) {
	if hasControl(line) {
		c.refuse(replyBadOctet)
		return
	}
	var verb [verbLength]byte
	name, args := splitVerb(line, &verb)
	c.noteCommand(ctx, name, line)
	switch string(name) {
	case "MAIL":
		c.mailCommand(ctx, args)
	case "RCPT":
		c.rcptCommand(ctx, args)
	case "DATA":
		c.dataCommand(ctx, args)
	case "BDAT":
		c.bdatCommand(ctx, args)
	case "QUIT":
		c.reply(221, "2.0.0", "goodbye")
		c.leave, c.noLinger = true, true
	case "STARTTLS":
		c.startTLSCommand(ctx, args)
	case "AUTH":
		c.authCommand(ctx, args)
	default:
		c.junk++
		c.idleCommand(name, args, line)
	}
}

// idleCommand is a command that brings no message nearer.
func (c *Conn) idleCommand(name, args, line []byte) {
	switch string(name) {
	case "EHLO":
		if !c.offers(ExtESMTP) {
			c.refuse(replyUnknown)
			return
		}
		c.helloCommand(args, true)
	case "HELO":
		c.helloCommand(args, false)
	case "RSET":
		if len(args) > 0 {
			c.refuse(replyNoArgs)
			return
		}
		c.endTransaction()
		c.ok("2.0.0", "reset")
	case "NOOP":
		c.ok("2.0.0", "ok")
	case "VRFY":
		// RFC 5321, section 7.3: neither yes nor no.
		c.reply(252, "2.0.0", "cannot verify, send the message and see")
	case "HELP":
		c.reply(214, "2.0.0", "see RFC 5321")
	case "EXPN", "ETRN", "TURN", "SEND", "SOML", "SAML":
		c.refuse(replyNotOffered)
	default:
		// A web page can make a browser send a request with commands in its
		// body to a port on loopback: nothing of it must be carried out.
		if isHTTP(name, line) {
			c.refuse(replyHTTP)
			c.leave = true
			return
		}
		c.refuse(replyUnknown)
	}
}

func isHTTP(verb, line []byte) bool {
	switch string(verb) {
	case "GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE", "PRI":
		return true
	}
	return bytes.Contains(line, []byte(" HTTP/"))
}

func hasControl(line []byte) bool {
	for _, b := range line {
		if b < ' ' && b != '\t' || b == 0x7f {
			return true
		}
	}
	return false
}

// maxName is the longest host name of a client (RFC 5321, section 4.5.3.1.2).
const maxName = 255

func (c *Conn) helloCommand(args []byte, extended bool) {
	name, _, _ := bytes.Cut(args, space)
	if len(name) == 0 {
		c.refuse(replyNeedsName)
		return
	}
	c.endTransaction()
	name = bytes.Clone(name[:min(len(name), maxName)])
	clean(name)
	c.helo, c.extended = string(name), extended
	if extended {
		c.out = c.appendEHLO(c.out)
		return
	}
	c.out = append(append(append(c.out, "250 "...), c.server.opts.Hostname...), "\r\n"...)
}

// finish writes what is left to say and closes.
func (c *Conn) finish() {
	c.endTransaction()
	if len(c.out) > 0 {
		c.flush(time.Now())
		c.linger()
	}
	c.conn.Close()
	b := c.buffers
	b.in.Reset(nil)
	b.out = c.out[:0]
	c.in, c.out, c.buffers = nil, nil, nil
	if cap(b.out) <= 4*flushAt {
		c.server.pool.Put(b)
	}
}

// What a client that is sent away may still have on its way: closing before it
// was read makes TCP throw away the reply that says why.
const (
	lingerFor    = time.Second
	lingerOctets = 256 << 10
)

// linger lets the last reply arrive.
func (c *Conn) linger() {
	half, ok := c.conn.(interface{ CloseWrite() error })
	if !ok || c.noLinger || half.CloseWrite() != nil {
		return
	}
	c.raw.SetReadDeadline(time.Now().Add(lingerFor))
	c.in.Reset(c.conn)
	for n := 0; n < lingerOctets; {
		b, err := c.in.Next(lingerOctets)
		if err != nil {
			return
		}
		n += len(b)
	}
}
