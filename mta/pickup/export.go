package pickup

import (
	"fmt"
	"strings"
	"time"

	"postrider/queue"
)

// AppendEnvelope appends the lines that say, at the start of a file, what the
// envelope says of a message for those of its recipients. The message as it is
// stored follows them, and the whole, moved into a pickup directory, becomes the
// same message again: a queue can so be moved to another machine. held: it is to
// wait for a release.
//
// When the message arrived, and how often it was tried, is not in it.
func AppendEnvelope(dst []byte, env *queue.Envelope, recipients []int, held bool) []byte {
	dst = fmt.Appendf(dst, "X-Sender: <%s>", env.Sender)
	for _, p := range []struct {
		is   bool
		text string
	}{
		{env.Ret == queue.RetFull, " RET=FULL"}, {env.Ret == queue.RetHeaders, " RET=HDRS"},
		{env.SMTPUTF8, " SMTPUTF8"}, {env.RequireTLS, " REQUIRETLS"},
	} {
		if p.is {
			dst = append(dst, p.text...)
		}
	}
	dst = append(dst, "\r\n"...)
	if env.EnvID != "" {
		dst = fmt.Appendf(dst, "X-Envid: %s\r\n", env.EnvID)
	}
	for _, i := range recipients {
		r := &env.Recipients[i]
		dst = fmt.Appendf(dst, "X-Receiver: <%s>", r.Address)
		if r.Notify != 0 {
			dst = append(append(dst, " NOTIFY="...), notifyWords(r.Notify)...)
		}
		if r.ORcpt != "" {
			dst = append(append(dst, " ORCPT="...), r.ORcpt...)
		}
		dst = append(dst, "\r\n"...)
	}
	dst = append(dst, "X-EndOfInjectedXHeaders: 1\r\n"...)
	return appendWishes(dst, env, held)
}

// appendWishes appends the fields that intake reads and removes.
func appendWishes(dst []byte, env *queue.Envelope, held bool) []byte {
	wish := func(name, value string) { dst = fmt.Appendf(dst, "X-Postrider-%s: %s\r\n", name, value) }
	switch env.Priority {
	case queue.PriorityBulk:
		wish("Priority", "bulk")
	case queue.PriorityUrgent:
		wish("Priority", "urgent")
	default:
		wish("Priority", "normal") // whatever the message's own fields say
	}
	if env.Tag != "" {
		wish("Tag", env.Tag)
	}
	if held {
		wish("Hold", "yes")
	}
	wish("Hold-For", "0s") // it has waited
	if !env.NotBefore.IsZero() {
		wish("Not-Before", env.NotBefore.UTC().Format(time.RFC3339Nano))
	}
	if !env.DeliverBy.IsZero() {
		wish("Deliver-By", env.DeliverBy.UTC().Format(time.RFC3339Nano))
	}
	return dst
}

// notifyWords is the value of NOTIFY (RFC 3461, section 4.1).
func notifyWords(n queue.Notify) string {
	var words []string
	for _, w := range []struct {
		bit  queue.Notify
		word string
	}{{queue.NotifyNever, "NEVER"}, {queue.NotifySuccess, "SUCCESS"}, {queue.NotifyFailure, "FAILURE"}, {queue.NotifyDelay, "DELAY"}} {
		if n&w.bit != 0 {
			words = append(words, w.word)
		}
	}
	return strings.Join(words, ",")
}
