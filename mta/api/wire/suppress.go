package wire

import "time"

// SuppressionEntry is an address on the suppression list. To add one only
// Address is needed.
type SuppressionEntry struct {
	Address string    `json:"address"`
	Source  string    `json:"source,omitempty"` // bounce, operator, import
	Reason  string    `json:"reason,omitempty"`
	Count   int       `json:"count,omitempty"` // of the answers that there is no such mailbox
	FirstAt time.Time `json:"first_at,omitzero"`
	LastAt  time.Time `json:"last_at,omitzero"`
	// InForce: nothing is sent to it. Else it has had too few answers yet, or
	// they are too old.
	InForce bool `json:"in_force,omitempty"`
}

// SuppressionList is a part of the suppression list, in the order of the addresses.
type SuppressionList struct {
	Enabled bool               `json:"enabled"` // else it is kept, and nobody obeys it
	Entries []SuppressionEntry `json:"entries"`
	Next    string             `json:"next,omitempty"` // give it back as "after" for the next part; empty: the end
}

// Suppress is the body of POST /v1/suppressions.
type Suppress struct {
	Entries []SuppressionEntry `json:"entries"`
}

// Unsuppress is the body of POST /v1/suppressions/remove: addresses, or those
// in a domain ("*.example.test" for all below it), or all of them.
type Unsuppress struct {
	Addresses []string `json:"addresses,omitempty"`
	Domain    string   `json:"domain,omitempty"`
	All       bool     `json:"all,omitempty"`
	DryRun    bool     `json:"dry_run,omitempty"`
}

// SuppressionResult tells how many entries were added or removed, or would be.
type SuppressionResult struct {
	Entries int  `json:"entries"`
	DryRun  bool `json:"dry_run,omitempty"`
}
