package memory

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

// How much garbage may lie about before it is collected. The collector's own
// rule is as much as is alive, which for a million waiting messages is another
// 200 MB. Most of what is alive then has no pointers, and costs the collector
// nothing to pass by.
const (
	garbageAllowed = 60_000_000
	defaultPercent = 100
	leastPercent   = 30
)

// garbagePercent is the collector's percentage (GOGC) for so much that is alive.
func garbagePercent(alive uint64) int {
	if alive == 0 {
		return defaultPercent
	}
	return int(min(max(garbageAllowed*100/alive, leastPercent), defaultPercent))
}

// LimitGarbage sets the collector's percentage after each of its rounds, by
// what is alive, until ctx ends. While there is nothing to collect it does
// nothing. Where GOGC is set that is obeyed.
func LimitGarbage(ctx context.Context) error {
	if os.Getenv("GOGC") == "" {
		l := &garbageLimit{percent: defaultPercent, samples: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}}
		l.watch()
		defer func() {
			l.ended.Store(true)
			debug.SetGCPercent(defaultPercent)
		}()
	}
	<-ctx.Done()
	return nil
}

// garbageLimit is used by the one goroutine that runs finalizers.
type garbageLimit struct {
	ended   atomic.Bool
	percent int
	samples []metrics.Sample
}

// watch has adjust called at the end of the collector's next round: that is
// when it finds what nobody holds.
func (l *garbageLimit) watch() {
	type nobodys struct{ _ *garbageLimit }
	runtime.SetFinalizer(&nobodys{l}, func(*nobodys) { l.adjust() })
}

func (l *garbageLimit) adjust() {
	if l.ended.Load() {
		return
	}
	metrics.Read(l.samples)
	// Each change stops the world for a moment: small ones are not worth it.
	percent := garbagePercent(l.samples[0].Value.Uint64())
	if change := percent - l.percent; max(change, -change) >= 5 || percent == defaultPercent && change != 0 {
		l.percent = percent
		debug.SetGCPercent(percent)
	}
	l.watch()
}
