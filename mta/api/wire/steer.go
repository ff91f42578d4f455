package wire

import "time"

// Selector chooses recipients of messages in the queue. What is left out
// matches all; all that is given must match. As query parameters the same
// names are used, those of lists repeated.
type Selector struct {
	IDs       []string `json:"ids,omitempty"`        // or unique beginnings of them
	Domain    string   `json:"domain,omitempty"`     // a recipient domain, or "*.example.test"
	Site      string   `json:"site,omitempty"`       // every domain that this provider serves
	Sender    string   `json:"sender,omitempty"`     // an address, "@domain", or "<>"
	Recipient string   `json:"recipient,omitempty"`  // an address
	Tag       string   `json:"tag,omitempty"`        // exactly
	Status    []string `json:"status,omitempty"`     // waiting, active, held
	Class     string   `json:"class,omitempty"`      // the bounce class of the last attempt
	OlderThan string   `json:"older_than,omitempty"` // since the arrival: "4h"
}

// Empty reports whether the selector matches everything.
func (s *Selector) Empty() bool {
	return len(s.IDs)+len(s.Status) == 0 && s.Domain+s.Site+s.Sender+s.Recipient+s.Tag+s.Class+s.OlderThan == ""
}

// Action is the body of POST /v1/queue/{retry,hold,release,cancel,fail,suspend,resume}.
type Action struct {
	Selector Selector `json:"selector"`
	// All must be set where the selector is empty.
	All    bool   `json:"all,omitempty"`
	Reason string `json:"reason,omitempty"` // for the history; with fail also for the sender
	DryRun bool   `json:"dry_run,omitempty"`
	// Pace of a retry or a release: recipients per second; 0: 1,000. What is
	// no more than one second's is done at once.
	Pace int `json:"pace,omitempty"`
	// AtOnce: a retry or a release of everything at the same moment.
	AtOnce bool `json:"at_once,omitempty"`
	// For limits a suspension; empty: until it is resumed.
	For string `json:"for,omitempty"`
}

// ActionResult tells what an action did, or would do.
type ActionResult struct {
	Action     string `json:"action"`
	Recipients int    `json:"recipients"`
	Messages   int    `json:"messages,omitempty"` // where they were counted beforehand
	DryRun     bool   `json:"dry_run,omitempty"`
	// Paced: the work goes on in the server at the pace that was asked for.
	Paced bool `json:"paced,omitempty"`
	// Suspensions that were made, or ended.
	Suspensions []Suspension `json:"suspensions,omitempty"`
}

// Suspension keeps mail from being sent, also what comes later, until it is
// resumed or its time is over.
type Suspension struct {
	Domain string    `json:"domain,omitempty"`
	Site   string    `json:"site,omitempty"`
	Sender string    `json:"sender,omitempty"`
	Tag    string    `json:"tag,omitempty"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"`
	Reason string    `json:"reason,omitempty"`
}
