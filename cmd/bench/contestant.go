package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"postrider/dkim"
	"postrider/mta/rehearsal"
	"postrider/mta/rehearsal/peers"
)

// contestant is one mail server under test, run in a directory of its own.
type contestant interface {
	name() string
	version() string
	missing() error // nil: it can be run here
	// start runs the server and returns when it greets at submissionAddr.
	start(ctx context.Context, l launch) (*peers.Process, error)
	// stop ends a server that was started in dir, and waits.
	stop(p *peers.Process, dir string) error
}

// launch is how a server is started.
type launch struct {
	dir  string         // for configuration, queue and log; it may hold a queue
	sign dkim.Algorithm // sign what comes from sender.test; empty: nothing
	wrap []string       // words before the command: strace and its flags
}

// contestants are all that there are, in the order in which they take turns.
// The first is the one that the others are compared with.
func contestants(bin string) []contestant {
	return []contestant{
		&postriderServer{bin: bin},
		&postfixServer{label: postfixName},
		&postfixServer{label: "postfix-tuned", settings: postfixTuned},
		&openSMTPDServer{},
		straight{},
	}
}

func namesOf(all []contestant) string {
	var names []string
	for _, c := range all {
		names = append(names, c.name())
	}
	return strings.Join(names, ", ")
}

// selectServers picks contestants by their names. Without names it takes those
// that can be run here, and says why others cannot.
func selectServers(all []contestant, names string) ([]contestant, error) {
	var chosen []contestant
	if names == "" {
		for _, c := range all {
			if c.name() == straightName {
				continue
			}
			if err := c.missing(); err != nil {
				if os.Getenv(insideVariable) != "" {
					fmt.Printf("left out: %s: %v\n", c.name(), err)
				}
				continue
			}
			chosen = append(chosen, c)
		}
	} else {
		for name := range strings.SplitSeq(names, ",") {
			i := slices.IndexFunc(all, func(c contestant) bool { return c.name() == name })
			if i < 0 {
				return nil, fmt.Errorf("no server %q; there are %s", name, namesOf(all))
			}
			if err := all[i].missing(); err != nil {
				return nil, fmt.Errorf("%s cannot be run: %w", name, err)
			}
			chosen = append(chosen, all[i])
		}
	}
	if len(chosen) == 0 {
		return nil, errors.New("no server can be run here; make build makes bin/postrider")
	}
	return chosen, nil
}

const postriderName = "postrider"

// postriderServer is the binary as it is shipped, with its defaults but for
// where things are and that loopback may be dialled.
type postriderServer struct{ bin string }

func (p *postriderServer) name() string { return postriderName }

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

// stateDir is where it keeps its queue.
func (p *postriderServer) stateDir(dir string) string { return filepath.Join(dir, "state") }

func (p *postriderServer) start(ctx context.Context, l launch) (*peers.Process, error) {
	state := p.stateDir(l.dir)
	if l.sign != "" {
		if _, err := rehearsal.MakeKeys(filepath.Join(state, "dkim"), "sender.test", "bench", l.sign); err != nil {
			return nil, err
		}
	}
	config := filepath.Join(l.dir, "postrider.toml")
	text := fmt.Sprintf("hostname = \"mta.bench.test\"\nstate_dir = %q\n[delivery]\nallow_networks = [\"127.0.0.0/8\"]\n", state)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	bin, err := filepath.Abs(p.bin)
	if err != nil {
		return nil, err
	}
	args := append(slices.Clone(l.wrap), bin, "serve", "--config", config)
	proc, err := peers.Start(ctx, filepath.Join(l.dir, "out.log"), args[0], args[1:]...)
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
