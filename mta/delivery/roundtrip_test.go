package delivery

import (
	"fmt"
	"strings"
	"testing"

	"postrider/mta/smtptest"
)

// What a message costs on an open connection, in round trips: the rate over a
// long way follows from it (docs/performance.md).
func TestRoundTripsOfAMessage(t *testing.T) {
	t.Parallel()
	const messages = 20
	for name, tt := range map[string]struct {
		extensions []string
		each       int // round trips a message
		once       int // for the connection
	}{
		"CHUNKING":           {manners["one flight"], 1, 1},         // EHLO
		"PIPELINING":         {manners["pipelining"], 1, 2},         // EHLO, and the first envelope
		"command by command": {manners["command by command"], 4, 1}, // MAIL, RCPT, DATA, content
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.options.InFlight = 1
			mx := s.host("mx1.a.test", smtptest.Script{Extensions: tt.extensions})
			s.mx("a.test", "mx1.a.test")
			all := make([]*letter, messages)
			for i := range all {
				all[i] = mail(fmt.Sprintf("r%d@a.test", i))
				all[i].content = hello + strings.Repeat("a line of a message of four kilobytes, which goes on to here.\r\n", 64)
				all[i].attempt.Envelope.Size = int64(len(all[i].content))
			}
			s.deliver(all...)
			for _, m := range all {
				checkDelivered(t, m.outcome(t))
			}
			if got, want := len(mx.Flights()), messages*tt.each+tt.once; got != want || mx.Sessions() != 1 {
				t.Errorf("%d round trips over %d connections, want %d over one", got, mx.Sessions(), want)
			}
		})
	}
}
