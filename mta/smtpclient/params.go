package smtpclient

import (
	"strconv"
	"strings"

	"postrider/mta/smtpwire"
)

// MailOptions are what [MailParams] writes for a message.
type MailOptions struct {
	Size       int64  // of the content in octets
	Body       string // "7BIT" or "8BITMIME"; empty: not said
	SMTPUTF8   bool   // RFC 6531
	RequireTLS bool   // RFC 8689
	Ret        string // "FULL" or "HDRS"; empty: not said (RFC 3461, section 4.3)
	EnvID      string // plain, not xtext (RFC 3461, section 4.4)
	// Priority of RFC 6710, -9 to 9; 0 is not said.
	Priority int
}

// MailParams writes the parameters of MAIL. What the server does not offer is
// left out, but for SMTPUTF8 and REQUIRETLS: a message that needs one must
// never go without, so the server refuses it where the caller did not look at
// the extensions first.
func MailParams(ext Extensions, o MailOptions) string {
	// Most messages have no more than SIZE and BODY.
	b := make([]byte, 0, 64)
	if ext.SizeKnown && o.Size > 0 {
		b = append(b, " SIZE="...)
		b = strconv.AppendInt(b, o.Size, 10)
	}
	if ext.EightBitMIME && o.Body != "" {
		b = append(b, " BODY="...)
		b = append(b, o.Body...)
	}
	if o.SMTPUTF8 {
		b = append(b, " SMTPUTF8"...)
	}
	if o.RequireTLS {
		b = append(b, " REQUIRETLS"...)
	}
	if ext.DSN && o.Ret != "" {
		b = append(b, " RET="...)
		b = append(b, o.Ret...)
	}
	if ext.DSN && o.EnvID != "" {
		b = append(b, " ENVID="...)
		b = smtpwire.AppendXtext(b, o.EnvID)
	}
	if ext.MTPriority && o.Priority != 0 {
		b = append(b, " MT-PRIORITY="...)
		b = strconv.AppendInt(b, int64(o.Priority), 10)
	}
	return withoutSpace(b)
}

// RcptOptions are what [RcptParams] writes for a recipient.
type RcptOptions struct {
	// NotifyNever excludes the other three (RFC 3461, section 4.1); none of the
	// four: not said.
	NotifyNever, NotifySuccess, NotifyFailure, NotifyDelay bool
	// ORCPT in wire form, its address in xtext or, for the type utf-8, as RFC
	// 6533, section 3, has it: "rfc822;a+2Bb@c.test". Empty: not said.
	ORCPT string
}

// RcptParams writes the parameters of RCPT: nothing where the server has no DSN.
func RcptParams(ext Extensions, o RcptOptions) string {
	if !ext.DSN || o == (RcptOptions{}) {
		return ""
	}
	b := make([]byte, 0, 64)
	if o.NotifyNever {
		b = append(b, " NOTIFY=NEVER"...)
	} else if o.NotifySuccess || o.NotifyFailure || o.NotifyDelay {
		b = append(b, " NOTIFY="...)
		for _, n := range []struct {
			wanted bool
			word   string
		}{{o.NotifySuccess, "SUCCESS,"}, {o.NotifyFailure, "FAILURE,"}, {o.NotifyDelay, "DELAY,"}} {
			if n.wanted {
				b = append(b, n.word...)
			}
		}
		b = b[:len(b)-1]
	}
	if o.ORCPT != "" {
		b = append(b, " ORCPT="...)
		b = append(b, o.ORCPT...)
	}
	return withoutSpace(b)
}

func withoutSpace(b []byte) string { return strings.TrimPrefix(string(b), " ") }
