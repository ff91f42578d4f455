package queue

import (
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// shortOfRoom is a queue that holds some tables' worth of mail that does not
// pack, on a disk whose free space is said to be what free holds.
func shortOfRoom(t *testing.T) (q *testQueue, free *atomic.Uint64, log *syncBuffer, claims []*Claim) {
	t.Helper()
	free, log = new(atomic.Uint64), new(syncBuffer)
	free.Store(1 << 30)
	q = newTestQueue(t, func(o *Options) {
		o.space = func() diskSpace { return diskSpace{free: free.Load(), total: 1 << 31} }
		o.memTableSize, o.MinFree = 1<<20, 512<<20
		o.Logger = slog.New(slog.NewTextHandler(log, nil))
	})
	random := rand.NewChaCha8([32]byte{})
	text := make([]byte, 20_000)
	for range 200 {
		_, _ = io.ReadFull(random, text)
		q.submit(envelope(q.Queue, epoch, "a@there.test"), string(text))
		claims = append(claims, q.take(epoch, "there.test"))
	}
	return q, free, log, claims
}

// TestRoomComesBack: what the store holds of ended mail goes while the disk is
// short, although nothing is written any more that would make the store do so.
func TestRoomComesBack(t *testing.T) {
	t.Parallel()
	q, free, _, claims := shortOfRoom(t)
	for i, c := range claims {
		if i%10 == 0 {
			settle(c, epoch, Outcome{Verdict: Untried})
		} else {
			settle(c, epoch, delivered())
		}
	}
	q.settled()
	before, err := q.store.Usage()
	if err != nil || before.Tables < 2<<20 || before.Logs < 2<<20 {
		t.Fatalf("%+v, %v: nothing to give back", before, err)
	}
	free.Store(100 << 20)
	q.room.look()
	var after = before
	for deadline := time.Now().Add(10 * time.Second); after.Tables > before.Tables/2 || after.Logs > 1<<19; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v of %+v are still there", after, before)
		}
		if after, err = q.store.Usage(); err != nil {
			t.Fatal(err)
		}
	}
	free.Store(1 << 30)
	for deadline := time.Now().Add(10 * time.Second); q.room.err() != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody looks whether there is room again")
		}
	}
	q.send(epoch, "a@there.test")
	if n := q.Depth(epoch).Messages; n != 21 {
		t.Errorf("%d messages are left of 21", n)
	}
}

// TestRoomIsNotMadeWithoutRoom: what would be written first is more than the
// disk takes, and would fail the store.
func TestRoomIsNotMadeWithoutRoom(t *testing.T) {
	t.Parallel()
	q, free, log, claims := shortOfRoom(t)
	for _, c := range claims {
		settle(c, epoch, delivered())
	}
	q.settled()
	free.Store(q.store.FlushNeeds() - 1)
	gave, err := q.makeRoom(t.Context(), true)
	if gave || err != nil || strings.Contains(log.String(), "compacted") {
		t.Errorf("gave %v, %v; the log:\n%s", gave, err, log.String())
	}
	free.Store(1 << 30)
}

// TestLiveMailIsNotWrittenAnew: there is nothing to gain from a compaction.
func TestLiveMailIsNotWrittenAnew(t *testing.T) {
	t.Parallel()
	q, _, log, claims := shortOfRoom(t)
	for _, c := range claims {
		settle(c, epoch, Outcome{Verdict: Untried})
	}
	for range 2 {
		if _, err := q.makeRoom(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(log.String(), "compacted") {
		t.Errorf("the log:\n%s", log.String())
	}
}
