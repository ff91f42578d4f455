package store

import (
	"github.com/cockroachdb/pebble/v2"
)

// Batch gathers writes that are made in one step. Its zero value is empty and
// ready. It is used by one goroutine at a time, belongs to no instance, and
// keeps its writes until Reset: after a failed Commit it may be committed
// again.
type Batch struct {
	b    pebble.Batch
	done chan error // capacity 1: the answer to a Commit
}

// Set stores value under key; both are copied.
func (b *Batch) Set(key, value []byte) {
	k, v := b.Reserve(len(key), len(value))
	copy(k, key)
	copy(v, value)
}

// Reserve makes room for a key and a value that the caller fills in before
// the next call on the batch.
func (b *Batch) Reserve(keyLen, valueLen int) (key, value []byte) {
	op := b.b.SetDeferred(keyLen, valueLen)
	_ = op.Finish() // without an index there is nothing to finish
	return op.Key, op.Value
}

// Delete removes a key, whether it is there or not.
func (b *Batch) Delete(key []byte) {
	_ = b.b.Delete(key, nil) // fails only on an indexed batch
}

// DeleteRange removes the keys from start up to but without end.
func (b *Batch) DeleteRange(start, end []byte) {
	_ = b.b.DeleteRange(start, end, nil) // fails only on an indexed batch
}

// Len tells the size of the batch in octets.
func (b *Batch) Len() int { return b.b.Len() }

// Empty reports whether the batch holds no writes.
func (b *Batch) Empty() bool { return b.b.Empty() }

// Reset forgets all writes and keeps the memory.
func (b *Batch) Reset() { b.b.Reset() }
