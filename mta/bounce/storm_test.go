package bounce

import (
	"fmt"
	"testing"
	"time"
)

func TestStormByTheHour(t *testing.T) {
	t.Parallel()
	s := storm{most: 2}
	now := time.Date(2026, 7, 4, 9, 0, 0, 0, time.UTC)
	allowed := 0
	for range 5 {
		if s.allow(now, "ann@a.test") {
			allowed++
		}
	}
	if allowed != 2 || !s.allow(now, "bob@b.test") {
		t.Errorf("%d reports were allowed", allowed)
	}
	if d := s.over(now.Add(stormSpan - 1)); d != nil {
		t.Errorf("the hour ended early: %v", d)
	}
	if d := s.over(now.Add(stormSpan)); len(d) != 1 || d["ann@a.test"] != 3 {
		t.Errorf("dropped %v", d)
	}
	if !s.allow(now.Add(stormSpan), "ann@a.test") {
		t.Error("the next hour is closed, too")
	}
}

func TestStormMemoryIsBounded(t *testing.T) {
	t.Parallel()
	s := storm{most: 1}
	now := time.Now()
	for i := range maxSenders + 100 {
		s.allow(now, fmt.Sprintf("%d@a.test", i))
	}
	if len(s.counts) > maxSenders {
		t.Errorf("%d senders are counted", len(s.counts))
	}
	if s.allow(now, "0@a.test") {
		t.Error("a sender that is counted is not limited any more")
	}
}
