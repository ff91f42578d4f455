package queue

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var million = flag.Bool("million", false, "run TestMillion: a million messages wait, the figures are printed")

// memory reads the process's resident memory and its peak, in MB.
func memory(t *testing.T) (now, peak int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	read := func(name string) (kb int) {
		_, rest, _ := strings.Cut(string(status), name+":")
		fmt.Sscan(rest, &kb)
		return kb * 1024 / 1_000_000
	}
	return read("VmRSS"), read("VmHWM")
}

// TestMillion is the deep queue: a million messages of 4 KB over 1,000 domains
// wait; then the start, and the speed for one healthy domain beside them. Run
// it on the shipped form: CGO_ENABLED=0 go test -run Million -million -v .
func TestMillion(t *testing.T) {
	if !*million {
		t.Skip("takes a minute and 6 GB of disk: -million")
	}
	const n, domains = 1_000_000, 1000
	dir := t.TempDir() + "/queue"
	q := &testQueue{t: t, opts: Options{Dir: dir}}
	q.start()
	empty := q.life(20_000)
	rss, peak := memory(t)
	t.Logf("empty queue: %.0f messages/s through the whole life; RSS %d MB, peak %d MB", empty, rss, peak)

	began := time.Now()
	now := time.Now()
	later := now.Add(time.Hour)
	body := strings.Repeat("0123456789abcde\r\n", 240)
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 64 {
		wg.Go(func() {
			for {
				i := next.Add(1)
				if i > n {
					return
				}
				e := envelope(q.Queue, now, fmt.Sprintf("someone%d@domain%d.test", i, i%domains))
				e.Sender = fmt.Sprintf("sender%d@source.test", i%100)
				e.NotBefore = later.Add(time.Duration(i%3600) * time.Second)
				b := q.NewBody()
				fmt.Fprint(b, body)
				if err := q.Submit(t.Context(), Submission{Envelope: e, Prefix: []byte(testPrefix), Body: b}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	rss, peak = memory(t)
	t.Logf("filled in %v, %.0f messages/s; RSS %d MB, peak %d MB", took.Round(time.Second), n/took.Seconds(), rss, peak)
	deep := q.life(20_000)
	rss, peak = memory(t)
	t.Logf("beside a million: %.0f messages/s, %.0f %% of the empty queue; RSS %d MB, peak %d MB", deep, 100*deep/empty, rss, peak)
	q.stop()

	// The start is another process, so that its memory is its own.
	child := exec.Command(os.Args[0], "-test.run=^TestMillionStart$", "-test.v", "-million.dir="+dir)
	out, err := child.CombinedOutput()
	t.Logf("another process:\n%s", out)
	if err != nil {
		t.Error(err)
	}
}

var millionDir = flag.String("million.dir", "", "the queue that TestMillion filled; set by itself")

// TestMillionStart is the second half of TestMillion.
func TestMillionStart(t *testing.T) {
	if *millionDir == "" {
		t.Skip("is run by TestMillion")
	}
	const n, domains = 1_000_000, 1000
	q := &testQueue{t: t, opts: Options{Dir: *millionDir}}
	began := time.Now()
	q.start()
	t.Logf("started in %v", time.Since(began).Round(time.Millisecond))
	now := time.Now()
	rss, peak := memory(t)
	t.Logf("after the start: RSS %d MB, peak %d MB", rss, peak)
	if d := q.Depth(now); d.Waiting < n {
		t.Errorf("depth %+v", d)
	}
	began = time.Now()
	q.Sweep(now)
	swept := time.Since(began)
	began = time.Now()
	q.Domains(now, 0)
	grid := time.Since(began)
	began = time.Now()
	q.Depth(now)
	t.Logf("sweep %v, grid %v, depth %v", swept, grid, time.Since(began))
	due := now.Add(2 * time.Hour)
	began = time.Now()
	names, _ := q.Due(due, nil)
	t.Logf("all due: %d domains named at once in %v", len(names), time.Since(began))
	began = time.Now()
	const taken = 20_000
	for i := range taken {
		c, ok := q.Take(due, fmt.Sprintf("domain%d.test", i%domains), 100)
		if !ok {
			t.Fatalf("nothing to take after %d", i)
		}
		content, err := c.Content()
		if err != nil {
			t.Fatal(err)
		}
		content.Close()
		settle(c, due, delivered())
	}
	t.Logf("from the disk, one worker: %.0f messages/s", taken/time.Since(began).Seconds())
	began = time.Now()
	k, err := q.Cancel(t.Context(), due, Selector{Domain: "domain7.test"}, "")
	t.Logf("cancelled the %d of one domain in %v (%v)", k, time.Since(began).Round(time.Millisecond), err)
	after := q.life(20_000)
	rss, peak = memory(t)
	t.Logf("beside them after the start: %.0f messages/s; RSS %d MB, peak %d MB", after, rss, peak)
	q.stop()
}

// life passes n messages for a domain of their own through the queue, 20 at a
// time, and gives the messages per second.
func (q *testQueue) life(n int64) float64 {
	var wg sync.WaitGroup
	var count atomic.Int64
	began := time.Now()
	body := strings.Repeat("0123456789abcde\r\n", 240)
	for range 20 {
		wg.Go(func() {
			for count.Add(1) <= n {
				now := time.Now()
				e := envelope(q.Queue, now, "someone@healthy.test")
				b := q.NewBody()
				fmt.Fprint(b, body)
				if err := q.Submit(q.t.Context(), Submission{Envelope: e, Prefix: []byte(testPrefix), Body: b}); err != nil {
					q.t.Error(err)
					return
				}
				c, ok := q.Take(now, "healthy.test", 100)
				if !ok {
					continue
				}
				content, err := c.Content()
				if err != nil {
					q.t.Error(err)
					return
				}
				content.Close()
				settle(c, now, delivered())
			}
		})
	}
	wg.Wait()
	q.settled()
	return float64(n) / time.Since(began).Seconds()
}
