package queue

import (
	"context"
	"fmt"
	"slices"
)

// checked runs the checker, and looks at what is in memory only; every test
// ends with it.
func (q *testQueue) checked() {
	q.t.Helper()
	report, err := q.Check(context.Background())
	if err != nil {
		q.t.Errorf("check: %v", err)
	}
	for _, p := range report.Problems {
		q.t.Errorf("check: %s", p)
	}
	for _, p := range q.memoryProblems() {
		q.t.Errorf("memory: %s", p)
	}
}

// memoryProblems compares what the schedule keeps twice.
func (q *testQueue) memoryProblems() (found []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	problem := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	var total counts
	entries := 0
	perLane := make(map[int32]*counts)
	ready := make(map[int32]int32)
	inLane := make(map[int32]int32)
	for i := range q.slab.used {
		e := q.slab.at(i)
		if !e.live() {
			continue
		}
		entries++
		inLane[e.lane]++
		if perLane[e.lane] == nil {
			perLane[e.lane] = new(counts)
		}
		perLane[e.lane].add(e, 1)
		total.add(e, 1)
		ln := q.lanes.all[e.lane]
		var in timeHeap
		switch e.place {
		case placeReady:
			ready[e.lane]++
			in = ln.rounds[roundOf(e.priority)].bySender[e.sender].due
		case placeWaiting:
			in = ln.waiting
		default:
			if e.open > 0 && e.place != placeParked {
				problem("%s at %s has work and is nowhere", e.id, ln.name)
			}
		}
		if in != nil && in[e.pos].ref != i {
			problem("%s at %s is not at its place", e.id, ln.name)
		}
		if !slices.Contains(q.chain(e.id), i) {
			problem("%s at %s is not in the index", e.id, ln.name)
		}
		if e.open+e.active+e.held == 0 && e.pins == 0 {
			problem("%s at %s has nothing left to do", e.id, ln.name)
		}
	}
	if entries != q.slab.count {
		problem("%d entries, %d are counted", entries, q.slab.count)
	}
	if total != q.total {
		problem("recipients %+v, counted %+v", total, q.total)
	}
	for l, ln := range q.lanes.all {
		if ln == nil {
			continue
		}
		if c := perLane[int32(l)]; c != nil && *c != ln.counts || c == nil && ln.counts != (counts{}) {
			problem("lane %s has %+v, counted %+v", ln.name, c, ln.counts)
		}
		if ready[int32(l)] != ln.ready || inLane[int32(l)] != ln.entries {
			problem("lane %s: %d ready of %d, counted %d of %d", ln.name, ready[int32(l)], inLane[int32(l)], ln.ready, ln.entries)
		}
		if ln.ready > 0 && !ln.named && !ln.listed {
			problem("lane %s has work that nobody hears of", ln.name)
		}
		if (ln.pos >= 0) != (len(ln.waiting) > 0) || ln.pos >= 0 && q.waiting[ln.pos].at != ln.waiting[0].at {
			problem("lane %s is not at its place among the lanes", ln.name)
		}
		if ln.entries == 0 && !ln.named && !ln.listed {
			problem("lane %s is of no use", ln.name)
		}
	}
	var cost int64
	for m := q.kept.link; m != &q.kept; m = m.link {
		cost += m.cost
		if q.messages[m.id] != m {
			problem("%s is kept and unknown", m.id)
		}
	}
	if cost != q.keptCost {
		problem("bodies in memory take %d, counted %d", cost, q.keptCost)
	}
	for id, m := range q.messages {
		if m.cost == 0 && m.active == 0 && m.writes == 0 && m.pins == 0 {
			problem("%s is in memory for nothing", id)
		}
		if m.pins != 0 {
			problem("%s is pinned", id)
		}
	}
	n := int64(0)
	for _, s := range q.notices.sets {
		n += int64(s.n)
		if s.pos >= 0 && q.notices.heap[s.pos].ref != s.number {
			problem("the notices of %s are not at their place", s.id)
		}
		if s.pos < 0 && !s.taken && s.unwritten == 0 {
			problem("the notices of %s are never due", s.id)
		}
	}
	if n != q.notices.total {
		problem("%d notices, counted %d", n, q.notices.total)
	}
	return found
}

func (q *testQueue) chain(id ID) (all []int32) {
	for i := q.index.first(id); i != noEntry; i = q.slab.at(i).next {
		all = append(all, i)
	}
	return all
}
