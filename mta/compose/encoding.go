package compose

import (
	"encoding/base64"
	"io"
	"mime/quotedprintable"
	"strings"
)

// maxLine is the longest line that is sent as it is. RFC 5322, section
// 2.1.1, allows 998 octets and asks for 78; text that was written in long
// lines is left alone up to a length that no server minds.
const maxLine = 900

// crlf brings every form of line end (CRLF, LF, CR) to CRLF, and gives one to
// the last line.
func crlf(s string) string {
	s = strings.ReplaceAll(s, "\r\n", "\n")
	s = strings.ReplaceAll(s, "\r", "\n")
	if s != "" && !strings.HasSuffix(s, "\n") {
		s += "\n"
	}
	return strings.ReplaceAll(s, "\n", "\r\n")
}

// encodingOf chooses a transfer encoding that every server on the way can
// carry: 7bit where the text allows it, else the shorter of the two others.
func encodingOf(text string) string {
	plain, high, longest, line := true, 0, 0, 0
	for i := 0; i < len(text); i++ {
		switch b := text[i]; {
		case b == '\n':
			longest, line = max(longest, line), 0
			continue
		case b >= 0x80:
			high++
			plain = false
		case b < ' ' && b != '\t' && b != '\r':
			plain = false
		}
		line++
	}
	switch longest = max(longest, line); {
	case plain && longest <= maxLine:
		return "7bit"
	case high*6 > len(text): // quoted-printable takes three octets for one, base64 four for three
		return "base64"
	}
	return "quoted-printable"
}

// encode writes r in a transfer encoding. Text ends in a line end, and so
// does what becomes of it.
func encode(w io.Writer, encoding string, r io.Reader) error {
	switch encoding {
	case "base64":
		return encodeBase64(w, r)
	case "quoted-printable":
		qp := quotedprintable.NewWriter(w)
		if _, err := io.Copy(qp, r); err != nil {
			return err
		}
		return qp.Close()
	}
	_, err := io.Copy(w, r)
	return err
}

// encodeBase64 writes lines of 76 characters (RFC 2045, section 6.8).
func encodeBase64(w io.Writer, r io.Reader) error {
	const lines = 128
	var in [57 * lines]byte
	var line [76 + 2]byte
	for {
		n, err := io.ReadFull(r, in[:])
		for chunk := in[:n]; len(chunk) > 0; {
			part := chunk[:min(57, len(chunk))]
			chunk = chunk[len(part):]
			end := base64.StdEncoding.EncodedLen(len(part))
			base64.StdEncoding.Encode(line[:end], part)
			copy(line[end:], "\r\n")
			if _, err := w.Write(line[:end+2]); err != nil {
				return err
			}
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return nil
		default:
			return err
		}
	}
}
