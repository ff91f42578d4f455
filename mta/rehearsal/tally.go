package rehearsal

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// tallyShards keep sessions out of each other's way.
const tallyShards = 64

// maxCopies bounds what is remembered: about 16 octets each.
const maxCopies = 50_000_000

// tally knows which copies came. It holds hashes of 64 bits: among ten million
// copies the chance that two have the same one is 3 in a million.
type tally struct {
	seed   maphash.Seed
	shards [tallyShards]tallyShard

	copies, duplicates, unverified atomic.Int64
}

type tallyShard struct {
	mu   sync.Mutex
	seen map[uint64]struct{}
}

func newTally() *tally {
	t := &tally{seed: maphash.MakeSeed()}
	for i := range t.shards {
		t.shards[i].seen = map[uint64]struct{}{}
	}
	return t
}

// hash is what the tally knows a recipient by.
func (t *tally) hash(rcpt []byte) uint64 { return maphash.Bytes(t.seed, rcpt) }

// add notes that the message came for these recipients.
func (t *tally) add(id []byte, rcpts []uint64) {
	message := maphash.Bytes(t.seed, id)
	for _, rcpt := range rcpts {
		t.addCopy(mix(message, rcpt))
	}
}

func (t *tally) addCopy(key uint64) {
	shard := &t.shards[key%tallyShards]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if _, ok := shard.seen[key]; ok {
		t.duplicates.Add(1)
		return
	}
	if len(shard.seen) >= maxCopies/tallyShards {
		t.unverified.Add(1)
		return
	}
	shard.seen[key] = struct{}{}
	t.copies.Add(1)
}

func (t *tally) counts() (copies, duplicates, unverified int64) {
	return t.copies.Load(), t.duplicates.Load(), t.unverified.Load()
}
