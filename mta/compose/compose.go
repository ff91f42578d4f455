// Package compose writes the content of a message from its parts: header
// fields, a text, an HTML part with the images it shows, attachments (MIME,
// RFC 2045 to 2047; names outside ASCII as in RFC 2231).
//
// Content is streamed, so that an attachment is never held in memory as a
// whole. Date, Message-ID and the trace fields are left out on purpose: intake
// adds them, as it does for everybody. Nothing here is trusted to be a safe
// header: a line end in a value is an error, not a new field.
package compose

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Message is what is to be written. From is required. Addresses may carry
// names and be several in one string, as in a header field.
type Message struct {
	From    string
	ReplyTo string
	To, Cc  []string // Bcc is a matter of the envelope alone
	Subject string
	Text    string // line ends of any form
	HTML    string
	Headers []Field // further ones, in this order
	// Attachments with a ContentID are shown by the HTML part; the others
	// follow the text.
	Attachments []Attachment
	// Boundary begins the boundaries between parts; empty: one is drawn.
	Boundary string
}

// Field is one header field.
type Field struct{ Name, Value string }

// Attachment is a file that travels with the message.
type Attachment struct {
	Name      string
	Type      string // media type; empty: from the name's suffix and the content
	ContentID string
	// Open gives the content when it is its turn; it is closed afterwards.
	Open func() (io.ReadCloser, error)
}

// Error says which part of a message cannot be written, and why.
type Error struct {
	Part string // "subject", "to", "attachment scan.pdf"
	Err  error
}

func (e *Error) Error() string { return e.Part + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

func fault(part, format string, args ...any) error {
	return &Error{Part: part, Err: fmt.Errorf(format, args...)}
}

// WriteTo writes the message with CRLF line ends. An *Error means that a part
// is at fault; any other error is w's.
func (m *Message) WriteTo(w io.Writer) (int64, error) {
	boundary := m.Boundary
	if boundary == "" {
		boundary = rand.Text()
	}
	c := composer{w: bufio.NewWriterSize(w, 16<<10), boundary: boundary}
	err := c.message(m)
	if err == nil {
		err = c.w.Flush()
	}
	return c.written, err
}

// composer writes one message. Nested multiparts are told apart by a number
// behind the boundary.
type composer struct {
	w        *bufio.Writer
	written  int64
	boundary string
	nested   int
}

func (c *composer) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.written += int64(n)
	return n, err
}

func (c *composer) print(s ...string) error {
	for _, s := range s {
		n, err := c.w.WriteString(s)
		c.written += int64(n)
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *composer) message(m *Message) error {
	header, err := m.header()
	if err != nil {
		return err
	}
	if err := c.print(header); err != nil {
		return err
	}
	inline, attached := m.split()
	if len(inline) > 0 && m.HTML == "" {
		return fault("attachment "+inline[0].Name, "it has a content ID, but there is no HTML part to show it")
	}
	body := c.body(m, inline)
	if len(attached) == 0 {
		return body()
	}
	return c.multipart("mixed", "", append([]func() error{body}, c.attachments(attached)...)...)
}

func (m *Message) split() (inline, attached []Attachment) {
	for _, a := range m.Attachments {
		if a.ContentID != "" {
			inline = append(inline, a)
		} else {
			attached = append(attached, a)
		}
	}
	return inline, attached
}

// body is the text, the HTML part, or both as alternatives.
func (c *composer) body(m *Message, inline []Attachment) func() error {
	html := c.text("html", m.HTML)
	if len(inline) > 0 {
		parts := append([]func() error{html}, c.attachments(inline)...)
		html = func() error { return c.multipart("related", `; type="text/html"`, parts...) }
	}
	switch {
	case m.HTML == "":
		return c.text("plain", m.Text)
	case m.Text == "":
		return html
	}
	plain := c.text("plain", m.Text)
	return func() error { return c.multipart("alternative", "", plain, html) }
}

// multipart writes parts, each of which begins with its own header.
func (c *composer) multipart(subtype, params string, parts ...func() error) error {
	c.nested++
	boundary := fmt.Sprintf("=_%d_%s", c.nested, c.boundary)
	if err := c.print("Content-Type: multipart/", subtype, params, ";\r\n boundary=\"", boundary, "\"\r\n"); err != nil {
		return err
	}
	for _, part := range parts {
		if err := c.print("\r\n--", boundary, "\r\n"); err != nil {
			return err
		}
		if err := part(); err != nil {
			return err
		}
	}
	return c.print("\r\n--", boundary, "--\r\n")
}

func (c *composer) text(subtype, text string) func() error {
	return func() error {
		if !utf8.ValidString(text) {
			return fault("text/"+subtype, "is not valid UTF-8")
		}
		text := crlf(text)
		encoding := encodingOf(text)
		charset := "utf-8"
		if encoding == "7bit" {
			charset = "us-ascii"
		}
		if err := c.print("Content-Type: text/", subtype, "; charset=", charset, "\r\nContent-Transfer-Encoding: ", encoding, "\r\n\r\n"); err != nil {
			return err
		}
		return encode(c, encoding, strings.NewReader(text))
	}
}

func (c *composer) attachments(list []Attachment) []func() error {
	parts := make([]func() error, len(list))
	for i := range list {
		parts[i] = func() error { return c.attachment(&list[i]) }
	}
	return parts
}

func (c *composer) attachment(a *Attachment) error {
	part := "attachment " + a.Name
	content, err := a.Open()
	if err != nil {
		return &Error{part, err}
	}
	defer content.Close()
	buffered := bufio.NewReader(content)
	header, err := a.header(buffered)
	if err != nil {
		return &Error{part, err}
	}
	if err := c.print(header); err != nil {
		return err
	}
	source := &readFault{r: buffered}
	if err := encode(c, "base64", source); err != nil {
		if source.err != nil {
			return &Error{part, source.err}
		}
		return err
	}
	return nil
}

// readFault remembers that it was reading that failed, not writing.
type readFault struct {
	r   io.Reader
	err error
}

func (f *readFault) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}
