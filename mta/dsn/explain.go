package dsn

import "strings"

// explanation is what a status means to somebody who wrote a message.
type explanation struct {
	what   string // happened
	advice string // to the sender
}

// explanations of enhanced statuses, by subject and detail (RFC 3463, 5248,
// 7505, 7372 and the IANA registry); those of a subject alone stand for all
// others of it.
var explanations = map[string]explanation{
	"1.0":  {"The address was not accepted.", "check the address, and ask the recipient for another one."},
	"1.1":  {"There is no such mailbox.", "check the address for typing errors; it may also have been closed."},
	"1.2":  {"The domain of the address does not exist or takes no mail.", "check the part behind the @ for typing errors."},
	"1.3":  {"The address is not well-formed.", "check the address for typing errors."},
	"1.4":  {"The address is ambiguous there.", "ask the recipient for a more exact address."},
	"1.6":  {"The recipient has moved and left no new address.", "ask the recipient for the new address."},
	"1.7":  {"Your sender address is not well-formed.", "check the sender address in the program that sent the message."},
	"1.8":  {"The domain of your sender address does not exist or takes no mail.", "check the sender address in the program that sent the message; its domain needs an MX or address record."},
	"1.9":  {"The message was handed to a system that cannot report.", ""},
	"1.10": {"The domain of the address says that it takes no mail.", "check the part behind the @ for typing errors, or reach the recipient another way."},

	"2":   {"The mailbox did not take the message.", "reach the recipient another way, or send the message again later."},
	"2.1": {"The mailbox is closed at present.", "reach the recipient another way."},
	"2.2": {"The mailbox is full.", "tell the recipient another way, and send the message again later."},
	"2.3": {"The message is larger than the mailbox takes.", "send it in parts, or send a link in place of the attachment."},
	"2.4": {"The address stands for a list, and the list could not be written to.", "ask the owner of the list."},

	"3":   {"The other mail server has trouble of its own.", "send the message again later."},
	"3.4": {"The message is larger than the other mail server takes.", "send it in parts, or send a link in place of the attachment."},

	"4":    {"The other mail server could not be reached.", "check the part behind the @ for typing errors, and send the message again later."},
	"4.1":  {"No mail server of the domain answered.", "check the part behind the @ for typing errors, and send the message again later."},
	"4.2":  {"The connection to the other mail server broke off again and again.", "send the message again later."},
	"4.3":  {"The domain could not be looked up: its name servers did not answer properly.", "check the part behind the @ for typing errors, and send the message again later."},
	"4.4":  {"No way to the domain is known.", "check the part behind the @ for typing errors."},
	"4.5":  {"The other mail server is overloaded.", "send the message again later."},
	"4.6":  {"The message went in a circle.", "tell the postmaster of the recipient's domain, whose mail servers send to each other or back to this one."},
	"4.7":  {"It could not be delivered in the time that was set.", "check the address, and send the message again later."},
	"4.17": {"The time for its delivery was over.", "send the message again, with more time."},

	"5":   {"The two mail servers did not understand each other.", "tell the administrator of this server."},
	"5.3": {"The message has more recipients than the other mail server takes.", "send it to fewer at a time."},

	"6":    {"The other mail server did not like the form of the message.", "look at what it answered, and send the message in another form."},
	"6.3":  {"The message is in a form that the other mail server cannot take, and it cannot be converted.", "send it without characters beyond ASCII, or as an attachment."},
	"6.7":  {"The other mail server cannot take addresses with characters beyond ASCII.", "ask the recipient for an address in plain letters."},
	"6.11": {"The content was refused.", "look at what the other mail server answered."},

	"7":    {"The other mail server refused the message as a matter of policy.", "look at what it answered. Nothing is wrong with the address as far as we know; the administrator of this server may have to act."},
	"7.1":  {"The other mail server does not want this message, or not from here.", "look at what it answered; if the message is wanted, ask the recipient to have you let through."},
	"7.2":  {"You may not write to this list.", "ask the owner of the list."},
	"7.4":  {"The message has to be sent over a secure connection, which the other mail server does not offer.", "tell the postmaster of the recipient's domain."},
	"7.5":  {"The secure connection to the other mail server could not be made.", "tell the administrator of this server."},
	"7.8":  {"The other mail server wants a password.", "tell the administrator of this server."},
	"7.10": {"The message has to be sent over a secure connection, which could not be made.", "tell the administrator of this server."},
	"7.17": {"The mailbox has changed hands since you last wrote to it.", "ask the recipient for the present address."},
	"7.20": {"The message has no valid signature.", "tell the administrator of this server: its DKIM key has to be checked."},
	"7.21": {"The message's signature is not of the domain that it claims to come from.", "tell the administrator of this server: its DKIM key has to be checked."},
	"7.22": {"The message's signature is not of its author's domain.", "tell the administrator of this server: its DKIM key has to be checked."},
	"7.23": {"This server is not named as a sender of your domain (SPF).", "tell the administrator of your domain: its SPF record has to name this server."},
	"7.24": {"Your domain's SPF record could not be read.", "tell the administrator of your domain: its SPF record has to be checked."},
	"7.25": {"This server's address has no name that fits (reverse DNS).", "tell the administrator of this server."},
	"7.26": {"The message passed none of the checks of where it comes from (SPF, DKIM).", "tell the administrator of this server and of your domain."},
	"7.27": {"The domain of your sender address says that it takes no mail.", "check the sender address in the program that sent the message."},
	"7.28": {"Too many messages were sent.", "send the message again later."},
	"7.30": {"The message may only travel over secure connections, and the other mail server does not vouch for that.", "send it without that demand, if its content allows."},
}

// explanation of what became of the recipient.
func (c *Recipient) explanation() explanation {
	if c.Action == Relayed {
		return explanation{}
	}
	var e explanation
	var ok bool
	if c.Code == 0 && c.Status == "5.7.0" {
		return explanation{"This server does not send to the address any more.", "check the address; if it is right, ask the administrator of this server to lift the bar."}
	}
	if wellFormedStatus(c.Status) {
		key := c.Status[2:]
		if e, ok = explanations[key]; !ok {
			subject, _, _ := strings.Cut(key, ".")
			e, ok = explanations[subject]
		}
	}
	if !ok && c.Code > 0 {
		e = explanation{what: "The other mail server did not take the message.", advice: "look at what it answered."}
	}
	if c.Action == Delayed {
		e.advice = "" // nothing yet
		if c.Status != "" && strings.HasPrefix(c.Status[1:], ".7.") {
			e.what = "" // "not wanted" is too much to say of "not now"
		}
	}
	return e
}
