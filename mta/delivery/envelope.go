package delivery

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"postrider/mta/mailaddr"
	"postrider/mta/smtpclient"
	"postrider/mta/smtpwire"
	"postrider/queue"
)

// flight is an attempt on its way over a session. Flights are used again, with
// their buffers.
type flight struct {
	waiting
	tx       smtpclient.Transaction
	who      []int           // the attempt's recipient behind each of the transaction's
	outcomes []queue.Outcome // of the attempt; those not in who are decided already
	opened   content         // before its turn, or converted
	openErr  error
	remote   *queue.Remote // the host, in the words of the attempt's plan
	number   int           // of the transaction on its session, from 0
	isFirst  bool          // on a session that came from the pool, of this time
}

// content is what is sent, with what gives it back; the zero value is none.
type content struct {
	smtpclient.Body
	io.Closer
}

func newFlight() *flight {
	f := &flight{}
	f.tx.Open = f.open
	f.tx.Value = f
	return f
}

// open gives the content to the session.
func (f *flight) open() (smtpclient.Body, io.Closer, error) {
	if f.opened.Closer == nil {
		c, err := f.attempt.Content.Content()
		if err != nil {
			f.openErr = err
			return smtpclient.Body{}, nil, err
		}
		f.opened = asStored(c)
	}
	c := f.opened
	f.opened = content{}
	return c.Body, c.Closer, nil
}

func asStored(c *queue.Content) content {
	return content{smtpclient.Body{Head: c.Head, Data: c.Data, File: c.File, Size: c.Size}, c}
}

// discard gives back what the session did not come to open.
func (f *flight) discard() {
	if f.opened.Closer != nil {
		f.opened.Close()
		f.opened = content{}
	}
}

// prepare turns the attempt into a transaction that fits what the host offers.
// It answers false where nobody is left to send to: all outcomes are decided.
func (f *flight) prepare(s *session, convert Converter) bool {
	env, ext := f.attempt.Envelope, &s.ext
	n := len(f.attempt.Recipients)
	f.outcomes = make([]queue.Outcome, n) // handed on with the report
	f.who, f.tx.Rcpts = f.who[:0], f.tx.Rcpts[:0]
	f.openErr = nil
	f.tx.From = env.Sender
	if !f.isWithinSize(s, env.Size) {
		return false
	}
	need := Need{SevenBit: env.Body == queue.Body8BitMIME && !ext.EightBitMIME}
	if !takesUTF8(ext) && !f.downgrade(s, &need) {
		return false
	}
	if need != (Need{}) && !f.convert(s, convert, need) {
		return false
	}
	f.address(s)
	if len(f.who) == 0 {
		f.discard()
		return false
	}
	f.tx.Params = f.mailParams(ext)
	return true
}

// takesUTF8 reports whether a host takes internationalized mail. One that
// offers SMTPUTF8 without 8BITMIME breaks RFC 6531, section 3.1, and is given
// what any host takes.
func takesUTF8(ext *smtpclient.Extensions) bool { return ext.SMTPUTF8 && ext.EightBitMIME }

// isWithinSize reports whether the host takes a message of that size; if not,
// there is no need to ask it (RFC 1870, section 6.1).
func (f *flight) isWithinSize(s *session, size int64) bool {
	limit := s.ext.Size
	if !s.ext.SizeKnown || limit == 0 || size <= limit {
		return true
	}
	f.refuse(s, "5.3.4", fmt.Sprintf("the message has %d octets, and %s takes at most %d", size, s.label, limit))
	return false
}

// refuse decides all that is open for a fact of our own.
func (f *flight) refuse(s *session, status, text string) {
	f.discard()
	for i := range f.outcomes {
		if f.outcomes[i].Status == "" {
			f.outcomes[i] = localFailure(s, queue.ScopeMessage, status, text)
		}
	}
}

func localFailure(s *session, scope queue.Scope, status, text string) queue.Outcome {
	return queue.Outcome{Verdict: queue.Failed, Scope: scope, Stage: queue.StagePolicy, Status: status, Text: oneLine(text), Remote: s.remote}
}

// downgrade finds out whether a message that may need SMTPUTF8 can go without:
// domains have A-labels (RFC 5891), local parts and header fields have not.
func (f *flight) downgrade(s *session, need *Need) bool {
	env := f.attempt.Envelope
	if !isASCII(env.Sender) {
		from, ok := asciiAddress(env.Sender)
		if !ok {
			f.refuse(s, "5.6.7", fmt.Sprintf("the sender's address is not ASCII, and %s does not offer SMTPUTF8", s.label))
			return false
		}
		f.tx.From = from
	}
	if !env.SMTPUTF8 {
		return true
	}
	c, err := f.attempt.Content.Content()
	if err != nil {
		f.postpone(s, openOutcome(err))
		return false
	}
	isPlain, err := hasASCIIHeader(c)
	f.opened = asStored(c)
	if err != nil {
		f.postpone(s, openOutcome(err))
		return false
	}
	// Parts have headers, too, which only who takes the body apart can see.
	need.ASCIIHeaders = !isPlain || env.Body == queue.Body8BitMIME
	return true
}

// postpone decides everything after trouble of our own with the content.
func (f *flight) postpone(s *session, o queue.Outcome) {
	f.discard()
	o.Remote = s.remote
	fill(f.outcomes, o)
}

func openOutcome(err error) queue.Outcome {
	return queue.Outcome{Verdict: queue.Deferred, Scope: queue.ScopeMessage, Stage: queue.StageQueue, Status: "4.3.0",
		Text: oneLine("the stored message cannot be read: " + err.Error())}
}

// maxHeader is more than intake lets in.
const maxHeader = 512 << 10

// hasASCIIHeader looks through the header section. What it reads of a file it
// puts back in front of it.
func hasASCIIHeader(c *queue.Content) (bool, error) {
	ascii, ended := asciiUntilBlankLine(append(c.Head[:len(c.Head):len(c.Head)], c.Data...))
	if !ascii || ended || c.File == nil {
		return ascii, nil
	}
	seen := append([]byte(nil), tail(c.Head, c.Data)...)
	before := len(seen)
	for chunk := make([]byte, 8<<10); len(seen) < maxHeader; {
		n, err := c.File.Read(chunk)
		seen = append(seen, chunk[:n]...)
		ascii, ended = asciiUntilBlankLine(seen)
		if !ascii || ended || errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false, fmt.Errorf("reading the header: %w", err)
		}
	}
	c.File = io.MultiReader(bytes.NewReader(seen[before:]), c.File)
	return ascii, nil
}

// tail is the end of what lies before a file, so that a blank line across the
// border is seen.
func tail(head, data []byte) []byte {
	if len(data) > 0 {
		head = data
	}
	return head[max(0, len(head)-3):]
}

func asciiUntilBlankLine(b []byte) (ascii, ended bool) {
	if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
		b, ended = b[:i], true
	}
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false, ended
		}
	}
	return true, ended
}

// convert replaces the content by one that fits the host.
func (f *flight) convert(s *session, convert Converter, need Need) bool {
	f.discard()
	status, lack := "5.6.3", "8BITMIME"
	if need.ASCIIHeaders {
		status, lack = "5.6.7", "SMTPUTF8"
	}
	needs := fmt.Sprintf("the message needs %s, which %s does not offer", lack, s.label)
	if convert == nil {
		f.refuse(s, status, needs)
		return false
	}
	body, closer, err := convert.Convert(f.attempt.Content, need)
	var unfit *Unconvertible
	switch {
	case errors.Is(err, ErrFits):
		return true
	case errors.As(err, &unfit):
		f.refuse(s, unfit.Status, fmt.Sprintf("%s, and cannot be converted: %s", needs, unfit.Reason))
		return false
	case err != nil:
		f.postpone(s, queue.Outcome{Verdict: queue.Deferred, Scope: queue.ScopeMessage, Stage: queue.StageQueue, Status: "4.3.0",
			Text: oneLine(fmt.Sprintf("%s, and converting it failed: %v", needs, err))})
		return false
	}
	f.opened = content{body, closer}
	return f.isWithinSize(s, body.Size)
}

// address fills in the recipients that the host can be given.
func (f *flight) address(s *session) {
	ext := &s.ext
	for i := range f.attempt.Recipients {
		r := &f.attempt.Recipients[i]
		to := r.Address
		if !takesUTF8(ext) && !isASCII(to) {
			var ok bool
			if to, ok = asciiAddress(to); !ok {
				f.outcomes[i] = localFailure(s, queue.ScopeRecipient, "5.6.7", fmt.Sprintf("the address is not ASCII, and %s does not offer SMTPUTF8", s.label))
				continue
			}
		}
		if ext.RcptMax > 0 && len(f.who) >= ext.RcptMax {
			continue // RFC 9422, section 4.2: Untried, in the next transaction
		}
		f.who = append(f.who, i)
		f.tx.Rcpts = append(f.tx.Rcpts, smtpclient.Rcpt{Address: to, Params: rcptParams(ext, r)})
	}
}

// asciiAddress writes an address with A-labels; ok is false where its local
// part is not ASCII.
func asciiAddress(s string) (ascii string, ok bool) {
	a, err := mailaddr.Parse(s)
	if err != nil || !isASCII(a.Local) {
		return "", false
	}
	domain := a.ASCIIDomain()
	return a.Local + "@" + domain, domain != ""
}

func (f *flight) mailParams(ext *smtpclient.Extensions) string {
	env := f.attempt.Envelope
	o := smtpclient.MailOptions{
		Size:       env.Size,
		SMTPUTF8:   takesUTF8(ext) && (env.SMTPUTF8 || !isASCII(f.tx.From) || f.hasUTF8Recipient()),
		RequireTLS: env.RequireTLS,
	}
	if f.opened.Closer != nil {
		o.Size = f.opened.Size
	}
	if env.Body == queue.Body8BitMIME && ext.EightBitMIME {
		o.Body = "8BITMIME"
	}
	if ext.DSN {
		switch env.Ret {
		case queue.RetFull:
			o.Ret = "FULL"
		case queue.RetHeaders:
			o.Ret = "HDRS"
		}
		o.EnvID = env.EnvID
	}
	return smtpclient.MailParams(*ext, o)
}

func (f *flight) hasUTF8Recipient() bool {
	for i := range f.tx.Rcpts {
		if !isASCII(f.tx.Rcpts[i].Address) {
			return true
		}
	}
	return false
}

// rcptParams passes on what the sender asked for (RFC 3461, section 5.2.1).
func rcptParams(ext *smtpclient.Extensions, r *queue.Recipient) string {
	if !ext.DSN || r.Notify == 0 && r.ORcpt == "" {
		return ""
	}
	return smtpclient.RcptParams(*ext, smtpclient.RcptOptions{
		NotifyNever:   r.Notify&queue.NotifyNever != 0,
		NotifySuccess: r.Notify&queue.NotifySuccess != 0,
		NotifyFailure: r.Notify&queue.NotifyFailure != 0,
		NotifyDelay:   r.Notify&queue.NotifyDelay != 0,
		ORCPT:         wireORCPT(r.ORcpt),
	})
}

// wireORCPT encodes "type;address". An address of type utf-8 takes the form
// that is ASCII and so passes every host with DSN (RFC 6533, section 3).
func wireORCPT(orcpt string) string {
	kind, addr, ok := strings.Cut(orcpt, ";")
	if !ok {
		return ""
	}
	b := append([]byte(kind), ';')
	if !strings.EqualFold(kind, "utf-8") {
		return string(smtpwire.AppendXtext(b, addr))
	}
	for _, r := range addr {
		if r > '~' || r <= ' ' || r == '+' || r == '=' || r == '\\' {
			b = fmt.Appendf(b, `\x{%X}`, r)
			continue
		}
		b = append(b, byte(r))
	}
	return string(b)
}
