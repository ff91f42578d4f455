package smtptest

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"postrider/mta/smtpwire"
)

// flightBuffer takes a whole flight at once.
const flightBuffer = 512 << 10

// session is one conversation.
type session struct {
	server *Server
	conn   net.Conn
	in     *smtpwire.Reader
	out    []byte
	flight Flight
	isTLS  bool
	helo   string
	tx     *Transaction // under way
	isOver bool
}

func newSession(s *Server, conn net.Conn, id int) *session {
	return &session{server: s, conn: conn, in: smtpwire.NewReader(conn, flightBuffer), flight: Flight{Session: id}}
}

// run holds the conversation.
func (c *session) run() {
	defer c.endFlight()
	if !c.scripted(OnConnect) {
		c.reply(220, "", c.server.script.Name+" ESMTP")
	}
	for !c.isOver {
		line, err := c.command()
		switch {
		case err == smtpwire.ErrBareCR, err == smtpwire.ErrBareLF, err == smtpwire.ErrNUL, err == smtpwire.ErrLineTooLong:
			c.server.violation("%v", err)
			c.reply(500, "5.5.2", "bad line")
		case err != nil:
			return
		default:
			c.flight.Parts = append(c.flight.Parts, line)
			c.server.recordCommand(line)
			c.handle(line)
		}
	}
}

// command reads a command line. Replies go out when no further one has come.
func (c *session) command() (string, error) {
	if c.in.Buffered() == 0 {
		if err := c.flush(); err != nil {
			return "", err
		}
	}
	line, err := c.in.ReadLine(4096)
	return string(line), err
}

// flush answers what came so far.
func (c *session) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	c.endFlight()
	if c.server.script.Delay > 0 {
		c.sleep(c.server.script.Delay)
	}
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

func (c *session) endFlight() {
	if len(c.flight.Parts) > 0 {
		c.server.recordFlight(c.flight)
		c.flight.Parts = nil
	}
}

func (c *session) reply(code int, enhanced string, lines ...string) {
	c.out = smtpwire.AppendReply(c.out, code, enhanced, lines...)
}

// scripted does what the script says for key, if it says anything.
func (c *session) scripted(key string) bool {
	step, ok := c.server.step(key)
	if ok {
		c.do(step)
	}
	return ok
}

func (c *session) do(step Step) {
	c.sleep(step.Wait)
	text := step.Raw
	if step.Reply != "" {
		text = replyText(step.Reply) + text
	}
	if step.Drip == 0 {
		c.out = append(c.out, text...)
		text = ""
		if step.Endless == "" && step.Then == Continue {
			return
		}
	}
	c.isOver = step.Then != Continue
	if c.flush() != nil || c.drip(text, step.Drip) != nil {
		c.isOver = true
		return
	}
	for step.Endless != "" {
		if c.drip(step.Endless, step.Drip) != nil {
			c.isOver = true
			return
		}
	}
	switch step.Then {
	case Reset:
		if tcp, ok := c.conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
	case Hang:
		<-c.server.closing
	}
}

// replyText gives a code to each line of a reply: "250-a" and "250 b" of
// "250 a\nb".
func replyText(reply string) string {
	code, rest, _ := strings.Cut(reply, " ")
	lines := strings.Split(rest, "\n")
	var b strings.Builder
	for i, line := range lines {
		separator := "-"
		if i == len(lines)-1 {
			separator = " "
		}
		b.WriteString(code + separator + line + "\r\n")
	}
	return b.String()
}

func (c *session) drip(text string, every time.Duration) error {
	if text == "" {
		return nil
	}
	if every == 0 {
		_, err := io.WriteString(c.conn, text)
		return err
	}
	for i := range len(text) {
		if _, err := io.WriteString(c.conn, text[i:i+1]); err != nil {
			return err
		}
		c.sleep(every)
	}
	return nil
}

func (c *session) sleep(d time.Duration) {
	if d == 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.server.closing:
	}
}

// handle does what one command asks for.
func (c *session) handle(line string) {
	verb, rest, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	if verb == "BDAT" {
		c.bdat(line, rest) // its content comes in any case
		return
	}
	if step, ok := c.server.step(line); ok {
		c.do(step)
		c.note(verb, rest, step.code())
		return
	}
	c.usual(verb, rest)
}

// note keeps what a scripted reply to a command changes.
func (c *session) note(verb, rest string, code int) {
	switch {
	case verb == "RCPT" && c.tx != nil:
		c.addRcpt(rest, code/100 == 2)
	case verb == "DATA" && code == 354:
		c.data()
	case code/100 != 2:
	case verb == "EHLO", verb == "HELO":
		c.helo = rest
	case verb == "MAIL":
		c.begin(rest)
	case verb == "RSET":
		c.tx = nil
	case verb == "STARTTLS" && code == 220:
		c.startTLS()
	}
}

func (c *session) usual(verb, rest string) {
	switch verb {
	case "EHLO":
		c.helo, c.tx = rest, nil
		c.reply(250, "", append([]string{c.server.script.Name}, c.extensions()...)...)
	case "HELO":
		c.helo, c.tx = rest, nil
		c.reply(250, "", c.server.script.Name)
	case "MAIL":
		switch {
		case c.helo == "":
			c.server.violation("MAIL before EHLO")
			c.reply(503, "5.5.1", "say EHLO first")
		case c.tx != nil:
			c.server.violation("nested MAIL")
			c.reply(503, "5.5.1", "nested MAIL")
		default:
			c.begin(rest)
			c.reply(250, "2.1.0", "sender ok")
		}
	case "RCPT":
		if c.tx == nil {
			c.reply(503, "5.5.1", "MAIL first")
			return
		}
		c.addRcpt(rest, true)
		c.reply(250, "2.1.5", "recipient ok")
	case "DATA":
		switch {
		case c.tx == nil:
			c.reply(503, "5.5.1", "MAIL first")
		case !c.tx.hasRcpt():
			c.reply(554, "5.5.1", "no valid recipients")
		default:
			c.reply(354, "", "go ahead")
			c.data()
		}
	case "RSET":
		c.tx = nil
		c.reply(250, "2.0.0", "ok")
	case "NOOP":
		c.reply(250, "2.0.0", "ok")
	case "STARTTLS":
		if c.isTLS || c.server.script.TLS == nil {
			c.reply(503, "5.5.1", "not offered")
			return
		}
		c.reply(220, "2.0.0", "ready")
		c.startTLS()
	case "QUIT":
		c.reply(221, "2.0.0", "bye")
		c.isOver = true
		c.flush()
	default:
		c.server.violation("unknown command %q", verb)
		c.reply(500, "5.5.2", "unknown command")
	}
}

func (c *session) extensions() []string {
	var lines []string
	for _, line := range c.server.script.Extensions {
		if c.isTLS && strings.EqualFold(line, "STARTTLS") {
			continue
		}
		lines = append(lines, line)
	}
	return lines
}

func (c *session) begin(rest string) {
	address, params, ok := cutPath(rest, "FROM:")
	if !ok {
		c.server.violation("malformed MAIL %q", rest)
	}
	c.tx = &Transaction{Session: c.flight.Session, HELO: c.helo, IsTLS: c.isTLS, From: address, FromParams: params}
}

func (c *session) addRcpt(rest string, isAccepted bool) {
	address, params, ok := cutPath(rest, "TO:")
	if !ok {
		c.server.violation("malformed RCPT %q", rest)
	}
	c.tx.Rcpts = append(c.tx.Rcpts, Rcpt{Address: address, Params: params, IsAccepted: isAccepted})
}

func (t *Transaction) hasRcpt() bool {
	for _, r := range t.Rcpts {
		if r.IsAccepted {
			return true
		}
	}
	return false
}

// cutPath splits "FROM:<a@b.test> SIZE=1".
func cutPath(rest, word string) (address, params string, ok bool) {
	if len(rest) < len(word) || !strings.EqualFold(rest[:len(word)], word) {
		return "", "", false
	}
	rest, ok = strings.CutPrefix(rest[len(word):], "<")
	isQuoted := false
	for i := 0; ok && i < len(rest); i++ {
		switch {
		case rest[i] == '\\' && isQuoted:
			i++
		case rest[i] == '"':
			isQuoted = !isQuoted
		case rest[i] == '>' && !isQuoted:
			params, hasParams := strings.CutPrefix(rest[i+1:], " ")
			return rest[:i], params, hasParams || rest[i+1:] == ""
		}
	}
	return "", "", false
}

// data reads the content after 354.
func (c *session) data() {
	if c.in.Buffered() > 0 {
		// RFC 2920, section 3.1: DATA is the last command of a group.
		c.server.violation("octets behind DATA before 354")
	}
	if c.isOver || c.flush() != nil {
		c.isOver = true
		return
	}
	d := smtpwire.NewDataReader(c.in)
	defects := func() {
		if d.Defects() != (smtpwire.Defects{}) {
			c.server.violation("content with defects: %+v", d.Defects())
		}
	}
	if c.content(d.Next) {
		defects()
		c.end()
	}
}

// bdat reads a chunk, in whatever state the session is (RFC 3030, section 2).
func (c *session) bdat(line, rest string) {
	words := strings.Fields(rest)
	if len(words) == 0 {
		c.server.violation("malformed %q", line)
		c.reply(501, "5.5.4", "BDAT needs a size")
		return
	}
	left, err := strconv.Atoi(words[0])
	if err != nil || left < 0 {
		c.server.violation("malformed %q", line)
		c.reply(501, "5.5.4", "BDAT needs a size")
		return
	}
	isLast := len(words) == 2 && strings.EqualFold(words[1], "LAST")
	usable := c.tx != nil && c.tx.hasRcpt()
	tx := c.tx
	if !usable {
		c.tx = &Transaction{} // takes the octets that nobody wants
	}
	c.tx.IsChunked = true
	ok := c.content(func() ([]byte, error) {
		if left == 0 {
			return nil, io.EOF
		}
		b, err := c.in.Next(left)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		left -= len(b)
		return b, err
	})
	if !usable {
		c.tx = tx
	}
	if !ok {
		return
	}
	step, isScripted := c.server.step(line)
	switch {
	case isScripted:
		c.do(step)
		if isLast && step.code() == 250 {
			c.finish(true)
		}
	case c.tx == nil:
		c.reply(503, "5.5.1", "MAIL first")
	case !usable:
		c.reply(554, "5.5.1", "no valid recipients")
	case isLast:
		c.end()
	default:
		c.reply(250, "2.0.0", fmt.Sprintf("%s octets", words[0]))
	}
}

// content reads content from next into the transaction, and tells whether all
// of it came and is still to be answered.
func (c *session) content(next func() ([]byte, error)) bool {
	early, isEarly := c.server.step(OnContent)
	octets, isAnswered := 0, false
	defer func() { c.flight.Parts = append(c.flight.Parts, fmt.Sprintf("(%d octets)", octets)) }()
	for {
		if isEarly && octets >= early.After && !isAnswered {
			isAnswered = true
			c.do(early)
			if c.isOver || c.flush() != nil {
				c.isOver = true
				return false
			}
		}
		b, err := next()
		if err == io.EOF {
			return !isAnswered
		}
		if err != nil {
			c.isOver = true
			return false
		}
		octets += len(b)
		if c.tx != nil && len(c.tx.Content) < c.server.script.MaxContent {
			c.tx.Content = append(c.tx.Content, b[:min(len(b), c.server.script.MaxContent-len(c.tx.Content))]...)
		}
	}
}

// end answers a whole content.
func (c *session) end() {
	step, ok := c.server.step(OnEnd)
	if ok {
		// Recorded first, so that a client that has its reply finds it recorded.
		c.finish(step.code()/100 == 2)
		c.do(step)
		return
	}
	c.finish(true)
	c.reply(250, "2.0.0", "queued as "+strconv.Itoa(len(c.server.Transactions())))
}

func (c *session) finish(isAccepted bool) {
	if c.tx != nil {
		c.tx.IsAccepted = isAccepted && c.tx.hasRcpt()
		c.server.record(*c.tx)
		c.tx = nil
	}
}

// startTLS shakes hands after 220 has gone out.
func (c *session) startTLS() {
	if c.isOver || c.flush() != nil || c.server.script.TLS == nil {
		c.isOver = true
		return
	}
	if step, ok := c.server.step(OnTLS); ok {
		if c.in.Fill() == nil { // the client has begun
			c.do(step)
			c.flush()
		}
		c.isOver = true
		return
	}
	if c.in.Buffered() > 0 {
		c.server.violation("octets behind STARTTLS before 220")
	}
	t := tls.Server(c.conn, c.server.script.TLS)
	if t.Handshake() != nil {
		c.isOver = true
		return
	}
	c.conn, c.isTLS = t, true
	c.in = smtpwire.NewReader(t, flightBuffer)
	c.helo, c.tx = "", nil
}
