package queue

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// dirLock keeps a second process out of the directory, for as long as this
// one lives.
type dirLock struct {
	file  *os.File  // on the operating system's files
	other io.Closer // on others
}

// lockDir takes the lock. The file holds the owner's process ID, so that the
// error can name it; it is never removed, because a lock on a removed file
// keeps nobody out.
func lockDir(fs vfs.FS, dir string) (*dirLock, error) {
	if fs != vfs.Default {
		other, err := fs.Lock(fs.PathJoin(dir, "lock"))
		if err != nil {
			return nil, fmt.Errorf("queue: lock %s: %w", dir, err)
		}
		return &dirLock{other: other}, nil
	}
	name := filepath.Join(dir, "lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("queue: open the lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("queue: lock %s: %w", name, err)
		}
		owner := make([]byte, 20)
		n, _ := f.ReadAt(owner, 0) // without it the error names nobody
		return nil, fmt.Errorf("queue: %s is in use by process %s: stop it, or choose another directory",
			dir, bytes.TrimSpace(owner[:n]))
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("queue: write the process ID into %s: %w", name, err)
	}
	return &dirLock{file: f}, nil
}

func (l *dirLock) release() error {
	if l.file != nil {
		return l.file.Close()
	}
	return l.other.Close()
}
