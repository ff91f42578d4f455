// Package smtpwire is what the two ends of an SMTP session share: lines and
// replies with hard bounds, the dots of DATA, xtext, and deadlines.
//
// [Reader] buffers a connection and hands out lines that end in CRLF and in
// nothing else, and runs of content without copying them. [DataReader] finds
// the end of the content after DATA, strictly at CRLF "." CRLF, and removes
// stuffed dots; [Stuffer] puts them in. [Replies] reads whole replies and
// refuses what RFC 5321, section 4.2, does not allow; [AppendReply] writes
// them. [Deadlines] and [Pace] decide how long a peer may take.
//
// Nothing here knows a command, a queue or a policy; nothing starts a
// goroutine. No type may be used by two goroutines at once.
package smtpwire
