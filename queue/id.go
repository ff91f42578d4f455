package queue

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ID names a message: 48 bits of milliseconds, 16 of the node, 64 of a
// sequence that begins at random. Its text is 26 lower-case Crockford letters.
// IDs of one process grow; those of several nodes never meet.
type ID [16]byte

const (
	crockford  = "0123456789abcdefghjkmnpqrstvwxyz"
	idTextSize = 26
)

// String gives the 26 letters.
func (id ID) String() string {
	var text [idTextSize]byte
	hi, lo := binary.BigEndian.Uint64(id[:8]), binary.BigEndian.Uint64(id[8:])
	for i := idTextSize - 1; i >= 0; i-- {
		text[i] = crockford[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return string(text[:])
}

// Time gives the time in the ID, to the millisecond.
func (id ID) Time() time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16)).UTC()
}

var errIDText = errors.New("an ID has 26 letters and digits without i, l, o and u, and begins with 0 to 7")

// ParseID reads the text of an ID, in either case.
func ParseID(s string) (ID, error) {
	if len(s) != idTextSize {
		return ID{}, fmt.Errorf("read ID %.40q: %w", s, errIDText)
	}
	lo, hi, err := idRange(s)
	if err != nil || lo != hi {
		return ID{}, fmt.Errorf("read ID %.40q: %w", s, errIDText)
	}
	return lo, nil
}

// idRange gives the lowest and the highest ID whose text begins with prefix.
func idRange(prefix string) (lo, hi ID, err error) {
	if len(prefix) > idTextSize || len(prefix) > 0 && (prefix[0] < '0' || prefix[0] > '7') {
		return lo, hi, errIDText
	}
	var l, h [2]uint64 // high and low half
	shift := func(v *[2]uint64, digit uint64) {
		v[0] = v[0]<<5 | v[1]>>59
		v[1] = v[1]<<5 | digit
	}
	for i := range idTextSize {
		if i >= len(prefix) {
			shift(&l, 0)
			shift(&h, 31)
			continue
		}
		digit, ok := crockfordDigit(prefix[i])
		if !ok {
			return lo, hi, errIDText
		}
		shift(&l, digit)
		shift(&h, digit)
	}
	binary.BigEndian.PutUint64(lo[:8], l[0])
	binary.BigEndian.PutUint64(lo[8:], l[1])
	binary.BigEndian.PutUint64(hi[:8], h[0])
	binary.BigEndian.PutUint64(hi[8:], h[1])
	return lo, hi, nil
}

func crockfordDigit(c byte) (uint64, bool) {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	for i := range len(crockford) {
		if crockford[i] == c {
			return uint64(i), true
		}
	}
	return 0, false
}

// idSource makes the IDs of one process.
type idSource struct {
	mu       sync.Mutex
	node     uint16
	millis   int64
	sequence uint64
}

// start draws where the sequence begins: in the lower half, so that it cannot
// wrap within the life of a process.
func (s *idSource) start(node uint16) {
	s.node = node
	s.sequence = randomUint64() >> 1
}

func (s *idSource) next(now time.Time) ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.millis = max(s.millis, now.UnixMilli()) // the clock may go back, IDs do not
	s.sequence++
	var id ID
	binary.BigEndian.PutUint64(id[:8], uint64(s.millis)<<16|uint64(s.node))
	binary.BigEndian.PutUint64(id[8:], s.sequence)
	return id
}

func randomUint64() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return binary.BigEndian.Uint64(b[:])
}
