package delivery

import (
	"strings"

	"postrider/queue"
)

// classifyReason gives an outcome that did not deliver its bounce class, where
// no rule has done so. Of a reply the words count before the enhanced status:
// receivers say 5.7.1 or a bare 550 to everything, and what they mean in the
// text.
func classifyReason(o *queue.Outcome) {
	if o.Class != queue.ClassNone || o.Verdict == queue.Delivered || o.Verdict == queue.Untried {
		return
	}
	if o.Code == 0 {
		o.Class = ownClass(o)
		return
	}
	switch class := phraseClass(o.Code, o.Text); {
	case class == queue.ClassInvalidRecipient && o.Stage == queue.StageMAIL:
		o.Class = queue.ClassInvalidSender // no recipient was named yet
	case class != queue.ClassNone:
		o.Class = class
	case saysStatus(o), o.Code == 552:
		o.Class = statusClass(o.Status, o.Stage)
	default:
		o.Class = codeClass(o.Code)
	}
}

// saysStatus tells a status that the reply gave from one that was guessed from
// the code: 550 to RCPT may be a policy as well as a missing mailbox (RFC 5321,
// section 4.2.3).
func saysStatus(o *queue.Outcome) bool {
	return len(o.Text) > 2 && o.Text[1] == '.' && strings.HasPrefix(o.Text[2:], detail(o.Status))
}

// ownClass is for what we found out without a reply.
func ownClass(o *queue.Outcome) queue.Class {
	switch {
	case o.Scope == queue.ScopeLocal, o.Stage == queue.StageQueue:
		return queue.ClassLocal
	case o.Stage == queue.StageSTARTTLS && detail(o.Status) == "7.5":
		return queue.ClassTLS
	case detail(o.Status) == "4.6": // RFC 5321, section 5.1: we are the best host
		return queue.ClassRouting
	case strings.HasPrefix(detail(o.Status), "4.") && o.Stage == queue.StageDNS:
		return queue.ClassDNS
	case strings.HasPrefix(detail(o.Status), "4."):
		return queue.ClassNetwork
	case o.Stage == queue.StagePolicy && strings.HasPrefix(detail(o.Status), "7."):
		return queue.ClassTLS // a demand that a host cannot meet
	default:
		return statusClass(o.Status, o.Stage)
	}
}

// codeClass is for a reply whose code is all that it says.
func codeClass(code int) queue.Class {
	switch code {
	case 421, 451, 452, 454:
		return queue.ClassSystem
	case 500, 501, 502, 503, 504, 455, 555:
		return queue.ClassProtocol
	case 521, 556: // RFC 7504
		return queue.ClassInvalidDomain
	case 551:
		return queue.ClassInvalidRecipient
	default:
		return queue.ClassOther
	}
}

// detail is subject and detail of a status: "7.5" of "4.7.5".
func detail(status string) string {
	_, rest, _ := strings.Cut(status, ".")
	return rest
}

// statusClasses are those of subject and detail (RFC 3463 and the registry of
// enhanced status codes). Where a detail is missing its subject counts.
var statusClasses = map[string]queue.Class{
	"1.1": queue.ClassInvalidRecipient, "1.3": queue.ClassInvalidRecipient, "1.4": queue.ClassInvalidRecipient,
	"1.6": queue.ClassInvalidRecipient,                                // moved
	"1.2": queue.ClassInvalidDomain, "1.10": queue.ClassInvalidDomain, // RFC 7505
	"1.7": queue.ClassInvalidSender, "1.8": queue.ClassInvalidSender, "1.9": queue.ClassInvalidSender,

	"2.1": queue.ClassMailboxDisabled, "2.2": queue.ClassMailboxFull, "2.3": queue.ClassTooLarge,

	"3.": queue.ClassSystem, "3.3": queue.ClassProtocol, "3.4": queue.ClassTooLarge,

	"4.": queue.ClassSystem, "4.4": queue.ClassRouting, "4.6": queue.ClassRouting, "4.7": queue.ClassExpired,

	"5.": queue.ClassProtocol, "5.3": queue.ClassRate,

	"6.": queue.ClassContent,

	"7.":  queue.ClassPolicy,
	"7.4": queue.ClassTLS, "7.5": queue.ClassTLS, "7.10": queue.ClassTLS, "7.11": queue.ClassTLS, // RFC 5248
	"7.30": queue.ClassTLS,                                                 // RFC 8689
	"7.17": queue.ClassMailboxDisabled, "7.18": queue.ClassMailboxDisabled, // RFC 7293: other owners
	"7.20": queue.ClassAuthentication, "7.21": queue.ClassAuthentication, "7.22": queue.ClassAuthentication, // RFC 7372
	"7.23": queue.ClassAuthentication, "7.24": queue.ClassAuthentication, "7.25": queue.ClassAuthentication,
	"7.26": queue.ClassAuthentication, "7.29": queue.ClassAuthentication, // RFC 8617
	"7.27": queue.ClassInvalidSender, // RFC 7505
	"7.28": queue.ClassRate,
	// Microsoft's own.
	"7.500": queue.ClassRate, "7.501": queue.ClassReputation, "7.502": queue.ClassReputation, "7.503": queue.ClassReputation,
	"7.509": queue.ClassAuthentication, "7.511": queue.ClassReputation, "7.515": queue.ClassAuthentication,
	"7.650": queue.ClassRate, "7.705": queue.ClassReputation, "7.708": queue.ClassReputation,
}

func statusClass(status string, stage queue.Stage) queue.Class {
	d := detail(status)
	if class, ok := statusClasses[d]; ok {
		return class
	}
	subject, _, _ := strings.Cut(d, ".")
	// 5.7.606 to 5.7.649 name addresses that Microsoft has banned.
	if len(d) == len("7.606") && d >= "7.606" && d <= "7.649" {
		return queue.ClassReputation
	}
	if d == "1.0" && stage == queue.StageMAIL {
		return queue.ClassInvalidSender
	}
	if class, ok := statusClasses[subject+"."]; ok {
		return class
	}
	return queue.ClassOther
}

// phrases are words that receivers use, in lower case, and what they mean. The
// first that is found counts, so what says more stands first: a blocklist's
// refusal may speak of the recipient too, and must not look like a missing one.
var phrases = []struct {
	class queue.Class
	// temporary: only in a 4xx
	temporary bool
	words     []string
}{
	{queue.ClassGreylisted, true, []string{"greylist", "graylist", "grey-list", "gray-list", "grey list", "gray list", "not yet authorized to deliver"}},
	{queue.ClassReputation, false, []string{
		"spamhaus", "spamcop", "barracudacentral", "sorbs.net", "surbl", "uribl", "abuseat", "spfbl", "uceprotect",
		"blocklist", "block list", "blacklist", "black list", "denylist", "dnsbl", "rbl ", "reputation", "banned sending ip",
		"[tss", "[ts0", "user complaints", "complaint rate", "listed by", "listed at", "is listed in", "on our block",
		"ip blocked", "blocked ip", "blocked using",
	}},
	{queue.ClassAuthentication, false, []string{
		"dmarc", "dkim", "spf check", "spf fail", "spf record", "sender policy framework", "does not pass spf", "unauthenticated",
		"authentication-results", "reverse dns", "reverse hostname", "rdns", "ptr record", "no ptr", "cannot find your hostname",
		"forward-confirmed", "helo command rejected", "ehlo command rejected",
	}},
	{queue.ClassTLS, false, []string{"must issue a starttls", "starttls is required", "starttls required", "tls is required", "tls required", "encryption required", "requires tls", "require_tls"}},
	{queue.ClassMailboxFull, false, []string{
		"mailbox full", "mailbox is full", "over quota", "overquota", "over the quota", "exceeds quota", "exceeded quota", "quota exceed",
		"exceeded storage", "exceeded its storage", "storage allocation", "out of storage", "mailbox size limit", "not enough storage space", "disk quota", "insufficient space in mailbox",
	}},
	{queue.ClassRate, false, []string{
		"too many connections", "too many concurrent", "too many simultaneous", "too many sessions", "connection limit", "concurrent connections",
		"rate limit", "rate-limit", "ratelimit", "unusual rate", "throttl", "too many messages", "too many mails", "too many emails", "too much mail",
		"too many recipients", "sending too fast", "too quickly", "too frequent", "slow down", "exceeded the maximum number of",
		"receiving mail at a rate", "daily limit", "hourly limit", "sending limit",
	}},
	{queue.ClassContent, false, []string{
		"virus", "malware", "phish", "spam", "unsolicited", "unwanted", "message content", "content reject", "content restriction", "prohibited content",
		"banned file", "attachment", "suspicious", "security issue", "junk", "bulk mail", "rfc 5322", "rfc5322", "rfc 2822", "bare lf", "duplicate header", "header field",
	}},
	{queue.ClassTooLarge, false, []string{"message too large", "message is too large", "size exceeds", "exceeds the maximum", "exceeds size", "too big", "maximum message size", "message size"}},
	{queue.ClassMailboxDisabled, false, []string{
		"mailbox disabled", "account disabled", "account is disabled", "mailbox is disabled", "account has been disabled", "account that you tried to reach is disabled",
		"user disabled", "inactive", "account suspended", "account is suspended", "mailbox suspended", "account has been suspended", "mailbox locked",
	}},
	{queue.ClassRelaying, false, []string{"relay access denied", "relaying denied", "relaying not", "unable to relay", "not permitted to relay", "relay not permitted", "relay denied", "no relay", "we do not relay", "not a relay"}},
	{queue.ClassInvalidSender, false, []string{
		"sender address rejected", "sender rejected", "sender denied", "sender verify failed", "sender verification failed", "sender's domain", "domain of sender", "sender domain", "invalid sender",
	}},
	{queue.ClassInvalidRecipient, false, []string{
		"user unknown", "unknown user", "no such user", "no such mailbox", "no such recipient", "no such address", "no such account", "no such person", "no such local user",
		"user not found", "recipient not found", "mailbox not found", "address not found", "account not found", "user does not exist", "user doesn't exist", "does not exist", "doesn't exist",
		"mailbox does not", "recipient unknown", "unknown recipient", "unknown address", "unknown mailbox", "unknown local", "invalid recipient", "invalid mailbox", "invalid address",
		"unrouteable address", "unroutable address", "not a valid mailbox", "not a valid recipient", "no mailbox here", "mailbox unavailable", "mailbox not available",
		"doesn't have a", "does not have a", "recipient address rejected: access denied", "not our customer", "undeliverable address", "address unknown", "addressee unknown", "bad destination mailbox",
	}},
}

// phraseClass looks for known words. Addresses are left out of the search:
// nobody's name is to look like a blocklist.
func phraseClass(code int, text string) queue.Class {
	text = strings.ToLower(withoutAddresses(text))
	for i := range phrases {
		p := &phrases[i]
		if p.temporary && code >= 500 {
			continue
		}
		for _, words := range p.words {
			if strings.Contains(text, words) {
				return p.class
			}
		}
	}
	return queue.ClassNone
}

// withoutAddresses drops the words with an "@" in them.
func withoutAddresses(text string) string {
	if !strings.Contains(text, "@") {
		return text
	}
	var b strings.Builder
	for word := range strings.FieldsSeq(text) {
		if strings.Contains(word, "@") {
			continue
		}
		b.WriteString(word)
		b.WriteByte(' ')
	}
	return b.String()
}
