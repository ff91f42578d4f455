package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// sealedValue makes a value whose last octets are a sum over key and value.
func sealedValue(key string, size int, rng *rand.Rand) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return binary.LittleEndian.AppendUint32(b, sealOf([]byte(key), b))
}

func sealOf(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// vetSealed keeps what its own sum says is sound.
func vetSealed(d *DamagedRecord) {
	for i := range d.Operations {
		op := &d.Operations[i]
		if n := len(op.Value) - 4; op.Kind == OperationSet && n >= 0 &&
			sealOf(op.Key, op.Value[:n]) == binary.LittleEndian.Uint32(op.Value[n:]) {
			op.Keep = true
		}
	}
}

// writtenLog gives a log as Pebble writes it: batches of all sizes, with
// deletions among them.
func writtenLog(t testing.TB) (data []byte, logNum uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	fs := vfs.NewMem()
	// The first log of a store does not say how far it was synced.
	s, err := Open(Options{Dir: "s", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if s, err = Open(Options{Dir: "s", FS: fs}); err != nil {
		t.Fatal(err)
	}
	n := 0
	for range 30 {
		var b Batch
		for range 1 + rng.IntN(12) {
			n++
			key := fmt.Sprintf("key%06d", n)
			b.Set([]byte(key), sealedValue(key, rng.IntN([]int{30, 300, 3000, 6000}[rng.IntN(4)]), rng))
			if rng.IntN(4) == 0 {
				b.Delete(fmt.Appendf(nil, "key%06d", 1+rng.IntN(n)))
			}
			if rng.IntN(16) == 0 {
				b.DeleteRange([]byte("old1"), fmt.Appendf(nil, "old%06d", n))
			}
		}
		if err := s.Commit(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	name := logName(t, fs, "s")
	if data, err = readFile(fs, "s/"+name); err != nil {
		t.Fatal(err)
	}
	if logNum, err = strconv.ParseUint(strings.TrimSuffix(name, ".log"), 10, 32); err != nil {
		t.Fatal(err)
	}
	return data, logNum
}

func logName(t testing.TB, fs vfs.FS, dir string) (name string) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasSuffix(n, ".log") && n > name {
			name = n
		}
	}
	return name
}

// rewritten is the same log in the format without offsets of syncs.
func rewritten(t testing.TB, data []byte, logNum uint64) []byte {
	t.Helper()
	fs := vfs.NewMem()
	f, err := fs.Create("log", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	w := newLog(record.NewLogWriter, f, logNum)
	for _, rec := range pebbleRecords(t, data, logNum) {
		if _, err := w.WriteRecord(rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if data, err = readFile(fs, "log"); err != nil {
		t.Fatal(err)
	}
	return data
}

// pebbleRecords is what Pebble's own reader finds.
func pebbleRecords(t testing.TB, data []byte, logNum uint64) (all [][]byte) {
	t.Helper()
	r := openLog(record.NewReader, bytes.NewReader(data), logNum)
	for {
		one, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		rec, err := io.ReadAll(one)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rec)
	}
}

// part is what an octet of a log is.
type part uint8

const (
	partOther     part = iota // padding, and the trailer
	partSum                   // of a chunk
	partHeader                // the rest of a chunk's header
	partHead                  // of a batch
	partStructure             // kind, lengths and key of an operation
	partValue
)

// modelOp is an operation of the undamaged log.
type modelOp struct {
	text  string // kind, key and value
	set   bool
	rec   int
	first int // where it begins in the log, of all octets that are its own
	last  int
}

// logModel knows what each octet of an undamaged log is.
type logModel struct {
	data  []byte
	end   int // of the last chunk
	part  []part
	op    []int // which operation an octet belongs to, else -1
	rec   []int
	chunk []int // where the chunk of an octet begins
	ops   []modelOp
}

func opText(kind OperationKind, key, value []byte) string {
	return fmt.Sprintf("%d %s %x", kind, key, sha256.Sum256(value))
}

func modelOf(t testing.TB, data []byte, logNum uint64) *logModel {
	t.Helper()
	m := &logModel{data: data, part: make([]part, len(data)), op: make([]int, len(data)), rec: make([]int, len(data)), chunk: make([]int, len(data))}
	var where []int // of the octets of the record under way
	n := 0
	records := pebbleRecords(t, data, logNum)
	for at := 0; ; {
		c := chunkAt(data, at, uint32(logNum))
		if c.state == chunkTrailer || at >= len(data) {
			m.end = at
			break
		}
		if c.state == chunkSound {
			content := c.end - len(c.content)
			for i := at; i < c.end; i++ {
				m.part[i], m.op[i], m.rec[i], m.chunk[i] = partHeader, -1, n, at
				if i < at+4 {
					m.part[i] = partSum
				}
				if i >= content {
					where = append(where, i)
				}
			}
			if c.place == placeFull || c.place == placeLast {
				m.operations(t, records[n], where, n)
				where = where[:0]
				n++
			}
		}
		at = c.end
	}
	if n != len(records) {
		t.Fatalf("%d records, Pebble reads %d", n, len(records))
	}
	return m
}

func (m *logModel) operations(t testing.TB, rec []byte, where []int, n int) {
	t.Helper()
	if len(where) != len(rec) {
		t.Fatalf("record %d has %d octets, not %d", n, len(where), len(rec))
	}
	for i := range batchrepr.HeaderLen {
		m.part[where[i]] = partHead
	}
	at := batchrepr.HeaderLen
	for r := batchrepr.Read(rec); ; {
		kind, key, value, ok, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return
		}
		end := len(rec) - len(r)
		for i := at; i < end; i++ {
			m.part[where[i]], m.op[where[i]] = partStructure, len(m.ops)
			if OperationKind(kind) == OperationSet && i >= end-len(value) {
				m.part[where[i]] = partValue
			}
		}
		m.ops = append(m.ops, modelOp{opText(OperationKind(kind), key, value), OperationKind(kind) == OperationSet, n, where[at], where[end-1]})
		at = end
	}
}

// kept tells which operations must be found again after damage from a to b.
// Deletions only count where they are certain.
func (m *logModel) kept(a, b int) map[string]int {
	firstBad, headerBad := -1, false // an operation whose structure is hit
	values := make(map[int]bool)
	records := make(map[int]bool)
	for i := a; i < b; i++ {
		if m.part[i] == partOther {
			headerBad = true // a padding that is none any more
			continue
		}
		records[m.rec[i]] = true
		switch m.part[i] {
		case partHeader:
			headerBad = true
		case partStructure:
			if firstBad < 0 {
				firstBad = m.op[i]
			}
		case partValue:
			values[m.op[i]] = true
		}
	}
	from := m.chunk[a] // before it all is found
	if m.part[a] == partOther {
		from = a
	}
	blockEnd := (b-1)/logBlock*logBlock + logBlock
	want := make(map[string]int)
	for i, op := range m.ops {
		switch {
		case op.last < from:
		case headerBad && op.first >= blockEnd && !m.crosses(op.rec, blockEnd):
		case headerBad:
			continue
		case !records[op.rec]:
		case !op.set || values[i] || firstBad >= 0 && i >= firstBad:
			continue
		}
		want[op.text]++
	}
	return want
}

// crosses reports whether a record began before a place.
func (m *logModel) crosses(rec, at int) bool { return at < len(m.rec) && m.firstOf(rec) < at }

func (m *logModel) firstOf(rec int) int {
	for i := range m.ops {
		if m.ops[i].rec == rec {
			return m.ops[i].first
		}
	}
	return 0
}

// mended is what is left of a log.
func mended(t *testing.T, data []byte, logNum uint64, vet func(*DamagedRecord)) map[string]int {
	t.Helper()
	got := make(map[string]int)
	next := uint64(0)
	m := &logMender{vet: vet, emit: func(batch []byte) error {
		h, _ := batchrepr.ReadHeader(batch)
		if uint64(h.SeqNum) < next {
			t.Errorf("a batch begins at %d, the one before ended at %d", h.SeqNum, next)
		}
		next = uint64(h.SeqNum) + uint64(h.Count)
		n := 0
		for r := batchrepr.Read(batch); ; n++ {
			kind, key, value, ok, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			got[opText(OperationKind(kind), key, value)]++
		}
		if n != int(h.Count) {
			t.Errorf("a batch of %d says it has %d", n, h.Count)
		}
		return nil
	}}
	if err := m.mendLog(data, logNum); err != nil {
		t.Fatal(err)
	}
	return got
}

// TestFlippedOctetsInALog: whatever is hit, nothing is kept that is damaged, and
// all is kept that stands before the damage or whose structure holds.
func TestFlippedOctetsInALog(t *testing.T) {
	t.Parallel()
	synced, logNum := writtenLog(t)
	for name, data := range map[string][]byte{"offsets": synced, "recyclable": rewritten(t, synced, logNum)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if size, _, _ := headerOf(data[6]); (size == 19) != (name == "offsets") {
				t.Fatalf("the header of a chunk has %d octets", size)
			}
			m := modelOf(t, data, logNum)
			all := make(map[string]int)
			for _, op := range m.ops {
				all[op.text]++
			}
			if got := mended(t, data, logNum, vetSealed); len(missing(all, got)) > 0 || len(missing(got, all)) > 0 {
				t.Fatal("an undamaged log is not the same")
			}
			rng := rand.New(rand.NewPCG(3, 4))
			for range 3000 {
				a := rng.IntN(m.end)
				if rng.IntN(3) == 0 { // the beginning of a chunk: its header is small
					a = m.chunk[a] + rng.IntN(24)
				}
				b := min(a+1+rng.IntN(16), m.end)
				if a >= b {
					continue
				}
				bad := bytes.Clone(data)
				for i := a; i < b; i++ {
					bad[i] ^= byte(1 + rng.IntN(255))
				}
				got := mended(t, bad, logNum, vetSealed)
				if lost := missing(m.kept(a, b), got); len(lost) > 0 {
					t.Fatalf("damage from %d to %d (%v): %d operations are lost, %.60s", a, b, m.part[a:b], len(lost), lost[0])
				}
				if made := missing(got, all); len(made) > 0 {
					t.Fatalf("damage from %d to %d (%v): %.80s was never written", a, b, m.part[a:b], made[0])
				}
			}
		})
	}
}

// missing gives what is in want and not in got.
func missing(want, got map[string]int) (lost []string) {
	for text, n := range want {
		if got[text] < n {
			lost = append(lost, text)
		}
	}
	return lost
}

// TestOnlyTheCertainWithoutVet: nobody says what is sound.
func TestOnlyTheCertainWithoutVet(t *testing.T) {
	t.Parallel()
	data, logNum := writtenLog(t)
	m := modelOf(t, data, logNum)
	place := m.end / 2
	for m.part[place] != partValue {
		place++
	}
	bad := bytes.Clone(data)
	bad[place] ^= 1
	got := mended(t, bad, logNum, nil)
	for _, op := range m.ops {
		if !op.set {
			continue // a second deletion of the key may stand elsewhere
		}
		if want := op.rec != m.rec[place] || op.last < m.chunk[place]; (got[op.text] > 0) != want {
			t.Errorf("%.40s of record %d is kept: %v", op.text, op.rec, got[op.text] > 0)
		}
	}
}

// TestDamageBehindTheEnd: what a crash has torn, and what a log held before it
// was used again, is no damage.
func TestDamageBehindTheEnd(t *testing.T) {
	t.Parallel()
	data, logNum := writtenLog(t)
	m := modelOf(t, data, logNum)
	vet := func(d *DamagedRecord) { t.Errorf("%d octets count as damaged", len(d.Data)) }
	torn := bytes.Clone(data[:m.end-1])
	stale := append(bytes.Clone(data[:m.end]), bytes.Repeat([]byte{1, 17, 3, 5, 200, 1, 9}, 20000)...)
	for name, data := range map[string][]byte{"torn": torn, "used before": stale, "closed": data} {
		if got := mended(t, data, logNum, vet); len(got) < 100 {
			t.Errorf("%s: %d operations", name, len(got))
		}
	}
}

// TestRescuedFromADamagedLog goes all the way: the store is opened with a
// damaged log, the record that was hit is gone, its neighbours in the same batch
// are there, and a later deletion has its effect.
func TestRescuedFromADamagedLog(t *testing.T) {
	t.Parallel()
	for _, hit := range []int{0, 5, 9} {
		fs := vfs.NewMem()
		opts := Options{Dir: "q/store", FS: fs, Vet: vetSealed}
		s, err := Open(opts)
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(5, 6))
		var b Batch
		for i := range 10 {
			key := string(testKey(i))
			b.Set([]byte(key), sealedValue(key, 1000, rng))
		}
		if err := s.Commit(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		b.Reset()
		b.Delete(testKey(3))
		if err := s.Commit(t.Context(), &b); err != nil {
			t.Fatal(err)
		}
		fillBehind(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		name := "q/store/" + logName(t, fs, "q/store")
		data, err := readFile(fs, name)
		if err != nil {
			t.Fatal(err)
		}
		writeAt(t, fs, name, bytes.Index(data, testKey(hit))+200, []byte("0123456789abcdef"))
		readOnly := opts
		readOnly.ReadOnly = true
		if _, err := Open(readOnly); !errors.Is(err, errDamagedLog) {
			t.Errorf("hit %d: opened for reading: %v", hit, err)
		}
		if s, err = Open(opts); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			found, err := s.Has(testKey(i))
			if want := i != hit && i != 3; err != nil || found != want {
				t.Errorf("hit %d: record %d is there: %v (%v)", hit, i, found, err)
			}
		}
		if !s.Mended() {
			t.Error("it was not mended")
		}
		s.Close()
	}
}

// fillBehind writes what makes Pebble sure that damage before it is damage.
func fillBehind(t *testing.T, s *Store) {
	t.Helper()
	for i := range 50 {
		if err := put(s, fmt.Sprint("later", i), strings.Repeat("x", 2000)); err != nil {
			t.Fatal(err)
		}
	}
}

func writeAt(t *testing.T, fs vfs.FS, name string, at int, data []byte) {
	t.Helper()
	f, err := fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, int64(at)); err != nil {
		t.Fatal(err)
	}
}

// FuzzDamagedRecord: whatever a damaged record says, its operations lie in it one
// behind the other, and Pebble reads what is kept of them as we do.
func FuzzDamagedRecord(f *testing.F) {
	var b Batch
	b.Set([]byte("key"), []byte("value"))
	b.Delete([]byte("other"))
	b.DeleteRange([]byte("a"), []byte("b"))
	f.Add(bytes.Clone(b.b.Repr()), 20)
	f.Fuzz(func(t *testing.T, data []byte, certain int) {
		certain = min(max(certain, 0), len(data))
		rec := logRecord{data: data, certain: certain, shape: true}
		at := batchrepr.HeaderLen
		for _, op := range readDamaged(rec).Operations {
			if op.At != at || op.End <= op.At || op.End > len(data) || op.Certain != (op.End <= certain) || op.Keep != op.Certain {
				t.Fatalf("%+v at %d of %d", op, at, len(data))
			}
			at = op.End
		}
		m := &logMender{
			next: 1,
			vet: func(d *DamagedRecord) {
				for i := range d.Operations {
					d.Operations[i].Keep = i%3 != 1
				}
			},
			emit: func(batch []byte) error {
				h, _ := batchrepr.ReadHeader(batch)
				n := uint32(0)
				for r := batchrepr.Read(batch); ; n++ {
					if _, _, _, ok, err := r.Next(); err != nil {
						t.Fatal(err)
					} else if !ok {
						break
					}
				}
				if n != h.Count {
					t.Fatalf("%d operations, %d counted", n, h.Count)
				}
				return nil
			},
		}
		if err := m.record(rec); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzDamagedLog: whatever a file holds, it is read to its end.
func FuzzDamagedLog(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 2, 0, 9, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1}, uint32(7))
	f.Fuzz(func(t *testing.T, data []byte, logNum uint32) {
		at := 0
		for at < len(data) {
			c := chunkAt(data, at, logNum)
			if c.end <= at || c.end > len(data) || len(c.content) > c.end-at {
				t.Fatalf("at %d of %d: %+v", at, len(data), c)
			}
			at = c.end
		}
		err := scanLog(data, logNum, func(rec logRecord) error {
			if rec.certain > len(rec.data) || rec.whole && rec.certain != len(rec.data) {
				t.Fatalf("%+v", rec)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// TestDamagedEndOfALog: the last record of a log is hit. Where the log was closed
// that is damage, and Pebble would drop it without a word; where it was not, a
// crash may have torn it.
func TestDamagedEndOfALog(t *testing.T) {
	t.Parallel()
	data, logNum := writtenLog(t)
	m := modelOf(t, data, logNum)
	for name, c := range map[string]struct {
		data    []byte
		at      int
		damaged bool
	}{
		"sound":                   {data, 0, false},
		"the last of a closed":    {data, m.end - 1, true},
		"the last of one torn":    {data[:m.end], m.end - 1, false},
		"the first of one torn":   {data[:m.end], 30, true},
		"the first of a closed":   {data, 30, true},
		"older format":            {rewritten(t, data, logNum), 30, true},
		"older format, not ended": {rewritten(t, data, logNum)[:m.end/2], 30, true},
	} {
		bad := bytes.Clone(c.data)
		if c.at > 0 {
			bad[c.at] ^= 1
		}
		at, damaged, err := findDamage(bytes.NewReader(bad), uint32(logNum))
		if err != nil || damaged != c.damaged || damaged && int(at) != m.chunk[c.at] {
			t.Errorf("%s: damage %v at %d (%v)", name, damaged, at, err)
		}
	}
}

// TestUnsyncedHoleIsNoDamage: power went while the blocks at the end of a log were
// written in any order. Nothing in them was acknowledged.
func TestUnsyncedHoleIsNoDamage(t *testing.T) {
	t.Parallel()
	data, logNum := writtenLog(t)
	torn := bytes.Clone(data[:3*logBlock])
	clear(torn[logBlock : 2*logBlock])
	for at := 2 * logBlock; at < len(torn); {
		c := chunkAt(torn, at, uint32(logNum))
		if c.state == chunkSound {
			binary.LittleEndian.PutUint64(torn[at+11:], logBlock)
			sum := crc32.Checksum(torn[at+6:c.end], castagnoli)
			binary.LittleEndian.PutUint32(torn[at:], (sum>>15|sum<<17)+0xa282ead8)
		}
		at = c.end
	}
	if at, damaged, err := findDamage(bytes.NewReader(torn), uint32(logNum)); damaged || err != nil {
		t.Errorf("damage at %d (%v)", at, err)
	}
}

// TestOddLengths: Pebble would read these lengths otherwise than we do.
func TestOddLengths(t *testing.T) {
	t.Parallel()
	for name, op := range map[string][]byte{
		"longer than it need be": {1, 0x81, 0, 'k', 1, 'v'},
		"beyond what is there":   {1, 1, 'k', 9, 'v'},
		"cut":                    {1, 1, 'k', 0x80},
		"of no key":              {0, 0},
		"of five octets":         {1, 1, 'k', 0x81, 0x80, 0x80, 0x80, 0x10, 'v'},
	} {
		data := append(append(make([]byte, batchrepr.HeaderLen), 0, 1, 'a'), op...)
		if d := readDamaged(logRecord{data: data, shape: true}); len(d.Operations) != 1 {
			t.Errorf("%s: %+v", name, d.Operations)
		}
	}
}
