// Package dkim chooses keys for the author's domain of a message and signs it
// (RFC 6376, with RFC 8301 and RFC 8463), and makes keys and the records to
// publish.
//
// Keys holds the private keys by domain. Keys.Signer picks those that fit the
// From field: the keys of the author's domain, else of the nearest parent
// domain that has any, so that d= is always aligned (RFC 7489, section 3.1.1).
// Every key of that domain signs: an RSA and an Ed25519 key make two
// signatures. Canonicalization is relaxed/relaxed; the header fields that a
// reader is shown are signed once more than they are present, so that none can
// be added afterwards (RFC 6376, section 8.15).
//
// The canonical forms are made here, in one pass over the body for all keys;
// go-msgauth, which takes 165 us more than the key needs for a message of 4 KB, and 1.9 ms for
// one of 100 KB, is the independent verifier of the tests. RSA operations, which are
// nearly all of the cost, run at most GOMAXPROCS at a time, however many
// messages come in.
//
// Left out on purpose: l= and z=, x=, SHA-1, simple canonicalization, signing
// with a domain that is not the author's, and verifying.
package dkim
