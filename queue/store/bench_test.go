package store

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkCommit is the price of a durable write of 4 KB with 20 writers.
func BenchmarkCommit(b *testing.B) {
	s, err := Open(Options{Dir: b.TempDir(), FS: vfs.Default})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	value := make([]byte, 4000)
	var n atomic.Uint64
	b.ReportAllocs()
	b.SetParallelism(10)
	b.RunParallel(func(pb *testing.PB) {
		var batch Batch
		for pb.Next() {
			batch.Reset()
			k, v := batch.Reserve(9, len(value))
			k[0] = 'm'
			binary.BigEndian.PutUint64(k[1:], n.Add(1))
			copy(v, value)
			if err := s.Commit(context.Background(), &batch); err != nil {
				b.Fatal(err)
			}
		}
	})
}
