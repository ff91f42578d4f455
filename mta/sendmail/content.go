package sendmail

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"postrider/mta/compose"
	"postrider/mta/mailaddr"
)

// untilDot ends at a line that holds a dot alone.
type untilDot struct {
	r      *bufio.Reader
	inLine bool // the rest of a line that is longer than the buffer
	left   []byte
	ended  bool
}

func (d *untilDot) Read(p []byte) (int, error) {
	for len(d.left) == 0 {
		if d.ended {
			return 0, io.EOF
		}
		line, err := d.r.ReadSlice('\n')
		whole := !d.inLine
		d.inLine = errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !d.inLine {
			d.ended = true
			if !errors.Is(err, io.EOF) {
				return 0, err
			}
		}
		if whole && string(bytes.TrimRight(line, "\r\n")) == "." {
			d.ended = true
			return 0, io.EOF
		}
		d.left = line
	}
	n := copy(p, d.left)
	d.left = d.left[n:]
	return n, nil
}

// maxHeader is how much is searched for header fields; the server takes no
// larger header.
const maxHeader = 256 << 10

// header is what the command needs to know of a message's header.
type header struct {
	present bool // the message begins with a header field
	from    bool
	to      []string // values of To, Cc and Bcc
	resent  []string // and of their Resent- forms, which go first
	// envelope: in the pickup directory, where X-Sender and X-Receiver are the
	// envelope, the message would say who else gets it.
	envelope bool
}

// readHeader looks at the header of a message without taking it off r.
func readHeader(r *bufio.Reader) (header, error) {
	text, err := r.Peek(maxHeader)
	if err != nil && !errors.Is(err, io.EOF) {
		return header{}, err
	}
	if bytes.HasPrefix(text, []byte("From ")) { // an mbox file's separator
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	h := header{envelope: namesEnvelope(text)}
	var name string
	var value strings.Builder
	end := func() {
		h.take(name, value.String())
		value.Reset()
	}
	for line := range bytes.Lines(text) {
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			value.WriteByte(' ')
			value.Write(bytes.TrimSpace(line))
			continue
		}
		field, rest, ok := bytes.Cut(line, []byte(":"))
		field = bytes.TrimRight(field, " \t")
		if !ok || len(field) == 0 || bytes.ContainsAny(field, " \t") {
			break
		}
		end()
		h.present = true
		name = strings.ToLower(string(field))
		value.Write(rest)
	}
	end()
	return h, nil
}

// namesEnvelope looks as broadly as it can at all that may pass for a header:
// other readers of it may know more forms of line ends.
func namesEnvelope(text []byte) bool {
	end := len(text)
	for _, blank := range []string{"\n\n", "\n\r\n"} {
		if i := bytes.Index(text, []byte(blank)); i >= 0 {
			end = min(end, i)
		}
	}
	if end == maxHeader {
		return true // nobody knows what is behind
	}
	lower := bytes.ToLower(text[:end])
	return bytes.Contains(lower, []byte("x-sender")) || bytes.Contains(lower, []byte("x-receiver"))
}

func (h *header) take(name, value string) {
	switch name {
	case "from":
		h.from = true
	case "to", "cc", "bcc":
		h.to = append(h.to, value)
	case "resent-to", "resent-cc", "resent-bcc":
		h.resent = append(h.resent, value)
	}
}

// recipients are those on the command line and, with -t, of the header.
func (a *Args) recipients(h *header) ([]string, error) {
	values := a.Recipients
	if a.FromHeader {
		fields := h.to
		if len(h.resent) > 0 {
			fields = h.resent
		}
		values = append(values[:len(values):len(values)], fields...)
	}
	var out []string
	for _, v := range values {
		for box, err := range mailaddr.List(v) {
			if err != nil {
				return nil, err
			}
			out = append(out, box.Address.String())
		}
	}
	if len(out) == 0 {
		return nil, usage("no recipients: the header has no To, Cc or Bcc field with an address")
	}
	return out, nil
}

// withName gives a message without From the name that -F asks for. The server
// would give it one without a name.
func (a *Args) withName(h *header, sender string, content io.Reader) (io.Reader, error) {
	if a.FullName == "" || h.from || !h.present || sender == "" {
		return content, nil
	}
	address, err := mailaddr.ParseUnqualified(sender)
	if err != nil {
		return nil, err
	}
	field, err := compose.AddressField("From", a.FullName, address)
	if err != nil {
		return nil, usage("-F: %v", err)
	}
	return io.MultiReader(strings.NewReader(field), content), nil
}

// senderOr is the reverse-path: -f, or the user who calls.
func (a *Args) senderOr(user string) (string, error) {
	switch a.Sender {
	case "":
		return user, nil
	case "<>":
		return "", nil
	}
	var sender string
	for box, err := range mailaddr.List(a.Sender) {
		if err != nil || sender != "" {
			return "", usage("-f %s: this is not one address", a.Sender)
		}
		sender = box.Address.String()
	}
	if sender == "" {
		return "", fmt.Errorf("-f %s: this is no address", a.Sender)
	}
	return sender, nil
}
