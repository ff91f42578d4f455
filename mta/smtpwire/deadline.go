package smtpwire

import (
	"net"
	"time"
)

// Deadlines sets the deadlines of a connection. A deadline that would move by
// less than an eighth of its timeout, later, is left where it is: on a busy
// session nearly every call is spared.
type Deadlines struct {
	conn        net.Conn
	read, write time.Time
}

// NewDeadlines takes charge of the deadlines of conn, which has none yet.
func NewDeadlines(conn net.Conn) *Deadlines { return &Deadlines{conn: conn} }

// Read lets reads wait until timeout after now, or until limit if that is
// earlier and not zero; it may be up to an eighth of timeout earlier.
func (d *Deadlines) Read(now time.Time, timeout time.Duration, limit time.Time) error {
	at := earlier(now.Add(timeout), limit)
	if isNear(d.read, at, timeout) {
		return nil
	}
	d.read = at
	return d.conn.SetReadDeadline(at)
}

// Write is Read for writes.
func (d *Deadlines) Write(now time.Time, timeout time.Duration, limit time.Time) error {
	at := earlier(now.Add(timeout), limit)
	if isNear(d.write, at, timeout) {
		return nil
	}
	d.write = at
	return d.conn.SetWriteDeadline(at)
}

// ClearRead lets reads wait for ever, until Read is called again.
func (d *Deadlines) ClearRead() error {
	d.read = time.Time{}
	return d.conn.SetReadDeadline(d.read)
}

func earlier(at, limit time.Time) time.Time {
	if !limit.IsZero() && limit.Before(at) {
		return limit
	}
	return at
}

func isNear(is, want time.Time, timeout time.Duration) bool {
	d := want.Sub(is)
	return d >= 0 && d < timeout/8
}

// Pace is the slowest that a peer may move a body of content: after Grace it
// must have moved Rate octets a second on average. A deadline taken from it
// cannot be fed with an octet a minute, as one that is renewed for each read
// can.
type Pace struct {
	Start time.Time
	Grace time.Duration
	Rate  int64 // octets a second, over 0
}

// Deadline is until when the peer must move the octet after moved.
func (p Pace) Deadline(moved int64) time.Time {
	seconds := moved / p.Rate
	part := moved % p.Rate * int64(time.Second) / p.Rate
	return p.Start.Add(p.Grace + time.Duration(seconds)*time.Second + time.Duration(part))
}
