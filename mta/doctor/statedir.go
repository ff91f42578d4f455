package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// StateOptions name what is kept on the disk.
type StateOptions struct {
	Dir     string
	Queue   string   // holds the store and the lock
	Parts   []string // directories in it that are the server's alone, Queue among them
	Files   []string // files in it that are the server's alone
	Pickup  []string // spool directories
	Secrets []string // files that the server refuses when others can read them
	MinFree int64
}

const (
	forOthers   fs.FileMode = 0o077
	othersWrite fs.FileMode = 0o022
	groupUses   fs.FileMode = 0o030
	ownerUses   fs.FileMode = 0o300
	packageUser             = "postrider" // of the unit and of packages
)

func effectiveUser() (uid int, isRoot bool) {
	uid = os.Geteuid()
	return uid, uid == 0
}

// stateDir looks at the directory, at who may do what in it, and at its parts.
func (d *Doctor) stateDir(ctx context.Context) []Finding {
	s := &d.o.State
	info, err := os.Stat(s.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return append([]Finding{d.stateDirMissing()}, d.secrets()...)
	case err != nil:
		return []Finding{{StateDir, s.Dir, NotDone, err.Error(), "run the doctor as root, or as the server's user"}}
	case !info.IsDir():
		return []Finding{{StateDir, s.Dir, Failed, "it is no directory: the server does not start", "name another state_dir, or move it away"}}
	}
	all := d.judgeOwner(ctx, ownerOf(info), info.Mode())
	if f, ok := judgeStateMode(s.Dir, info.Mode()); !ok {
		all = append(all, f)
	}
	all = append(all, d.parts()...)
	all = append(all, d.secrets()...)
	for _, dir := range s.Pickup {
		all = append(all, judgePickup(dir)...)
	}
	if len(all) == 0 {
		all = []Finding{{StateDir, s.Dir, OK, fmt.Sprintf("belongs to %s, who can write it; nobody else can read what is in it", userName(ownerOf(info))), ""}}
	}
	return all
}

func ownerOf(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return fmt.Sprintf("user %d", uid)
}

func hasUser(name string) bool {
	_, err := user.Lookup(name)
	return err == nil
}

// stateDirMissing is for a server that was never started.
func (d *Doctor) stateDirMissing() Finding {
	f := Finding{StateDir, d.o.State.Dir, OK, "not there yet: the server makes it at its first start", ""}
	above := existingAbove(d.o.State.Dir)
	if err := unix.Access(above, unix.W_OK|unix.X_OK); err != nil {
		f.Verdict, f.Found = Failed, fmt.Sprintf("not there, and %s may not make it in %s: %v", userName(d.uid), above, err)
		f.Advice = fmt.Sprintf("install -d -m 0711 -o USER %s, with the server's user, or name another state_dir", d.o.State.Dir)
	}
	return f
}

// existingAbove is a directory itself, or the nearest one above that is there.
func existingAbove(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || filepath.Dir(dir) == dir {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// judgeOwner: the server takes a directory of its own user only, so the owner
// is the service's user.
func (d *Doctor) judgeOwner(ctx context.Context, owner int, mode fs.FileMode) []Finding {
	dir := d.o.State.Dir
	switch {
	case mode&ownerUses != ownerUses:
		return []Finding{{StateDir, dir, Failed, fmt.Sprintf("its owner %s cannot write it (mode %04o)", userName(owner), mode.Perm()), "chmod 711 " + dir}}
	case d.isReadOnly(dir):
		return []Finding{{StateDir, dir, Failed, "its file system is read-only: no mail can be taken", "mount it for writing; a disk in trouble is made read-only by the kernel (dmesg)"}}
	case d.isRoot && owner == 0 && d.server(ctx).err != nil && hasUser(packageUser):
		return []Finding{{StateDir, dir, Warning, "belongs to root, and there is a user " + packageUser + " whose service does not take it: was the server started as root once?", "chown -R " + packageUser + ": " + dir}}
	case d.uid != owner && !d.isRoot:
		return []Finding{{StateDir, dir, NotDone, fmt.Sprintf("belongs to %s, and this is %s: what is in it cannot be looked at; a server that is started as this user does not take it", userName(owner), userName(d.uid)), "run the doctor as root, or as the server's user"}}
	}
	return nil
}

func (d *Doctor) isReadOnly(dir string) bool {
	return errors.Is(unix.Access(dir, unix.W_OK), unix.EROFS)
}

// judgeStateMode: the group reaches the sockets and the pickup directory, and
// nobody lists or writes.
func judgeStateMode(dir string, mode fs.FileMode) (f Finding, ok bool) {
	f = Finding{StateDir, dir, Warning, "", "chmod 711 " + dir + " (the server does it at its next start)"}
	switch {
	case mode&othersWrite != 0:
		f.Verdict = Failed
		f.Found = fmt.Sprintf("others can write it (mode %04o), and so put a queue and keys of theirs in the place of the server's", mode.Perm())
	case mode&0o011 != 0o011:
		f.Found = fmt.Sprintf("the group does not reach the control socket and the pickup directory in it (mode %04o)", mode.Perm())
	case mode&0o044 != 0:
		f.Found = fmt.Sprintf("others can list it (mode %04o)", mode.Perm())
	default:
		return f, true
	}
	return f, false
}

// parts looks at the directories and files that are for the server alone.
func (d *Doctor) parts() (all []Finding) {
	for _, path := range append(append([]string(nil), d.o.State.Parts...), d.o.State.Files...) {
		info, err := os.Lstat(path)
		if err != nil || info.Mode()&forOthers == 0 {
			continue // what is not there is made as it should be
		}
		fix := "chmod 600 " + path
		if info.IsDir() {
			fix = "chmod 700 " + path
		}
		all = append(all, Finding{StateDir, path, Warning, fmt.Sprintf("others than the server can use it (mode %04o)", info.Mode().Perm()), fix})
	}
	return all
}

// secrets looks at what the server does not start with: for DKIM keys see key.
func (d *Doctor) secrets() (all []Finding) {
	for _, path := range d.o.State.Secrets {
		if info, err := os.Stat(path); err == nil && info.Mode()&forOthers != 0 {
			all = append(all, Finding{StateDir, path, Failed, fmt.Sprintf("others can read it (mode %04o): the server does not start with it", info.Mode().Perm()), "chmod 600 " + path})
		}
	}
	return all
}

// judgePickup looks at a spool directory: members of its group move files in.
func judgePickup(dir string) (all []Finding) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // made at the start
	case err != nil:
		return []Finding{{StateDir, dir, NotDone, err.Error(), "run the doctor as root, or as the server's user"}}
	case !info.IsDir():
		return []Finding{{StateDir, dir, Failed, "the pickup directory is no directory", "move it away"}}
	}
	mode := info.Mode()
	if mode&0o002 != 0 {
		all = append(all, Finding{StateDir, dir, Warning, fmt.Sprintf("everyone on this host can send mail by putting files here (mode %04o)", mode.Perm()), "chmod o-w " + dir})
	}
	if mode&groupUses != groupUses || mode&fs.ModeSetgid == 0 {
		all = append(all, Finding{StateDir, dir, Warning, fmt.Sprintf("its group cannot move files in, or they do not get its group (mode %v)", mode), "chmod 2770 " + dir})
	}
	return all
}
