package resolver

import (
	"context"
	"sync"
)

// flights join callers that ask the same at the same time: one lookup runs and
// all get its result. It ends early only when the last of them has gone.
type flights struct {
	mu      sync.Mutex
	running map[question]*flight
}

type flight struct {
	waiters int // guarded by flights.mu
	cancel  context.CancelFunc
	done    chan struct{}
	result  *entry
}

// do gives the result of look, called now or already under way for someone
// else. The context of look has the values of the first caller's and ends with
// the last caller's interest. A caller whose own context ends gets its error.
func (s *flights) do(ctx context.Context, q question, look func(context.Context) *entry) (*entry, error) {
	s.mu.Lock()
	f := s.running[q]
	if f == nil {
		f = s.start(ctx, q, look)
	}
	f.waiters++
	s.mu.Unlock()

	select {
	case <-f.done:
		return f.result, nil
	case <-ctx.Done():
		s.leave(q, f)
		return nil, context.Cause(ctx)
	}
}

func (s *flights) start(ctx context.Context, q question, look func(context.Context) *entry) *flight {
	lookCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{cancel: cancel, done: make(chan struct{})}
	if s.running == nil {
		s.running = make(map[question]*flight)
	}
	s.running[q] = f
	go func() {
		defer cancel()
		f.result = look(lookCtx)
		s.mu.Lock()
		s.forget(q, f)
		s.mu.Unlock()
		close(f.done)
	}()
	return f
}

// leave takes one waiter away. The last one ends the lookup and waits for that,
// so that nothing runs on behalf of nobody.
func (s *flights) leave(q question, f *flight) {
	s.mu.Lock()
	f.waiters--
	last := f.waiters == 0
	if last {
		// A caller that comes from now on must not join what is being ended.
		s.forget(q, f)
	}
	s.mu.Unlock()
	if last {
		f.cancel()
		<-f.done
	}
}

func (s *flights) forget(q question, f *flight) {
	if s.running[q] == f {
		delete(s.running, q)
	}
}
