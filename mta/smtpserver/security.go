package smtpserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"time"
)

// startTLSCommand: RFC 3207. Whatever goes wrong after the 220, the session
// does not go on in clear.
func (c *Conn) startTLSCommand(ctx context.Context, args []byte) {
	switch {
	case len(args) > 0:
		c.refuse(replyNoArgs)
		return
	case c.tls != nil:
		c.refuse(replyTLSActive)
		return
	case !c.offersTLS() || !c.offers(ExtESMTP):
		c.refuse(replyNoTLS)
		return
	case c.in.Buffered() > 0:
		// Commands that would be carried out inside TLS although somebody
		// else may have put them in.
		c.refuse(replyInjected)
		c.leave = true
		return
	}
	c.reply(220, "2.0.0", "ready to start TLS")
	if c.flush(time.Now()) != nil {
		c.hangUp()
		return
	}
	if !c.handshake(ctx, tls.Server(c.raw, c.server.opts.TLS)) {
		return
	}
	// RFC 3207, section 4.2: what was said before is forgotten.
	c.endTransaction()
	c.helo, c.extended, c.user = "", false, ""
}

// handshake makes t what the session speaks over.
func (c *Conn) handshake(ctx context.Context, t *tls.Conn) bool {
	ctx, cancel := context.WithTimeout(ctx, c.server.opts.TLSTimeout)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		c.server.stats.tlsFailed.Add(1)
		c.server.opts.Logger.Info("TLS handshake failed", "ip", c.remote.Addr(), "err", err)
		c.hangUp()
		return false
	}
	c.server.stats.tls.Add(1)
	state := t.ConnectionState()
	c.conn, c.tls = t, &state
	return true
}

// hangUp ends the session without another word.
func (c *Conn) hangUp() {
	c.leave, c.noLinger = true, true
	c.out = c.out[:0]
}

// maxAuthFailures ends the guessing on a connection.
const maxAuthFailures = 3

// authCommand: RFC 4954.
func (c *Conn) authCommand(ctx context.Context, args []byte) {
	switch {
	case c.server.opts.Auth == nil || !c.offers(ExtESMTP):
		c.refuse(replyNoAuth)
		return
	case !c.offersAuth():
		c.refuse(replyAuthTLS)
		return
	case !c.extended:
		c.refuse(replyHelloFirst)
		return
	case c.user != "":
		c.refuse(replyAuthTwice)
		return
	case c.tx.backend != nil:
		c.refuse(replyNested)
		return
	}
	name, initial, _ := bytes.Cut(args, space)
	initial = bytes.Clone(trimSpace(initial))
	var buf [verbLength]byte
	var user, password string
	var ok bool
	switch string(upper(name, buf[:])) {
	case "PLAIN":
		user, password, ok = c.plainResponse(initial)
	case "LOGIN":
		user, password, ok = c.loginResponses(initial)
	default:
		c.refuse(replyMechanism)
		return
	}
	if ok {
		c.authenticate(ctx, user, password)
	}
}

func (c *Conn) authenticate(ctx context.Context, user, password string) {
	ctx, cancel := context.WithTimeout(ctx, c.server.opts.CommandTimeout)
	defer cancel()
	err := c.server.opts.Auth.Authenticate(ctx, user, password)
	switch {
	case err == nil:
		c.user = user
		c.server.stats.authenticated.Add(1)
		c.reply(235, "2.7.0", "authenticated")
	case errors.Is(err, ErrCredentials):
		c.server.stats.authFailed.Add(1)
		c.server.opts.Logger.Warn("authentication failed", "ip", c.remote.Addr(), "user", user)
		c.tell(replyCredentials)
		c.authFailures++
		if c.authFailures >= maxAuthFailures {
			c.leaveWith(replyErrors)
		}
	default:
		c.server.opts.Logger.Error("cannot check a password", "user", user, "err", err)
		c.tell(replyAuthLater)
	}
}

// plainResponse: RFC 4616: an identity to act as, user and password with NULs
// between. To act as somebody else is not offered.
func (c *Conn) plainResponse(initial []byte) (user, password string, ok bool) {
	response, ok := c.response(initial, "")
	if !ok {
		return "", "", false
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 || !isUserName(parts[1]) || len(parts[0]) > 0 && !bytes.Equal(parts[0], parts[1]) {
		c.refuse(replyBadBase64)
		return "", "", false
	}
	return string(parts[1]), string(parts[2]), true
}

// loginResponses: the mechanism LOGIN was never more than a draft: two
// prompts, two answers. Clients that know nothing else are still common.
func (c *Conn) loginResponses(initial []byte) (user, password string, ok bool) {
	name, ok := c.response(initial, "VXNlcm5hbWU6") // Username:
	if !ok {
		return "", "", false
	}
	if !isUserName(name) {
		c.refuse(replyBadBase64)
		return "", "", false
	}
	secret, ok := c.response(nil, "UGFzc3dvcmQ6") // Password:
	return string(name), string(secret), ok
}

// isUserName: names go into logs and trace headers.
func isUserName(b []byte) bool {
	return len(b) > 0 && len(b) <= 255 && isPrintable(string(b))
}

// response is the client's answer to a challenge, decoded: the initial one
// where the command had it ("=" is the empty one), else what comes after a 334.
func (c *Conn) response(initial []byte, challenge string) ([]byte, bool) {
	line := initial
	if len(line) == 0 {
		c.out = append(append(append(c.out, "334 "...), challenge...), '\r', '\n')
		var err error
		if line, err = c.readCommand(); err != nil {
			c.badInput(err)
			return nil, false
		}
		if string(line) == "*" {
			c.refuse(replyAuthAborted)
			return nil, false
		}
	} else if string(line) == "=" {
		line = nil
	}
	decoded := make([]byte, base64.StdEncoding.DecodedLen(len(line)))
	n, err := base64.StdEncoding.Strict().Decode(decoded, line)
	if err != nil {
		c.refuse(replyBadBase64)
		return nil, false
	}
	return decoded[:n], true
}
