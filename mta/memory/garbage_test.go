package memory

import (
	"context"
	"os"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

func TestGarbagePercent(t *testing.T) {
	t.Parallel()
	for alive, want := range map[uint64]int{0: 100, 30e6: 100, 60e6: 100, 120e6: 50, 150e6: 40, 1e9: 30} {
		if got := garbagePercent(alive); got != want {
			t.Errorf("%d alive: %d %%, want %d", alive, got, want)
		}
	}
}

// TestLimitGarbage is not parallel: the collector is the process's.
func TestLimitGarbage(t *testing.T) {
	if os.Getenv("GOGC") != "" {
		t.Skip("GOGC is set")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- LimitGarbage(ctx) }()
	gogc := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	alive := make([]byte, 300_000_000)
	becomes := func(least, most int) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; {
			runtime.GC()
			metrics.Read(gogc)
			percent := int(gogc[0].Value.Uint64())
			if least <= percent && percent <= most {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d %%, want %d to %d", percent, least, most)
			}
		}
	}
	becomes(leastPercent, leastPercent)
	runtime.KeepAlive(alive)
	alive = nil
	becomes(100, 100)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
