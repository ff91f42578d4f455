// Package peers runs other programs beside Postrider, for the end-to-end tests
// and the measuring rig: a child process whose output is kept, and Postfix and
// OpenSMTPD as their Debian packages ship them, in directories of their own.
// Nothing of the system's mail is touched.
package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Process is a child process. It ends with its parent.
type Process struct {
	Log  string // the file that holds its output
	cmd  *exec.Cmd
	done chan struct{}
	err  error // after done
}

// Start runs a program with its output in logFile. When ctx ends, the process
// is asked to end and killed 20 s later.
func Start(ctx context.Context, logFile, program string, args ...string) (*Process, error) {
	out, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	p := &Process{Log: logFile, cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Terminate asks the process to end and waits.
func (p *Process) Terminate() error { return p.signal(syscall.SIGTERM) }

// Kill ends the process as a power cut would, as far as it can tell.
func (p *Process) Kill() { _ = p.signal(syscall.SIGKILL) }

func (p *Process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return p.Wait()
}

// Greets waits until an SMTP server greets at addr, for at most 30 s.
func (p *Process) Greets(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if greeted(addr) {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it greeted at %s: %v (see %s)", p.cmd.Path, addr, p.err, p.Log)
		case <-ctx.Done():
			return fmt.Errorf("%s did not greet at %s: %w (see %s)", p.cmd.Path, addr, ctx.Err(), p.Log)
		case <-tick.C:
		}
	}
}

func greeted(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	b := make([]byte, 512)
	if n, err := c.Read(b); err != nil || n < 3 || string(b[:3]) != "220" {
		return false
	}
	_, _ = c.Write([]byte("QUIT\r\n"))
	_, _ = c.Read(b)
	return true
}
