package wire

import "time"

// NewMessage is a message to be composed and queued. From is required, and a
// recipient in To, Cc, Bcc or Recipients. An address may carry a name:
// "Anna Weber <anna@example.test>".
type NewMessage struct {
	From    string   `json:"from"`
	To      []string `json:"to,omitempty"`
	Cc      []string `json:"cc,omitempty"`
	Bcc     []string `json:"bcc,omitempty"`
	ReplyTo string   `json:"reply_to,omitempty"`
	Subject string   `json:"subject,omitempty"`
	Text    string   `json:"text,omitempty"`
	HTML    string   `json:"html,omitempty"`
	// Headers are further header fields, in this order.
	Headers     []Header     `json:"headers,omitempty"`
	Attachments []Attachment `json:"attachments,omitempty"`

	// Sender is the envelope's sender; nil: the address in From; "": the null
	// reverse-path.
	Sender *string `json:"sender,omitempty"`
	// Recipients of the envelope, where they are not those of To, Cc and Bcc.
	Recipients []string `json:"recipients,omitempty"`

	Tag        string    `json:"tag,omitempty"`
	Priority   string    `json:"priority,omitempty"` // normal, bulk, urgent
	Hold       bool      `json:"hold,omitempty"`     // wait for a release
	HoldFor    string    `json:"hold_for,omitempty"` // the undo window; empty: as configured
	NotBefore  time.Time `json:"not_before,omitzero"`
	DeliverBy  time.Time `json:"deliver_by,omitzero"`
	Notify     []string  `json:"notify,omitempty"` // never, or some of success, failure, delay
	Ret        string    `json:"ret,omitempty"`    // full, headers
	EnvID      string    `json:"envid,omitempty"`
	RequireTLS bool      `json:"require_tls,omitempty"`
}

// Header is one header field.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Attachment is a file that travels with a message.
type Attachment struct {
	Name    string `json:"name"`
	Type    string `json:"type,omitempty"` // media type; empty: from the name
	Content []byte `json:"content"`        // base64 in JSON
	// ContentID, where it is set, makes the attachment one that the HTML part
	// shows inline, as "cid:<ContentID>".
	ContentID string `json:"content_id,omitempty"`
}

// Injected answers an injection: the message is on stable storage.
type Injected struct {
	ID string `json:"id"`
	// Message is what became of it within the time that was asked to wait.
	Message *Message `json:"message,omitempty"`
}

// Problem is the body of every answer that is not a success.
type Problem struct {
	Text string `json:"error"`
	// Code and Status are what an SMTP client would have been told, where the
	// message itself was refused.
	Code   int    `json:"code,omitempty"`
	Status string `json:"status,omitempty"`
}
