package queue

import (
	"context"
	"fmt"

	"postrider/queue/store"
)

// UnmarkAll removes pickup marks with one sync; those that are not there are
// removed already.
func (q *Queue) UnmarkAll(marks []string) error {
	var b store.Batch
	for _, m := range marks {
		b.Delete(markKey(m))
	}
	if err := q.store.Commit(context.Background(), &b); err != nil {
		return fmt.Errorf("queue: remove %d marks: %w", len(marks), err)
	}
	return nil
}
