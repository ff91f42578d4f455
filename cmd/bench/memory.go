package main

import (
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// memoryWatch follows how much memory a server of several processes takes.
// Their resident sizes cannot be added, as they share most of it: the
// proportional shares (PSS) are, twice a second. One process has its own peak
// in the kernel, and is left alone.
type memoryWatch struct {
	root int
	end  chan struct{}
	once sync.Once
	wg   sync.WaitGroup
	peak int64
}

const memoryInterval = 500 * time.Millisecond

func watchMemory(root int) *memoryWatch {
	w := &memoryWatch{root: root, end: make(chan struct{})}
	w.wg.Go(func() {
		tick := time.NewTicker(memoryInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				w.sample()
			case <-w.end:
				return
			}
		}
	})
	return w
}

func (w *memoryWatch) sample() {
	if pids := tree(w.root); len(pids) > 1 {
		w.peak = max(w.peak, proportional(pids))
	}
}

// stop ends the watch and answers the peak, in octets.
func (w *memoryWatch) stop(last usage) int64 {
	w.once.Do(func() {
		close(w.end)
		w.wg.Wait()
		w.sample()
	})
	if w.peak > 0 {
		return w.peak
	}
	return last.PeakRSS
}

// proportional sums what processes hold, with what they share counted once.
func proportional(pids []int) int64 {
	var total int64
	for _, pid := range pids {
		total += field(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"), "Pss:") * 1024
	}
	return total
}

// memoryNow is what a server holds at present.
func memoryNow(root int) int64 {
	pids := tree(root)
	if len(pids) > 1 {
		return proportional(pids)
	}
	return field(filepath.Join("/proc", strconv.Itoa(root), "status"), "VmRSS:") * 1024
}
