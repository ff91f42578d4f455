package rehearsal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/net/idna"
)

// ExpectedFile is the name of the table inside the spool directory.
const ExpectedFile = "expected.toml"

// Fate is what is expected to become of one recipient.
type Fate string

const (
	FateDelivered Fate = "delivered" // with the first attempt
	FateDeferred  Fate = "deferred"  // 4xx at first, then delivered
	FateBounced   Fate = "bounced"   // 5xx, and a report to the sender
)

// Expected is the table of what becomes of the sample messages. It is not
// changed after it was loaded.
type Expected struct {
	// Servers names the domains behind each manner of receiving server:
	// plain, modern, slow, greylist, strict, firstdown, sender.
	Servers  map[string][]string `toml:"servers"`
	Messages []ExpectedMessage   `toml:"message"`
}

// ExpectedMessage is one file of the spool directory. A message that is
// Rejected has neither sender nor recipients.
type ExpectedMessage struct {
	File      string   `toml:"file"`
	About     string   `toml:"about"`
	Sender    string   `toml:"sender"` // empty: the null reverse-path
	Delivered []string `toml:"delivered"`
	Deferred  []string `toml:"deferred"`
	Bounced   []string `toml:"bounced"`
	Rejected  string   `toml:"rejected"` // a part of the error's text
	LineEnds  string   `toml:"line_ends"`
	EightBit  bool     `toml:"eight_bit"`
	SMTPUTF8  bool     `toml:"smtputf8"`
	Form      string   `toml:"form"`
}

// EnvelopeKey names one copy of one message by what a receiving server sees
// of it. Domains compare as A-labels without case, local parts as they are.
type EnvelopeKey struct{ Sender, Recipient string }

// KeyOf makes the key of a sender and a recipient as they came over the wire.
func KeyOf(sender, recipient string) EnvelopeKey {
	return EnvelopeKey{normalDomain(sender), normalDomain(recipient)}
}

func normalDomain(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return address
	}
	domain := strings.ToLower(address[at+1:])
	if ascii, err := idna.Lookup.ToASCII(domain); err == nil {
		domain = ascii
	}
	return address[:at+1] + domain
}

// Copy is one message to one recipient, and what is expected of it.
type Copy struct {
	Message *ExpectedMessage
	Fate    Fate
}

// Fates answers every copy that is expected, by its envelope.
func (e *Expected) Fates() map[EnvelopeKey]Copy {
	copies := make(map[EnvelopeKey]Copy)
	for i := range e.Messages {
		m := &e.Messages[i]
		for fate, recipients := range m.byFate() {
			for _, r := range recipients {
				copies[KeyOf(m.Sender, r)] = Copy{m, fate}
			}
		}
	}
	return copies
}

// Recipients answers all recipients of a message, whatever becomes of them.
func (m *ExpectedMessage) Recipients() []string {
	return slices.Concat(m.Delivered, m.Deferred, m.Bounced)
}

// WantsReport tells whether the sender is owed a bounce.
func (m *ExpectedMessage) WantsReport() bool { return m.Sender != "" && len(m.Bounced) > 0 }

func (m *ExpectedMessage) byFate() map[Fate][]string {
	return map[Fate][]string{FateDelivered: m.Delivered, FateDeferred: m.Deferred, FateBounced: m.Bounced}
}

// LoadExpected reads the table. An unknown key, a message without a fate and
// an envelope that occurs twice are errors.
func LoadExpected(path string) (*Expected, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var e Expected
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&e); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return nil, fmt.Errorf("%s: unknown key:\n%s", path, strict.String())
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &e, nil
}

func (e *Expected) check() error {
	files := make(map[string]bool)
	copies := make(map[EnvelopeKey]string)
	for i := range e.Messages {
		m := &e.Messages[i]
		if m.LineEnds == "" {
			m.LineEnds = "crlf"
		}
		if m.Form == "" {
			m.Form = "header"
		}
		if files[m.File] {
			return fmt.Errorf("%s is listed twice", m.File)
		}
		files[m.File] = true
		recipients := m.Recipients()
		if (m.Rejected == "") == (len(recipients) == 0) {
			return fmt.Errorf("%s must be either rejected or have recipients", m.File)
		}
		for _, r := range recipients {
			key := KeyOf(m.Sender, r)
			if other, ok := copies[key]; ok {
				return fmt.Errorf("%s and %s both go from <%s> to <%s>", other, m.File, key.Sender, key.Recipient)
			}
			copies[key] = m.File
		}
	}
	return nil
}
