package doctor

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"postrider/mta/api/client"
	"postrider/mta/api/wire"
	"postrider/mta/memory"
	"postrider/queue"
)

func TestStateDir(t *testing.T) {
	t.Parallel()
	mkdir := func(t *testing.T, path string, mode fs.FileMode) {
		t.Helper()
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	write := func(t *testing.T, path string, mode fs.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		prepare func(t *testing.T, s *StateOptions)
		want    []string
	}{
		"as it should be": {func(*testing.T, *StateOptions) {}, []string{"state_dir ok nobody else can read"}},
		"not there":       {func(t *testing.T, s *StateOptions) { s.Dir = filepath.Join(s.Dir, "a", "b") }, []string{"state_dir ok not there yet"}},
		"a file":          {func(t *testing.T, s *StateOptions) { s.Dir = filepath.Join(s.Dir, "f"); write(t, s.Dir, 0o600) }, []string{"state_dir failed no directory"}},
		"others write":    {func(t *testing.T, s *StateOptions) { mkdir(t, s.Dir, 0o722) }, []string{"state_dir failed others can write it (mode 0722)"}},
		"others list":     {func(t *testing.T, s *StateOptions) { mkdir(t, s.Dir, 0o755) }, []string{"state_dir warning others can list it"}},
		"closed to the group": {func(t *testing.T, s *StateOptions) { mkdir(t, s.Dir, 0o700) },
			[]string{"state_dir warning does not reach the control socket"}},
		"the owner cannot write":         {func(t *testing.T, s *StateOptions) { mkdir(t, s.Dir, 0o511) }, []string{"state_dir failed cannot write it (mode 0511)"}},
		"an open part":                   {func(t *testing.T, s *StateOptions) { mkdir(t, s.Queue, 0o750) }, []string{"state_dir warning chmod 700 "}},
		"an open file":                   {func(t *testing.T, s *StateOptions) { write(t, s.Files[0], 0o640) }, []string{"state_dir warning chmod 600 "}},
		"a key that others read":         {func(t *testing.T, s *StateOptions) { write(t, s.Secrets[0], 0o640) }, []string{"state_dir failed others can read it (mode 0640): the server does not start"}},
		"anyone's pickup":                {func(t *testing.T, s *StateOptions) { mkdir(t, s.Pickup[0], 0o777|fs.ModeSetgid) }, []string{"state_dir warning everyone on this host"}},
		"pickup without a group":         {func(t *testing.T, s *StateOptions) { mkdir(t, s.Pickup[0], 0o700) }, []string{"state_dir warning chmod 2770 "}},
		"pickup that passes no group on": {func(t *testing.T, s *StateOptions) { mkdir(t, s.Pickup[0], 0o770) }, []string{"state_dir warning chmod 2770 "}},
		"pickup is a file":               {func(t *testing.T, s *StateOptions) { write(t, s.Pickup[0], 0o600) }, []string{"state_dir failed is no directory"}},
		"pickup as it should be":         {func(t *testing.T, s *StateOptions) { mkdir(t, s.Pickup[0], 0o770|fs.ModeSetgid) }, []string{"state_dir ok "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, _ := newDoctor(t, nil, func(o *Options) {
				s := &o.State
				s.Queue = filepath.Join(s.Dir, "queue")
				s.Parts, s.Files = []string{s.Queue}, []string{filepath.Join(s.Dir, "suppression")}
				s.Secrets, s.Pickup = []string{filepath.Join(s.Dir, "k.pem")}, []string{filepath.Join(s.Dir, "pickup")}
				mkdir(t, s.Dir, 0o711)
				c.prepare(t, s)
			})
			expect(t, d.stateDir(t.Context()), c.want...)
		})
	}
}

func TestStateDirOfAnotherUser(t *testing.T) {
	t.Parallel()
	d, _ := newDoctor(t, nil, func(o *Options) {
		if err := os.Chmod(o.State.Dir, 0o711); err != nil {
			t.Fatal(err)
		}
	})
	d.uid, d.isRoot = os.Geteuid()+1, false
	expect(t, d.stateDir(t.Context()), "state_dir not done run the doctor as root")
	d.uid, d.isRoot = 0, true
	expect(t, d.stateDir(t.Context()), "state_dir ok ")
}

func TestSpace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		s    queue.Space
		want string
	}{
		"enough":         {queue.Space{Free: 3e9, Floor: 1e9}, "space ok 3000 MB are free; below 1000 MB"},
		"soon":           {queue.Space{Free: 19e8, Floor: 1e9}, "space warning make room soon"},
		"too little":     {queue.Space{Free: 9e8, Floor: 1e9}, "space failed make room: new mail gets 452"},
		"few inodes":     {queue.Space{Free: 3e9, Floor: 1e9, FreeInodes: 999, FloorInodes: 1000}, "space failed 999 inodes are free"},
		"inodes soon":    {queue.Space{Free: 3e9, Floor: 1e9, FreeInodes: 1500, FloorInodes: 1000}, "space warning "},
		"inodes enough":  {queue.Space{Free: 3e9, Floor: 1e9, FreeInodes: 5000, FloorInodes: 1000}, "space ok "},
		"none to count":  {queue.Space{Free: 3e9, Floor: 1e9}, "space ok "},
		"nothing at all": {queue.Space{Floor: 1e9}, "space failed "},
	} {
		t.Run(name, func(t *testing.T) { expect(t, []Finding{judgeSpace("/d", &c.s)}, c.want) })
	}
	d, _ := newDoctor(t, nil, func(o *Options) { o.State.MinFree = math.MaxInt64 })
	expect(t, d.space(t.Context()), "space failed ")
}

func TestFileSystem(t *testing.T) {
	t.Parallel()
	const base = "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
	for name, c := range map[string]struct {
		mounts, dir string
		container   bool
		want        []string
	}{
		"a disk":                 {base, "/var/lib/p", false, []string{"file_system ok /var/lib/p, on / (ext4)"}},
		"discard of the options": {"1 0 8:1 / / rw - ext4 /dev/vda rw,discard\n", "/p", false, []string{"file_system warning fstrim.timer"}},
		"discard of the mount":   {base + "2 1 8:2 / /p rw,discard - xfs /dev/vdb rw\n", "/p/q", false, []string{"file_system warning mounted with discard"}},
		"discard somewhere else": {base + "2 1 8:2 / /p rw,discard - xfs /dev/vdb rw\n", "/pq", false, []string{"file_system ok "}},
		"discard that waits":     {"1 0 8:1 / / rw - btrfs /dev/vda rw,discard=async\n", "/p", false, []string{"file_system ok "}},
		"in memory":              {base + "2 1 0:5 / /run rw shared:2 - tmpfs tmpfs rw\n", "/run/p", false, []string{"file_system warning does not survive a restart"}},
		"a container's layer":    {"1 0 0:9 / / rw - overlay overlay rw,lowerdir=/a:/b\n", "/var/lib/p", true, []string{"file_system warning put state_dir on a volume"}},
		"another kind of layer":  {base, "/var/lib/p", true, []string{"file_system warning put state_dir on a volume"}},
		"a volume":               {"1 0 0:9 / / rw - overlay overlay rw\n2 1 8:1 /v /var/lib/p rw - ext4 /dev/vda rw\n", "/var/lib/p", true, []string{"file_system ok "}},
		"mounted over":           {base + "2 1 0:5 / /p rw - tmpfs tmpfs rw\n3 2 8:2 / /p rw - ext4 /dev/vdb rw\n", "/p", false, []string{"file_system ok (ext4)"}},
		"a name with a blank":    {base + "2 1 0:5 / /a\\040b rw - tmpfs tmpfs rw\n", "/a b/c", false, []string{"file_system warning on /a b (tmpfs)"}},
		"both":                   {"1 0 0:9 / / rw,discard - overlay overlay rw\n", "/p", true, []string{"file_system warning volume", "file_system warning discard"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, err := findMount(strings.NewReader(c.mounts), c.dir)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, judgeMount(c.dir, &m, c.container), c.want...)
		})
	}
	if m, err := findMount(strings.NewReader("rubbish\n"), "/p"); err == nil {
		t.Errorf("no mount point: %+v", m)
	}
}

func TestServer(t *testing.T) {
	t.Parallel()
	now := time.Now()
	info := wire.Info{Hostname: "mail.test", Version: "1.0", Mode: "live"}
	for name, c := range map[string]struct {
		s    fakeServer
		want []string
	}{
		"well":         {fakeServer{info: info}, []string{"server ok takes mail", "queue ok nothing waits"}},
		"not there":    {fakeServer{err: &client.Unreachable{Socket: "s", Err: fs.ErrNotExist}}, []string{"server not done does not run", "queue not done "}},
		"not for us":   {fakeServer{err: &client.Unreachable{Socket: "s", Err: fs.ErrPermission}}, []string{"server not done as root or as a member", "queue not done "}},
		"out of order": {fakeServer{err: errors.New("broke off")}, []string{"server failed broke off", "queue not done "}},
		"not ready":    {fakeServer{info: info, stats: wire.Stats{Error: "disk full"}}, []string{"server failed disk full", "queue ok "}},
		"silent":       {fakeServer{info: wire.Info{Version: "1.0", Mode: "silent"}}, []string{"server ok ", "server warning nothing leaves", "queue ok "}},
		"disabled":     {fakeServer{info: wire.Info{Version: "1.0", Mode: "disabled"}}, []string{"server ok ", "server warning disabled", "queue ok "}},
		"an older one": {fakeServer{info: wire.Info{Version: "0.9"}}, []string{"server ok ", "server warning restart the server", "queue ok "}},
		"mail waits":   {fakeServer{info: info, stats: wire.Stats{At: now, Messages: 2, Oldest: now.Add(-time.Hour)}}, []string{"server ok ", "queue ok 1h0m0s"}},
		"for long":     {fakeServer{info: info, stats: wire.Stats{At: now, Messages: 2, Oldest: now.Add(-5 * time.Hour)}}, []string{"server ok ", "queue warning 5h0m0s"}},
		"suspended and held": {fakeServer{info: info, stats: wire.Stats{Suspensions: make([]wire.Suspension, 2), Held: 3}},
			[]string{"server ok ", "queue ok ", "queue warning 2 are in force", "queue warning 3 recipients"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, _ := newDoctor(t, nil, func(o *Options) { o.Running, o.Version = &c.s, "1.0" })
			expect(t, d.running(t.Context()), c.want...)
		})
	}
}

const limitsFile = "Limit                     Soft Limit           Hard Limit           Units     \n" +
	"Max processes             100                  100                  processes \n" +
	"Max open files            LIMIT                4096                 files     \n"

func TestOpenFiles(t *testing.T) {
	t.Parallel()
	for limit, want := range map[string]string{
		"65536":     "open_files ok may have 65536",
		"unlimited": "open_files ok as many",
		"3199":      "open_files warning needs 3200",
		"3200":      "open_files ok ",
		"many":      "open_files not done ",
	} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			d, _ := newDoctor(t, nil, func(o *Options) {
				o.Limits = LimitOptions{MaxConnections: 1000, Submissions: 300}
				o.State.Queue = o.State.Dir
				o.Running = &fakeServer{}
				if err := os.WriteFile(filepath.Join(o.State.Dir, "lock"), []byte("77\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			})
			d.proc = t.TempDir()
			if err := os.Mkdir(filepath.Join(d.proc, "77"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(d.proc, "77", "limits"), []byte(strings.Replace(limitsFile, "LIMIT", limit, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			got := d.openFiles(t.Context())
			expect(t, got, want)
			if !strings.Contains(got[0].Subject, "process 77") {
				t.Errorf("looked at %s", got[0].Subject)
			}
		})
	}
}

// TestLimitsOfThisShell: without a server it is said that ours may differ.
func TestLimitsOfThisShell(t *testing.T) {
	t.Parallel()
	d, _ := newDoctor(t, nil, func(o *Options) { o.Limits.MaxConnections = math.MaxInt32 / 4 })
	d.proc = t.TempDir()
	own := filepath.Join(d.proc, strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(own, "limits"), []byte(strings.Replace(limitsFile, "LIMIT", "1024", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, d.openFiles(context.Background()), "open_files warning the service may have other limits")
}

func TestMemory(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		u    memory.Usage
		want string
	}{
		"no limit":         {memory.Usage{}, "memory ok no limit"},
		"enough":           {memory.Usage{Used: 1e8, Limit: 1e9}, "memory ok 100 MB are used of the 1000 MB"},
		"little":           {memory.Usage{Used: 1e7, Limit: 6e7}, "memory warning raise the limit to 128 MB"},
		"used up":          {memory.Usage{Used: 9e8, Limit: 1e9}, "memory warning near it new mail gets 452"},
		"less than bodies": {memory.Usage{Used: 1e7, Limit: 2e8}, "memory warning only 25 MB are used"},
	} {
		t.Run(name, func(t *testing.T) { expect(t, []Finding{judgeMemory(c.u, 32e6, "s", "")}, c.want) })
	}
}
