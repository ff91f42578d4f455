package rehearsal

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A percentile is never below the true one, and at most 3 % above it.
func TestHistogram(t *testing.T) {
	t.Parallel()
	source := rand.New(rand.NewPCG(3, 4))
	var parts [3]histogram
	var all []time.Duration
	for i := range 30_000 {
		d := time.Duration(source.ExpFloat64() * float64(time.Millisecond))
		all = append(all, d)
		parts[i%3].add(d)
	}
	var h histogram
	for i := range parts {
		h.merge(&parts[i])
	}
	slices.Sort(all)
	for _, share := range []float64{0, 0.5, 0.9, 0.99, 0.999} {
		want := all[int(share*float64(len(all)))]
		got := h.quantile(share)
		if got < want || float64(got) > float64(want)*1.032+1 {
			t.Errorf("%v: %v, want %v", share, got, want)
		}
	}
	if h.max != all[len(all)-1] || h.quantile(1) != h.max {
		t.Errorf("max %v, want %v", h.max, all[len(all)-1])
	}
	var empty histogram
	if p := empty.percentiles(); p != (Percentiles{}) {
		t.Errorf("empty: %+v", p)
	}
	for _, v := range []uint64{0, 1, 31, 32, 33, 63, 64, 65, 1 << 20, 1<<63 - 1} {
		b := bucketOf(v)
		if b >= buckets || uint64(upperBound(b)) < v || b > 0 && uint64(upperBound(b-1)) >= v {
			t.Errorf("%d is in bucket %d, %d to %d", v, b, upperBound(max(b-1, 0)), upperBound(b))
		}
	}
}

// What is full counts what it could not take in.
func TestTallyIsBounded(t *testing.T) {
	t.Parallel()
	tally := newTally()
	shard := &tally.shards[5]
	for i := range maxCopies / tallyShards {
		shard.seen[uint64(i)*2] = struct{}{}
	}
	tally.addCopy(5)
	if c, d, u := tally.counts(); c != 0 || d != 0 || u != 1 {
		t.Errorf("%d, %d, %d", c, d, u)
	}
	shard.seen[5+tallyShards] = struct{}{}
	tally.addCopy(5 + tallyShards)
	if _, d, _ := tally.counts(); d != 1 {
		t.Errorf("%d duplicates", d)
	}
}

// The finder finds the same in whatever pieces content comes.
func TestFinderInPieces(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"Message-ID: <a@b>\r\n\r\nx":              "<a@b>",
		"From: x\r\nMESSAGE-ID:<a@b> (c)\r\n\r\n": "<a@b>",
		"Message-ID:\r\n\t<a@b>\r\n\r\n":          "<a@b>",
		"X: Message-ID: <no@b>\r\n\r\n":           "",
		"X: y\r\n\r\nMessage-ID: <no@b>\r\n":      "",
		"Message-ID: <a@b>\r\n":                   "<a@b>",
		"":                                        "",
	}
	for content, want := range tests {
		for size := 1; size <= len(content)+1; size++ {
			var f finder
			f.reset()
			for piece := range slices.Chunk([]byte(content), size) {
				f.feed(piece)
			}
			if got := string(f.messageID()); got != want {
				t.Errorf("%q in pieces of %d: %q, want %q", content, size, got, want)
			}
		}
	}
}
