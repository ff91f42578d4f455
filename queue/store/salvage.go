package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// The manifest says which tables make up the store. Pebble reads it up to the
// first record that is not sound and takes that for the end; then it removes
// the tables that came later. So a manifest is looked at before Pebble sees
// it, and where its middle is damaged the store is put together again from all
// tables and logs, without it: of each key the newest version counts, and
// every version has its number. Deletions of whole ranges are not followed: of
// what the queue deletes so, nothing does harm when it comes back.

// manifestSound reports whether what does not read in the manifest is at most
// its torn end, as a crash leaves it.
func (s *Store) manifestSound() (bool, error) {
	fs := s.opts.FS
	names, err := fs.List(s.opts.Dir)
	if err != nil {
		return true, nil // there is no store yet
	}
	for _, name := range names {
		if !strings.HasPrefix(name, "MANIFEST-") {
			continue
		}
		if !slices.ContainsFunc(names, func(n string) bool {
			return strings.HasPrefix(n, "marker.manifest.") && strings.HasSuffix(n, "."+name)
		}) {
			continue // a former one
		}
		data, err := readFile(fs, fs.PathJoin(s.opts.Dir, name))
		if err != nil {
			return false, err
		}
		if end, whole := soundPrefix(data); !whole && (!torn(data[end:]) || chunkBehind(data[end:])) {
			return false, nil
		}
	}
	return true, nil
}

// soundPrefix gives the length of what reads, and whether that is all.
func soundPrefix(data []byte) (end int, whole bool) {
	r := openLog(record.NewReader, bytes.NewReader(data), 0)
	for {
		one, err := r.Next()
		if err == io.EOF {
			return len(data), true
		}
		if err == nil {
			_, err = io.Copy(io.Discard, one)
		}
		if err != nil {
			return end, false
		}
		end = int(r.Offset())
	}
}

const chunkHeader = 7 // sum, length, kind

// torn reports whether something that does not read is the beginning of a
// chunk, or the zeros of a file that had grown already: what a crash leaves.
func torn(rest []byte) bool {
	if len(bytes.Trim(rest, "\x00")) == 0 || len(rest) < chunkHeader {
		return true
	}
	return chunkHeader+int(binary.LittleEndian.Uint16(rest[4:])) > len(rest)
}

// chunkBehind looks for a sound chunk behind the beginning of one that is not:
// a crash leaves none.
func chunkBehind(rest []byte) bool {
	for at := 1; at+chunkHeader <= len(rest); at++ {
		length := int(binary.LittleEndian.Uint16(rest[at+4:]))
		if length == 0 || at+chunkHeader+length > len(rest) {
			continue
		}
		if soundChunk(rest[at : at+chunkHeader+length]) {
			return true
		}
	}
	return false
}

// soundChunk compares a chunk with its sum.
func soundChunk(chunk []byte) bool {
	sum := crc32.Checksum(chunk[6:], castagnoli)
	return binary.LittleEndian.Uint32(chunk) == (sum>>15|sum<<17)+0xa282ead8
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// salvage puts a fresh store together from tables and logs.
func (s *Store) salvage() error {
	fresh := s.beside(".new")
	if err := s.freshDir(fresh); err != nil {
		return err
	}
	opts := s.opts
	opts.Dir = fresh
	to, err := s.openPlain(opts)
	if err != nil {
		return err
	}
	v := &salvager{s: s, newest: make(map[string]uint64)}
	if err = v.walk(v.note); err == nil {
		c := &copier{to: to, batch: to.NewBatch()}
		err = v.walk(func(key, value []byte, version uint64, set bool) error {
			if !set || v.newest[string(key)] != version {
				return nil
			}
			return c.put(key, value)
		})
		if err == nil {
			err = c.commit()
		}
		s.opts.Logger.Warn("put the store together again without its manifest", "records", c.copied, "files_with_damage", v.damaged/2)
	}
	if err == nil {
		err = to.Flush()
	}
	if cerr := to.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return s.replace(fresh)
}

type salvager struct {
	s       *Store
	newest  map[string]uint64 // the version of each key that counts
	damaged int
}

func (v *salvager) note(key, _ []byte, version uint64, _ bool) error {
	if have, ok := v.newest[string(key)]; !ok || version > have {
		v.newest[string(key)] = version
	}
	return nil
}

type visit func(key, value []byte, version uint64, set bool) error

// walk visits every version of every key that can be read.
func (v *salvager) walk(f visit) error {
	fs := v.s.opts.FS
	names, err := fs.List(v.s.opts.Dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		file := fs.PathJoin(v.s.opts.Dir, name)
		if strings.HasSuffix(name, ".sst") {
			err = v.table(file, f)
		} else if number, ok := strings.CutSuffix(name, ".log"); ok {
			err = v.log(file, number, f)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// table visits what reads of a table, from the front and, where that ends
// early, from the back.
func (v *salvager) table(name string, f visit) error {
	file, err := v.s.opts.FS.Open(name)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(file)
	if err != nil {
		return err
	}
	opts := new(pebble.Options)
	opts.EnsureDefaults()
	r, err := sstable.NewReader(context.Background(), readable, opts.MakeReaderOptions())
	if err != nil {
		v.damaged++
		return nil
	}
	defer r.Close()
	it, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		v.damaged++
		return nil
	}
	kv := it.First()
	for ; kv != nil; kv = it.Next() {
		value, _, err := kv.Value(nil)
		if err != nil {
			break
		}
		if err := f(kv.K.UserKey, value, uint64(kv.SeqNum()), isSet(kv.Kind())); err != nil {
			_ = it.Close() // only read from
			return err
		}
	}
	if err := it.Error(); err != nil || kv != nil {
		v.damaged++
	}
	_ = it.Close() // what it complains of was counted
	return nil
}

func isSet(kind pebble.InternalKeyKind) bool {
	return kind == pebble.InternalKeyKindSet || kind == pebble.InternalKeyKindSetWithDelete
}

// log visits what reads of a log.
func (v *salvager) log(name, number string, f visit) error {
	logNum, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return err
	}
	data, err := readFile(v.s.opts.FS, name)
	if err != nil {
		return err
	}
	m := &logMender{vet: v.s.opts.Vet, emit: func(batch []byte) error { return visitBatch(batch, f) }}
	err = m.mendLog(data, logNum)
	if m.lost > 0 {
		v.damaged++
	}
	return err
}

// visitBatch visits the writes of one batch; each has a number of its own,
// from that of the batch on.
func visitBatch(batch []byte, f visit) error {
	h, ok := batchrepr.ReadHeader(batch)
	if !ok {
		return nil
	}
	version := uint64(h.SeqNum)
	for r := batchrepr.Read(batch); ; {
		kind, key, value, ok, err := r.Next()
		if err != nil || !ok {
			return nil
		}
		if kind == pebble.InternalKeyKindLogData {
			continue
		}
		if isSet(kind) || kind == pebble.InternalKeyKindDelete {
			if err := f(key, value, version, isSet(kind)); err != nil {
				return err
			}
		}
		version++
	}
}
