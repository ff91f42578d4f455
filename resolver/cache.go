package resolver

import (
	"time"

	"github.com/maypok86/otter/v2"
)

const (
	defaultMinTTL    = 5 * time.Second
	defaultMaxTTL    = 24 * time.Hour
	defaultCacheSize = 100_000

	// maxNegativeTTL: RFC 2308, section 5, finds one to three hours sensible.
	// A sender waits for someone to mend their zone, so the lower one.
	maxNegativeTTL = time.Hour
	// A failure is remembered for 5 s, doubling to 30 s while it lasts, so that
	// a dead zone costs few queries (RFC 9520, section 3.2).
	minFailureTTL = 5 * time.Second
	maxFailureTTL = 30 * time.Second
	// maxStale is how long past its end an answer may stand in while the
	// servers fail (RFC 8767, section 5, suggests one to three days).
	maxStale = 24 * time.Hour
	// staleTTL is how long a stale answer is handed out for (RFC 8767, section 5).
	staleTTL = 30 * time.Second

	// weightUnit is the size of an answer that counts as one towards the size
	// of the cache; a longer one counts as several.
	weightUnit = 512
)

// entry is what the cache knows of a question. It is never changed once stored.
type entry struct {
	found     finding   // kind: KindNone, NoSuchDomain or NoData
	known     bool      // found is valid; else there was never an answer
	expiresAt time.Time // of found

	failure  *Error // of the last try, when that failed
	failures int    // in a row
	retryAt  time.Time
}

// cache holds entries up to a bound. Their age is judged by the reader, so it
// needs no goroutine that sweeps: what nobody asks for is what gets evicted.
type cache struct {
	entries        *otter.Cache[question, *entry]
	minTTL, maxTTL time.Duration
}

func newCache(size int, minTTL, maxTTL time.Duration) (*cache, error) {
	entries, err := otter.New(&otter.Options[question, *entry]{
		MaximumWeight: uint64(size),
		Weigher: func(_ question, e *entry) uint32 {
			return 1 + uint32(e.found.size/weightUnit)
		},
		// The cache's own housekeeping runs on the goroutine that writes.
		Executor: func(f func()) { f() },
	})
	if err != nil {
		return nil, err
	}
	return &cache{entries, minTTL, maxTTL}, nil
}

func (c *cache) get(q question) *entry {
	e, _ := c.entries.GetIfPresent(q)
	return e
}

// clear forgets everything.
func (c *cache) clear() { c.entries.InvalidateAll() }

// store keeps an answer or a failure and gives the entry that now stands.
func (c *cache) store(q question, f finding, failed *Error, now time.Time) *entry {
	e := &entry{found: f, known: true, expiresAt: now.Add(c.clamp(f))}
	if failed != nil {
		e = &entry{failure: failed, failures: 1}
		if old := c.get(q); old != nil {
			e.found, e.known, e.expiresAt = old.found, old.known, old.expiresAt
			if old.failure != nil {
				e.failures = old.failures + 1
			}
		}
		e.retryAt = now.Add(failureTTL(e.failures))
	}
	c.entries.Set(q, e)
	return e
}

func (c *cache) clamp(f finding) time.Duration {
	longest := c.maxTTL
	if f.kind != KindNone {
		longest = min(longest, maxNegativeTTL)
	}
	return min(max(f.ttl, c.minTTL), longest)
}

func failureTTL(failures int) time.Duration {
	ttl := minFailureTTL
	for range failures - 1 {
		if ttl *= 2; ttl >= maxFailureTTL {
			return maxFailureTTL
		}
	}
	return ttl
}

// fresh reports whether the answer may be used without asking again.
func (e *entry) fresh(now time.Time) bool {
	return e.known && now.Before(e.expiresAt)
}

// mayStandIn reports whether an expired answer may be used because nothing
// newer is to be had. Absences may not: they would make a permanent failure of
// what is not known. Nor may answers that were secure, since without their
// mark the protection that follows from it would be dropped by whoever can
// make the servers fail (RFC 7672, section 2.1.1), and nor may anything when
// validation has failed.
func (e *entry) mayStandIn(now time.Time) bool {
	return e.known && e.found.kind == KindNone && !e.found.secure &&
		e.failure != nil && e.failure.Kind != Bogus &&
		now.Before(e.expiresAt.Add(maxStale))
}
