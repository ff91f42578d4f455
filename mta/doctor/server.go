package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"postrider/mta/api/client"
	"postrider/mta/api/wire"
)

// Running is the server of this host, as api/client asks it.
type Running interface {
	Info(ctx context.Context) (wire.Info, error)
	Stats(ctx context.Context, domains int) (wire.Stats, error)
}

// serverTimeout bounds the questions to the server, both together.
const serverTimeout = 10 * time.Second

// running is what the server says of itself, or why it does not.
type running struct {
	info  wire.Info
	stats wire.Stats
	err   error
	pid   int // 0: not known
}

func (d *Doctor) askServer(ctx context.Context) (r running) {
	ctx, cancel := context.WithTimeout(ctx, serverTimeout)
	defer cancel()
	if r.info, r.err = d.o.Running.Info(ctx); r.err != nil {
		return r
	}
	if r.stats, r.err = d.o.Running.Stats(ctx, 1); r.err != nil {
		return r
	}
	// The lock names its holder; who may not read it looks at less.
	if text, err := os.ReadFile(filepath.Join(d.o.State.Queue, "lock")); err == nil {
		r.pid, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	return r
}

// process names whose limits are looked at: those of the server, where it
// runs and can be looked at, else ours, which may differ.
func (d *Doctor) process(ctx context.Context) (pid int, name, caveat string) {
	r := d.server(ctx)
	if r.err == nil && r.pid > 0 {
		return r.pid, fmt.Sprintf("the server (process %d)", r.pid), ""
	}
	return os.Getpid(), "this shell", "; the service may have other limits: ask again as root while it runs"
}

// running looks at the server that runs.
func (d *Doctor) running(ctx context.Context) []Finding {
	r := d.server(ctx)
	const subject = "control socket"
	var away *client.Unreachable
	switch {
	case errors.As(r.err, &away) && (errors.Is(r.err, fs.ErrPermission)):
		return []Finding{{Server, subject, NotDone, r.err.Error(), "run the doctor as root or as a member of that group"}, queueNotDone}
	case errors.As(r.err, &away):
		return []Finding{{Server, subject, NotDone, "the server does not run: " + r.err.Error(), ""}, queueNotDone}
	case r.err != nil:
		return []Finding{{Server, subject, Failed, "the server runs and does not answer as it should: " + r.err.Error(), "look at its log"}, queueNotDone}
	}
	return append(judgeServer(&r, d.o.Version), judgeQueue(&r.stats, d.o.DelayAfter)...)
}

var queueNotDone = Finding{Queue, "waiting mail", NotDone, "only the running server knows it", ""}

func judgeServer(r *running, version string) []Finding {
	subject := fmt.Sprintf("%s, version %s", r.info.Hostname, r.info.Version)
	all := []Finding{{Server, subject, OK, "it runs and takes mail (/readyz)", ""}}
	if r.stats.Error != "" {
		all[0] = Finding{Server, subject, Failed, "it runs and takes no mail (/readyz): " + r.stats.Error, "what it says has to be mended; it takes mail again by itself"}
	}
	switch r.info.Mode {
	case "silent":
		all = append(all, Finding{Server, "mode", Warning, "silent: all is done and nothing leaves this host", `set mode = "live" where mail is to get out`})
	case "disabled":
		all = append(all, Finding{Server, "mode", Warning, "disabled: nothing is taken and nothing leaves", `set mode = "live" where mail is to get out`})
	}
	if version != r.info.Version {
		all = append(all, Finding{Server, "version", Warning, fmt.Sprintf("the program is %s, and the server that runs is %s", version, r.info.Version), "restart the server"})
	}
	return all
}

func judgeQueue(s *wire.Stats, delayAfter time.Duration) []Finding {
	subject := fmt.Sprintf("%d messages", s.Messages)
	if s.Messages == 1 {
		subject = "1 message"
	}
	all := []Finding{{Queue, subject, OK, "nothing waits", ""}}
	if age := s.At.Sub(s.Oldest); s.Messages > 0 {
		all[0].Found = fmt.Sprintf("the oldest is %s old", age.Round(time.Second))
		if age > delayAfter {
			all[0].Verdict = Warning
			all[0].Advice = "postrider queue list says what each one waits for, postrider explain ADDRESS what its destination does"
		}
	}
	if n := len(s.Suspensions); n > 0 {
		all = append(all, Finding{Queue, "suspensions", Warning, fmt.Sprintf("%d are in force: what they name does not go out until they end", n), "postrider queue stats lists them, postrider queue resume ends them"})
	}
	if s.Held > 0 {
		all = append(all, Finding{Queue, "held", Warning, fmt.Sprintf("%d recipients are held, and wait for ever", s.Held), "postrider queue list --status held, postrider queue release"})
	}
	return all
}
