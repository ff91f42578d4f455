package wire

import "time"

// Message is an envelope and what became of its recipients so far.
type Message struct {
	ID         string    `json:"id"`
	Sender     string    `json:"sender"` // empty: the null reverse-path
	MessageID  string    `json:"message_id,omitempty"`
	Size       int64     `json:"size"` // octets
	ArrivedAt  time.Time `json:"arrived_at"`
	NotBefore  time.Time `json:"not_before,omitzero"`
	DeliverBy  time.Time `json:"deliver_by,omitzero"`
	Priority   string    `json:"priority"` // normal, bulk, urgent
	Tag        string    `json:"tag,omitempty"`
	EnvID      string    `json:"envid,omitempty"`
	Ret        string    `json:"ret,omitempty"`  // full, headers
	Body       string    `json:"body,omitempty"` // 8bitmime
	SMTPUTF8   bool      `json:"smtputf8,omitempty"`
	RequireTLS bool      `json:"require_tls,omitempty"`
	TLSIgnored bool      `json:"tls_ignored,omitempty"` // it carries "TLS-Required: No"
	Origin     Origin    `json:"origin"`
	// Ended: no recipient is open any more. What is told then comes from the
	// history, for as long as that is kept.
	Ended      bool        `json:"ended"`
	Recipients []Recipient `json:"recipients"`
	// RecipientCount is the number of all recipients. A list names only
	// those that match, and at most 20 of a message.
	RecipientCount int `json:"recipient_count"`
}

// Origin says where a message came from.
type Origin struct {
	Via    string `json:"via"`
	Client string `json:"client,omitempty"` // an IP address
	HELO   string `json:"helo,omitempty"`
	User   string `json:"user,omitempty"`
	TLS    bool   `json:"tls,omitempty"`
}

// Recipient is one recipient and its state.
type Recipient struct {
	Address  string    `json:"address"`
	Domain   string    `json:"domain"`
	Status   string    `json:"status"` // waiting, active, held, delivered, failed, cancelled
	Attempts int       `json:"attempts"`
	DueAt    time.Time `json:"due_at,omitzero"`
	// Waits says in words what holds a waiting recipient beside its schedule,
	// and WaitsUntil when that ends, as far as is known.
	Waits      string    `json:"waits,omitempty"`
	WaitsUntil time.Time `json:"waits_until,omitzero"`
	Last       *Outcome  `json:"last,omitempty"`
	LastAt     time.Time `json:"last_at,omitzero"`
	Notify     []string  `json:"notify,omitempty"` // never, success, failure, delay
	ORcpt      string    `json:"orcpt,omitempty"`
}

// Open reports whether the recipient's fate is not yet decided.
func (r *Recipient) Open() bool {
	return r.Status == "waiting" || r.Status == "active" || r.Status == "held"
}

// Outcome is what an attempt came to for one recipient.
type Outcome struct {
	Verdict           string  `json:"verdict"`          // untried, delivered, deferred, failed
	Scope             string  `json:"scope"`            // recipient, message, host, site, local
	Stage             string  `json:"stage"`            // dns, policy, connect, greeting, ehlo, starttls, mail, rcpt, data, body, final, queue, none
	Code              int     `json:"code,omitempty"`   // of the SMTP reply that decided
	Status            string  `json:"status,omitempty"` // enhanced status (RFC 3463)
	Text              string  `json:"text,omitempty"`   // the remote's words where there is a code, else ours
	Class             string  `json:"class,omitempty"`
	MX                string  `json:"mx,omitempty"`
	IP                string  `json:"ip,omitempty"`
	TLS               string  `json:"tls,omitempty"`    // empty: in clear, or no session
	Demand            string  `json:"demand,omitempty"` // the TLS demand and where it came from
	HELO              string  `json:"helo,omitempty"`
	InDoubt           bool    `json:"in_doubt,omitempty"`
	RetryAfterSeconds float64 `json:"retry_after_seconds,omitempty"`
}

// Event is one line of a message's history.
type Event struct {
	At              time.Time `json:"at"`
	Kind            string    `json:"kind"` // accepted, delivered, deferred, failed, expired, held, released, cancelled, retried, reported, damaged
	Recipient       string    `json:"recipient,omitempty"`
	Attempt         int       `json:"attempt,omitempty"`
	Outcome         *Outcome  `json:"outcome,omitempty"`
	DelaySeconds    float64   `json:"delay_seconds"` // since the arrival
	ConnectSeconds  float64   `json:"connect_seconds,omitempty"`
	TransferSeconds float64   `json:"transfer_seconds,omitempty"`
	Next            time.Time `json:"next,omitzero"`
	Text            string    `json:"text,omitempty"`
}

// History is everything that is known about a message, oldest first.
type History struct {
	ID      string   `json:"id"`
	Message *Message `json:"message,omitempty"` // nil where the history has lost its beginning
	Events  []Event  `json:"events"`
}

// MessageList is a part of the queue.
type MessageList struct {
	Messages []Message `json:"messages"`
	Next     string    `json:"next,omitempty"` // give it back as "after" for the next part; empty: the end
}
