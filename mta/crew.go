package mta

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// crew is a set of rooms that run together and are stopped together.
type crew struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	failed chan<- error // gets the first room that ended by itself; shared by all crews
}

// newCrew makes a crew that outlives ctx: it ends by stop alone, because the
// order in which crews end is what keeps accepted mail safe.
func newCrew(ctx context.Context, failed chan<- error) *crew {
	c := &crew{failed: failed}
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return c
}

// add runs a room. One that ends before it was told to ends the server.
func (c *crew) add(name string, run func(context.Context) error) {
	c.wg.Go(func() {
		err := run(c.ctx)
		if c.ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
			return
		}
		if err == nil {
			err = errors.New("ended without being told to")
		}
		select {
		case c.failed <- fmt.Errorf("%s: %w", name, err):
		default:
		}
	})
}

// stop tells the rooms to end and waits until they have.
func (c *crew) stop() {
	c.cancel()
	c.wg.Wait()
}
