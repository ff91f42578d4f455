package store

import (
	"bytes"
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
)

// A record of a log is a batch: a header of 12 octets (the number of its first
// operation, the count of them) and the operations (a kind, the length of the
// key, the key, and with most kinds the length of a value and the value). One
// batch holds what many have committed in one step, and one flipped octet spoils
// the sum over all that shares a chunk with it. So a damaged record is read on:
//
//   - Operations that stand before the first chunk that is damaged are certain
//     and kept.
//   - What follows is read as far as it makes sense: kinds the store writes, and
//     lengths that fit into what is there. At the first thing that makes no sense
//     the reading of this record ends: behind it might lie anything, octets of a
//     message for instance that somebody has made to look like operations.
//   - Of what was read so, only that is kept which Options.Vet wants kept. It
//     knows keys and values, and has sums of its own. Without it nothing is.
//   - What is kept has its place in the order of all writes: the number of the
//     batch is taken from its header where that is certain, else from the records
//     around it.
//   - What makes no sense at all is handed to Vet as well, which may find out
//     there what is lost.

// OperationKind is what an Operation does.
type OperationKind uint8

// The kinds that a Batch can hold, as the log has them.
const (
	OperationDelete      = OperationKind(pebble.InternalKeyKindDelete)
	OperationSet         = OperationKind(pebble.InternalKeyKindSet)
	OperationDeleteRange = OperationKind(pebble.InternalKeyKindRangeDelete)
)

// Operation is one write in a damaged record of a log.
type Operation struct {
	Kind    OperationKind
	Key     []byte
	Value   []byte // of a range: its end
	At, End int    // where in the record's Data it stands
	Certain bool   // it stands before the damage
	Keep    bool   // set where Certain; for others Vet decides
}

// DamagedRecord is a record of a log, or a part of one, whose sum does not fit.
type DamagedRecord struct {
	Data       []byte      // all that is there
	Operations []Operation // as far as it makes sense
}

// maxOperations bounds what is read of one damaged record: many times what a
// group of commits holds.
const maxOperations = 1 << 18

// readDamaged takes a damaged record apart.
func readDamaged(rec logRecord) *DamagedRecord {
	d := &DamagedRecord{Data: rec.data}
	if !rec.shape {
		return d
	}
	for at := batchrepr.HeaderLen; at < len(rec.data) && len(d.Operations) < maxOperations; {
		op, ok := readOperation(rec.data, at)
		if !ok {
			break
		}
		op.Certain = op.End <= rec.certain
		op.Keep = op.Certain
		d.Operations = append(d.Operations, op)
		at = op.End
	}
	return d
}

// readOperation reads the operation at a place of a record, or tells that there
// is none that makes sense.
func readOperation(data []byte, at int) (op Operation, ok bool) {
	op = Operation{Kind: OperationKind(data[at]), At: at}
	if op.Key, at, ok = readString(data, at+1); !ok {
		return op, false
	}
	switch op.Kind {
	case OperationDelete:
	case OperationSet, OperationDeleteRange:
		if op.Value, at, ok = readString(data, at); !ok {
			return op, false
		}
	default:
		return op, false
	}
	op.End = at
	return op, len(op.Key) > 0
}

// readString reads a length and that many octets. Pebble writes lengths as short
// as they can be, and reads others differently.
func readString(data []byte, at int) (s []byte, end int, ok bool) {
	n, width := binary.Uvarint(data[at:])
	if width <= 0 || width > 1 && n>>(7*(width-1)) == 0 || n > uint64(len(data)-at-width) {
		return nil, 0, false
	}
	at += width
	end = at + int(n)
	return data[at:end:end], end, true
}

// logMender gives the batches of a damaged log that are to be kept.
type logMender struct {
	vet     func(*DamagedRecord)
	emit    func(batch []byte) error
	next    uint64      // the number behind the last batch; 0: not known yet
	waiting []logRecord // damaged, before that is known
	copied  int         // sound records
	rescued int         // operations from damaged ones
	lost    int         // octets
	scratch []byte
}

// mendLog emits what is to be kept of a log.
func (m *logMender) mendLog(data []byte, logNum uint64) error {
	if err := scanLog(data, uint32(logNum), m.record); err != nil {
		return err
	}
	return m.settle(0)
}

func (m *logMender) record(rec logRecord) error {
	h, ok := batchrepr.ReadHeader(rec.data)
	if rec.whole {
		if !ok {
			return nil // no batch
		}
		if err := m.settle(uint64(h.SeqNum)); err != nil {
			return err
		}
		m.next = uint64(h.SeqNum) + uint64(h.Count)
		m.copied++
		return m.emit(rec.data)
	}
	if rec.certain >= batchrepr.HeaderLen {
		if err := m.settle(uint64(h.SeqNum)); err != nil {
			return err
		}
		m.next = uint64(h.SeqNum)
	}
	if m.next == 0 {
		rec.data = bytes.Clone(rec.data)
		m.waiting = append(m.waiting, rec)
		return nil
	}
	return m.rescue(readVetted(rec, m.vet))
}

func readVetted(rec logRecord, vet func(*DamagedRecord)) *DamagedRecord {
	d := readDamaged(rec)
	if vet != nil {
		vet(d)
	}
	return d
}

// settle gives the damaged records at the front of a log their numbers, which
// end where the first one begins that is known. With 0 there is none: then they
// are lost, as nothing tells which writes they come after.
func (m *logMender) settle(before uint64) error {
	waiting := m.waiting
	m.waiting = nil
	var all []*DamagedRecord
	kept := uint64(0)
	for _, rec := range waiting {
		d := readVetted(rec, m.vet)
		kept += uint64(d.kept())
		all = append(all, d)
	}
	if before <= kept {
		m.next = 0
	} else if kept > 0 {
		m.next = before - kept
	}
	for _, d := range all {
		if err := m.rescue(d); err != nil {
			return err
		}
	}
	return nil
}

func (d *DamagedRecord) kept() (n int) {
	for i := range d.Operations {
		if d.Operations[i].Keep {
			n++
		}
	}
	return n
}

// rescue emits what is kept of a damaged record as a batch of its own.
func (m *logMender) rescue(d *DamagedRecord) error {
	m.lost += len(d.Data)
	n := d.kept()
	if n == 0 || m.next == 0 {
		return nil
	}
	b := append(m.scratch[:0], make([]byte, batchrepr.HeaderLen)...)
	for i := range d.Operations {
		if op := &d.Operations[i]; op.Keep {
			b = append(b, d.Data[op.At:op.End]...)
			m.lost -= op.End - op.At
		}
	}
	binary.LittleEndian.PutUint64(b, m.next)
	binary.LittleEndian.PutUint32(b[8:], uint32(n))
	m.scratch = b
	m.next += uint64(n)
	m.rescued += n
	return m.emit(b)
}
