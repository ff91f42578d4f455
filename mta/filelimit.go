package mta

import (
	"math"

	"golang.org/x/sys/unix"
)

// maxHangingLookups is how many lookups may wait for name servers that do not
// answer, where there are file descriptors enough for that.
const maxHangingLookups = 5000

// fileLimit is how many files and sockets this process may have open. Where it
// cannot be learnt it is what systems give at least.
func fileLimit() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Cur, math.MaxInt32))
}
