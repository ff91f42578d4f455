package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// progressLine is one line on a terminal that is written anew.
type progressLine struct {
	c       *cobra.Command
	stop    context.CancelFunc
	stopped chan struct{} // nil: there is no terminal
}

// followLine shows what text says, twice a second, where people look on.
func followLine(ctx context.Context, c *cobra.Command, text func() string) *progressLine {
	p := &progressLine{c: c}
	if !onTerminal(c.ErrOrStderr()) {
		return p
	}
	ctx, p.stop = context.WithCancel(ctx)
	p.stopped = make(chan struct{})
	go func() {
		defer close(p.stopped)
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				fmt.Fprintf(c.ErrOrStderr(), "\r\033[K%s", text())
			case <-ctx.Done():
				return
			}
		}
	}()
	return p
}

// end removes the line.
func (p *progressLine) end() {
	if p.stopped == nil {
		return
	}
	p.stop()
	<-p.stopped
	fmt.Fprint(p.c.ErrOrStderr(), "\r\033[K")
}

func onTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
