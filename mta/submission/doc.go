// Package submission takes mail by SMTP from the programs of this host and its
// network, and hands it to intake.
//
// It decides who may submit, turns the parameters of MAIL and RCPT into an
// envelope, and answers each command with what intake says. The dialog itself,
// with its bounds, is package smtpserver's; what a message must be, and that
// it is on stable storage before the client hears 250, is package intake's.
//
// Nobody but trusted networks and authenticated users may submit: there are no
// local mailboxes, so whatever is taken is relayed.
package submission
