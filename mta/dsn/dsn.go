// Package dsn writes delivery status notifications: reports to the sender of a
// message about what became of its recipients.
//
// A report is a multipart/report (RFC 6522) of three parts: a text that a
// person understands (what happened, in whose words, what to do), a
// message/delivery-status for programs (RFC 3464), and the message that it is
// about, whole or its header (RFC 3461, section 6.2). It says of itself that no
// person wrote it (RFC 3834). Where an address is not ASCII, the forms of RFC
// 6533 are used. The text of a report is in English.
//
// It decides nothing: whether a report is owed, to whom it goes and how much of
// the message it returns is its caller's to say.
package dsn

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"strings"
	"time"
)

// Action is what became of a recipient (RFC 3464, section 2.3.3).
type Action uint8

const (
	Failed  Action = iota + 1
	Delayed        // not delivered yet; tried until Recipient.RetryUntil
	Relayed        // handed to a host that does not report success
)

func (a Action) String() string {
	switch a {
	case Failed:
		return "failed"
	case Delayed:
		return "delayed"
	case Relayed:
		return "relayed"
	}
	return fmt.Sprintf("Action(%d)", uint8(a))
}

// Report is one report about one message. All its texts may come from
// strangers: whatever they hold, they stay within their place.
type Report struct {
	ID       string // of the report: letters and digits, never used before
	Date     time.Time
	Hostname string // of the host that reports
	// From and To are addresses in wire form. To is the message's sender.
	From, To   string
	Recipients []Recipient
	Message    Message
}

// Message is the message that a report is about.
type Message struct {
	ID        string // in our queue
	EnvID     string // RFC 3461, section 4.4; empty: none
	ArrivedAt time.Time
	// Content is what is returned: the message as it was sent, or a part of it
	// that holds at least the header. Empty: nothing is left of it.
	Content []byte
	// Whole: Content is all of the message and is returned so; else its header is.
	Whole bool
}

// Recipient is one recipient and what became of it.
type Recipient struct {
	Address    string
	ORcpt      string // RFC 3461, section 4.2: "rfc822;a@b.test"; empty: none
	Action     Action
	Status     string // enhanced status; a malformed one becomes x.0.0
	Code       int    // of the SMTP reply that decided; 0: Text is ours
	Text       string // the reply's text, or our reason
	RemoteHost string // the host that said so; empty: none was reached
	RemoteIP   netip.Addr
	Attempts   int
	At         time.Time // of the last attempt, or of the decision
	RetryUntil time.Time // for Delayed
}

// MaxReturned is the most octets of a message that its sender gets back whole.
// The field has 50,000 to 100,000: enough to see what it was, not enough to be
// a way to flood somebody.
const MaxReturned = 50_000

// Write writes the report as a message with CRLF line ends.
func (r *Report) Write(w io.Writer) error {
	if len(r.Recipients) == 0 {
		return errors.New("dsn: a report about no recipient")
	}
	boundary := r.boundary()
	global := r.needsUTF8()
	var b bytes.Buffer
	r.writeHeader(&b, boundary, global)
	b.WriteString("This is a delivery status notification in MIME format (RFC 3464).\r\n")
	openPart(&b, boundary)
	r.writeText(&b)
	openPart(&b, boundary)
	r.writeStatus(&b, global)
	if len(r.Message.Content) > 0 {
		openPart(&b, boundary)
		r.writeMessage(&b, global)
	}
	fmt.Fprintf(&b, "\r\n--%s--\r\n", boundary)
	_, err := w.Write(b.Bytes())
	return err
}

// boundary is a line's content that stands nowhere in what is returned.
func (r *Report) boundary() string {
	b := "=_" + r.ID
	for bytes.Contains(r.Message.Content, []byte(b)) {
		b += "_"
	}
	return b
}

func openPart(b *bytes.Buffer, boundary string) { fmt.Fprintf(b, "\r\n--%s\r\n", boundary) }

// needsUTF8 reports whether an address cannot be said in the forms of RFC 3464.
func (r *Report) needsUTF8() bool {
	for i := range r.Recipients {
		if !isASCII(r.Recipients[i].Address) || strings.HasPrefix(strings.ToLower(r.Recipients[i].ORcpt), "utf-8;") {
			return true
		}
	}
	return false
}

// writeHeader writes the report's own header.
func (r *Report) writeHeader(b *bytes.Buffer, boundary string, global bool) {
	reportType := "delivery-status"
	if global {
		reportType = "global-delivery-status"
	}
	fmt.Fprintf(b, "From: Mail Delivery System <%s>\r\n", oneLine(r.From))
	fmt.Fprintf(b, "To: <%s>\r\n", oneLine(r.To))
	writeSubject(b, r.subject())
	fmt.Fprintf(b, "Date: %s\r\n", r.Date.Format(dateForm))
	fmt.Fprintf(b, "Message-ID: <%s@%s>\r\n", r.ID, r.Hostname)
	if id := messageID(r.Message.Content); id != "" { // so that mail programs show it beside the message
		fmt.Fprintf(b, "In-Reply-To: %s\r\nReferences: %s\r\n", id, id)
	}
	b.WriteString("Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n")
	fmt.Fprintf(b, "Content-Type: multipart/report; report-type=%s;\r\n\tboundary=\"%s\"\r\n\r\n", reportType, boundary)
}

// dateForm is RFC 5322's.
const dateForm = "Mon, 2 Jan 2006 15:04:05 -0700"

// writeStatus writes the part for programs.
func (r *Report) writeStatus(b *bytes.Buffer, global bool) {
	if global {
		// RFC 6533, section 4: UTF-8 as it is.
		b.WriteString("Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n\r\n")
	} else {
		b.WriteString("Content-Type: message/delivery-status\r\n\r\n")
	}
	s := statusWriter{b: b, utf8: global}
	s.field("Reporting-MTA", "dns; "+r.Hostname)
	if r.Message.EnvID != "" {
		s.field("Original-Envelope-Id", r.Message.EnvID)
	}
	s.date("Arrival-Date", r.Message.ArrivedAt)
	for i := range r.Recipients {
		b.WriteString("\r\n")
		r.Recipients[i].writeStatus(&s, r.Message.ID)
	}
}

// writeStatus writes the fields of one recipient (RFC 3464, section 2.3).
func (c *Recipient) writeStatus(s *statusWriter, messageID string) {
	if c.ORcpt != "" {
		s.field("Original-Recipient", c.ORcpt)
	}
	if addressType := "rfc822; "; isASCII(c.Address) {
		s.field("Final-Recipient", addressType+c.Address)
	} else {
		s.field("Final-Recipient", "utf-8; "+c.Address)
	}
	s.field("Action", c.Action.String())
	s.field("Status", c.status())
	if c.RemoteHost != "" {
		s.field("Remote-MTA", "dns; "+c.RemoteHost)
	}
	switch {
	case c.Code > 0:
		s.field("Diagnostic-Code", "smtp; "+c.reply())
	case c.Text != "":
		s.field("Diagnostic-Code", "x-postrider; "+c.Text)
	}
	s.date("Last-Attempt-Date", c.At)
	if messageID != "" {
		s.field("Final-Log-ID", messageID)
	}
	if c.Action == Delayed {
		s.date("Will-Retry-Until", c.RetryUntil)
	}
}

// status is the enhanced status, well-formed and of the class that the action demands.
func (c *Recipient) status() string {
	class := byte('5')
	switch c.Action {
	case Delayed:
		class = '4'
	case Relayed:
		class = '2'
	}
	if !wellFormedStatus(c.Status) {
		return string(class) + ".0.0"
	}
	// Who waited in vain failed for good, whatever the last reply was.
	return string(class) + c.Status[1:]
}

func wellFormedStatus(s string) bool {
	class, rest, ok := strings.Cut(s, ".")
	subject, detail, ok2 := strings.Cut(rest, ".")
	return ok && ok2 && (class == "2" || class == "4" || class == "5") && shortNumber(subject) && shortNumber(detail)
}

func shortNumber(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 3
}

// reply is the SMTP reply, in one line.
func (c *Recipient) reply() string {
	text := oneLine(c.Text)
	if wellFormedStatus(c.Status) && !startsWithStatus(text) {
		text = c.Status + " " + text
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", c.Code, text))
}

func startsWithStatus(text string) bool {
	first, _, _ := strings.Cut(text, " ")
	return wellFormedStatus(first)
}

// writeMessage writes the message that the report is about.
func (r *Report) writeMessage(b *bytes.Buffer, global bool) {
	content := r.Message.Content
	header := headerOf(content)
	mediaType := "text/rfc822-headers"
	globalHeader := !isASCII(string(header))
	switch {
	case r.Message.Whole && globalHeader:
		mediaType = "message/global"
	case r.Message.Whole:
		mediaType = "message/rfc822"
	case globalHeader:
		mediaType = "message/global-headers"
	}
	if !r.Message.Whole {
		content = header
	}
	fmt.Fprintf(b, "Content-Type: %s\r\n", mediaType)
	if !isASCII(string(content)) {
		b.WriteString("Content-Transfer-Encoding: 8bit\r\n")
	}
	b.WriteString("\r\n")
	b.Write(content)
}

// headerOf is the header of content, without its blank line, and not more of it
// than may be returned.
func headerOf(content []byte) []byte {
	if bytes.HasPrefix(content, []byte("\r\n")) {
		return nil
	}
	if i := bytes.Index(content, []byte("\r\n\r\n")); i >= 0 {
		content = content[:i+2]
	}
	if len(content) > MaxReturned {
		content = content[:MaxReturned]
		content = content[:bytes.LastIndexByte(content, '\n')+1]
	}
	return content
}

// unfolded walks the fields of a header, each in one line.
func unfolded(header []byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		field := ""
		for line := range bytes.Lines(header) {
			text := strings.TrimRight(string(line), "\r\n")
			if text != "" && (text[0] == ' ' || text[0] == '\t') {
				field += text
				continue
			}
			if field != "" && !yield(field) {
				return
			}
			field = text
		}
		if field != "" {
			yield(field)
		}
	}
}

// messageID is that of content, where it has one that can be written back.
func messageID(content []byte) string {
	for field := range unfolded(headerOf(content)) {
		name, value, _ := strings.Cut(field, ":")
		if !strings.EqualFold(name, "Message-ID") {
			continue
		}
		const most = 250
		id := strings.TrimSpace(value)
		if len(id) > most || !strings.HasPrefix(id, "<") || !strings.HasSuffix(id, ">") || strings.ContainsAny(id, " \t") || oneLine(id) != id || !isASCII(id) {
			return ""
		}
		return id
	}
	return ""
}
