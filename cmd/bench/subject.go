package main

import (
	"context"
	"time"

	"postrider/mta/rehearsal/peers"
)

// subject is a server under test while it runs.
type subject struct {
	turn    *turn
	proc    *peers.Process
	ready   time.Duration // from its start to its greeting
	before  usage         // when it was ready
	memory  *memoryWatch
	stopped bool
}

// launch starts the server of a turn.
func (t *turn) launch(ctx context.Context) (*subject, error) {
	began := time.Now()
	proc, err := t.server.start(ctx, launch{dir: t.dir, sign: t.variant.sign, wrap: t.wrap})
	s := &subject{turn: t, proc: proc, ready: time.Since(began)}
	if err == nil {
		s.before, err = measure(proc.PID())
	}
	if err != nil {
		s.end()
		return nil, err
	}
	s.memory = watchMemory(proc.PID())
	return s, nil
}

// stop ends the server, and answers what it used since it was ready.
func (s *subject) stop() (usage, error) {
	after, err := measure(s.proc.PID())
	if err != nil {
		return usage{}, err
	}
	used := after.minus(s.before)
	used.PeakRSS = s.memory.stop(after)
	s.stopped = true
	return used, s.turn.server.stop(s.proc, s.turn.dir)
}

// end stops a server whose round came to nothing.
func (s *subject) end() {
	if s.memory != nil {
		s.memory.stop(usage{})
	}
	if s.proc != nil && !s.stopped {
		s.stopped = true
		_ = s.turn.server.stop(s.proc, s.turn.dir)
	}
}
