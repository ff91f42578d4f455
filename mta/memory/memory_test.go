package memory

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
)

// system writes the files of a system below a directory.
func system(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const (
	mounts1 = "22 1 0:20 / / rw - ext4 /dev/vda rw\n35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n" +
		"34 31 0:31 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
	mounts2 = "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		want  Usage
	}{
		"no control groups": {map[string]string{}, Usage{}},
		"version 2": {map[string]string{
			"proc/self/cgroup":                          "0::/system.slice/postrider.service\n",
			"proc/self/mountinfo":                       mounts2,
			"sys/fs/cgroup/system.slice/memory.current": "900\n", "sys/fs/cgroup/system.slice/memory.max": "max\n", "sys/fs/cgroup/system.slice/memory.high": "max\n",
			"sys/fs/cgroup/system.slice/memory.stat":                      "anon 900\n",
			"sys/fs/cgroup/system.slice/postrider.service/memory.current": "800\n",
			"sys/fs/cgroup/system.slice/postrider.service/memory.max":     "1000\n",
			"sys/fs/cgroup/system.slice/postrider.service/memory.stat":    "anon 300\nfile 450\ninactive_file 200\nactive_file 250\nslab_reclaimable 50\n",
		}, Usage{Used: 300, Limit: 1000}},
		"version 2, high is lower": {map[string]string{
			"proc/self/cgroup": "0::/p\n", "proc/self/mountinfo": mounts2,
			"sys/fs/cgroup/p/memory.current": "500\n", "sys/fs/cgroup/p/memory.max": "1000\n",
			"sys/fs/cgroup/p/memory.high": "700\n", "sys/fs/cgroup/p/memory.stat": "",
		}, Usage{Used: 500, Limit: 700}},
		"version 2, the group above has less room": {map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": mounts2,
			"sys/fs/cgroup/a/memory.current": "950\n", "sys/fs/cgroup/a/memory.max": "1000\n", "sys/fs/cgroup/a/memory.stat": "",
			"sys/fs/cgroup/a/b/memory.current": "100\n", "sys/fs/cgroup/a/b/memory.max": "500\n", "sys/fs/cgroup/a/b/memory.stat": "",
		}, Usage{Used: 950, Limit: 1000}},
		"version 2 in a container of its own name space": {map[string]string{
			"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mounts2,
			"sys/fs/cgroup/memory.current": "100\n", "sys/fs/cgroup/memory.max": "500\n", "sys/fs/cgroup/memory.stat": "",
		}, Usage{Used: 100, Limit: 500}},
		"version 1": {map[string]string{
			"proc/self/cgroup": "5:cpu,memory:/box\n0::/\n", "proc/self/mountinfo": mounts1,
			"sys/fs/cgroup/memory/memory.usage_in_bytes": "5000\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "sys/fs/cgroup/memory/memory.stat": "",
			"sys/fs/cgroup/memory/box/memory.usage_in_bytes": "800\n",
			"sys/fs/cgroup/memory/box/memory.limit_in_bytes": "1000\n",
			"sys/fs/cgroup/memory/box/memory.stat":           "cache 450\ninactive_file 1\ntotal_inactive_file 200\ntotal_active_file 250\n",
		}, Usage{Used: 350, Limit: 1000}},
		"version 1, the host's path in a container": {map[string]string{
			"proc/self/cgroup":                           "5:memory:/docker/abc\n",
			"proc/self/mountinfo":                        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			"sys/fs/cgroup/memory/memory.usage_in_bytes": "800\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "1000\n", "sys/fs/cgroup/memory/memory.stat": "",
		}, Usage{Used: 800, Limit: 1000}},
		"a path that is not mounted": {map[string]string{
			"proc/self/cgroup": "0::/../other\n", "proc/self/mountinfo": mounts2,
			"sys/fs/cgroup/memory.current": "100\n", "sys/fs/cgroup/memory.max": "500\n", "sys/fs/cgroup/memory.stat": "",
		}, Usage{Used: 100, Limit: 500}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, err := find(system(t, c.files), "self")
			if err != nil {
				t.Fatal(err)
			}
			if u, err := g.Usage(); err != nil || u != c.want {
				t.Errorf("%+v %v, want %+v", u, err, c.want)
			}
		})
	}
}

// TestUsageOfAnotherProcess: its place is its own, the mounts are ours.
func TestUsageOfAnotherProcess(t *testing.T) {
	t.Parallel()
	g, err := find(system(t, map[string]string{
		"proc/self/cgroup": "0::/shell\n", "proc/7/cgroup": "0::/service\n", "proc/self/mountinfo": mounts2,
		"sys/fs/cgroup/shell/memory.current": "1\n", "sys/fs/cgroup/shell/memory.max": "max\n", "sys/fs/cgroup/shell/memory.stat": "",
		"sys/fs/cgroup/service/memory.current": "200\n", "sys/fs/cgroup/service/memory.max": "1000\n", "sys/fs/cgroup/service/memory.stat": "",
	}), "7")
	if err != nil {
		t.Fatal(err)
	}
	if u, err := g.Usage(); err != nil || u != (Usage{Used: 200, Limit: 1000}) {
		t.Errorf("%+v %v", u, err)
	}
}

func TestUsageOfThisSystem(t *testing.T) {
	t.Parallel()
	g, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	if u, err := g.Usage(); err != nil || u.Limit < 0 || u.Used < 0 {
		t.Errorf("%+v %v", u, err)
	}
}

func TestGoLimit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		u         Usage
		own, want int64
	}{
		"alone":                {Usage{Used: 100e6, Limit: 8000e6}, 100e6, 5976e6},
		"beside mapped memory": {Usage{Used: 300e6, Limit: 8000e6}, 100e6, 5776e6},
		"hardly any left":      {Usage{Used: 7900e6, Limit: 8000e6}, 100e6, 2000e6},
		"a small limit":        {Usage{Used: 20e6, Limit: 96e6}, 20e6, 52e6},
	} {
		if got := goLimit(c.u, c.own); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// TestGuard is not parallel: the garbage collector's limit is the process's.
func TestGuard(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	if before != math.MaxInt64 {
		t.Skip("GOMEMLIMIT is set")
	}
	defer debug.SetMemoryLimit(before)
	const limit = 8_000_000_000
	root := system(t, map[string]string{
		"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mounts2,
		"sys/fs/cgroup/memory.current": "10000000\n", "sys/fs/cgroup/memory.max": "8000000000\n", "sys/fs/cgroup/memory.stat": "",
	})
	group, err := find(root, "self")
	if err != nil {
		t.Fatal(err)
	}
	g, err := NewGuard(group)
	if err != nil {
		t.Fatal(err)
	}
	if got := debug.SetMemoryLimit(-1); got > limit*3/4 || got < limit/2 {
		t.Errorf("the garbage collector's limit is %d", got)
	}
	if l, err := g.Limit(); l != limit || err != nil {
		t.Errorf("limit %d %v", l, err)
	}
	use := func(text string) {
		if err := os.WriteFile(filepath.Join(root, "sys/fs/cgroup/memory.current"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		used   string
		refuse bool
	}{{"10000000", false}, {"6900000000", false}, {"7100000000", true}, {"100000", false}, {"", false}} {
		use(c.used)
		if err := g.Check(); (err != nil) != c.refuse {
			t.Errorf("%q used: %v", c.used, err)
		}
	}
}

func TestGuardWithoutLimit(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	g, err := NewGuard(new(Group))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Check(); err != nil {
		t.Error(err)
	}
	if after := debug.SetMemoryLimit(-1); after != before {
		t.Errorf("the garbage collector's limit has changed to %d", after)
	}
}
