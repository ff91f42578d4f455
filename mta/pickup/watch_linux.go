package pickup

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// seen is what a watch tells.
type seen struct {
	moved   []string // files that were moved in, complete
	written bool     // something was written in place
	lost    bool     // something was not seen, or the watch has just begun: read the directory
}

// watch tells what appears in the directory, until ctx ends; then the channel
// is closed. It speaks to the kernel itself because a file that was moved in
// has to be told from one that is just being created.
func watch(ctx context.Context, d *directory) <-chan seen {
	events := make(chan seen)
	go func() {
		defer close(events)
		for ctx.Err() == nil {
			if err := watchOnce(ctx, d, events); err != nil {
				d.trouble("watch the directory", err)
			}
			select { // the directory is gone, or the kernel's limit of watches is reached
			case <-ctx.Done():
			case <-time.After(d.w.opts.Rescan):
			}
		}
	}()
	return events
}

// watchOnce watches until ctx ends or the watch does.
func watchOnce(ctx context.Context, d *directory, events chan<- seen) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("inotify_init1", err)
	}
	f := os.NewFile(uintptr(fd), "inotify") // its reads end when it is closed
	defer f.Close()
	const mask = unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE | unix.IN_CREATE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, d.path, mask); err != nil {
		return os.NewSyscallError("inotify_add_watch", err)
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	// What came before the watch is found by reading the directory.
	if !tell(ctx, events, seen{lost: true}) {
		return nil
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		e, ended := readEvents(buf[:n])
		if (e.written || e.lost || len(e.moved) > 0) && !tell(ctx, events, e) {
			return nil
		}
		if ended {
			return nil
		}
	}
}

func tell(ctx context.Context, events chan<- seen, e seen) bool {
	select {
	case events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// readEvents reads what inotify(7) says; ended: the directory is gone.
func readEvents(buf []byte) (e seen, ended bool) {
	for len(buf) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(buf[4:])
		size := binary.NativeEndian.Uint32(buf[12:])
		buf = buf[unix.SizeofInotifyEvent:]
		name := string(bytes.TrimRight(buf[:size], "\x00"))
		buf = buf[size:]
		switch {
		case mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_IGNORED) != 0:
			ended = true
		case mask&unix.IN_Q_OVERFLOW != 0:
			e.lost = true
		case mask&unix.IN_ISDIR != 0 || !wanted(name):
		case mask&unix.IN_MOVED_TO != 0:
			e.moved = append(e.moved, name)
		default:
			e.written = true
		}
	}
	return e, ended
}
