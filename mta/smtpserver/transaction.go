package smtpserver

import (
	"context"
	"unicode/utf8"
)

// transaction is what the loop itself knows of the one under way.
type transaction struct {
	backend  Transaction // nil: none
	smtpUTF8 bool
	rcpts    int
	content  Content // nil: it has not begun
	failure  *Reply  // the content could not be taken
	size     int64
	dropped  int64 // octets of content after the failure
}

// endTransaction ends what transaction there is (RFC 5321, section 4.1.1.5).
func (c *Conn) endTransaction() {
	if c.tx.backend != nil {
		c.tx.backend.End()
		c.tx = transaction{}
	}
}

func (c *Conn) mailCommand(ctx context.Context, args []byte) {
	switch {
	case c.server.stopping.Load():
		c.leaveWith(replyStopping)
		return
	case c.helo == "":
		c.refuse(replyHelloFirst)
		return
	case c.tx.backend != nil:
		c.refuse(replyNested)
		return
	}
	if r := c.parseMail(args); r != nil {
		c.refuse(r)
		return
	}
	tx, err := c.session.Mail(ctx, &c.mail)
	if err != nil {
		c.errors++
		c.tell(c.refusal(err, "mail"))
		return
	}
	c.tx = transaction{backend: tx, smtpUTF8: c.mail.SMTPUTF8}
	c.ok("2.1.0", "sender ok")
}

// parseMail reads "FROM:<path>" and the parameters into c.mail.
func (c *Conn) parseMail(args []byte) *Reply {
	args, ok := cutPrefixFold(args, "FROM:")
	if !ok {
		return replyMailSyntax
	}
	path, rest, ok := parsePath(args)
	if !ok {
		return replyMailSyntax
	}
	c.mail = Mail{Path: path}
	seen := 0
	for {
		var p parameter
		var more bool
		if rest, more, ok = nextParameter(rest, &p); !ok {
			return replyParamSyntax
		}
		if !more {
			break
		}
		bit, r := c.mailParameter(&p)
		if r != nil {
			return r
		}
		if seen&bit != 0 {
			return replyParamTwice
		}
		seen |= bit
	}
	return checkPath(path, c.mail.SMTPUTF8)
}

// mailParameter reads one parameter of MAIL; bit tells which it was.
func (c *Conn) mailParameter(p *parameter) (bit int, r *Reply) {
	m := &c.mail
	switch string(p.name()) {
	case "SIZE":
		return 1, c.sizeParameter(p)
	case "BODY":
		if !c.offers(Ext8BitMIME) {
			break
		}
		var buf [verbLength]byte
		switch string(upper(p.value, buf[:])) {
		case "7BIT":
		case "8BITMIME":
			m.EightBit = true
		default:
			return 2, replyBadBody
		}
		return 2, nil
	case "SMTPUTF8":
		if !c.offers(ExtSMTPUTF8) {
			break
		}
		m.SMTPUTF8 = true
		return 4, withoutValue(p)
	case "REQUIRETLS":
		if !c.offersRequireTLS() {
			break
		}
		m.RequireTLS = true
		return 8, withoutValue(p)
	case "RET":
		if !c.offers(ExtDSN) {
			break
		}
		var ok bool
		if m.Ret, ok = parseRet(p.value); !ok {
			return 16, replyBadRet
		}
		return 16, nil
	case "ENVID":
		if !c.offers(ExtDSN) {
			break
		}
		var ok bool
		if m.EnvID, ok = parseEnvID(p.value); !ok || m.EnvID == "" {
			return 32, replyBadEnvID
		}
		return 32, nil
	case "AUTH":
		// RFC 4954, section 5: who wrote it first. Nobody is trusted with it,
		// which that section allows.
		if !c.offersAuth() {
			break
		}
		return 64, nil
	}
	return 0, replyUnknownParm
}

// sizeParameter: RFC 1870, section 6.1. A message of just the announced size
// is taken.
func (c *Conn) sizeParameter(p *parameter) *Reply {
	if !c.offers(ExtSize) {
		return replyUnknownParm
	}
	size, ok := parseNumber(p.value)
	if !ok {
		return replyBadSize
	}
	if limit := c.server.opts.MaxMessageSize; limit > 0 && size > limit {
		return replyTooBig
	}
	c.mail.Size = size
	return nil
}

func withoutValue(p *parameter) *Reply {
	if p.hasValue {
		return replyNoValue
	}
	return nil
}

func parseRet(value []byte) (Ret, bool) {
	var buf [verbLength]byte
	switch string(upper(value, buf[:])) {
	case "FULL":
		return RetFull, true
	case "HDRS":
		return RetHeaders, true
	}
	return 0, false
}

// checkPath: RFC 6531, section 3.3: an address that is not ASCII goes with
// SMTPUTF8 only.
func checkPath(path []byte, smtpUTF8 bool) *Reply {
	switch {
	case isASCII(path):
		return nil
	case !utf8.Valid(path):
		return replyNotUTF8
	case !smtpUTF8:
		return replyNeedsUTF8
	}
	return nil
}

func (c *Conn) rcptCommand(ctx context.Context, args []byte) {
	switch {
	case c.tx.backend == nil:
		c.refuse(replyNeedsMail)
		return
	case c.tx.content != nil:
		c.refuse(replyAfterChunk)
		return
	}
	if r := c.parseRcpt(args); r != nil {
		c.refuse(r)
		return
	}
	if limit := c.server.opts.MaxRecipients; limit > 0 && c.tx.rcpts >= limit {
		c.tell(replyTooMany)
		return
	}
	// A list with dead addresses is no attack: refusals are not counted.
	if err := c.tx.backend.Rcpt(ctx, &c.rcpt); err != nil {
		c.tell(c.refusal(err, "rcpt"))
		return
	}
	c.tx.rcpts++
	c.ok("2.1.5", "recipient ok")
}

// parseRcpt reads "TO:<path>" and the parameters into c.rcpt.
func (c *Conn) parseRcpt(args []byte) *Reply {
	args, ok := cutPrefixFold(args, "TO:")
	if !ok {
		return replyRcptSyntax
	}
	path, rest, ok := parsePath(args)
	if !ok || len(path) == 0 {
		return replyRcptSyntax
	}
	c.rcpt = Rcpt{Path: path}
	for {
		var p parameter
		var more bool
		if rest, more, ok = nextParameter(rest, &p); !ok {
			return replyParamSyntax
		}
		if !more {
			return checkPath(path, c.tx.smtpUTF8)
		}
		if r := c.rcptParameter(&p); r != nil {
			return r
		}
	}
}

func (c *Conn) rcptParameter(p *parameter) *Reply {
	if !c.offers(ExtDSN) {
		return replyUnknownParm
	}
	var ok bool
	switch string(p.name()) {
	case "NOTIFY":
		if c.rcpt.Notify != 0 {
			return replyParamTwice
		}
		if c.rcpt.Notify, ok = parseNotify(p.value); !ok {
			return replyBadNotify
		}
	case "ORCPT":
		if c.rcpt.ORcpt != "" {
			return replyParamTwice
		}
		if c.rcpt.ORcpt, ok = parseORcpt(p.value); !ok {
			return replyBadORcpt
		}
	default:
		return replyUnknownParm
	}
	return nil
}
