// Package queue keeps accepted mail safe on disk, knows what is due and for
// whom, records what became of each recipient and keeps that history for a
// time.
//
// The unit of storage is a message; the unit of scheduling is a claim: one
// message and the recipients it has at one domain. State is kept per
// recipient, so that "A was taken, B was told to wait" never sends to A again.
//
// The queue knows no clock: time comes in as now, always explicit. It knows
// nothing of DNS, connections or policy. It owns three goroutines, all inside
// Run: the writer that commits what claims settle, the janitor that unlinks
// body files that are no longer needed and cuts the history, and one that
// makes room in the store while the disk is short of it.
//
// Delivery is at least once. A message that Submit accepted is on stable
// storage. A claim that was lost in a crash becomes due again.
package queue
