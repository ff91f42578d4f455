// Package delivery carries attempts out: it finds a connection to one of a
// domain's mail hosts that meets the TLS demand, sends over it, and turns what
// came of it into outcomes.
//
// A Planner turns a recipient domain into a Plan: the hosts of its route (RFC
// 5321, section 5.1) and the TLS demand on each. Whatever may hang in DNS or
// HTTPS happens there, before a connection is asked for.
//
// An Agent delivers by plan. Deliver takes one attempt and a way to ask for
// more, and works in rounds:
//
//   - connect: an idle session from the pool, or the hosts in order of
//     preference, equals at random, each address of each host. The guard
//     refuses addresses that a stranger must not make us dial. STARTTLS follows
//     the demand; where it is "enable", a broken handshake falls back on a new
//     connection.
//   - carry: the session sends one attempt after the other; the envelope of
//     the next travels with the content of the former.
//     Domains with the same hosts, in the same order of preference, and the
//     same demands share sessions; each attempt brings its own domain's plan,
//     whose words its outcomes have, and under which the session is counted.
//   - classify: stage and reply, or error, become an outcome per recipient. The
//     policy is in classify.go and rules.go, and nowhere else.
//
// A failure of one host leads to the next one; what a session did not come to is
// carried again over the next connection. Only when no host is left does an
// attempt end with a failure of the whole site.
//
// Left out on purpose: when to try, how many at once, and what happens to the
// mail behind a failure (mta/dispatch); the protocol (mta/smtpclient); where
// TLS facts come from (Policies). The agent never sees a claim, only data and a
// way to open the content.
package delivery
