package pickup

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"postrider/mta/mailaddr"
	"postrider/queue"
)

// maxHead is how much of a file is searched for the lines that make its
// envelope: the most that intake takes as a header, and 10,000 recipients.
const maxHead = 2 << 20

// The names of header fields that are for us, in lower case. X-Sender and
// X-Receiver may stand anywhere in the header, the others only among the lines
// at the start of a file that are all for us (PowerMTA, Exchange). endField ends
// those lines, and all that is for us: what follows is the message as it is.
const (
	senderField   = "x-sender"
	receiverField = "x-receiver"
	endField      = "x-endofinjectedxheaders"
)

var leadingFields = []string{senderField, receiverField, "x-envid", "x-job", "x-createdby", endField}

// lineError is a fault of the envelope in a file.
type lineError struct {
	line   int
	reason string
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.reason) }

// envelopeLines are what the head of a file says of the envelope.
type envelopeLines struct {
	sender     *string // nil: not said
	recipients []queue.Recipient
	tag        string
	envID      string
	ret        queue.Ret
	smtpUTF8   bool
	requireTLS bool
	ended      bool // by endField
	skip       int  // octets of the lines at the start that are all for us
	skipLines  int
}

// readEnvelope reads the head of a file, which ends with its header's blank
// line or where head does.
func readEnvelope(head []byte) (*envelopeLines, error) {
	e := &envelopeLines{}
	lines := lineReader{text: head}
	leading := true
	for {
		first := lines.line + 1
		text, ok := lines.next()
		if !ok || len(text) == 0 {
			return e, nil
		}
		name, value, isField := "", "", false
		if text[0] == 'x' || text[0] == 'X' {
			name, value, isField = strings.Cut(string(text), ":")
			name = strings.ToLower(strings.TrimRight(name, " \t"))
		}
		leading = leading && isField && contains(leadingFields, name)
		if !isField || (!leading && name != senderField && name != receiverField) {
			lines.skipFolded()
			continue
		}
		more, err := lines.folded()
		if err == nil {
			err = e.take(name, strings.TrimSpace(value+more))
		}
		if err != nil {
			return nil, &lineError{first, name + ": " + err.Error()}
		}
		if leading {
			e.skip, e.skipLines = min(lines.pos, len(head)), lines.line
			if e.ended = name == endField; e.ended {
				return e, nil
			}
		}
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func (e *envelopeLines) take(name, value string) error {
	switch name {
	case senderField:
		return e.takeSender(value)
	case receiverField:
		return e.takeReceiver(value)
	case "x-envid":
		return e.takeEnvID(value)
	case "x-job":
		const most = 128
		if len(value) > most || !printable(value) {
			return fmt.Errorf("a job has at most %d characters of printable ASCII", most)
		}
		e.tag = value
	}
	return nil
}

// takeSender reads "a@b.test" or "<a@b.test> RET=FULL ENVID=x BODY=8bit SMTPUTF8 REQUIRETLS".
func (e *envelopeLines) takeSender(value string) error {
	address, params := cutAddress(value)
	if address != "" {
		if _, err := mailaddr.ParseUnqualified(address); err != nil {
			return err
		}
	}
	if e.sender != nil && *e.sender != address {
		return fmt.Errorf("a second sender, beside %q", *e.sender)
	}
	e.sender = &address
	for _, p := range params {
		key, v, _ := strings.Cut(p, "=")
		switch strings.ToUpper(key) {
		case "RET":
			switch strings.ToUpper(v) {
			case "FULL":
				e.ret = queue.RetFull
			case "HDRS":
				e.ret = queue.RetHeaders
			default:
				return fmt.Errorf("RET is FULL or HDRS, not %q", v)
			}
		case "ENVID":
			if err := e.takeEnvID(v); err != nil {
				return err
			}
		case "SMTPUTF8": // RFC 6531, section 3.4: header fields may hold UTF-8, and keep it
			e.smtpUTF8 = true
		case "REQUIRETLS": // RFC 8689, section 2
			e.requireTLS = true
		case "BODY": // the content says it better
		default:
			return fmt.Errorf("the parameter %q is unknown", key)
		}
	}
	return nil
}

func (e *envelopeLines) takeEnvID(value string) error {
	const most = 100 // RFC 3461, section 5.4
	if len(value) > most || !printable(value) {
		return fmt.Errorf("an envelope ID has at most %d characters of printable ASCII", most)
	}
	e.envID = value
	return nil
}

// takeReceiver reads "a@b.test" or "<a@b.test> NOTIFY=FAILURE,DELAY ORCPT=rfc822;a@b.test".
func (e *envelopeLines) takeReceiver(value string) error {
	address, params := cutAddress(value)
	if _, err := mailaddr.ParseUnqualified(address); err != nil {
		return err
	}
	r := queue.Recipient{Address: address}
	for _, p := range params {
		key, v, _ := strings.Cut(p, "=")
		switch strings.ToUpper(key) {
		case "NOTIFY":
			var err error
			if r.Notify, err = notify(v); err != nil {
				return err
			}
		case "ORCPT":
			addressType, original, ok := strings.Cut(v, ";")
			if !ok || addressType == "" || original == "" || len(v) > 500 || !oneLine(v) {
				return fmt.Errorf("ORCPT is a type and an address, as in rfc822;a@b.test, not %q", v)
			}
			r.ORcpt = v
		default:
			return fmt.Errorf("the parameter %q is unknown", key)
		}
	}
	e.recipients = append(e.recipients, r)
	return nil
}

// notify reads the value of NOTIFY (RFC 3461, section 4.1).
func notify(v string) (queue.Notify, error) {
	var n queue.Notify
	for _, word := range strings.Split(v, ",") {
		switch strings.ToUpper(word) {
		case "NEVER":
			n |= queue.NotifyNever
		case "SUCCESS":
			n |= queue.NotifySuccess
		case "FAILURE":
			n |= queue.NotifyFailure
		case "DELAY":
			n |= queue.NotifyDelay
		default:
			return 0, fmt.Errorf("NOTIFY is NEVER, or some of SUCCESS, FAILURE and DELAY, not %q", v)
		}
	}
	if n&queue.NotifyNever != 0 && n != queue.NotifyNever {
		return 0, fmt.Errorf("NOTIFY=NEVER goes with nothing else")
	}
	return n, nil
}

// cutAddress splits the value of X-Sender or X-Receiver. Angle brackets are
// optional, and a display name before them has no meaning.
func cutAddress(value string) (address string, params []string) {
	if strings.HasPrefix(value, "<") {
		if end := pathEnd(value); end > 0 {
			return value[1:end], splitParams(value[end+1:])
		}
	}
	open := strings.LastIndexByte(value, '<')
	if end := strings.LastIndexByte(value, '>'); open >= 0 && end > open {
		return value[open+1 : end], splitParams(value[end+1:])
	}
	fields := strings.Fields(value)
	if len(fields) < 2 || strings.HasPrefix(value, `"`) {
		return value, nil
	}
	for _, p := range fields[1:] {
		if !strings.Contains(p, "=") {
			return value, nil // not parameters: the address will be refused as a whole
		}
	}
	return fields[0], fields[1:]
}

// pathEnd finds the bracket that ends the path which value begins with; a
// quoted local-part may hold others. 0: there is none.
func pathEnd(value string) int {
	quoted := false
	for i := 1; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			return i
		}
	}
	return 0
}

// splitParams splits parameters at blanks. The original recipient of ORCPT may
// hold blanks itself: it ends where a word with "=" follows.
func splitParams(text string) []string {
	var params []string
	for _, word := range strings.Fields(text) {
		last := len(params) - 1
		if last >= 0 && !strings.Contains(word, "=") && len(params[last]) > 6 && strings.EqualFold(params[last][:6], "ORCPT=") {
			params[last] += " " + word
			continue
		}
		params = append(params, word)
	}
	return params
}

// oneLine reports whether s is UTF-8 without control characters.
func oneLine(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// lineReader reads lines as intake will see them: they end with CR, LF or CRLF.
type lineReader struct {
	text []byte
	pos  int // where the next line begins
	line int // number of the last line read
	lf   int // the next LF at or behind pos, once it was looked for; else before pos
}

// next answers the next line without its end; ok is false at the end of the text.
func (l *lineReader) next() (line []byte, ok bool) {
	if l.pos >= len(l.text) {
		return nil, false
	}
	l.line++
	if l.lf < l.pos || l.line == 1 { // so that each octet is looked at once, however many CRs come before an LF
		if l.lf = bytes.IndexByte(l.text[l.pos:], '\n'); l.lf < 0 {
			l.lf = len(l.text)
		} else {
			l.lf += l.pos
		}
	}
	line = l.text[l.pos:l.lf]
	switch i := bytes.IndexByte(line, '\r'); {
	case i < 0:
		l.pos = l.lf + 1
	case i == len(line)-1 && l.lf < len(l.text): // CRLF
		line, l.pos = line[:i], l.lf+1
	default: // a CR alone
		line, l.pos = line[:i], l.pos+i+1
	}
	return line, true
}

func (l *lineReader) continues() bool {
	return l.pos < len(l.text) && (l.text[l.pos] == ' ' || l.text[l.pos] == '\t')
}

// folded reads the rest of a folded field.
func (l *lineReader) folded() (string, error) {
	const most = 4 << 10
	var more []byte
	for l.continues() {
		text, _ := l.next()
		if more = append(more, text...); len(more) > most {
			return "", fmt.Errorf("longer than %d octets", most)
		}
	}
	return string(more), nil
}

func (l *lineReader) skipFolded() {
	for l.continues() {
		l.next()
	}
}
