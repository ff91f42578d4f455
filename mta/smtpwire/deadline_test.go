package smtpwire

import (
	"net"
	"testing"
	"time"
)

type deadlineConn struct {
	net.Conn
	read, write []time.Time
}

func (c *deadlineConn) SetReadDeadline(t time.Time) error  { c.read = append(c.read, t); return nil }
func (c *deadlineConn) SetWriteDeadline(t time.Time) error { c.write = append(c.write, t); return nil }

func TestDeadlinesMoveSeldomAndNeverLate(t *testing.T) {
	t.Parallel()
	start := time.Unix(1e9, 0)
	const timeout = 80 * time.Second
	c := new(deadlineConn)
	d := NewDeadlines(c)
	for second := range 100 {
		now := start.Add(time.Duration(second) * time.Second)
		if err := d.Read(now, timeout, time.Time{}); err != nil {
			t.Fatal(err)
		}
		last := c.read[len(c.read)-1]
		if want := now.Add(timeout); last.After(want) || want.Sub(last) >= timeout/8 {
			t.Fatalf("at %ds the deadline is %v, want %v", second, last, want)
		}
	}
	if len(c.read) != 10 || len(c.write) != 0 {
		t.Fatalf("set %d times for reads, %d for writes", len(c.read), len(c.write))
	}
}

func TestDeadlinesKeepTheLimit(t *testing.T) {
	t.Parallel()
	start := time.Unix(1e9, 0)
	c := new(deadlineConn)
	d := NewDeadlines(c)
	limit := start.Add(time.Second)
	d.Write(start, time.Minute, time.Time{})
	d.Write(start, time.Minute, limit)
	d.Write(start, time.Hour, limit)
	if len(c.write) != 2 || !c.write[1].Equal(limit) {
		t.Fatalf("set %v", c.write)
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	p := Pace{Start: time.Unix(1e9, 0), Grace: time.Minute, Rate: 1000}
	for moved, want := range map[int64]time.Duration{
		0: time.Minute, 500: 60500 * time.Millisecond, 60_000: 2 * time.Minute,
		1 << 40: time.Minute + (1<<40)*time.Millisecond,
	} {
		if got := p.Deadline(moved).Sub(p.Start); got != want {
			t.Errorf("after %d octets: got %v, want %v", moved, got, want)
		}
	}
}
