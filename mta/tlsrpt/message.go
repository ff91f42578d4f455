package tlsrpt

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"time"
)

// Message is the mail that carries the report (section 5.3), with CRLF line
// ends, ready for the queue. From is an address of the sender's domain. It
// carries "TLS-Required: No" (RFC 8689, section 3), since a report of broken
// TLS has to arrive in spite of it. Receivers want it signed by the sender's
// domain.
func (r *Report) Message(from, to string, now time.Time) ([]byte, error) {
	for _, a := range []string{from, to, r.Sender.Domain, r.Domain, r.ID} {
		if !isPlain(a) {
			return nil, fmt.Errorf("the TLS report for %s cannot be mailed: %q cannot stand in a header", r.Domain, a)
		}
	}
	var random [16]byte
	rand.Read(random[:])
	unique := hex.EncodeToString(random[:])
	boundary := "tlsrpt-" + unique

	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("From: <%s>", from)
	line("To: <%s>", to)
	line("Date: %s", now.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	line("Message-ID: <%s@%s>", unique, r.Sender.Domain)
	// Folded, since the names may be long (RFC 5322, section 2.1.1).
	line("Subject: Report Domain: %s\r\n Submitter: %s\r\n Report-ID: <%s>", r.Domain, r.Sender.Domain, r.ID)
	line("TLS-Report-Domain: %s", r.Domain)
	line("TLS-Report-Submitter: %s", r.Sender.Domain)
	line("TLS-Required: No")
	line("Auto-Submitted: auto-generated")
	line("MIME-Version: 1.0")
	line("Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n boundary=\"%s\"", boundary)
	line("")
	line("--%s", boundary)
	line("Content-Type: text/plain; charset=\"us-ascii\"")
	line("Content-Transfer-Encoding: 7bit")
	line("")
	line("This is a report of how TLS went with mail from %s", r.Sender.Domain)
	line("to %s", r.Domain)
	line("between %s and %s.", r.Start.Format(time.RFC3339), r.End.Format(time.RFC3339))
	line("")
	line("It is sent because the record at _smtp._tls.%s asks for it (RFC 8460).", r.Domain)
	line("--%s", boundary)
	line("Content-Type: application/tlsrpt+gzip")
	line("Content-Transfer-Encoding: base64")
	line("Content-Disposition: attachment;\r\n filename=\"%s\"", r.Filename())
	line("")
	writeBase64(&b, r.gzip)
	line("--%s--", boundary)
	return b.Bytes(), nil
}

// writeBase64 writes lines of 76 characters (RFC 2045, section 6.8).
func writeBase64(b *bytes.Buffer, data []byte) {
	const octets = 57
	for len(data) > 0 {
		n := min(octets, len(data))
		b.WriteString(base64.StdEncoding.EncodeToString(data[:n]))
		b.WriteString("\r\n")
		data = data[n:]
	}
}
