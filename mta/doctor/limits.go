package doctor

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"postrider/mta/memory"
)

// LimitOptions are what the configuration asks of the kernel.
type LimitOptions struct {
	MaxConnections int   // outgoing
	Submissions    int   // incoming
	BodyMemory     int64 // octets
}

// otherFiles is what is open beside connections: the store, the listeners, the
// log, files of bodies under way.
const otherFiles = 300

// openFiles compares the limit of open files with the connections there may be.
func (d *Doctor) openFiles(ctx context.Context) []Finding {
	pid, name, caveat := d.process(ctx)
	file := filepath.Join(d.proc, strconv.Itoa(pid), "limits")
	text, err := os.ReadFile(file)
	if err != nil {
		return []Finding{{OpenFiles, name, NotDone, err.Error(), "run the doctor as root"}}
	}
	limit, err := readLimit(string(text))
	if err != nil {
		return []Finding{{OpenFiles, name, NotDone, fmt.Sprintf("%s: %v", file, err), ""}}
	}
	return []Finding{judgeOpenFiles(limit, &d.o.Limits, name, caveat)}
}

// readLimit finds the soft limit of open files (proc_pid_limits(5)).
func readLimit(text string) (int64, error) {
	const row = "Max open files"
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, row)
		if !ok {
			continue
		}
		words := strings.Fields(rest)
		if len(words) > 0 && words[0] == "unlimited" {
			return math.MaxInt64, nil
		}
		if len(words) > 0 {
			return strconv.ParseInt(words[0], 10, 64)
		}
	}
	return 0, fmt.Errorf("there is no row %q", row)
}

// judgeOpenFiles: half of the limit is for lookups and connections that nobody
// answers, the rest has to do for the others.
func judgeOpenFiles(limit int64, o *LimitOptions, name, caveat string) Finding {
	f := Finding{OpenFiles, name, OK, fmt.Sprintf("may have %d files and sockets open", limit), ""}
	if limit == math.MaxInt64 {
		f.Found = "may have as many files and sockets open as it likes"
	}
	if need := 2 * int64(o.MaxConnections+o.Submissions+otherFiles); limit < need {
		f.Verdict = Warning
		f.Found += fmt.Sprintf(", and needs %d for max_connections = %d and submission.max_connections = %d: beyond that, connections fail%s", need, o.MaxConnections, o.Submissions, caveat)
		f.Advice = fmt.Sprintf("LimitNOFILE=%d in the unit (ulimit -n), or lower max_connections", need)
	}
	return f
}

// memory compares the control group's limit with what bodies may take.
func (d *Doctor) memory(ctx context.Context) []Finding {
	pid, name, caveat := d.process(ctx)
	g, err := memory.FindOf(pid)
	if err != nil {
		return []Finding{{Memory, name, NotDone, err.Error(), ""}}
	}
	u, err := g.Usage()
	if err != nil {
		return []Finding{{Memory, name, NotDone, err.Error(), ""}}
	}
	return []Finding{judgeMemory(u, d.o.Limits.BodyMemory, name, caveat)}
}

const (
	// leastMemory is what the server takes with a little mail: 30 MB idle, the
	// store's tables, connections.
	leastMemory = 128_000_000
	// bodyShare is the part of a limit that the queue takes for bodies at most.
	bodyShare = 8
)

func judgeMemory(u memory.Usage, bodies int64, name, caveat string) Finding {
	f := Finding{Memory, name, OK, "no limit by a control group", ""}
	if u.Limit == 0 {
		return f
	}
	f.Found = fmt.Sprintf("%d MB are used of the %d MB that the control group allows", u.Used/1_000_000, u.Limit/1_000_000)
	switch {
	case u.Used > u.Limit/100*85:
		f.Verdict, f.Advice = Warning, "raise the limit (MemoryMax=, docker --memory): near it new mail gets 452"
	case u.Limit < leastMemory:
		f.Verdict, f.Advice = Warning, fmt.Sprintf("raise the limit to %d MB: with less, bursts of mail get 452", leastMemory/1_000_000)
	case u.Limit/bodyShare < bodies:
		f.Verdict = Warning
		f.Found += fmt.Sprintf("; of body_memory = %d MB only %d MB are used with it, so that more is read back from the disk", bodies/1_000_000, u.Limit/bodyShare/1_000_000)
		f.Advice = fmt.Sprintf("raise the limit to %d MB, or lower body_memory", bodies*bodyShare/1_000_000)
	}
	f.Found += caveat
	return f
}
