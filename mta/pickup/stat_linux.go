package pickup

import (
	"io/fs"
	"syscall"
	"time"
)

// changedAt is when a file was last changed in any way: written, renamed, its
// mode set. It is the kernel's, and nobody can set it.
func changedAt(info fs.FileInfo) time.Time {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Ctim.Unix())
	}
	return info.ModTime()
}
