package queue

import "slices"

// Class is the bounce class: what kind of reason kept a recipient from being
// served. It sorts failures for people, for the suppression list and for the
// schedule; verdict and scope decide without it. The set is closed: its words
// are stored, stand in the API and are labels of the metrics.
type Class string

const (
	ClassNone             Class = "" // delivered, or not classified
	ClassInvalidRecipient Class = "invalid-recipient"
	ClassInvalidDomain    Class = "invalid-domain"   // no such domain, or one that takes no mail (RFC 7505)
	ClassMailboxDisabled  Class = "mailbox-disabled" // it is there and takes no mail
	ClassMailboxFull      Class = "mailbox-full"
	ClassInvalidSender    Class = "invalid-sender" // the sender's address or domain is not accepted
	ClassAuthentication   Class = "authentication" // SPF, DKIM, DMARC, ARC or reverse DNS
	ClassRelaying         Class = "relaying"       // the host does not take mail for this domain
	ClassRouting          Class = "routing"        // a loop, or the remote's own routing
	ClassPolicy           Class = "policy"         // refused by a rule that says no more
	ClassReputation       Class = "reputation"     // a blocklist, or complaints about us
	ClassContent          Class = "content"        // spam, malware, or a form that is not accepted
	ClassTooLarge         Class = "too-large"
	ClassRate             Class = "rate" // too much or too fast
	ClassGreylisted       Class = "greylisted"
	ClassSystem           Class = "system"   // trouble of the remote host
	ClassProtocol         Class = "protocol" // a command or a reply out of order
	ClassDNS              Class = "dns"      // the hosts could not be found
	ClassNetwork          Class = "network"  // no connection, or a lost one
	ClassTLS              Class = "tls"      // no session as secure as demanded
	ClassLocal            Class = "local"    // trouble of our own host
	ClassExpired          Class = "expired"  // given up without ever having been tried
	ClassOperator         Class = "operator" // given up by hand
	ClassOther            Class = "other"    // the reply does not say
)

var classes = []Class{
	ClassInvalidRecipient, ClassInvalidDomain, ClassMailboxDisabled, ClassMailboxFull, ClassInvalidSender,
	ClassAuthentication, ClassRelaying, ClassRouting, ClassPolicy, ClassReputation, ClassContent, ClassTooLarge,
	ClassRate, ClassGreylisted, ClassSystem, ClassProtocol, ClassDNS, ClassNetwork, ClassTLS, ClassLocal,
	ClassExpired, ClassOperator, ClassOther,
}

// Classes gives a new list of every class but ClassNone.
func Classes() []Class { return slices.Clone(classes) }

// Known reports whether the class is one of Classes.
func (c Class) Known() bool { return slices.Contains(classes, c) }
