package delivery

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"postrider/mta/smtpclient"
	"postrider/queue"
)

type benchWork struct{ a Attempt }

func (w *benchWork) Next() (*Attempt, bool) { return &w.a, true }
func (w *benchWork) Connecting(bool)        {}
func (w *benchWork) Done(*Attempt, *Report) {}

// BenchmarkAttempt is what delivery adds to a message on an open connection:
// from the attempt to a transaction, and from the replies to the report.
func BenchmarkAttempt(b *testing.B) {
	a := NewAgent(Options{HELO: func(netip.Addr) string { return "out.test" }, Guard: &Guard{}})
	c := newCarrier(a)
	m := mail("r@a.test")
	work := &benchWork{a: m.attempt}
	c.begin(context.Background(), &Plan{}, &work.a, work)
	c.session = &session{openedAt: time.Now(), words: words{remote: &queue.Remote{Host: "mx1.a.test"}}, key: poolKey{addr: netip.MustParseAddrPort("192.0.2.1:25")}, pool: a.pool,
		ext: smtpclient.Extensions{Pipelining: true, Chunking: true, EightBitMIME: true, SizeKnown: true, DSN: true}}
	ok := func(text string) smtpclient.Reply {
		return smtpclient.Reply{Code: 250, Enhanced: "2.0.0", Lines: []string{text}}
	}
	res := smtpclient.Result{Mail: ok("2.1.0 ok"), Rcpts: []smtpclient.Reply{ok("2.1.5 ok")}, Final: ok("2.0.0 queued as 4711"), Sent: true, StartedAt: time.Now(), EndedAt: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		tx, _ := c.nextTransaction()
		body, closer, err := tx.Open()
		if err != nil || body.Size == 0 {
			b.Fatal(err)
		}
		closer.Close()
		c.transactionDone(tx, &res)
	}
}

// BenchmarkPool is an idle session taken and put back.
func BenchmarkPool(b *testing.B) {
	p := newPool(0, 0, time.Hour)
	defer p.close()
	var keys []poolKey
	for i := range 100 {
		k := poolKey{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 25), demand: "enable"}
		keys = append(keys, k)
		p.put(&session{key: k, smtp: smtpclient.New(nil, smtpclient.Options{})}, time.Now())
	}
	now := time.Now()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		s := p.get(keys[i%len(keys)])
		p.put(s, now)
	}
	for _, k := range keys { // nothing to hang up on
		p.get(k)
	}
}
