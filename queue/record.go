package queue

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"slices"
	"time"
	"unsafe"
)

// Every record begins with a version and ends with a sum over all before it,
// so that damage is never taken for data. Numbers are varints, strings carry
// their length, times are nanoseconds since 1970 (0: none).
const recordVersion = 1

const sumSize = 4

// errDamaged is wrapped by every complaint about a record that does not read.
var errDamaged = errors.New("damaged record")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// recordWriter appends the parts of a record to b.
type recordWriter struct {
	b       []byte
	start   int       // where the present record begins
	remotes []*Remote // those written so far: the next mention is a number
	domains domainTable
}

func (w *recordWriter) begin() {
	w.start = len(w.b)
	w.remotes = w.remotes[:0]
	w.b = append(w.b, recordVersion)
}

// end closes the record and gives it; it is valid until w is used again.
func (w *recordWriter) end() []byte {
	w.b = binary.LittleEndian.AppendUint32(w.b, crc32.Checksum(w.b[w.start:], castagnoli))
	return w.b[w.start:]
}

func (w *recordWriter) byte(v byte)   { w.b = append(w.b, v) }
func (w *recordWriter) uint(v uint64) { w.b = binary.AppendUvarint(w.b, v) }
func (w *recordWriter) int(v int64)   { w.b = binary.AppendVarint(w.b, v) }

func (w *recordWriter) string(s string) {
	w.b = binary.AppendUvarint(w.b, uint64(len(s)))
	w.b = append(w.b, s...)
}

func (w *recordWriter) addr(a netip.Addr) {
	text, _ := a.MarshalBinary() // never fails (net/netip)
	w.b = append(w.b, byte(len(text)))
	w.b = append(w.b, text...)
}

// recordReader takes a record apart. After the first thing that does not fit,
// bad is set and everything reads as zero; the caller asks once, at the end.
// Strings are parts of one copy of the record.
type recordReader struct {
	s       string
	bad     bool
	remotes []*Remote
}

// openRecord checks version and sum. The reader keeps a copy of b.
func openRecord(b []byte) (recordReader, error) {
	if err := checkRecord(b); err != nil {
		return recordReader{}, err
	}
	return recordReader{s: string(b[1 : len(b)-sumSize])}, nil
}

// borrowRecord is openRecord without the copy: what is read of it is valid no
// longer than b. The walk at start over a million records needs that.
func borrowRecord(b []byte) (recordReader, error) {
	if err := checkRecord(b); err != nil {
		return recordReader{}, err
	}
	return recordReader{s: unsafe.String(&b[1], len(b)-1-sumSize)}, nil
}

func checkRecord(b []byte) error {
	end := len(b) - sumSize
	if end < 1 || crc32.Checksum(b[:end], castagnoli) != binary.LittleEndian.Uint32(b[end:]) {
		return errDamaged
	}
	if b[0] != recordVersion {
		return errors.New("record of an unknown version: written by a newer program")
	}
	return nil
}

func (r *recordReader) fail() {
	r.s, r.bad = "", true
}

func (r *recordReader) byte() byte {
	if len(r.s) == 0 {
		r.fail()
		return 0
	}
	v := r.s[0]
	r.s = r.s[1:]
	return v
}

func (r *recordReader) uint() uint64 {
	var v uint64
	for i := 0; i < len(r.s) && i < binary.MaxVarintLen64; i++ {
		c := r.s[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			r.s = r.s[i+1:]
			return v
		}
	}
	r.fail()
	return 0
}

func (r *recordReader) int() int64 {
	u := r.uint()
	return int64(u>>1) ^ -int64(u&1)
}

// count reads a number of things that each take at least size octets, so that
// no record can ask for more memory than it has itself.
func (r *recordReader) count(size int) int {
	n := r.uint()
	if n > uint64(len(r.s)/size) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *recordReader) string() string {
	n := r.count(1)
	v := r.s[:n]
	r.s = r.s[n:]
	return v
}

func (r *recordReader) addr() (a netip.Addr) {
	n := int(r.byte())
	if n > len(r.s) {
		r.fail()
		return a
	}
	if err := a.UnmarshalBinary([]byte(r.s[:n])); err != nil {
		r.fail()
		return a
	}
	r.s = r.s[n:]
	return a
}

// end tells whether all was read, and nothing but that.
func (r *recordReader) end() error {
	if r.bad || r.s != "" {
		return errDamaged
	}
	return nil
}

// nanos and timeOf carry times as numbers; 0 is the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

// maxText bounds the texts of outcomes and operators that are stored.
const maxText = 1000

func clip(s string) string {
	if len(s) > maxText {
		return s[:maxText]
	}
	return s
}

const (
	outcomeInDoubt = 1 << iota
	outcomePassed
)

func (w *recordWriter) outcome(o *Outcome) {
	w.byte(byte(o.Verdict))
	w.byte(byte(o.Scope))
	w.byte(byte(o.Stage))
	var flags byte
	if o.InDoubt {
		flags |= outcomeInDoubt
	}
	if o.Passed {
		flags |= outcomePassed
	}
	w.byte(flags)
	w.uint(uint64(max(o.Code, 0)))
	w.string(clip(o.Status))
	w.string(clip(o.Text))
	w.string(clip(string(o.Class)))
	w.uint(uint64(max(o.RetryAfter, 0)))
	w.remote(o.Remote)
}

func (r *recordReader) outcome() *Outcome {
	o := &Outcome{Verdict: Verdict(r.byte()), Scope: Scope(r.byte()), Stage: Stage(r.byte())}
	flags := r.byte()
	o.InDoubt = flags&outcomeInDoubt != 0
	o.Passed = flags&outcomePassed != 0
	o.Code = int(r.uint())
	o.Status = r.string()
	o.Text = r.string()
	o.Class = Class(r.string())
	o.RetryAfter = time.Duration(r.uint())
	o.Remote = r.remote()
	if o.Verdict > Failed || o.Scope > ScopeLocal || o.Stage > StageQueue {
		r.fail()
	}
	return o
}

// remote writes 0 for none, else the number of the remote in this record; one
// not mentioned before follows.
func (w *recordWriter) remote(m *Remote) {
	if m == nil {
		w.uint(0)
		return
	}
	i := slices.Index(w.remotes, m)
	if i >= 0 {
		w.uint(uint64(i) + 1)
		return
	}
	w.remotes = append(w.remotes, m)
	w.uint(uint64(len(w.remotes)))
	w.string(clip(m.Host))
	w.addr(m.IP)
	w.string(clip(m.TLS))
	w.string(clip(m.Demand))
	w.string(clip(m.HELO))
}

func (r *recordReader) remote() *Remote {
	n := r.uint()
	switch {
	case n == 0:
		return nil
	case n <= uint64(len(r.remotes)):
		return r.remotes[n-1]
	case n > uint64(len(r.remotes))+1:
		r.fail()
		return nil
	}
	m := &Remote{Host: r.string(), IP: r.addr(), TLS: r.string(), Demand: r.string(), HELO: r.string()}
	r.remotes = append(r.remotes, m)
	return m
}
