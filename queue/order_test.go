package queue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// sendAs submits a message of a sender and a priority, due at at.
func (q *testQueue) sendAs(at time.Time, sender string, p Priority, to string) ID {
	q.t.Helper()
	e := envelope(q.Queue, at, to)
	e.Sender, e.Priority = sender, p
	return q.submit(e, testBody)
}

// drain takes all that is due and gives the senders in their order.
func (q *testQueue) drain(now time.Time, domain string) (senders []string) {
	q.t.Helper()
	for {
		c, ok := q.Take(now, domain, 100)
		if !ok {
			return senders
		}
		senders = append(senders, c.Envelope.Sender)
		settle(c, now, delivered())
	}
}

func TestOrderOfService(t *testing.T) {
	t.Parallel()
	type mail struct {
		sender   string
		priority Priority
		age      time.Duration
	}
	for name, c := range map[string]struct {
		mail []mail
		want string
	}{
		"urgent, normal, bulk": {
			[]mail{{"b", PriorityBulk, 0}, {"n", PriorityNormal, 0}, {"u", PriorityUrgent, 0}}, "u n b"},
		"in turns by sender": {
			[]mail{{"big", 0, 0}, {"big", 0, 0}, {"big", 0, 0}, {"big", 0, 0}, {"small", 0, 0}, {"one", 0, 0}, {"small", 0, 0}},
			"big small one big small big big"},
		"turns within a priority only": {
			[]mail{{"a", PriorityUrgent, 0}, {"a", PriorityUrgent, 0}, {"b", PriorityNormal, 0}}, "a a b"},
		"first come, first served": {
			[]mail{{"a", 0, 0}, {"b", 0, 0}, {"c", 0, 0}}, "a b c"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newTestQueue(t)
			for _, m := range c.mail {
				q.sendAs(epoch, m.sender, m.priority, "x@there.test")
			}
			if got := strings.Join(q.drain(epoch, "there.test"), " "); got != c.want {
				t.Errorf("order %q, want %q", got, c.want)
			}
		})
	}
}

func TestOldestDueFirst(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	var want []ID
	for i := range 50 {
		e := envelope(q.Queue, epoch, "x@there.test")
		e.NotBefore = epoch.Add(time.Duration((i*37)%50+1) * time.Second)
		want = append(want, q.submit(e, testBody))
	}
	slices.SortFunc(want, func(a, b ID) int { return q.dueAt(a).Compare(q.dueAt(b)) })
	now := epoch.Add(time.Hour)
	for i, id := range want {
		if c := q.take(now, "there.test"); c.Envelope.ID != id {
			t.Fatalf("claim %d is of %s, want %s", i, c.Envelope.ID, id)
		}
	}
}

func (q *testQueue) dueAt(id ID) time.Time {
	m, err := q.Message(id)
	if err != nil {
		q.t.Fatal(err)
	}
	return m.States[0].DueAt
}

// TestOneHugeSender: a thousand messages of one sender do not delay the one
// message of another.
func TestOneHugeSender(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	for range 1000 {
		q.sendAs(epoch, "big@src.test", PriorityNormal, "x@there.test")
	}
	q.sendAs(epoch, "small@src.test", PriorityNormal, "x@there.test")
	q.restart() // the order does not depend on how it came to be
	for i := 1; ; i++ {
		c := q.take(epoch, "there.test")
		settle(c, epoch, delivered())
		if c.Envelope.Sender == "small@src.test" {
			if i > 2 {
				t.Fatalf("served %d-th", i)
			}
			return
		}
	}
}

// TestManyRecipientsAtOneDomain: 10,000 recipients go out in claims of 100
// that share one envelope.
func TestManyRecipientsAtOneDomain(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	var to []string
	for i := range 10_000 {
		to = append(to, fmt.Sprintf("r%d@there.test", i))
	}
	id := q.send(epoch, to...)
	var claims []*Claim
	for {
		c, ok := q.Take(epoch, "there.test", 100)
		if !ok {
			break
		}
		if len(c.Recipients) != 100 || c.Envelope != claims0(claims, c).Envelope ||
			&c.Recipients[0] != &c.Envelope.Recipients[100*len(claims)] {
			t.Fatalf("claim %d has %d recipients, or a copy of the envelope", len(claims), len(c.Recipients))
		}
		claims = append(claims, c)
	}
	if len(claims) != 100 {
		t.Fatalf("%d claims", len(claims))
	}
	for i, c := range claims {
		switch {
		case i%10 == 0:
			settle(c, epoch, deferred())
		case i%10 == 1:
			c.Release(epoch)
		default:
			settle(c, epoch, delivered())
		}
	}
	q.settled()
	q.crash()
	now := epoch.Add(time.Hour)
	n := 0
	for {
		c, ok := q.Take(now, "there.test", 100)
		if !ok {
			break
		}
		n += len(c.Recipients)
		settle(c, now, delivered())
	}
	if n != 2000 {
		t.Fatalf("%d recipients were left", n)
	}
	q.settled()
	q.wantKeys("")
	events, err := q.History(id)
	if err != nil || len(events) != 1+10_000+1000 {
		t.Fatalf("%d events (%v)", len(events), err)
	}
}

func claims0(claims []*Claim, c *Claim) *Claim {
	if len(claims) == 0 {
		return c
	}
	return claims[0]
}

func TestManyDomains(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	var to []string
	for i := range 2000 {
		to = append(to, fmt.Sprintf("r@d%d.test", i%500))
	}
	q.send(epoch, to...)
	q.restart()
	domains, _ := q.Due(epoch, nil)
	if len(domains) != 500 {
		t.Fatalf("%d domains", len(domains))
	}
	for _, d := range domains {
		c := q.take(epoch, d)
		if len(c.Recipients) != 4 || c.Recipients[3].Domain != d {
			t.Fatalf("claim %+v", c.Recipients)
		}
		settle(c, epoch, delivered())
	}
	q.settled()
	q.wantKeys("")
}

// TestNamedOnce: Due names a domain once, until Take has said that there is
// nothing more.
func TestNamedOnce(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	q.send(epoch, "a@there.test")
	q.due(epoch, "there.test")
	q.send(epoch, "b@there.test")
	q.due(epoch)
	q.take(epoch, "there.test")
	c := q.take(epoch, "there.test")
	q.due(epoch)
	q.nothing(epoch, "there.test")
	q.due(epoch)
	settle(c, epoch, deferred())
	if next := q.due(epoch); !next.Equal(epoch.Add(5 * time.Minute)) {
		t.Fatalf("next at %v", next)
	}
	q.due(epoch.Add(5*time.Minute), "there.test")
}

// TestBodyMemory: fresh bodies fall back to the disk when there are too many.
func TestBodyMemory(t *testing.T) {
	t.Parallel()
	const budget = 50_000
	q := newTestQueue(t, func(o *Options) { o.BodyMemory = budget })
	bodies := make(map[ID]string)
	for i := range 40 {
		body := strings.Repeat(fmt.Sprintf("%d\r\n", i), 400)
		e := envelope(q.Queue, epoch, "a@there.test", "b@other.test")
		bodies[q.submit(e, body)] = body
		if d := q.Depth(epoch); d.BodyMemory > budget || d.BodyMemory == 0 {
			t.Fatalf("%d octets in memory", d.BodyMemory)
		}
	}
	for _, domain := range []string{"there.test", "other.test"} {
		for range 40 {
			c := q.take(epoch, domain)
			content, err := c.Content()
			again, err2 := c.Content()
			settle(c, epoch, delivered()) // the content stays valid until Close
			if got := readAll(t, content, err); got != testPrefix+bodies[c.Envelope.ID] {
				t.Fatalf("content %.80q", got)
			}
			if got := readAll(t, again, err2); got != testPrefix+bodies[c.Envelope.ID] {
				t.Fatalf("content %.80q", got)
			}
		}
	}
	q.settled()
	if d := q.Depth(epoch); d.BodyMemory != 0 {
		t.Fatalf("%d octets in memory", d.BodyMemory)
	}
}
