package recode

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"iter"
	"mime"
	"postrider/mta/mailaddr"
	"strings"
	"unicode/utf8"
)

// fields walks the fields of a header section, each with its folded lines and
// last CRLF, up to the blank line.
func fields(header []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(header) > 0 && !bytes.HasPrefix(header, []byte("\r\n")) {
			n := 0
			for {
				i := bytes.IndexByte(header[n:], '\n')
				if i < 0 {
					n = len(header)
					break
				}
				n += i + 1
				if n == len(header) || (header[n] != ' ' && header[n] != '\t') {
					break
				}
			}
			if !yield(header[:n]) {
				return
			}
			header = header[n:]
		}
	}
}

// fieldName is the name of a field; empty where it has none.
func fieldName(field []byte) string {
	name, _, ok := bytes.Cut(field, []byte(":"))
	if !ok {
		return ""
	}
	name = bytes.TrimRight(name, " \t")
	if bytes.ContainsAny(name, " \t\r\n") { // a colon somewhere in what is no field
		return ""
	}
	return string(name)
}

// fieldValue is the value of the first field of that name, unfolded.
func fieldValue(header []byte, name string) (value string, ok bool) {
	for field := range fields(header) {
		if len(field) > len(name) && strings.EqualFold(fieldName(field), name) {
			_, v, _ := bytes.Cut(field, []byte(":"))
			return unfold(string(v)), true
		}
	}
	return "", false
}

func unfold(value string) string {
	return strings.TrimSpace(strings.ReplaceAll(value, "\r\n", ""))
}

// Fold breaks the lines of a header section that are longer than MaxLine, at
// blanks, where breaking changes nothing (RFC 5322, section 2.2.3). line is the
// number of its first line, for errors.
func Fold(header []byte, line int) ([]byte, error) {
	if !longLine(header) {
		return header, nil
	}
	out := make([]byte, 0, len(header)+len(header)/64)
	for len(header) > 0 {
		n := bytes.IndexByte(header, '\n') + 1
		if n == 0 {
			n = len(header)
		}
		l := header[:n]
		header = header[n:]
		if n-2 <= MaxLine {
			out = append(out, l...)
			line++
			continue
		}
		var ok bool
		if out, ok = appendFolded(out, l); !ok {
			return nil, &Error{line, "a header line longer than 998 octets without a blank to break it at"}
		}
		line++
	}
	return out, nil
}

// appendFolded appends a long line, broken.
func appendFolded(out, line []byte) ([]byte, bool) {
	const nice = 78
	name := bytes.IndexByte(line, ':') + 1
	for len(line)-2 > MaxLine {
		// Not within the first blanks, nor right behind the name: a line without text is none (RFC 5322, section 3.2.2).
		text := len(line) - len(bytes.TrimLeft(line[name:], " \t"))
		name = 0
		i := bytes.LastIndexAny(line[:nice], " \t")
		if i <= text {
			i = bytes.IndexAny(line[nice:MaxLine+1], " \t")
			if i < 0 {
				return nil, false
			}
			i += nice
		}
		if len(bytes.TrimSpace(line[i:])) == 0 { // nothing but blanks is left: they may go
			if kept := bytes.TrimRight(line[:i], " \t"); len(kept) > 0 { // an empty line would end the header
				out = append(append(out, kept...), "\r\n"...)
			}
			return out, true
		}
		if len(bytes.TrimSpace(line[:i])) > 0 { // so may those that a line begins with, but for one
			out = append(append(out, line[:i]...), "\r\n"...)
		}
		line = line[i:]
	}
	return append(out, line...), true
}

// addressFields hold addresses with display names.
var addressFields = []string{"From", "Sender", "Reply-To", "To", "Cc", "Resent-From", "Resent-Sender", "Resent-To",
	"Resent-Cc", "Resent-Reply-To", "Errors-To", "Disposition-Notification-To", "Return-Receipt-To"}

// structuredFields have a syntax in which an encoded word may not stand.
var structuredFields = []string{"Date", "Resent-Date", "Message-ID", "Resent-Message-ID", "In-Reply-To", "References", "Received",
	"Return-Path", "MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Content-Disposition", "Content-ID",
	"DKIM-Signature", "ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results", "Authentication-Results",
	"List-Unsubscribe", "List-Help", "List-Post", "List-Owner", "List-Archive", "List-Subscribe", "Auto-Submitted", "TLS-Required"}

func named(name string, list []string) bool {
	for _, n := range list {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// EncodeWords turns octets beyond ASCII in a header section into encoded words
// (RFC 2047) where these may stand: in text and in display names. Domains of
// addresses become A-labels where the local part is ASCII. What remains is in
// structured fields and addresses. Octets that are not UTF-8 are taken to be of
// the charset that the Content-Type field names.
func EncodeWords(header []byte) []byte {
	if !hasEightBit(header) {
		return header
	}
	charset := legacyCharset(header)
	out := make([]byte, 0, len(header)+len(header)/2)
	for field := range fields(header) {
		if !hasEightBit(field) {
			out = append(out, field...)
			continue
		}
		name := fieldName(field)
		colon := bytes.IndexByte(field, ':') + 1
		value := string(field[colon:])
		switch {
		case name == "" || named(name, structuredFields):
		case named(name, addressFields):
			value = encodeNames(value, charset)
		default:
			value = encodeText(value, charset)
		}
		out = append(append(out, field[:colon]...), value...)
	}
	if bytes.HasSuffix(header, []byte("\r\n\r\n")) || bytes.Equal(header, []byte("\r\n")) {
		out = append(out, "\r\n"...)
	}
	return out
}

// unknownCharset says that nobody knows (RFC 1428, section 4).
const unknownCharset = "unknown-8bit"

// legacyCharset is what octets that are not UTF-8 are taken for.
func legacyCharset(header []byte) string {
	v, ok := fieldValue(header, "Content-Type")
	if !ok {
		return unknownCharset
	}
	_, params, _ := mime.ParseMediaType(v)
	charset := params["charset"]
	if len(charset) > 28 || charset == "" || strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "us-ascii") {
		return unknownCharset
	}
	for _, c := range charset {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c == '.' || c == ':') {
			return unknownCharset
		}
	}
	return charset
}

// encodeText encodes the words of unstructured text from the first one that is
// not ASCII to the last one.
func encodeText(value, charset string) string {
	text := strings.TrimSuffix(strings.ReplaceAll(value, "\r\n", ""), "\n")
	first := strings.IndexFunc(text, notASCII)
	if first < 0 { // it is the name that is not ASCII
		return value
	}
	last := strings.LastIndexFunc(text, notASCII)
	start := strings.LastIndexAny(text[:first], " \t") + 1
	end := len(text)
	if i := strings.IndexAny(text[last:], " \t"); i >= 0 {
		end = last + i
	}
	lead := text[:start]
	if lead == "" {
		lead = " "
	}
	return lead + encodeWord(text[start:end], charset) + text[end:] + "\r\n"
}

func notASCII(r rune) bool { return r >= utf8.RuneSelf }

// encodeNames encodes the display names of a list of addresses. A list that
// cannot be read stays as it is.
func encodeNames(value, charset string) string {
	var b strings.Builder
	copied := 0
	for m, err := range mailaddr.List(value) {
		if err != nil {
			return value
		}
		if name := value[m.NameStart:m.NameEnd]; strings.ContainsFunc(name, notASCII) {
			b.WriteString(value[copied:m.NameStart])
			b.WriteString(encodeWord(plainName(name), charset))
			copied = m.NameEnd
		}
		if a := m.Address; !strings.ContainsFunc(a.Local, notASCII) && strings.ContainsFunc(a.Domain, notASCII) {
			a.Domain = a.ASCIIDomain()
			b.WriteString(value[copied:m.Start])
			b.WriteString(a.String())
			copied = m.End
		}
	}
	b.WriteString(value[copied:])
	return b.String()
}

// plainName is a display name without quotes and folds.
func plainName(name string) string {
	name = unfold(name)
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		switch {
		case name[i] == '"':
			continue
		case name[i] == '\\' && i+1 < len(name):
			i++
		}
		b.WriteByte(name[i])
	}
	return b.String()
}

// encodeWord encodes text as encoded words of at most 75 octets, one a line.
func encodeWord(s, charset string) string {
	if utf8.ValidString(s) {
		return strings.ReplaceAll(mime.BEncoding.Encode("utf-8", s), " ", "\r\n ")
	}
	step := len(s) // a character of several octets must not be torn
	if lower := strings.ToLower(charset); strings.HasPrefix(lower, "iso-8859-") || strings.HasPrefix(lower, "windows-125") ||
		strings.HasPrefix(lower, "koi8-") || lower == unknownCharset {
		step = 30
	}
	var b strings.Builder
	for len(s) > 0 {
		n := min(step, len(s))
		if b.Len() > 0 {
			b.WriteString("\r\n ")
		}
		fmt.Fprintf(&b, "=?%s?b?%s?=", charset, base64.StdEncoding.EncodeToString([]byte(s[:n])))
		s = s[n:]
	}
	return b.String()
}
