package doctor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"postrider/queue"
)

// space compares what is free with the floor under which mail is turned away.
func (d *Doctor) space(context.Context) []Finding {
	dir := existingAbove(d.o.State.Dir)
	s, err := queue.SpaceOf(dir, d.o.State.MinFree)
	if err != nil {
		return []Finding{{Space, dir, Failed, "the file system does not tell what is free: " + err.Error(), "look at the disk (df, dmesg)"}}
	}
	return []Finding{judgeSpace(dir, &s)}
}

// judgeSpace warns at twice the floor.
func judgeSpace(dir string, s *queue.Space) Finding {
	f := Finding{Space, dir, OK, fmt.Sprintf("%s are free; below %s mail is turned away", megabytes(s.Free), megabytes(s.Floor)), ""}
	if s.FloorInodes > 0 {
		f.Found = fmt.Sprintf("%s and %d inodes are free; below %s or %d mail is turned away", megabytes(s.Free), s.FreeInodes, megabytes(s.Floor), s.FloorInodes)
	}
	below := func(times uint64) bool {
		return s.Free < times*s.Floor || s.FloorInodes > 0 && s.FreeInodes < times*s.FloorInodes
	}
	switch {
	case below(1):
		f.Verdict, f.Advice = Failed, "make room: new mail gets 452 until then (min_free_space is the floor)"
	case below(2):
		f.Verdict, f.Advice = Warning, "make room soon"
	}
	return f
}

func megabytes(n uint64) string { return strconv.FormatUint(n/1_000_000, 10) + " MB" }

// mountPoint is where a file system is mounted, and how.
type mountPoint struct {
	dir, kind string
	options   []string // of the mount and of the file system
}

// fileSystem looks at what the queue lies on.
func (d *Doctor) fileSystem(context.Context) []Finding {
	dir := existingAbove(d.o.State.Dir)
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	f, err := os.Open(filepath.Join(d.proc, "self", "mountinfo"))
	if err != nil {
		return []Finding{{FileSystem, dir, NotDone, err.Error(), ""}}
	}
	defer f.Close()
	m, err := findMount(f, dir)
	if err != nil {
		return []Finding{{FileSystem, dir, NotDone, fmt.Sprintf("where it is mounted is not known: %v", err), ""}}
	}
	return judgeMount(dir, &m, inContainer())
}

// findMount finds the file system of a directory in mountinfo
// (proc_pid_mountinfo(5)): the longest mount point above it, the last mounted
// where there are several.
func findMount(mountinfo io.Reader, dir string) (best mountPoint, err error) {
	lines := bufio.NewScanner(mountinfo)
	lines.Buffer(nil, 1<<20) // overlays have long lines
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 3 {
			continue
		}
		m := mountPoint{dir: unescape(left[4]), kind: right[0], options: append(strings.Split(left[5], ","), strings.Split(right[2], ",")...)}
		if isBelow(dir, m.dir) && len(m.dir) >= len(best.dir) {
			best = m
		}
	}
	if err := lines.Err(); err != nil {
		return best, err
	}
	if best.dir == "" {
		return best, errors.New("no mount point is above it")
	}
	return best, nil
}

func isBelow(dir, above string) bool {
	return dir == above || strings.HasPrefix(dir, strings.TrimSuffix(above, "/")+"/")
}

// unescape undoes the octal escapes of blanks and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func judgeMount(dir string, m *mountPoint, inContainer bool) []Finding {
	subject := fmt.Sprintf("%s, on %s (%s)", dir, m.dir, m.kind)
	var all []Finding
	warn := func(found, advice string) {
		all = append(all, Finding{FileSystem, subject, Warning, found, advice})
	}
	switch {
	case m.kind == "tmpfs" || m.kind == "ramfs":
		warn("it is in memory: accepted mail does not survive a restart of the host, whatever 250 has promised", "move state_dir to a disk")
	case m.kind == "overlay" || inContainer && m.dir == "/":
		warn("it is in the container's own layer: accepted mail is gone when the container is made anew", "put state_dir on a volume (docker run -v postrider:/var/lib/postrider)")
	}
	for _, o := range m.options {
		if o == "discard" || strings.HasPrefix(o, "discard=") && o != "discard=async" {
			warn("it is mounted with discard: every file that is removed waits for the disk's TRIM, which makes large mail and spool directories several times slower", "mount it without discard, and systemctl enable --now fstrim.timer")
			break
		}
	}
	if len(all) == 0 {
		all = []Finding{{FileSystem, subject, OK, "it keeps what is written", ""}}
	}
	return all
}

// inContainer looks for the marks that Docker and Podman leave.
func inContainer() bool {
	for _, mark := range []string{"/.dockerenv", "/run/.containerenv"} {
		if _, err := os.Stat(mark); err == nil {
			return true
		}
	}
	return false
}
