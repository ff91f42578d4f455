package smtptest

import (
	"crypto/tls"
	"strings"
	"time"
)

// Script is how a server behaves. The zero value takes all mail and offers no
// extensions.
type Script struct {
	Name       string   // what it calls itself; default "mx.test"
	Extensions []string // lines of the EHLO reply, as they are; STARTTLS only in clear
	TLS        *tls.Config
	// On says what to do instead of the usual. A key is the beginning of a
	// command line, in any case: "RCPT" is all recipients, "RCPT TO:<a@b.test>"
	// is one; the longest that fits counts. Besides commands there are the keys
	// below. Of several steps each is taken once, by whichever session comes,
	// and the last one from then on; an empty Step is the usual.
	On map[string][]Step
	// Delay is waited before each flight of replies: a long way.
	Delay time.Duration
	// MaxContent is how much of a message's content is kept; default 64 MiB.
	MaxContent int
}

// Keys of Script.On that are no commands.
const (
	OnConnect = "(connect)" // instead of the greeting
	OnTLS     = "(tls)"     // instead of the handshake, when the client begins it
	OnContent = "(content)" // when Step.After octets of content have come
	OnEnd     = "(end)"     // after the content, also that of BDAT
)

// Step is something that a server does instead of the usual. What it has is
// done in this order.
type Step struct {
	After   int           // with OnContent: octets of content that are read first
	Wait    time.Duration // before all else
	Reply   string        // a reply, its lines separated by "\n", without line ends
	Raw     string        // octets as they are
	Drip    time.Duration // between each two octets of Reply and Raw
	Endless string        // written again and again, until the client has had enough
	Then    Then
}

// Then is what follows a Step.
type Then uint8

const (
	// Continue goes on as if the usual had been done. A refused command does
	// not change what the server knows. After OnContent the rest of the content
	// is read, and not answered again.
	Continue Then = iota
	Close         // closes the connection
	Reset         // resets it (TCP); what the client did not read yet is lost
	Hang          // neither reads nor writes again, until the client closes or Server.Close
)

// Say is a script's entry for one reply, for ever.
func Say(reply string) []Step { return []Step{{Reply: reply}} }

// Do is a script's entry for several steps.
func Do(steps ...Step) []Step { return steps }

func (s Script) withDefaults() Script {
	if s.Name == "" {
		s.Name = "mx.test"
	}
	if s.MaxContent == 0 {
		s.MaxContent = 64 << 20
	}
	on := make(map[string][]Step, len(s.On))
	for key, steps := range s.On {
		on[strings.ToUpper(key)] = steps
	}
	s.On = on
	return s
}

// step is what the script says for line, which is a command line or a key.
func (s *Server) step(line string) (Step, bool) {
	line = strings.ToUpper(line)
	best := ""
	for key := range s.script.On {
		if strings.HasPrefix(line, key) && len(key) > len(best) {
			best = key
		}
	}
	steps := s.script.On[best]
	if len(steps) == 0 {
		return Step{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	step := steps[min(s.used[best], len(steps)-1)]
	s.used[best]++
	s.signal()
	return step, step != Step{}
}

// code is the reply code of a step; 0 where it has none.
func (s Step) code() int {
	text := s.Reply + s.Raw
	if len(text) < 3 {
		return 0
	}
	code := 0
	for _, c := range []byte(text[:3]) {
		if c < '0' || c > '9' {
			return 0
		}
		code = code*10 + int(c-'0')
	}
	return code
}
