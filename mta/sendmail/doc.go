// Package sendmail is the sendmail(8) command, as cron, PHP, git and many
// others call it: its options, its exit codes (sysexits.h), SMTP on standard
// input (-bs), and the ways to hand a message over.
//
// A message goes to the server through its submission socket, which every user
// of the host may open, or through the control socket. When no server answers
// it is put into the pickup directory, if this user may, and is sent when the
// server is back; else the caller is told to try again (EX_TEMPFAIL). Nothing
// is ever delivered, queued or rewritten here.
//
// Options of other sendmails that have no meaning here (queue intervals, error
// modes, debugging) are taken and do nothing, because the programs that give
// them cannot be changed; those that ask for another program (-bd, -bv, -bt)
// are refused with a hint.
package sendmail

// Exit codes of sysexits.h, by which callers decide.
const (
	ExitOK       = 0
	ExitUsage    = 64 // EX_USAGE
	ExitDataErr  = 65 // EX_DATAERR: the message or an address is at fault
	ExitNoUser   = 67 // EX_NOUSER
	ExitSoftware = 70 // EX_SOFTWARE
	ExitIOErr    = 74 // EX_IOERR: the message could not be read
	ExitTempFail = 75 // EX_TEMPFAIL: try again later
	ExitConfig   = 78 // EX_CONFIG
)
