package crash

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// clients submit without pause, each over a connection of its own, and
// remember what they were told 250 for. A connection that the kill broke is
// made anew; the message that was under way on it is given up: nobody
// acknowledged it.
type clients struct {
	addr    string
	domains int
	wg      sync.WaitGroup

	mu      sync.Mutex
	moved   *sync.Cond // accepted grew, or paused or stopped changed
	acked   map[string]bool
	next    int
	rounds  [][]time.Time // by client: when the transactions began that were accepted since the last pause
	paused  bool
	stopped bool
}

func newClients(addr string, sessions, domains int) *clients {
	c := &clients{addr: addr, domains: domains, acked: make(map[string]bool), rounds: make([][]time.Time, sessions), paused: true}
	c.moved = sync.NewCond(&c.mu)
	for i := range sessions {
		c.wg.Go(func() { c.submit(i) })
	}
	return c
}

// take answers the next message's number, or false at the end.
func (c *clients) take() (int, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.paused && !c.stopped {
		c.moved.Wait()
	}
	c.next++
	return c.next, !c.stopped
}

func (c *clients) submit(client int) {
	var conn *smtp.Client
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	for {
		n, ok := c.take()
		if !ok {
			return
		}
		if conn == nil {
			var err error
			if conn, err = smtp.Dial(c.addr); err != nil {
				conn = nil
				pause(context.Background(), 5*time.Millisecond) // the server is being started
				continue
			}
		}
		id := fmt.Sprintf("<crash-%d@sender.test>", n)
		to := fmt.Sprintf("user%d@d%d.crash.test", n, n%c.domains)
		began := time.Now()
		err := conn.SendMail("load@sender.test", []string{to}, strings.NewReader(letter(n, id, to)))
		var refused *smtp.SMTPError
		switch {
		case err == nil:
			c.mu.Lock()
			c.acked[id] = true
			c.rounds[client] = append(c.rounds[client], began)
			c.moved.Broadcast()
			c.mu.Unlock()
		case errors.As(err, &refused):
			_ = conn.Reset()
		default:
			conn.Close()
			conn = nil
		}
	}
}

// Every so many messages one is so large that its content is a file of its own
// in the queue.
const largeEvery = 25

func letter(n int, id, to string) string {
	lines := 100
	if n%largeEvery == 0 {
		lines = 5000
	}
	return "From: <load@sender.test>\r\nTo: <" + to + ">\r\nSubject: crash\r\nMessage-ID: " + id +
		"\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n\r\n" + strings.Repeat("Nothing that was promised is lost.\r\n", lines)
}

func (c *clients) set(paused, stopped bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused, c.stopped = paused, c.stopped || stopped
	c.moved.Broadcast()
}

func (c *clients) resume() { c.set(false, false) }

// pause lets no more transaction begin. It gives, by client, when those began
// that were accepted since the pause before.
func (c *clients) pause() [][]time.Time {
	c.set(true, false)
	c.mu.Lock()
	defer c.mu.Unlock()
	rounds := c.rounds
	c.rounds = make([][]time.Time, len(rounds))
	return rounds
}

// stop ends all sessions and waits for them.
func (c *clients) stop() {
	c.set(false, true)
	c.wg.Wait()
}

func (c *clients) accepted() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.acked)
}

func (c *clients) all() map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acked
}

// waitFor waits until so many messages were accepted.
func (c *clients) waitFor(ctx context.Context, accepted int, ended <-chan struct{}) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for c.accepted() < accepted {
		select {
		case <-tick.C:
		case <-ended:
			return errors.New("the server ended by itself")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
