package intake

import (
	"errors"
	"fmt"
	"strings"

	"postrider/mta/mailaddr"
	"postrider/queue"
)

// localMail knows what is ours and where mail for it goes.
type localMail struct {
	hostname string
	names    map[string]bool
	to       string // wire form; empty: refused
	toDomain string
}

func newLocalMail(hostname string, names []string, to string) (localMail, error) {
	l := localMail{hostname: hostname, names: map[string]bool{"localhost": true, "localhost.localdomain": true}}
	if _, err := mailaddr.Parse("postmaster@" + hostname); err != nil {
		return l, fmt.Errorf("intake: hostname %q: %w", hostname, err)
	}
	for _, n := range append(names, hostname) {
		l.names[strings.ToLower(strings.TrimSuffix(n, "."))] = true
	}
	if to == "" {
		return l, nil
	}
	a, err := mailaddr.Parse(to)
	if err != nil {
		return l, fmt.Errorf("local_mail_to: %w", err)
	}
	l.toDomain = a.ASCIIDomain()
	if l.names[l.toDomain] {
		return l, fmt.Errorf("local_mail_to: %s is on this host, which has no mailboxes; name an address elsewhere", to)
	}
	l.to = a.String()
	return l, nil
}

// ours reports whether mail for the address would come back to this host.
func (l *localMail) ours(asciiDomain string) bool {
	return asciiDomain == "" || l.names[asciiDomain]
}

// CheckRecipient is the rule that Begin applies to each recipient, for ways in
// that can answer each one by itself (RCPT). An *Error where it is refused.
func (r *Receiver) CheckRecipient(address string) error {
	rcpt := queue.Recipient{Address: address}
	if err := r.settleRecipient(&rcpt); err != nil {
		return err
	}
	return nil
}

// settleSender brings the reverse-path into wire form. A name without a
// domain is one of this host.
func (r *Receiver) settleSender(env *queue.Envelope) *Error {
	if env.Sender == "" {
		return nil
	}
	a, err := mailaddr.ParseUnqualified(env.Sender)
	if err != nil {
		return &Error{Code: 553, Status: "5.1.7", Text: "sender " + reason(err)}
	}
	env.Sender = r.local.qualify(env.Sender, a)
	env.SMTPUTF8 = env.SMTPUTF8 || !isASCII(env.Sender)
	return nil
}

// qualify is the wire form of an address, with our name where it has no
// domain. A domain beyond ASCII becomes A-labels where that makes the whole
// address ASCII, so that it can go to hosts without SMTPUTF8.
func (l *localMail) qualify(written string, a mailaddr.Address) string {
	switch {
	case a.Domain == "":
		a.Domain = l.hostname
	case isASCII(a.Local) && !isASCII(a.Domain):
		a.Domain = a.ASCIIDomain()
	case len(written) == len(a.Local)+1+len(a.Domain): // nothing was taken away
		return written
	}
	return a.String()
}

// settleRecipients checks the recipients, and drops those that repeat, keeping
// the first.
func (r *Receiver) settleRecipients(env *queue.Envelope) *Error {
	if len(env.Recipients) == 0 {
		return &Error{Code: 554, Status: "5.5.1", Text: "no recipients"}
	}
	for i := range env.Recipients {
		if err := r.settleRecipient(&env.Recipients[i]); err != nil {
			return err
		}
		env.SMTPUTF8 = env.SMTPUTF8 || !isASCII(env.Recipients[i].Address)
	}
	env.Recipients = withoutRepeats(env.Recipients)
	if len(env.Recipients) > r.opts.MaxRecipients {
		return &Error{Code: 550, Status: "5.5.3", Text: fmt.Sprintf("more than %d recipients", r.opts.MaxRecipients)}
	}
	return nil
}

func (r *Receiver) settleRecipient(rcpt *queue.Recipient) *Error {
	a, err := mailaddr.ParseUnqualified(rcpt.Address)
	if err != nil {
		return &Error{Code: 553, Status: "5.1.3", Text: "recipient " + reason(err)}
	}
	rcpt.Domain = a.ASCIIDomain()
	address := r.local.qualify(rcpt.Address, a)
	if r.local.ours(rcpt.Domain) {
		if r.local.to == "" {
			return &Error{Code: 550, Status: "5.1.1", Text: "no mailbox " + address +
				" on this host, which only sends; set local_mail_to to the address that takes mail for root and others here"}
		}
		if rcpt.ORcpt == "" { // so that a report names who was meant (RFC 3461, section 5.2.1)
			rcpt.ORcpt = addressType(address) + ";" + address
		}
		address, rcpt.Domain = r.local.to, r.local.toDomain
	}
	rcpt.Address = address
	return nil
}

// addressType is that of an ORCPT parameter (RFC 3461, section 4.2; RFC 6533, section 3).
func addressType(address string) string {
	if isASCII(address) {
		return "rfc822"
	}
	return "utf-8"
}

// withoutRepeats drops recipients that were named before.
func withoutRepeats(rcpts []queue.Recipient) []queue.Recipient {
	const few = 16 // up to here comparing is cheaper than a map
	type mailbox struct{ local, domain string }
	key := func(r queue.Recipient) mailbox {
		return mailbox{r.Address[:strings.LastIndexByte(r.Address, '@')], r.Domain}
	}
	var seen map[mailbox]bool
	if len(rcpts) > few {
		seen = make(map[mailbox]bool, len(rcpts))
	}
	kept := rcpts[:0]
next:
	for _, r := range rcpts {
		k := key(r)
		if seen != nil {
			if seen[k] {
				continue
			}
			seen[k] = true
		} else {
			for _, earlier := range kept {
				if key(earlier) == k {
					continue next
				}
			}
		}
		kept = append(kept, r)
	}
	return kept
}

// reason is what a client may read of an address error: not more than it sent.
func reason(err error) string {
	var e *mailaddr.Error
	if errors.As(err, &e) {
		return e.Error()
	}
	return err.Error()
}
