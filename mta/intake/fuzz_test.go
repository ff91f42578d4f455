package intake_test

import (
	"errors"
	"strings"
	"testing"

	"postrider/mta/intake"
	"postrider/queue"
)

// FuzzMessage brings any content in, whole and in pieces: it is refused with an
// *Error, or becomes a message that every host takes.
func FuzzMessage(f *testing.F) {
	f.Add(full+"Subject: x\r\n\r\ntext\r\n", uint16(3), false)
	f.Add("From x Sat\nSubject: Grüße\nBcc: a@b.test\n\ntext", uint16(1), true)
	f.Add("mere text\n.\n", uint16(2), false)
	f.Add("From: root (Cron Daemon)\nTo: root, \"a b\" <c>\n\n\r.\r", uint16(7), true)
	f.Add("Content-Type: multipart/mixed; boundary=b\n\n--b\n\n"+strings.Repeat("x", 1200)+"\n--b--", uint16(100), false)
	s := newShelf(f)
	r := newReceiver(f, s, withLocalMail)
	f.Fuzz(func(t *testing.T, content string, size uint16, fromHeader bool) {
		bring := func(size int) (stored, error) {
			m := meta()
			m.SkipReceived = true
			if fromHeader {
				m.Envelope = &queue.Envelope{}
				m.RecipientsFromHeader, m.SenderFromHeader = true, true
			}
			err := take(r, m, content, size)
			s.last.body = strings.ReplaceAll(s.last.body, m.Envelope.ID.String(), "ID")
			s.last.prefix = strings.ReplaceAll(s.last.prefix, m.Envelope.ID.String(), "ID")
			return s.last, err
		}
		whole, err := bring(0)
		pieces, errPieces := bring(int(size) + 1)
		if err != nil {
			var e *intake.Error
			if !errors.As(err, &e) || errPieces == nil {
				t.Fatalf("%v, in pieces %v", err, errPieces)
			}
			return
		}
		if errPieces != nil || whole.prefix != pieces.prefix || whole.body != pieces.body || whole.env.Body != pieces.env.Body || whole.env.SMTPUTF8 != pieces.env.SMTPUTF8 {
			t.Fatalf("in pieces it is another message: %v\n%q\n%q", errPieces, whole.prefix+whole.body, pieces.prefix+pieces.body)
		}
		checkMessage(t, whole)
	})
}

func checkMessage(t *testing.T, m stored) {
	t.Helper()
	message := m.prefix + m.body
	if !strings.HasSuffix(message, "\r\n") {
		t.Fatalf("no line end at the end of %q", message)
	}
	for _, l := range strings.Split(message, "\r\n") {
		if len(l) > 998 || strings.ContainsAny(l, "\r\n\x00") {
			t.Fatalf("no line to send: %q", l)
		}
	}
	header, _ := split(message)
	lower := strings.ToLower("\r\n" + header)
	for _, name := range []string{"from", "date", "message-id"} {
		n := strings.Count(lower, "\r\n"+name+":")
		if n == 0 || (n > 1 && name == "from") {
			t.Fatalf("%d fields %s in %q", n, name, header)
		}
	}
	for _, name := range []string{"bcc", "return-path", "resent-bcc"} {
		if strings.Contains(lower, "\r\n"+name+":") {
			t.Fatalf("a field %s in %q", name, header)
		}
	}
	eightBit := strings.ContainsFunc(message, func(r rune) bool { return r >= 0x80 })
	if eightBit != (m.env.Body == queue.Body8BitMIME) {
		t.Fatalf("Body is %d for %q", m.env.Body, message)
	}
	if strings.ContainsFunc(header, func(r rune) bool { return r >= 0x80 }) && !m.env.SMTPUTF8 {
		t.Fatalf("SMTPUTF8 is not set for %q", header)
	}
	if len(m.env.Recipients) == 0 || m.env.Recipients[0].Domain == "" {
		t.Fatalf("recipients %+v", m.env.Recipients)
	}
}
