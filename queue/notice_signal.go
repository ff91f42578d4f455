package queue

// NoticesChanged receives a value when DueNotices may have something to say
// before the time that it named. It is a channel of capacity one, for one
// reader: many changes make one value.
func (q *Queue) NoticesChanged() <-chan struct{} { return q.notices.changed }

func (n *notices) signal() {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// firstNotice is what DueNotices waits for. Only when it becomes another one is
// there a reason to wake up: DueNotices itself puts sets where they are.
type firstNotice struct {
	ref int32
	at  int64
}

func (n *notices) first() firstNotice {
	if len(n.heap) == 0 {
		return firstNotice{ref: -1}
	}
	return firstNotice{n.heap[0].ref, n.heap[0].at}
}
