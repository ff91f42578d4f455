package main

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// logDelay is how long a line may wait for others, so that a busy server
// makes one write of many.
const logDelay = 100 * time.Millisecond

// logBuffer is when a write is made sooner.
const logBuffer = 64 << 10

// bufferedLog gathers lines. It has a timer only while something waits, so
// that an idle server has nothing to wake up for.
type bufferedLog struct {
	to      io.Writer
	mu      sync.Mutex
	buf     []byte
	waiting bool // the timer is set
}

func newBufferedLog(to io.Writer) *bufferedLog { return &bufferedLog{to: to} }

func (w *bufferedLog) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, line...)
	if len(w.buf) >= logBuffer {
		w.write()
	} else if !w.waiting {
		w.waiting = true
		time.AfterFunc(logDelay, w.flush)
	}
	return len(line), nil
}

func (w *bufferedLog) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = false
	w.write()
}

// write hands on what has gathered; w.mu is held. Where the log cannot be
// written there is nobody to tell.
func (w *bufferedLog) write() {
	if len(w.buf) > 0 {
		_, _ = w.to.Write(w.buf)
		w.buf = w.buf[:0]
	}
}

// flushOnError is a handler whose errors are written at once, with what was
// logged before them.
type flushOnError struct {
	slog.Handler
	w *bufferedLog
}

func (h flushOnError) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelError {
		h.w.flush()
	}
	return err
}

func (h flushOnError) WithAttrs(attrs []slog.Attr) slog.Handler {
	return flushOnError{h.Handler.WithAttrs(attrs), h.w}
}

func (h flushOnError) WithGroup(name string) slog.Handler {
	return flushOnError{h.Handler.WithGroup(name), h.w}
}
