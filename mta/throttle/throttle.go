// Package throttle says whether one more connection, or one more message, is
// within its limits now, and when to ask again.
//
// It is arithmetic: no clock, no goroutine, no lock. Time comes in as now,
// and whoever shares a Limit between goroutines guards it. That makes it cheap
// (a few comparisons, no allocation) and every rule testable by the minute.
//
// The parts:
//
//   - window: how many connections at once. It starts low, grows by one for
//     each window of successes and is halved by a failure, between 1 and the
//     limit's maximum.
//   - rate: so many events a minute, evenly spread. It can be asked when the
//     next event may happen.
//   - backoff: what a failure of the whole peer leads to. Nothing is opened for
//     a while, then one connection is tried, and a success wakes everything.
//   - Limit: these three for one key (a site, a destination, a sender domain,
//     everything), with a name for people.
//   - Group: several limits that must all agree.
//
// Left out on purpose: keys and their lifetime, and what counts as a failure.
// Both are decided by whoever schedules.
package throttle
