package queue

import (
	"testing"
	"time"
)

// TestGridOfAgesAndDestinations: each open recipient stands in the column of its
// message's age, also while it is held or on its way.
func TestGridOfAgesAndDestinations(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	now := epoch
	for _, minutes := range []int{6000, 1280, 640, 320, 160, 80, 40, 20, 10, 5, 0} { // the oldest ID comes first
		for _, age := range []time.Duration{time.Duration(minutes) * time.Minute, time.Duration(minutes)*time.Minute - time.Second} {
			q.send(now.Add(-max(age, 0)), "a@grid.test", "b@grid.test")
		}
		if minutes == 40 {
			q.send(now.Add(-30*time.Minute), "a@active.test")
		}
	}
	held := envelope(q.Queue, now, "a@held.test")
	held.Held = true
	q.submit(held, testBody)
	claim := q.take(now, "active.test")
	defer claim.Release(now)

	want := map[string][10]int64{
		"grid.test":   {6, 4, 4, 4, 4, 4, 4, 4, 4, 6},
		"held.test":   {1},
		"active.test": {0, 0, 0, 1},
	}
	rows := q.Domains(now, 0)
	if len(rows) != len(want) || rows[0].Domain != "grid.test" {
		t.Errorf("%d rows, of which the fullest is the first: %+v", len(rows), rows)
	}
	for _, row := range rows {
		if row.Age != want[row.Domain] {
			t.Errorf("%s: %v, want %v", row.Domain, row.Age, want[row.Domain])
		}
	}
}
