// Package tlsrpt counts how TLS goes with the domains that mail is sent to, and
// reports it to those that ask (RFC 8460).
//
// A domain that publishes an MTA-STS policy or TLSA records cannot see the mail
// that does not reach it because of them. So it asks senders to tell, by a TXT
// record at _smtp._tls.<domain>:
//
//	v=TLSRPTv1; rua=mailto:reports@example.test,https://reports.example.test/v1
//
// and gets a report a day: for each policy that was found, how many sessions
// went well, how many did not, and in what way. A report is JSON, packed with
// gzip, and goes out by mail or by HTTPS POST.
//
// The parts: a [Recorder] counts sessions in memory, within bounds, and keeps
// its tallies in a [Store] so that a restart does not lose the day.
// [ParseRecord] reads the domain's wish, [NewReport] makes the report of a
// tally, [Report.Message] the mail that carries it, and [Poster] takes it to a
// web server. [Reporter] does all of it in turn, once an interval has ended.
//
// Left out on purpose: sending mail (the caller's, and so is signing it, which
// receivers insist on), and the question which sessions count. A session that
// carries a report should not be recorded, or two hosts would write to each
// other for ever.
package tlsrpt
