package memory

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Group is the control group that the process is in, and those above it: each
// may have a limit of its own, and a process is killed at whichever it meets.
type Group struct{ levels []level }

// level is one directory of the hierarchy.
type level struct {
	dir   string
	files *files
}

// files are the names under which a version of the interface tells the same.
type files struct {
	limits []string // the smallest counts; a missing one is no limit
	used   string
	cache  []string // keys of memory.stat: what the kernel takes back before it kills
}

var (
	version1 = files{
		limits: []string{"memory.limit_in_bytes"},
		used:   "memory.usage_in_bytes",
		cache:  []string{"total_active_file", "total_inactive_file"},
	}
	// Above memory.high a group is slowed down to a crawl, which is no better
	// for a server than the end at memory.max.
	version2 = files{
		limits: []string{"memory.max", "memory.high"},
		used:   "memory.current",
		cache:  []string{"active_file", "inactive_file", "slab_reclaimable"},
	}
)

// Usage is what a group uses of what it may, in octets. What the kernel can
// take back at once, like the cache of files, is not counted.
type Usage struct {
	Used  int64
	Limit int64 // 0: none
}

// room is what is left; without a limit there is no end of it.
func (u Usage) room() int64 {
	if u.Limit == 0 {
		return math.MaxInt64
	}
	return u.Limit - u.Used
}

// Find finds the process's control group. A system without control groups, or
// with none for memory, has a group without limits.
func Find() (*Group, error) { return find("/", "self") }

// FindOf finds the control group of another process.
func FindOf(pid int) (*Group, error) { return find("/", strconv.Itoa(pid)) }

// find finds that of a process, below a directory other than the root.
func find(root, process string) (*Group, error) {
	paths, err := groupPaths(filepath.Join(root, "proc", process, "cgroup"))
	if errors.Is(err, fs.ErrNotExist) {
		return new(Group), nil
	}
	if err != nil {
		return nil, fmt.Errorf("memory: find the control group: %w", err)
	}
	mounts, err := os.Open(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("memory: find where control groups are mounted: %w", err)
	}
	defer mounts.Close()
	g := new(Group)
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		m, ok := parseMount(lines.Text())
		if path, in := paths[m.files]; ok && in {
			g.add(root, m, path)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("memory: find where control groups are mounted: %w", err)
	}
	return g, nil
}

// groupPaths reads the process's place in the hierarchies that may limit
// memory (cgroups(7), /proc/pid/cgroup: number, controllers, path).
func groupPaths(name string) (map[*files]string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	paths := make(map[*files]string)
	for line := range strings.Lines(string(text)) {
		part := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(part) != 3:
		case part[0] == "0" && part[1] == "":
			paths[&version2] = part[2]
		case hasWord(part[1], "memory"):
			paths[&version1] = part[2]
		}
	}
	return paths, nil
}

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

type mount struct {
	root, point string // what of the hierarchy is mounted, and where
	files       *files
}

// parseMount reads a line of mountinfo (proc_pid_mountinfo(5)). It reports
// whether it is of a hierarchy that may limit memory.
func parseMount(line string) (m mount, ok bool) {
	before, after, ok := strings.Cut(line, " - ")
	left, right := strings.Fields(before), strings.Fields(after)
	if !ok || len(left) < 5 || len(right) < 3 {
		return m, false
	}
	m.root, m.point = left[3], left[4]
	switch {
	case right[0] == "cgroup2":
		m.files = &version2
	case right[0] == "cgroup" && hasWord(right[2], "memory"):
		m.files = &version1
	}
	return m, m.files != nil
}

// add takes in the directories from the group's up to the mount.
func (g *Group) add(root string, m mount, path string) {
	// In a container the path may be that of the host, of which only a part is
	// mounted, or one that is not: then the mount itself is the group.
	below, in := strings.CutPrefix(path, strings.TrimSuffix(m.root, "/"))
	if !in || strings.Contains(below, "..") {
		below = ""
	}
	top := filepath.Join(root, m.point)
	for dir := filepath.Join(top, below); ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, m.files.used)); err == nil {
			g.levels = append(g.levels, level{dir, m.files})
		}
		if len(dir) <= len(top) {
			return
		}
	}
}

// Usage tells what is used at the level with the least room.
func (g *Group) Usage() (Usage, error) {
	var least Usage
	for i := range g.levels {
		u, err := g.levels[i].usage()
		if err != nil {
			return Usage{}, fmt.Errorf("memory: read the control group's use: %w", err)
		}
		if u.room() < least.room() {
			least = u
		}
	}
	return least, nil
}

func (l *level) usage() (u Usage, err error) {
	limit := int64(math.MaxInt64)
	for _, name := range l.files.limits {
		n, err := l.number(name)
		if err == nil {
			limit = min(limit, n)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return u, err
		}
	}
	// Version 1 has no word for "none", but a number of exabytes.
	if limit >= math.MaxInt64/2 {
		return u, nil
	}
	used, err := l.number(l.files.used)
	if err != nil {
		return u, err
	}
	stat, err := os.ReadFile(filepath.Join(l.dir, "memory.stat"))
	if err != nil {
		return u, err
	}
	return Usage{Used: max(used-l.files.reclaimable(string(stat)), 0), Limit: limit}, nil
}

func (l *level) number(name string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(l.dir, name))
	if err != nil {
		return 0, err
	}
	word := strings.TrimSpace(string(text))
	if word == "max" {
		return math.MaxInt64, nil
	}
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Join(l.dir, name), err)
	}
	return n, nil
}

// reclaimable sums what memory.stat says of memory that can be taken back.
func (f *files) reclaimable(stat string) (sum int64) {
	for line := range strings.Lines(stat) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		for _, k := range f.cache {
			if n, err := strconv.ParseInt(value, 10, 64); k == key && err == nil {
				sum += n
			}
		}
	}
	return sum
}
