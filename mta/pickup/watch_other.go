//go:build !linux

package pickup

import (
	"context"
	"io/fs"
	"time"
)

// seen is what a watch tells.
type seen struct {
	moved   []string
	written bool
	lost    bool
}

// watch has the directory read at every turn: where a file that was moved in
// cannot be told from one that is being written, nothing quicker is safe.
func watch(ctx context.Context, d *directory) <-chan seen {
	events := make(chan seen)
	go func() {
		defer close(events)
		ticker := time.NewTicker(d.w.opts.Rest)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			select {
			case <-ctx.Done():
				return
			case events <- seen{lost: true}:
			}
		}
	}()
	return events
}

func changedAt(info fs.FileInfo) time.Time { return info.ModTime() }
