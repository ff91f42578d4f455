package intake

import (
	"errors"
	"fmt"
	"strings"

	"postrider/mta/mailaddr"
	"postrider/queue"
)

const (
	maxHeader   = 256 << 10 // octets; more than any program writes, and it is kept in memory
	maxReceived = 50        // more hops than any way has; RFC 5321, section 6.3, has 100 in mind, the field uses 50
)

// header is what reading a message's header section gives.
type header struct {
	kept []byte // the fields to send, each ending in CRLF, without the blank line

	from, date bool
	messageID  string // as written, for people
	received   int
	tlsOptOut  bool           // "TLS-Required: No" (RFC 8689, section 5)
	priority   queue.Priority // of the fields that others know, too
	wishes     wishes

	// For messages whose envelope is in their header.
	sender, author   string // the first address of Sender and of From
	recipients       []string
	resent           map[string]bool // the Resent- recipient fields seen
	resentSender     string
	resentRecipients []string

	local          *localMail
	wantSender     bool
	wantRecipients bool
	maxRecipients  int
	drop           []string
	line           int // number of the present field's first line
}

// read takes the fields of a header section in CRLF form, without the blank
// line behind it.
func (h *header) read(section string) *Error {
	for section != "" {
		n := fieldLength(section)
		field := section[:n]
		section = section[n:]
		if err := h.field(field); err != nil {
			return err
		}
		h.line += strings.Count(field, "\n")
	}
	if h.received > maxReceived {
		return &Error{Code: 554, Status: "5.4.6", Text: fmt.Sprintf("a mail loop: the message has %d Received fields", h.received)}
	}
	return nil
}

// fieldLength is that of the first field with its folded lines and last CRLF.
func fieldLength(section string) int {
	for i := 0; ; {
		j := strings.IndexByte(section[i:], '\n')
		if j < 0 {
			return len(section)
		}
		i += j + 1
		if i == len(section) || (section[i] != ' ' && section[i] != '\t') {
			return i
		}
	}
}

// field reads one field and keeps it, unless it must not travel.
func (h *header) field(field string) *Error {
	n, colon := nameLength(field)
	if n == 0 || colon == 0 {
		return h.refuse(fmt.Sprintf("%q is no header field (a name and a colon are expected, or a blank line before the text)", start(field)))
	}
	name, value := field[:n], field[colon+1:]
	keep, err := true, error(nil)
	var lower [24]byte // holds the longest name below
	key := lowerCase(lower[:0], name)
	for _, d := range h.drop {
		if string(key) == d {
			return nil
		}
	}
	switch string(key) {
	case "received":
		h.received++
	case "date":
		// An empty Date or Message-ID is as good as none, and two are one too many.
		keep = !blank(value)
		h.date = h.date || keep
	case "message-id":
		keep = !blank(value)
		if keep && h.messageID == "" {
			h.messageID = messageID(value)
		}
	case "from":
		if keep = !blank(value); keep {
			value, err = h.authors(value)
		}
	case "sender":
		value, err = h.addresses(value, &h.sender)
	case "reply-to":
		value, err = h.addresses(value, nil)
	case "to", "cc":
		value, err = h.to(value)
	case "bcc": // RFC 5322, section 3.6.3: nobody is to learn of it
		keep = false
		_, err = h.to(value)
	case "resent-sender", "resent-from":
		value, err = h.addresses(value, &h.resentSender)
	case "resent-to", "resent-cc":
		value, err = h.resentTo(name, value)
	case "resent-bcc":
		keep = false
		_, err = h.resentTo(name, value)
	case "return-path": // RFC 5321, section 4.4: only the last host writes it
		keep = false
	case "tls-required":
		h.tlsOptOut = h.tlsOptOut || strings.EqualFold(strings.TrimSpace(value), "no")
	case "precedence", "priority":
		h.setPriority(value)
	default:
		if wish, ours := strings.CutPrefix(string(key), wishFields); ours {
			keep, err = false, h.wishes.take(wish, value)
		}
	}
	if err != nil {
		return h.refuse(name + ": " + reason(err))
	}
	if keep {
		h.kept = append(h.kept, name...)
		h.kept = append(h.kept, ':')
		h.kept = append(h.kept, value...)
	}
	return nil
}

func (h *header) refuse(what string) *Error {
	return &Error{Code: 554, Status: "5.6.0", Text: fmt.Sprintf("line %d: %s", h.line, what)}
}

// setPriority reads the two fields that are about transport: Precedence (bulk,
// list, junk) and Priority (RFC 2156, section 5.3.6: non-urgent, urgent).
// X-Priority and Importance are for the reader's eyes and change nothing here.
// X-Postrider-Priority is the last word.
func (h *header) setPriority(value string) {
	value = strings.TrimSpace(value)
	for _, bulk := range [...]string{"bulk", "list", "junk", "non-urgent"} {
		if strings.EqualFold(value, bulk) {
			h.priority = queue.PriorityBulk
		}
	}
	if strings.EqualFold(value, "urgent") {
		h.priority = queue.PriorityUrgent
	}
}

// authors reads the From field. It has to be there once and to hold an
// address: large receivers refuse everything else, and a signature is chosen
// by it.
func (h *header) authors(value string) (string, error) {
	if h.from {
		return value, errors.New("a second From field (RFC 5322, section 3.6, allows one)")
	}
	h.from = true
	found, bare := false, false
	for m, err := range mailaddr.List(value) {
		if err != nil {
			return value, err
		}
		if !found && h.wantSender {
			h.author = m.Address.String()
		}
		found = true
		bare = bare || m.Address.Domain == ""
	}
	switch {
	case !found:
		return value, errors.New("no address")
	case bare:
		value = h.qualified(value)
	}
	return value, nil
}

// addresses reads a field of which only the first address may be wanted. What
// cannot be read is left for the receiver to judge.
func (h *header) addresses(value string, first *string) (string, error) {
	if h.wantSender && first != nil && *first == "" {
		for m, err := range mailaddr.List(value) {
			if err == nil {
				*first = m.Address.String()
			}
			break
		}
	}
	return h.qualified(value), nil
}

func (h *header) to(value string) (string, error) {
	if h.wantRecipients {
		if err := h.collect(&h.recipients, value); err != nil {
			return value, err
		}
	}
	return h.qualified(value), nil
}

// resentTo reads Resent- recipients. Each resending puts its fields on top
// (RFC 5322, section 3.6.6), so only the first of a name is about this one.
func (h *header) resentTo(name, value string) (string, error) {
	name = strings.ToLower(name)
	if h.wantRecipients && !h.resent[name] {
		if h.resent == nil {
			h.resent = make(map[string]bool)
		}
		h.resent[name] = true
		if err := h.collect(&h.resentRecipients, value); err != nil {
			return value, err
		}
	}
	return h.qualified(value), nil
}

func (h *header) collect(list *[]string, value string) error {
	for m, err := range mailaddr.List(value) {
		if err != nil {
			return err
		}
		if len(*list) >= h.maxRecipients {
			return fmt.Errorf("more than %d recipients", h.maxRecipients)
		}
		*list = append(*list, m.Address.String())
	}
	return nil
}

// qualified gives our domain to addresses without one, as in cron's
// "From: root (Cron Daemon)": on the way out it would name nobody, and many
// receivers refuse it.
func (h *header) qualified(value string) string {
	var b strings.Builder
	copied := 0
	for m, err := range mailaddr.List(value) {
		if err != nil {
			return value
		}
		if m.Address.Domain != "" {
			continue
		}
		b.WriteString(value[copied:m.End])
		b.WriteByte('@')
		b.WriteString(h.local.hostname)
		copied = m.End
	}
	if copied == 0 {
		return value
	}
	b.WriteString(value[copied:])
	return b.String()
}

// envelopeSender is the reverse-path that the header asks for.
func (h *header) envelopeSender() string {
	switch {
	case h.resent != nil && h.resentSender != "":
		return h.resentSender
	case h.sender != "":
		return h.sender
	}
	return h.author
}

func (h *header) envelopeRecipients() []queue.Recipient {
	list := h.recipients
	if h.resent != nil {
		list = h.resentRecipients
	}
	rcpts := make([]queue.Recipient, len(list))
	for i, a := range list {
		rcpts[i].Address = strings.Clone(a)
	}
	return rcpts
}

// messageID is the field's value in one piece and of a bounded length.
func messageID(value string) string {
	const most = 255
	id := strings.TrimSpace(value)
	if i := strings.IndexAny(id, " \t\r\n"); i >= 0 {
		id = id[:i]
	}
	return strings.Clone(strings.ToValidUTF8(id[:min(len(id), most)], "?")) // not to hold on to the whole header
}

func blank(value string) bool { return strings.Trim(value, " \t\r\n") == "" }

// lowerCase appends s in lower case, as far as there is room.
func lowerCase(dst []byte, s string) []byte {
	for i := 0; i < len(s) && i < cap(dst); i++ {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// start is enough of a line to recognise it.
func start(line string) string {
	const most = 60
	line, _, _ = strings.Cut(line, "\r\n")
	if len(line) > most {
		line = line[:most] + "..."
	}
	return line
}
