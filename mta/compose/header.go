package compose

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"strings"
	"unicode/utf8"

	"postrider/mta/mailaddr"
)

// The fields that the message's own parts give, so that Headers may not.
var ownFields = []string{
	"From", "To", "Cc", "Bcc", "Subject", "Reply-To",
	"MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Return-Path",
}

func (m *Message) header() (string, error) {
	var b strings.Builder
	for _, f := range []struct {
		name string
		list []string
		most int
	}{
		{"From", []string{m.From}, 0},
		{"Reply-To", []string{m.ReplyTo}, 0},
		{"To", m.To, 0},
		{"Cc", m.Cc, 0},
	} {
		value, err := addressList(f.list)
		if err != nil {
			return "", &Error{strings.ToLower(f.name), err}
		}
		if value == "" && f.name == "From" {
			return "", &Error{"from", errors.New("there is none: write it as name@domain")}
		}
		if value != "" {
			fold(&b, f.name, value)
		}
	}
	if len(m.To)+len(m.Cc) == 0 {
		// RFC 5322 needs no recipient field, but what has none looks like spam to many.
		b.WriteString("To: undisclosed-recipients:;\r\n")
	}
	if err := checkValue(m.Subject); err != nil {
		return "", &Error{"subject", err}
	}
	if m.Subject != "" {
		fold(&b, "Subject", encodeWords(m.Subject, len("Subject:")))
	}
	for _, f := range m.Headers {
		if err := f.check(); err != nil {
			return "", &Error{"header " + f.Name, err}
		}
		fold(&b, f.Name, encodeWords(f.Value, len(f.Name)+1))
	}
	b.WriteString("MIME-Version: 1.0\r\n")
	return b.String(), nil
}

func (f Field) check() error {
	if f.Name == "" {
		return errors.New("it has no name: write it as Name: value")
	}
	for i := 0; i < len(f.Name); i++ {
		// RFC 5322, section 3.6.8: printable ASCII without the colon.
		if c := f.Name[i]; c <= ' ' || c > '~' || c == ':' {
			return fmt.Errorf("%q may not be in a name", c)
		}
	}
	for _, own := range ownFields {
		if strings.EqualFold(f.Name, own) {
			return errors.New("this field is made from the message's own parts")
		}
	}
	return checkValue(f.Value)
}

// checkValue refuses what would end the field, or the header: a value is
// often made from what somebody typed into a form.
func checkValue(v string) error {
	if !utf8.ValidString(v) {
		return errors.New("is not valid UTF-8")
	}
	for _, r := range v {
		if r < ' ' && r != '\t' || r == 0x7f {
			return fmt.Errorf("%q may not be in a header field", r)
		}
	}
	return nil
}

// addressList writes addresses with their names, checked one by one.
func addressList(list []string) (string, error) {
	var out []string
	for _, value := range list {
		if err := checkValue(value); err != nil {
			return "", err
		}
		for box, err := range mailaddr.List(value) {
			if err != nil {
				return "", err
			}
			name := displayName(value[box.NameStart:box.NameEnd])
			out = append(out, mailbox(name, box.Address))
		}
	}
	return strings.Join(out, ", "), nil
}

// displayName takes the quotes off a display name.
func displayName(raw string) string {
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '\\' && i+1 < len(raw):
			i++
			b.WriteByte(raw[i])
		case c != '"':
			b.WriteByte(c)
		}
	}
	return strings.TrimSpace(b.String())
}

// mailbox writes one address. A domain is written as A-labels where that
// spares the message the need for SMTPUTF8.
func mailbox(name string, address mailaddr.Address) string {
	if ascii := (mailaddr.Address{Local: address.Local, Domain: address.ASCIIDomain()}); !ascii.NeedsUTF8() {
		address = ascii
	}
	bracketed := "<" + address.String() + ">"
	switch {
	case name == "":
		return address.String()
	case isPhrase(name):
		return name + " " + bracketed
	case isASCII(name) && !strings.Contains(name, "=?"):
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `" ` + bracketed
	}
	return encodeWords(name, len("Reply-To:")) + " " + bracketed
}

// isPhrase: words that need no quotes (RFC 5322, section 3.2.3). A question
// mark is left out, so that nothing passes for an encoded word.
func isPhrase(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || strings.IndexByte(" !#$%&'*+-/=^_`{|}~", c) >= 0 {
			continue
		}
		return false
	}
	return true
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// fold writes a field, broken at blanks so that lines stay within 78
// characters where that is possible (RFC 5322, section 2.1.1).
func fold(b *strings.Builder, name, value string) {
	const limit = 76
	b.WriteString(name)
	b.WriteString(":")
	column := len(name) + 1
	for i, word := range strings.Split(value, " ") {
		if i > 0 && word != "" && column+1+len(word) > limit && column > 1 {
			b.WriteString("\r\n")
			column = 0
		}
		b.WriteString(" ")
		b.WriteString(word)
		column += 1 + len(word)
	}
	b.WriteString("\r\n")
}

func (a *Attachment) header(content *bufio.Reader) (string, error) {
	name := path.Base(strings.ReplaceAll(a.Name, `\`, "/"))
	if err := checkValue(name); err != nil {
		return "", err
	}
	if err := checkValue(a.ContentID); err != nil || strings.ContainsAny(a.ContentID, "<> ") {
		return "", errors.New("its content ID may hold neither blanks nor angle brackets")
	}
	kind, err := a.mediaType(name, content)
	if err != nil {
		return "", err
	}
	disposition := "attachment"
	if a.ContentID != "" {
		disposition = "inline"
	}
	var b strings.Builder
	b.WriteString("Content-Type: " + kind + "\r\nContent-Transfer-Encoding: base64\r\n")
	value := disposition
	if name != "." && name != "/" {
		value = mime.FormatMediaType(disposition, map[string]string{"filename": name})
	}
	fold(&b, "Content-Disposition", value)
	if a.ContentID != "" {
		fold(&b, "Content-ID", "<"+a.ContentID+">")
	}
	b.WriteString("\r\n")
	return b.String(), nil
}

func (a *Attachment) mediaType(name string, content *bufio.Reader) (string, error) {
	if a.Type != "" {
		if err := checkValue(a.Type); err != nil {
			return "", err
		}
		base, params, err := mime.ParseMediaType(a.Type)
		if err != nil || !strings.Contains(base, "/") || strings.HasPrefix(base, "multipart/") || strings.HasPrefix(base, "message/") {
			return "", fmt.Errorf("%q is no media type of a file", a.Type)
		}
		return mime.FormatMediaType(base, params), nil
	}
	if kind := typeBySuffix(path.Ext(name)); kind != "" {
		return kind, nil
	}
	head, err := content.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return http.DetectContentType(head), nil
}

// AddressField is a header field, with its line end, that holds one address
// and the name of its owner.
func AddressField(field, name string, address mailaddr.Address) (string, error) {
	if err := checkValue(name); err != nil {
		return "", err
	}
	var b strings.Builder
	fold(&b, field, mailbox(name, address))
	return b.String(), nil
}
