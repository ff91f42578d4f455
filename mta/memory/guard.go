package memory

import (
	"fmt"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// reserve is what must be left of a limit for new mail to be taken. It is for
// the mail that is there, its deliveries, the kernel's buffers, and a burst
// between two looks: that has its own size, whatever the limit is.
func reserve(limit int64) int64 { return min(limit/8+24_000_000, limit/3) }

// collectFrom is what the garbage collector lets the process grow to: from
// there on it works harder, before mail is refused because of garbage.
func collectFrom(limit int64) int64 { return limit - reserve(limit) - limit/8 }

// Guard holds what a group uses against what it may. It is safe for
// concurrent use.
type Guard struct {
	group   *Group
	obeys   bool // GOMEMLIMIT is set: the garbage collector has its limit
	mu      sync.Mutex
	samples []metrics.Sample
	told    int64 // the limit that the garbage collector was told
}

// NewGuard tells the garbage collector its limit. With a group without limits
// it does nothing, now and in Check.
func NewGuard(group *Group) (*Guard, error) {
	g := &Guard{
		group: group,
		obeys: debug.SetMemoryLimit(-1) != math.MaxInt64,
		samples: []metrics.Sample{
			{Name: "/memory/classes/total:bytes"},
			{Name: "/memory/classes/heap/released:bytes"},
		},
	}
	u, err := group.Usage()
	if err == nil {
		g.tell(u)
	}
	return g, err
}

// Unlimited is a guard that allows everything.
func Unlimited() *Guard { return &Guard{group: new(Group)} }

// Limit is what the group may use at present, in octets; 0: as much as it
// wants.
func (g *Guard) Limit() (int64, error) {
	u, err := g.group.Usage()
	return u.Limit, err
}

// Check tells why no new mail should be taken; nil: it may. It reads a few
// small files. Where they cannot be read any more, mail is taken: a kill would
// lose none, a refusal without end would.
func (g *Guard) Check() error {
	u, err := g.group.Usage()
	if err != nil {
		return nil
	}
	g.tell(u)
	if u.Limit > 0 && u.Used > u.Limit-reserve(u.Limit) {
		return fmt.Errorf("memory: %d MB are used of the %d MB that the control group allows", u.Used/1_000_000, u.Limit/1_000_000)
	}
	return nil
}

// tell gives the garbage collector what the limit leaves for it beside what
// is not its own: mapped memory, the kernel's share, other processes.
func (g *Guard) tell(u Usage) {
	if u.Limit == 0 || g.obeys {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	metrics.Read(g.samples)
	own := int64(g.samples[0].Value.Uint64() - g.samples[1].Value.Uint64())
	limit := goLimit(u, own)
	// Each change stops the world for a moment: small ones are not worth it.
	if change := limit - g.told; max(change, -change) > u.Limit/64 {
		g.told = limit
		debug.SetMemoryLimit(limit)
	}
}

// goLimit is what the garbage collector may hold, own being what it holds now.
// It always gets a quarter: with less it would do nothing but collect.
func goLimit(u Usage, own int64) int64 {
	outside := max(u.Used-own, 0)
	return max(collectFrom(u.Limit)-outside, u.Limit/4)
}
