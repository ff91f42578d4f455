package intake

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"postrider/mta/intake/recode"
	"postrider/queue"
)

// Unfit says why a message cannot be made to fit a host without breaking it.
type Unfit struct {
	Status string // 5.6.3 or 5.6.7
	Reason string
}

func (e *Unfit) Error() string { return e.Reason }

// ErrFits says that a message can go as it is stored.
var ErrFits = errors.New("the message needs no conversion")

// Converted is a message as one host gets it. It is used by one goroutine and
// must be closed.
type Converted struct {
	Head []byte    // signatures and header, with the blank line
	Text io.Reader // what follows it
	Size int64     // of both

	reader io.Closer
	body   *queue.Body
}

// Close gives back what the message holds.
func (c *Converted) Close() error {
	err := c.reader.Close()
	c.body.Discard()
	return err
}

// Convert writes a stored message anew for a host that cannot take it as it is,
// and signs it anew. The header becomes ASCII, for hosts without SMTPUTF8 (RFC
// 6531); for those without 8BITMIME (RFC 6152) the text as well. It is the one
// exception to "what is stored is what is sent", and what it makes is not
// stored. open gives the content and is called twice, so that a message of any
// size is converted in little memory. ErrFits and an *Unfit come back for this
// message again and again; any other error is trouble of ours.
func (r *Receiver) Convert(open func() (*queue.Content, error), toSevenBit bool) (*Converted, error) {
	c := conversion{r: r, open: open}
	if err := c.plan(toSevenBit); err != nil {
		return nil, err
	}
	return c.write()
}

// conversion is one message being converted.
type conversion struct {
	r      *Receiver
	open   func() (*queue.Content, error)
	header []byte       // without our signatures, made to fit
	text   *recode.Plan // nil: it stays as it is
}

// plan finds out what has to change.
func (c *conversion) plan(toSevenBit bool) error {
	s, err := openStored(c.open)
	if err != nil {
		return err
	}
	defer s.Close()
	header := recode.EncodeWords(s.header)
	if hasEightBit(header) {
		return &Unfit{"5.6.7", "the header has UTF-8 where it cannot be encoded, in an address or a structured field"}
	}
	if c.header, err = recode.Fold(header, 1); err != nil {
		return unfit("5.6.7", err)
	}
	// The headers of parts count as well (RFC 6532, section 3).
	fit, status := recode.ASCIIHeaders, "5.6.7"
	if toSevenBit {
		fit, status = recode.SevenBit, "5.6.3"
	}
	if c.text, err = recode.New(c.header, s.text, s.bodyLine, fit); err != nil {
		return unfit(status, err)
	}
	if !c.text.Changes() {
		if bytes.Equal(c.header, s.header) {
			return ErrFits
		}
		c.text = nil // copied, without another look at it
	}
	return nil
}

// unfit is what a plan that failed means.
func unfit(status string, err error) error {
	var reason *recode.Error
	if errors.As(err, &reason) {
		return &Unfit{status, reason.Error()}
	}
	return err
}

// write carries the plan out. The text lies in a body of the queue, which
// spills to a file and is discarded with the Converted, or at the next start.
func (c *conversion) write() (*Converted, error) {
	s, err := openStored(c.open)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	final := c.header
	if c.text != nil {
		final = c.text.Header()
	}
	body := c.r.opts.Queue.NewBody()
	head, err := c.r.signed(final, body, func(w io.Writer) error {
		if c.text == nil {
			_, err := io.Copy(w, s.text)
			return err
		}
		return c.text.Write(w, c.header, s.text)
	})
	if err != nil {
		body.Discard()
		return nil, err
	}
	reader, err := body.Reader()
	if err != nil {
		body.Discard()
		return nil, err
	}
	return &Converted{Head: head, Text: reader, Size: int64(len(head)) + body.Size(), reader: reader, body: body}, nil
}

// signed has text written to w, and answers the header with the signatures of
// both before it.
func (r *Receiver) signed(header []byte, w io.Writer, write func(io.Writer) error) ([]byte, error) {
	var signature Signature
	if r.opts.Signer != nil {
		var err error
		if signature, err = r.opts.Signer.Sign(header); err != nil {
			return nil, fmt.Errorf("sign the converted message: %w", err)
		}
	}
	if signature == nil {
		return header, write(w)
	}
	defer signature.Close()
	if err := write(io.MultiWriter(w, signature)); err != nil {
		return nil, err
	}
	fields, err := signature.Sign()
	if err != nil {
		return nil, fmt.Errorf("sign the converted message: %w", err)
	}
	return append(fields, header...), nil
}

// stored is a message of the queue, taken apart.
type stored struct {
	*queue.Content
	header   []byte    // without our signatures; with the blank line
	text     io.Reader // behind it
	bodyLine int       // number of the text's first line in what we were given
}

func openStored(open func() (*queue.Content, error)) (*stored, error) {
	content, err := open()
	if err != nil {
		return nil, err
	}
	s := &stored{Content: content, header: withoutSignatures(content.Head)}
	added := len(s.header)
	rest := io.Reader(bytes.NewReader(content.Data))
	if content.File != nil {
		rest = io.MultiReader(rest, content.File)
	}
	text := bufio.NewReaderSize(rest, 8<<10)
	for isLine := true; ; {
		piece, err := text.ReadSlice('\n')
		isBlank := isLine && string(piece) == "\r\n"
		s.header = append(s.header, piece...)
		switch {
		case isBlank:
			s.text = text
			s.bodyLine = bytes.Count(s.header[added:], lf) + 1
			return s, nil
		case err != nil && err != bufio.ErrBufferFull:
			content.Close()
			return nil, fmt.Errorf("read the header of the stored message: %w", err)
		case len(s.header) > 2*maxHeader:
			content.Close()
			return nil, errors.New("read the header of the stored message: it does not end")
		}
		isLine = err == nil
	}
}

// withoutSignatures is a copy of the fields that we put before a message
// without the signatures among them, which are the first ones.
func withoutSignatures(prefix []byte) []byte {
	for fields := string(prefix); ; {
		name, _ := nameLength(fields)
		if fields[:name] != "DKIM-Signature" {
			return []byte(fields)
		}
		fields = fields[fieldLength(fields):]
	}
}
