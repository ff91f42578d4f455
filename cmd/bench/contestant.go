package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"postrider/mta/rehearsal"
	"postrider/mta/rehearsal/peers"
)

// contestant is one mail server under test, run in a directory of its own.
type contestant interface {
	name() string
	version() string
	missing() error // nil: it can be run here
	// start runs the server for a scenario, behind the words of wrap (strace
	// and its flags), and returns when it takes mail.
	start(ctx context.Context, s scenario, dir string, wrap []string) (*peers.Process, error)
	stop(p *peers.Process, dir string) error
}

// postriderServer is the binary as it is shipped, with its defaults but for
// where things are and that loopback may be dialled.
type postriderServer struct{ bin string }

func (p *postriderServer) name() string { return "postrider" }

func (p *postriderServer) version() string {
	out, err := exec.Command(p.bin, "version").Output()
	if err != nil {
		return "Postrider"
	}
	return "Postrider " + strings.TrimSpace(strings.TrimPrefix(string(out), "postrider"))
}

func (p *postriderServer) missing() error {
	_, err := os.Stat(p.bin)
	return err
}

func (p *postriderServer) start(ctx context.Context, s scenario, dir string, wrap []string) (*peers.Process, error) {
	state := filepath.Join(dir, "state")
	if s.sign != "" {
		if _, err := rehearsal.MakeKeys(filepath.Join(state, "dkim"), "sender.test", "bench", s.sign); err != nil {
			return nil, err
		}
	}
	config := filepath.Join(dir, "postrider.toml")
	text := fmt.Sprintf("hostname = \"mta.bench.test\"\nstate_dir = %q\n[delivery]\nallow_networks = [\"127.0.0.0/8\"]\n", state)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	args := append(wrap, p.bin, "serve", "--config", config)
	proc, err := peers.Start(ctx, filepath.Join(dir, "out.log"), args[0], args[1:]...)
	if err != nil {
		return nil, err
	}
	return proc, proc.Greets(ctx, submissionAddr)
}

// stop asks the server itself to end: strace, told to, would leave it running.
func (p *postriderServer) stop(proc *peers.Process, _ string) error {
	if traced := tree(proc.PID())[1:]; len(traced) > 0 {
		if err := syscall.Kill(traced[0], syscall.SIGTERM); err != nil {
			return err
		}
		return proc.Wait()
	}
	return proc.Terminate()
}

// postfixServer is Postfix with the defaults of its package, but for where
// things are.
type postfixServer struct{}

func (postfixServer) name() string    { return "postfix" }
func (postfixServer) version() string { return "Postfix " + peers.PostfixVersion() }
func (postfixServer) missing() error  { return peers.PostfixMissing() }

func (postfixServer) instance(dir string, wrap []string) *peers.Postfix {
	return &peers.Postfix{
		Dir: dir, Listen: submissionAddr, Wrap: wrap,
		Main: map[string]string{
			"myhostname":         "mta.bench.test",
			"smtp_host_lookup":   "dns",
			"message_size_limit": "50000000",
		},
	}
}

func (p postfixServer) start(ctx context.Context, _ scenario, dir string, wrap []string) (*peers.Process, error) {
	proc, err := p.instance(dir, wrap).Start(ctx)
	if err != nil {
		return nil, err
	}
	return proc, proc.Greets(ctx, submissionAddr)
}

func (p postfixServer) stop(proc *peers.Process, dir string) error {
	return p.instance(dir, nil).Stop(proc)
}
