package smtpserver

import (
	"errors"
	"strconv"

	"postrider/mta/smtpwire"
)

// maxReplyText keeps a reply line within the 512 octets of RFC 5321, section
// 4.5.3.1.5, with room for code, status and CRLF.
const maxReplyText = 480

// flushAt is how many octets of replies may gather before they are written
// while input is still there to be worked on.
const flushAt = 4096

// The replies of the loop itself. None is ever changed.
var (
	replyNotOffered  = &Reply{502, "5.5.1", "command not implemented"}
	replyUnknown     = &Reply{500, "5.5.2", "command not recognized"}
	replyLineTooLong = &Reply{500, "5.5.2", "command line too long"}
	replyBareLF      = &Reply{500, "5.5.2", "a command line must end in CRLF, and a line feed came without its carriage return"}
	replyBadOctet    = &Reply{500, "5.5.2", "control character in a command line"}
	replyNoArgs      = &Reply{501, "5.5.4", "no arguments are allowed here"}
	replyNeedsName   = &Reply{501, "5.5.4", "your host name is missing"}
	replyHelloFirst  = &Reply{503, "5.5.1", "say EHLO or HELO first"}
	replyNested      = &Reply{503, "5.5.1", "a transaction is under way, end it with RSET"}
	replyNeedsMail   = &Reply{503, "5.5.1", "say MAIL first"}
	replyNeedsRcpt   = &Reply{503, "5.5.1", "no recipient was accepted"}
	replyMixed       = &Reply{503, "5.5.1", "DATA and BDAT do not mix in one transaction"}
	replyAfterChunk  = &Reply{503, "5.5.1", "the content has begun, finish it with BDAT LAST or say RSET"}
	replyMailSyntax  = &Reply{501, "5.5.4", "syntax is MAIL FROM:<address> and parameters"}
	replyRcptSyntax  = &Reply{501, "5.5.4", "syntax is RCPT TO:<address> and parameters"}
	replyParamSyntax = &Reply{501, "5.5.4", "malformed parameter"}
	replyParamTwice  = &Reply{501, "5.5.4", "parameter given twice"}
	replyBadSize     = &Reply{501, "5.5.4", "SIZE is not a number"}
	replyBadBody     = &Reply{501, "5.5.4", "BODY is neither 7BIT nor 8BITMIME"}
	replyBadRet      = &Reply{501, "5.5.4", "RET is neither FULL nor HDRS"}
	replyBadEnvID    = &Reply{501, "5.5.4", "ENVID is not printable xtext of at most 100 octets"}
	replyBadNotify   = &Reply{501, "5.5.4", "NOTIFY is neither NEVER nor a list of SUCCESS, FAILURE and DELAY"}
	replyBadORcpt    = &Reply{501, "5.5.4", "ORCPT is not an address type, a semicolon and xtext"}
	replyNoValue     = &Reply{501, "5.5.4", "parameter takes no value"}
	replyUnknownParm = &Reply{555, "5.5.4", "parameter not recognized, or not offered here"}
	replyTooBig      = &Reply{552, "5.3.4", "message is over the size limit"}
	replyNeedsUTF8   = &Reply{553, "5.6.7", "an address that is not ASCII needs the SMTPUTF8 parameter"}
	replyNotUTF8     = &Reply{553, "5.1.3", "address is neither ASCII nor UTF-8"}
	replyTooMany     = &Reply{452, "4.5.3", "too many recipients, send the rest in another transaction"}
	replyBadChunk    = &Reply{501, "5.5.4", "syntax is BDAT length [LAST]"}
	replyNoTLS       = &Reply{502, "5.5.1", "TLS is not available here"}
	replyTLSActive   = &Reply{503, "5.5.1", "TLS is active"}
	replyInjected    = &Reply{554, "5.7.0", "something came after STARTTLS and before TLS"}
	replyNoAuth      = &Reply{502, "5.5.1", "AUTH is not available here"}
	replyAuthTLS     = &Reply{538, "5.7.11", "AUTH is available inside TLS only, say STARTTLS first"}
	replyAuthTwice   = &Reply{503, "5.5.1", "authenticated already"}
	replyMechanism   = &Reply{504, "5.5.4", "mechanism is neither PLAIN nor LOGIN"}
	replyBadBase64   = &Reply{501, "5.5.2", "response is not base64 of what the mechanism wants"}
	replyAuthAborted = &Reply{501, "5.7.0", "authentication given up"}
	replyCredentials = &Reply{535, "5.7.8", "user name or password is wrong"}
	replyAuthLater   = &Reply{454, "4.7.0", "cannot check passwords at present, try again later"}
	replyLocal       = &Reply{451, "4.3.0", "local error, try again later"}
	replyBusy        = &Reply{421, "4.7.0", "too many connections, try again later"}
	replyBusyClient  = &Reply{421, "4.7.0", "too many connections from your address, try again later"}
	replyNotNow      = &Reply{421, "4.3.0", "local error, try again later"}
	replyStopping    = &Reply{421, "4.3.2", "shutting down, try again later"}
	replyIdle        = &Reply{421, "4.4.2", "timeout"}
	replyErrors      = &Reply{421, "4.7.0", "too many errors"}
	replyJunk        = &Reply{421, "4.7.0", "too many commands without a message"}
	replyHTTP        = &Reply{554, "5.5.1", "this is SMTP, not HTTP"}
	replyPlainTLS    = &Reply{554, "5.5.1", "TLS begins with STARTTLS on this port"}
	replyEndlessData = &Reply{552, "5.3.4", "message is far over the size limit"}
)

// ok answers 250.
func (c *Conn) ok(status, text string) { c.reply(250, status, text) }

// reply puts a reply into the output.
func (c *Conn) reply(code int, status, text string) {
	c.out = smtpwire.AppendReply(c.out, code, status, text)
}

// refuse answers with r and counts it as the client's mistake.
func (c *Conn) refuse(r *Reply) {
	c.errors++
	c.server.stats.protocolErrors.Add(1)
	c.tell(r)
}

// tell answers with a refusal; 421 ends the connection.
func (c *Conn) tell(r *Reply) {
	c.out = appendRefusal(c.out, r)
	if r.Code == 421 {
		c.leave = true
	}
}

// leaveWith answers with r and ends the connection.
func (c *Conn) leaveWith(r *Reply) {
	c.tell(r)
	c.leave = true
}

// appendRefusal writes r, whatever a backend put into it: a code out of range
// becomes 451, a status of another class is replaced.
func appendRefusal(out []byte, r *Reply) []byte {
	code, status := r.Code, r.Status
	if code < 400 || code > 599 {
		code = replyLocal.Code
	}
	class := byte('0' + code/100)
	if len(status) < 5 || status[0] != class {
		status = string([]byte{class}) + ".0.0"
	}
	out = append(strconv.AppendInt(out, int64(code), 10), ' ')
	out = append(append(out, status...), ' ')
	start := len(out)
	out = append(out, r.Text[:min(len(r.Text), maxReplyText)]...)
	clean(out[start:])
	return append(out, '\r', '\n')
}

// clean replaces what is not printable ASCII.
func clean(b []byte) {
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
}

// refusal finds what a client is told about an error of the backend.
func (c *Conn) refusal(err error, doing string) *Reply {
	if r, ok := errors.AsType[*Reply](err); ok {
		return r
	}
	c.server.opts.Logger.Warn("session failed", "doing", doing, "ip", c.remote.Addr(), "err", err)
	return replyLocal
}
