package smtpserver

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Extension is a set of what a server may offer.
type Extension uint16

const (
	ExtESMTP Extension = 1 << iota // EHLO at all
	ExtPipelining
	ExtChunking
	ExtSize
	Ext8BitMIME
	ExtSMTPUTF8
	ExtDSN
	ExtEnhancedStatus // the keyword; the codes themselves are always there
	ExtRequireTLS
	ExtLimits
)

// offers tells whether ext is in force for this connection.
func (c *Conn) offers(ext Extension) bool { return c.server.opts.Without&(ext|ExtESMTP) == 0 }

// offersTLS: there is a certificate, and no TLS yet.
func (c *Conn) offersTLS() bool { return c.server.opts.TLS != nil && c.tls == nil }

// offersRequireTLS: RFC 8689, section 2: only inside TLS.
func (c *Conn) offersRequireTLS() bool { return c.tls != nil && c.offers(ExtRequireTLS) }

// offersAuth: passwords go neither over a network in clear nor to a server that
// has none.
func (c *Conn) offersAuth() bool {
	return c.server.opts.Auth != nil && (c.tls != nil || c.remote.Addr().IsLoopback()) && c.offers(ExtESMTP)
}

// appendEHLO appends the reply to EHLO (RFC 5321, section 4.1.1.1).
func (c *Conn) appendEHLO(out []byte) []byte {
	o := &c.server.opts
	out = append(append(out, "250-"...), o.Hostname...)
	keyword := func(on bool, word string) {
		if on {
			out = append(append(out, "\r\n250-"...), word...)
		}
	}
	keyword(c.offers(ExtPipelining), "PIPELINING")
	if c.offers(ExtSize) {
		keyword(true, "SIZE")
		if o.MaxMessageSize > 0 {
			out = strconv.AppendInt(append(out, ' '), o.MaxMessageSize, 10)
		}
	}
	keyword(c.offersTLS(), "STARTTLS")
	keyword(c.offersAuth(), "AUTH PLAIN LOGIN")
	keyword(c.offers(Ext8BitMIME), "8BITMIME")
	keyword(c.offers(ExtSMTPUTF8), "SMTPUTF8")
	keyword(c.offers(ExtChunking), "CHUNKING")
	keyword(c.offers(ExtDSN), "DSN")
	keyword(c.offersRequireTLS(), "REQUIRETLS")
	if c.offers(ExtLimits) && o.MaxRecipients > 0 {
		keyword(true, "LIMITS RCPTMAX=") // RFC 9422, section 4
		out = strconv.AppendInt(out, int64(o.MaxRecipients), 10)
	}
	keyword(c.offers(ExtEnhancedStatus), "ENHANCEDSTATUSCODES")
	out = append(out, "\r\n250 HELP\r\n"...)
	return out
}

// extensionNames are the keywords of EHLO, and EHLO itself.
var extensionNames = map[string]Extension{
	"EHLO": ExtESMTP, "PIPELINING": ExtPipelining, "CHUNKING": ExtChunking, "SIZE": ExtSize, "8BITMIME": Ext8BitMIME,
	"SMTPUTF8": ExtSMTPUTF8, "DSN": ExtDSN, "ENHANCEDSTATUSCODES": ExtEnhancedStatus, "REQUIRETLS": ExtRequireTLS, "LIMITS": ExtLimits,
}

// ParseExtension reads a keyword of EHLO, in either case; "EHLO" is ESMTP
// itself.
func ParseExtension(name string) (Extension, error) {
	if ext, ok := extensionNames[strings.ToUpper(name)]; ok {
		return ext, nil
	}
	return 0, fmt.Errorf("extension %q is none of %s", name, strings.Join(slices.Sorted(maps.Keys(extensionNames)), ", "))
}
