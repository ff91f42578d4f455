// Package rehearsal is the other side for rehearsals: it receives, leads
// there and sends, so that an MTA can be seen at work without the internet.
//
//   - [Sink] receives: SMTP for any domain, with manners to choose. It counts
//     what comes and forgets it, or keeps it to be looked at, and can tell
//     what came twice.
//   - [Nameserver] leads there: every domain has MX hosts, and they have the
//     sink's address.
//   - [Load] sends: many sessions, many messages, with the time that the
//     server took to answer each.
//   - [Expected] is what is to become of the sample messages in testdata/spool.
//
// None of it belongs in production: a sink loses mail on purpose. Load sends
// to loopback only, unless networks are named.
package rehearsal
