// Package doctor looks at this host as somebody does who wonders why mail does
// not get out, or is about to: the configuration, the disk, the name, the way
// out, DNS, and what receivers will ask DNS about mail from here. Each check
// says what was looked at, what that means and what to do next.
//
// A Doctor is made of plain options, which package mta takes from the
// configuration. Run does all checks side by side; each has its own function,
// gives one Finding or more, and comes to its end in time, whatever the network
// does. It changes nothing, and needs no running server; what only that can
// tell is marked as not done where it does not answer.
//
// Nothing outside is asked but DNS, unless the operator names it: the mail
// hosts of the domains that local_mail_to and postmaster have, and of those
// given with --probe, are connected to, and left without a word after their
// greeting.
//
// Left out on purpose:
//
//   - DNS block lists. To ask them tells their operators about the address and
//     its plans, most refuse or charge for queries that come through public
//     resolvers, some answer such with "listed", and a list says nothing about
//     the receivers that matter here. Those tell by themselves: the bounce class
//     "reputation" in the metrics and in queue list.
//   - The clock: there is nobody to compare it with but strangers.
//   - The SPF mechanisms "exists" and "ptr", and macros: they depend on the
//     message. Records with them are "not judged" where they decide.
package doctor
