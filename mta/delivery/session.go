package delivery

import (
	"net/netip"
	"time"

	"postrider/mta/smtpclient"
)

// session is one open connection, ready for mail.
type session struct {
	smtp  *smtpclient.Session
	key   poolKey
	label string // for people
	words
	ext      smtpclient.Extensions
	local    netip.Addr
	openedAt time.Time
	count    int           // transactions
	took     time.Duration // to connect; told once
	isReused bool          // came from the pool
	counts   counted
	// hasDelivered: the host took a message over this connection. isUnwanted:
	// it takes none from our address of this family.
	hasDelivered, isUnwanted bool
	pool                     *pool

	// The pool's own.
	idleSince           time.Time
	older, newer, below *session
}

// mayCarryMore reports whether one more transaction is within what we and the
// host allow for a connection.
func (s *session) mayCarryMore(max int, life time.Duration, now time.Time) bool {
	if max > 0 && s.count >= max || s.ext.MailMax > 0 && s.count >= s.ext.MailMax {
		return false
	}
	return now.Sub(s.openedAt) < life
}

// quit ends an idle session politely.
func (s *session) quit() {
	s.smtp.Quit()
	s.pool.gone(s)
}

// drop ends a session that is of no more use.
func (s *session) drop() {
	s.smtp.Close()
	s.pool.gone(s)
}
