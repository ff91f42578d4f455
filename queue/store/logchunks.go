package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A log is a row of blocks of 32 KiB, a block a row of chunks: a sum, the length
// of the content, a kind, the number of the log, in most how far it was synced,
// and the content. A record is one full chunk, or a first one, middle ones and a
// last one; all but the full and the last one reach to the end of their block.
// What follows reads such a log as Pebble does, but goes on behind damage.

const logBlock = 32 << 10

// place is where in its record a chunk belongs.
type place uint8

const (
	placeFull place = iota
	placeFirst
	placeMiddle
	placeLast
)

// logChunk is what stands at one place of a log.
type logChunk struct {
	state   chunkState
	place   place
	content []byte
	end     int // where the next one begins
	header  int // octets
}

type chunkState uint8

const (
	chunkSound   chunkState = iota
	chunkDamaged            // its header makes sense, its sum does not fit
	chunkPadding            // the rest of a block that is too small for one
	chunkTrailer            // the end of a log that was closed
	chunkNone               // nothing that makes sense up to the end of the block
)

// Headers of the three formats of chunks, by their kind.
func headerOf(kind byte) (size int, at place, ok bool) {
	if kind == 0 || kind > 12 {
		return 0, 0, false
	}
	return [...]int{chunkHeader, 11, 19}[(kind-1)/4], place((kind - 1) % 4), true
}

// chunkAt reads the chunk at a place of a log.
func chunkAt(data []byte, at int, logNum uint32) logChunk {
	left := min(logBlock-at%logBlock, len(data)-at)
	b := data[at : at+left]
	none := logChunk{state: chunkNone, content: b, end: at + left}
	if left < chunkHeader || left < 19 && isZero(b) {
		none.state = chunkPadding
		return none
	}
	size, where, ok := headerOf(b[6])
	if !ok || size > left {
		return none
	}
	length := int(binary.LittleEndian.Uint16(b[4:]))
	if size > chunkHeader {
		switch binary.LittleEndian.Uint32(b[chunkHeader:]) {
		case logNum:
		case logNum + 1:
			if length == 0 && binary.LittleEndian.Uint32(b) == 0 {
				none.state = chunkTrailer
			}
			return none
		default:
			return none
		}
	}
	end := size + length
	if end <= left && soundChunk(b[:end]) {
		return logChunk{chunkSound, where, b[size:end], at + end, size}
	}
	if size == chunkHeader {
		return none // too little to know it by; Pebble writes no log so any more
	}
	c := logChunk{chunkDamaged, where, b[size:], at + left, size}
	if end < left && beginsChunk(data, at+end, logNum) {
		c.content, c.end = b[size:end], at+end
		if where == placeFirst || where == placeMiddle {
			c.place = placeFull // these end with their block: it is the kind that is damaged
		}
	}
	return c
}

// beginsChunk reports whether another chunk, or padding, begins at a place. A
// length that leads elsewhere is damaged itself.
func beginsChunk(data []byte, at int, logNum uint32) bool {
	left := min(logBlock-at%logBlock, len(data)-at)
	b := data[at : at+left]
	if left < chunkHeader || left < 19 && isZero(b) {
		return true
	}
	size, _, ok := headerOf(b[6])
	if !ok || size == chunkHeader || size > left {
		return false
	}
	number := binary.LittleEndian.Uint32(b[chunkHeader:])
	return number == logNum || number == logNum+1
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// logEnd gives the end of the last sound chunk, or where the trailer begins.
// What follows is what a crash has torn, or what the file held before it was
// used again for this log: it was never acknowledged, and is no damage.
func logEnd(data []byte, logNum uint32) (end int, closed bool) {
	for at := 0; at < len(data); {
		c := chunkAt(data, at, logNum)
		if c.state == chunkTrailer {
			return at, true
		}
		if c.state == chunkSound {
			end = c.end
		}
		at = c.end
	}
	return end, false
}

// logRecord is a record of a log, or what is left of one.
type logRecord struct {
	data    []byte // valid during the call
	certain int    // octets from the front whose sums fit
	whole   bool   // all of it is there, and certain
	shape   bool   // it begins where a record begins
}

// recordScan puts records together from chunks.
type recordScan struct {
	visit  func(logRecord) error
	rec    logRecord // under way, where open
	open   bool
	header int // of the chunks of that
}

// scanLog visits all that was in a log, in order: sound records, damaged ones,
// and as records without shape the places where nothing makes sense.
func scanLog(data []byte, logNum uint32, visit func(logRecord) error) error {
	end, _ := logEnd(data, logNum)
	s := &recordScan{visit: visit}
	for at := 0; at < end; {
		c := chunkAt(data[:end], at, logNum)
		if c.state == chunkNone && s.open && at%logBlock == 0 && len(c.content) > s.header {
			c = s.continued(c, chunkAt(data[:end], min(c.end, end), logNum))
		}
		if err := s.add(c); err != nil {
			return err
		}
		at = c.end
	}
	return s.cut()
}

// continued takes a block without a header that makes sense for what must follow
// there: a record goes on from one block to the next. The chunk after it tells
// whether it goes on beyond.
func (s *recordScan) continued(c, next logChunk) logChunk {
	c.state, c.place, c.content = chunkDamaged, placeLast, c.content[s.header:]
	if next.state <= chunkDamaged && (next.place == placeMiddle || next.place == placeLast) {
		c.place = placeMiddle
	}
	return c
}

func (s *recordScan) add(c logChunk) error {
	certain := 0
	if c.state == chunkSound {
		certain = len(c.content)
	}
	switch {
	case c.state == chunkPadding || c.state == chunkTrailer:
		return nil
	case c.state == chunkNone:
		if err := s.cut(); err != nil {
			return err
		}
		return s.visit(logRecord{data: c.content})
	case c.place == placeFull:
		if err := s.cut(); err != nil {
			return err
		}
		return s.visit(logRecord{c.content, certain, c.state == chunkSound, true})
	case c.place == placeFirst:
		if err := s.cut(); err != nil {
			return err
		}
		s.rec = logRecord{append(s.rec.data[:0], c.content...), certain, false, true}
		s.open, s.header = true, c.header
		return nil
	case !s.open:
		return s.visit(logRecord{data: c.content}) // its beginning is lost
	}
	if s.rec.certain == len(s.rec.data) {
		s.rec.certain += certain
	}
	s.rec.data = append(s.rec.data, c.content...)
	if c.place == placeMiddle {
		return nil
	}
	s.open = false
	s.rec.whole = s.rec.certain == len(s.rec.data)
	return s.visit(s.rec)
}

// cut ends a record whose end is not there.
func (s *recordScan) cut() error {
	if !s.open {
		return nil
	}
	s.open = false
	s.rec.whole = false
	return s.visit(s.rec)
}

// logsSound looks at the logs before Pebble does. Pebble takes damage for the end
// of a log, and drops all behind it without a word, where no later chunk says how
// far the log was synced: so in the first log of a new store, and where the last
// record of a log is hit that was closed.
func (s *Store) logsSound() error {
	fs := s.opts.FS
	names, err := fs.List(s.opts.Dir)
	if err != nil {
		return nil // there is no store yet
	}
	for _, name := range names {
		number, ok := strings.CutSuffix(name, ".log")
		logNum, err := strconv.ParseUint(number, 10, 32)
		if !ok || err != nil {
			continue
		}
		f, err := fs.Open(fs.PathJoin(s.opts.Dir, name))
		if err != nil {
			return err
		}
		at, damaged, err := findDamage(f, uint32(logNum))
		_ = f.Close() // only read from
		if err != nil {
			return err
		}
		if damaged {
			return fmt.Errorf("%w: %s at octet %d", errDamagedLog, name, at)
		}
	}
	return nil
}

var errDamagedLog = errors.New("a log is damaged")

// findDamage gives the place of the first damage in a log of which is known that
// the log had been written beyond it: it was closed, or a later chunk tells that
// it was synced that far. Chunks of the older format do not tell, and prove it by
// being there.
func findDamage(r io.Reader, logNum uint32) (at int64, damaged bool, err error) {
	var buf [logBlock]byte
	suspect := int64(-1)
	for base := int64(0); ; base += logBlock {
		n, err := io.ReadFull(r, buf[:])
		if err != nil && err != io.ErrUnexpectedEOF {
			if err == io.EOF {
				err = nil
			}
			return 0, false, err
		}
		block := buf[:n]
		for in := 0; in < n; {
			c := chunkAt(block, in, logNum)
			switch c.state {
			case chunkTrailer:
				return suspect, suspect >= 0, nil
			case chunkDamaged, chunkNone:
				if suspect < 0 {
					suspect = base + int64(in)
				}
			case chunkSound:
				if suspect >= 0 && syncedBeyond(block[in:], suspect) {
					return suspect, true, nil
				}
			}
			in = c.end
		}
	}
}

// syncedBeyond reports whether a sound chunk proves that the log was synced
// beyond a place before it.
func syncedBeyond(chunk []byte, at int64) bool {
	if size, _, _ := headerOf(chunk[6]); size < 19 {
		return true
	}
	return binary.LittleEndian.Uint64(chunk[11:]) > uint64(at)
}
