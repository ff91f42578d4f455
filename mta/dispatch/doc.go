// Package dispatch decides when mail goes out and how much at a time. It holds
// the only scheduler loop there is.
//
// Its parts:
//
//   - lane: what waits for one destination domain. It knows the domain's plan
//     (delivery.Plan) until that expires.
//   - path: the lanes whose attempts may share a connection: the same hosts, ports
//     and TLS demand. It knows whether these hosts are dead.
//   - site: the provider behind one or more paths. Its lanes share limits.
//   - worker: one connection of a path, with a slot of everything that limits
//     connections.
//   - Dispatcher: the loop over what became due, the timers, the bounded lookups
//     of plans.
//
// The order is route, slot, claim: first the plan, in a pool of its own, then
// a slot, and only then is a message taken from the queue. So a destination that
// is full, throttled or dead, or whose DNS hangs, holds no worker and no memory.
//
// The loop only starts workers. A worker takes the next message itself, while
// the former is on its way, from the lanes of its path in turns; so the cost of a
// message depends on neither the depth of the queue nor the number of lanes. It
// gives its slot up when there is no more, or when it had its turn and others wait.
//
// Nothing polls. The loop sleeps until the queue has changed or the next timer
// is due, and an idle queue has none.
//
// Left out on purpose: how an attempt is made (mta/delivery), when a deferred
// recipient is due again and what is known after a restart (queue). What is
// learnt about sites is kept in memory only.
package dispatch
