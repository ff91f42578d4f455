package queue

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// cpuTime is what the process has used so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // never fails for oneself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchQueue is a queue on real files.
func benchQueue(b testing.TB) *Queue {
	q, err := Open(Options{Dir: b.TempDir() + "/queue", MinFree: 1})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- q.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
		if err := q.Close(); err != nil {
			b.Error(err)
		}
	})
	return q
}

// BenchmarkLife is the common path: 20 clients submit a message of 4 KB for
// one of 100 domains; it is claimed, read and delivered at once.
func BenchmarkLife(b *testing.B) {
	q := benchQueue(b)
	body := make([]byte, 4000)
	prefix := make([]byte, 800)
	domains := make([]string, 100)
	for i := range domains {
		domains[i] = fmt.Sprintf("domain%d.test", i)
	}
	remote := &Remote{Host: "mx.there.test", TLS: "TLS1.3 TLS_AES_128_GCM_SHA256", Demand: "enable", HELO: "here.test"}
	var n atomic.Int64
	life := func() error {
		now := time.Now()
		domain := domains[n.Add(1)%100]
		e := &Envelope{
			ID:         q.NewID(now),
			Sender:     "sender@source.test",
			Recipients: []Recipient{{Address: "someone@" + domain, Domain: domain}},
			ArrivedAt:  now,
			MessageID:  "<0123456789@source.test>",
			Origin:     Origin{Via: "smtp", HELO: "client.test"},
		}
		body1 := q.NewBody()
		defer body1.Discard()
		if _, err := body1.Write(body); err != nil {
			return err
		}
		if err := q.Submit(context.Background(), Submission{Envelope: e, Prefix: prefix, Body: body1}); err != nil {
			return err
		}
		c, ok := q.Take(now, domain, 100)
		if !ok {
			return nil // another one's
		}
		content, err := c.Content()
		if err != nil {
			return err
		}
		_ = content.Close() // from memory
		c.Settle(now, []Outcome{{Verdict: Delivered, Stage: StageFinal, Code: 250, Status: "2.0.0",
			Text: "Ok: queued as 12345", Remote: remote}}, Timing{Transfer: time.Millisecond})
		return nil
	}
	b.ReportAllocs()
	b.SetParallelism(10)
	cpu := cpuTime()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := life(); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N)/1000, "cpu-us/op")
}
