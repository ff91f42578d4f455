// Bench measures Postrider beside its peers, and kills it to see what is lost.
//
//	bench compare [-scenarios A,B | all] [-servers postrider,postfix] [-rounds 3] [-scale 0.5]
//	bench plot    [-in bench-out/results.json] [-out docs/img]
//	bench crash   [-cycles 200] [-messages 20000]
//
// compare runs in network and mount namespaces of its own, where ports 25 and
// 53 are free and nothing outside can be reached. A load generator and a
// receiving server (one process, this one: see package rehearsal) and the
// server under test share the machine. Each round begins with an empty
// directory and a fresh server; the servers, and the variants of a scenario,
// take turns within a round, so that a machine that slows down slows all of
// them. The table shows medians of the rounds, results.json every round.
//
// What the columns mean:
//
//   - The rate is messages divided by the time from the first octet submitted to
//     the last arrival at the receiving server.
//   - CPU is user and system time of the server's processes, of those that ended
//     too, in steps of 10 ms for each process; memory is the largest resident
//     size of a single process, and for several the largest sum of their
//     proportional shares (PSS) among two samples a second: what processes
//     share is counted once.
//   - Octets written are those handed to the block layer (write_bytes).
//   - accept is the time from the last octet of a message to its 250, delivery
//     the time from there to the receiving server's own 250.
//   - Syncs are counted in a short round of their own under strace, which slows
//     a server, so that fewer clients share a sync: the true figure is not
//     higher. Another one, with one message after the other, looks whether
//     a sync begins and ends between the content's last octet and the 250 of
//     every message.
//
// A further server is a type with the methods of contestant and a line in
// contestants; how it is run in directories of its own belongs in
// mta/rehearsal/peers. A further scenario is a line in scenarios: a load, its
// variants, and, where it is more than a load over SMTP, a function that plays
// one round of it (see spool.go and idle.go).
//
// Left out on purpose: a machine of its own for each part. Two cores that share
// all the work show what the work costs, and no network card can hide it.
package main
