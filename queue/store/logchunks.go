package store

import "encoding/binary"

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
		return logChunk{chunkSound, where, b[size:end], at + end}
	}
	if size == chunkHeader {
		return none // too little to know it by; Pebble writes no log so any more
	}
	c := logChunk{chunkDamaged, where, b[size:], at + left}
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
	visit func(logRecord) error
	rec   logRecord // under way, where open
	open  bool
}

// scanLog visits all that was in a log, in order: sound records, damaged ones,
// and as records without shape the places where nothing makes sense.
func scanLog(data []byte, logNum uint32, visit func(logRecord) error) error {
	end, _ := logEnd(data, logNum)
	s := &recordScan{visit: visit}
	for at := 0; at < end; {
		c := chunkAt(data[:end], at, logNum)
		if err := s.add(c); err != nil {
			return err
		}
		at = c.end
	}
	return s.cut()
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
		s.open = true
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
