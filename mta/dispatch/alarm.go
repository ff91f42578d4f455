package dispatch

import (
	"container/heap"
	"time"
)

// alarm is when something is to be looked at again: one for each lane, path
// and site.
type alarm struct {
	at    time.Time
	index int // in the heap, from 1; 0: not set
	ring  func(now time.Time)
}

// alarms are ordered by time.
type alarms []*alarm

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a alarms) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].index, a[j].index = i+1, j+1
}

// Push is for container/heap.
func (a *alarms) Push(x any) {
	al := x.(*alarm)
	*a = append(*a, al)
	al.index = len(*a)
}

// Pop is for container/heap.
func (a *alarms) Pop() any {
	last := len(*a) - 1
	al := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	al.index = 0
	return al
}

// set moves the alarm to at, or takes it out where at is zero.
func (a *alarms) set(al *alarm, at time.Time) {
	switch {
	case at.IsZero() && al.index > 0:
		heap.Remove(a, al.index-1)
	case at.IsZero():
	case al.index > 0:
		al.at = at
		heap.Fix(a, al.index-1)
	default:
		al.at = at
		heap.Push(a, al)
	}
}

// next is the earliest; zero where there is none.
func (a alarms) next() time.Time {
	if len(a) == 0 {
		return time.Time{}
	}
	return a[0].at
}

// due takes the earliest out if its time has come.
func (a *alarms) due(now time.Time) *alarm {
	if len(*a) == 0 || now.Before((*a)[0].at) {
		return nil
	}
	return heap.Pop(a).(*alarm)
}
