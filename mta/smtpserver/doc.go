// Package smtpserver is a bounded SMTP server loop: RFC 5321 with PIPELINING
// (2920), CHUNKING (3030), SIZE (1870), 8BITMIME (6152), SMTPUTF8 (6531), DSN
// (3461), ENHANCEDSTATUSCODES (2034), STARTTLS (3207), REQUIRETLS (8689), AUTH
// (4954) and LIMITS (9422).
//
// It reads commands, keeps their order, answers them and finds the end of the
// content. What a message is, who may send it and where it goes is for the
// [Backend] to say: submission hands messages to the queue, the sink of a
// rehearsal counts them.
//
// Every wait has a deadline, every line, count and size a bound. The replies to
// commands that came together leave together: output is written only when the
// loop is about to wait for input, so that a message in a pipelined session
// costs about one read and one write, and nothing is allocated for it.
//
// Left out on purpose: BINARYMIME (content is text with line ends), VRFY and
// EXPN that tell anything, ETRN, and any reading of the content, whose line ends
// reach the backend as they came. A backend that passes content on must make
// them CRLF first.
package smtpserver
