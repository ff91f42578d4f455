// Package api is Postrider's HTTP interface: hand messages in, look at the
// queue, steer it, and see how the server is.
//
// It listens in three places. The control socket in the state directory is for
// the commands of this host; whoever may open it (group postrider) may do
// everything. The submission socket beside it is open to every user of the host
// and takes messages, nothing else. The TCP listener shows health, metrics and the shell of the
// status page to everybody who reaches it; queue data and every change need
// the bearer token, because a browser on this host, led by a foreign page,
// reaches it too. For the same reason a request must name a host that is ours
// (DNS rebinding), must not come from another origin, and must carry a content
// type that a form cannot send. There are no cookies and no CORS.
//
// The package holds no state of its own but the token and paced retries. What
// it shows and does are calls to the other rooms, through the small interfaces
// below; JSON shapes are in the package wire, the other end in client.
// docs/api.md is its manual, and a test runs the examples there.
//
// Left out on purpose: users and rights (a proxy's business), TLS (likewise),
// and everything a browser would need to be served to strangers.
package api
