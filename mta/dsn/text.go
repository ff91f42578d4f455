package dsn

import (
	"bytes"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"strings"
	"time"
)

// maxNamed is how many recipients the text names; the part for programs names
// them all. Nobody reads more.
const maxNamed = 50

// subject says the gravest of what is reported, and whom it is about.
func (r *Report) subject() string {
	what, action := "Passed on", Relayed
	for i := range r.Recipients {
		switch a := r.Recipients[i].Action; {
		case a == Failed:
			what, action = "Not delivered", Failed
		case a == Delayed && action != Failed:
			what, action = "Delayed", Delayed
		}
	}
	first, others := "", -1
	for i := range r.Recipients {
		if r.Recipients[i].Action == action {
			if others++; others == 0 {
				first = oneLine(r.Recipients[i].Address)
			}
		}
	}
	s := what + ": your message to " + first
	switch {
	case others == 1:
		s += " and another"
	case others > 1:
		s += fmt.Sprintf(" and %d others", others)
	}
	return s
}

// writeText writes the part for people.
func (r *Report) writeText(b *bytes.Buffer) {
	var t textWriter
	t.paragraph("", "This is the mail server "+r.Hostname+".")
	for _, section := range []struct {
		action   Action
		one, few string
	}{
		{Failed, "Your message could not be delivered to this recipient, and will not be tried again:",
			"Your message could not be delivered to these recipients, and will not be tried again:"},
		{Delayed, "Your message has not been delivered to this recipient yet. You need not send it again: this server goes on trying.",
			"Your message has not been delivered to these recipients yet. You need not send it again: this server goes on trying."},
		{Relayed, "Your message was handed to the next mail server for this recipient. That server does not report what becomes of it:",
			"Your message was handed to the next mail server for these recipients. That server does not report what becomes of it:"},
	} {
		r.writeSection(&t, section.action, section.one, section.few)
	}
	r.writeAbout(&t)
	body := strings.ReplaceAll(t.b.String(), "\n", "\r\n")
	if isASCII(body) {
		b.WriteString("Content-Type: text/plain; charset=us-ascii\r\n\r\n")
		b.WriteString(body)
		return
	}
	b.WriteString("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")
	qp := quotedprintable.NewWriter(b)
	qp.Write([]byte(body)) // a bytes.Buffer takes all
	qp.Close()
}

func (r *Report) writeSection(t *textWriter, action Action, one, few string) {
	var list []*Recipient
	for i := range r.Recipients {
		if r.Recipients[i].Action == action {
			list = append(list, &r.Recipients[i])
		}
	}
	switch len(list) {
	case 0:
		return
	case 1:
		t.paragraph("", one)
	default:
		t.paragraph("", few)
	}
	for _, c := range list[:min(len(list), maxNamed)] {
		c.writeText(t)
	}
	if more := len(list) - maxNamed; more > 0 {
		t.paragraph("  ", fmt.Sprintf("... and %d more, which the part for programs lists.", more))
	}
}

// writeText says what became of one recipient, in whose words, and what to do.
func (c *Recipient) writeText(t *textWriter) {
	address := oneLine(c.Address)
	if original, ok := c.otherOriginal(); ok {
		address += " (you wrote to " + original + ")"
	}
	t.line("  ", address)
	e := c.explanation()
	if e.what != "" {
		t.line("    ", e.what)
	}
	switch {
	case c.Action == Relayed:
		t.line("    ", "Taken by "+c.remote()+".")
	case c.Code > 0:
		t.line("    ", c.remote()+" answered:")
		t.line("      ", c.reply())
	case c.Text != "":
		t.line("    ", "The reason: "+oneLine(c.Text))
	}
	if c.Action == Delayed && !c.RetryUntil.IsZero() {
		t.line("    ", "It is tried until "+c.RetryUntil.Format(peopleDate)+"; after that you get another report.")
	}
	if e.advice != "" {
		t.line("    ", "What you can do: "+e.advice)
	}
	t.line("", "")
}

// otherOriginal is the address that the sender wrote, where the message went
// to another one.
func (c *Recipient) otherOriginal() (string, bool) {
	_, original, ok := strings.Cut(c.ORcpt, ";")
	original = strings.TrimSpace(oneLine(original))
	return original, ok && original != "" && !strings.EqualFold(original, c.Address)
}

func (c *Recipient) remote() string {
	host := oneLine(c.RemoteHost)
	if host == "" {
		host = "the other server"
	}
	if c.RemoteIP.IsValid() {
		host += " [" + c.RemoteIP.Unmap().String() + "]"
	}
	return host
}

const peopleDate = "Monday, 2 January 2006, 15:04 -0700"

// writeAbout says which message it is.
func (r *Report) writeAbout(t *textWriter) {
	t.line("", "The message:")
	subject, date := "", ""
	for line := range unfolded(headerOf(r.Message.Content)) {
		name, value, _ := strings.Cut(line, ":")
		switch value = oneLine(strings.TrimSpace(value)); {
		case strings.EqualFold(name, "Subject") && subject == "":
			subject = decoded(value)
		case strings.EqualFold(name, "Date") && date == "":
			date = value
		}
	}
	for _, f := range []struct{ name, value string }{
		{"Subject: ", subject},
		{"Date: ", date},
		{"Message-ID: ", messageID(r.Message.Content)},
		{"Accepted: ", accepted(r.Message.ArrivedAt)},
		{"Our ID: ", r.Message.ID},
	} {
		if f.value != "" {
			t.line("  ", f.name+cut(f.value, 500))
		}
	}
	t.line("", "")
	switch {
	case len(r.Message.Content) == 0:
	case r.Message.Whole:
		t.paragraph("", "It comes back with this report.")
	default:
		t.paragraph("", "Its header comes back with this report.")
	}
}

func accepted(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.Format(peopleDate)
}

// decoded is a field's text without encoded words, where they can be read.
func decoded(s string) string {
	d, err := new(mime.WordDecoder).DecodeHeader(s)
	if err != nil {
		return s
	}
	return oneLine(d)
}

// textWriter writes lines that are broken at blanks.
type textWriter struct{ b strings.Builder }

// line writes one logical line; those that follow from breaking it are
// indented like it.
func (t *textWriter) line(indent, s string) {
	const width = 72
	words := strings.Fields(s)
	column := 0
	for _, w := range words {
		switch {
		case column == 0:
			t.b.WriteString(indent)
			column = len(indent)
		case column+1+len(w) > width:
			t.b.WriteString("\n" + indent)
			column = len(indent)
		default:
			t.b.WriteByte(' ')
			column++
		}
		t.b.WriteString(cut(w, 900)) // no word makes a line longer than 998 octets
		column += len(w)
	}
	t.b.WriteByte('\n')
}

func (t *textWriter) paragraph(indent, s string) {
	t.line(indent, s)
	t.b.WriteByte('\n')
}
