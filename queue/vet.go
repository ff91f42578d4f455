package queue

import (
	"encoding/binary"
	"sync"

	"postrider/queue/store"
)

// A damaged record of the store's log is read on as far as it makes sense, see
// store.DamagedRecord, and here is decided what of it is kept. The sum of a
// record covers its value and not its key. So:
//
//   - A message is kept where its envelope and its body stand side by side under
//     one ID, both are sound, and the envelope tells the size of that body. Where
//     one of them is damaged the other one is kept beside it; the message is then
//     set aside by nameLost.
//   - The end of a message is kept where the deletions of its envelope and its
//     body stand side by side under one ID.
//   - Records of history are kept where they are sound and the ID is that of what
//     stands before them.
//   - A suspension is kept where it is sound: to let mail wait does less harm than
//     to let it go.
//   - All else is dropped. What became of recipients may then be tried again, a
//     notice comes again with the attempt; both are allowed, and a state under a
//     key that is not certain could say of others that they are done.
//   - Behind a value that is damaged the reading goes on only where its length is
//     known from something else, or where the next key has the same ID: else what
//     follows might be the content of somebody's message.
//
// What is dropped of envelopes and bodies, or lies where nothing is read any more,
// names its message. Whether that one is lost the store tells, once it is open.

const (
	maxSuspects    = 1 << 16 // IDs that are remembered
	lastSuspension = 1 << 32 // a number beyond is none that was ever given
)

// vetter decides about the operations of damaged records and gathers the IDs of
// those that may be lost with them.
type vetter struct {
	mu   sync.Mutex
	lost map[ID]struct{}
	more bool // than can be remembered
}

func newVetter() *vetter { return &vetter{lost: make(map[ID]struct{})} }

// take gives the gathered IDs, and forgets them.
func (v *vetter) take() (lost map[ID]struct{}, more bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	lost, more = v.lost, v.more
	v.lost, v.more = make(map[ID]struct{}), false
	return lost, more
}

// suspect remembers an ID. Damage, or content that was made to look like a key,
// may name one that never was: no message will have it, as each process begins
// its IDs at random.
func (v *vetter) suspect(id ID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.lost) >= maxSuspects {
		v.more = true
		return
	}
	v.lost[id] = struct{}{}
}

// vet is what the store asks, see store.Options.
func (v *vetter) vet(d *store.DamagedRecord) {
	w := walk{ops: d.Operations}
	w.run()
	from := min(batchHead, len(d.Data))
	if w.i < len(w.ops) {
		from = w.ops[w.i].At
	} else if w.i > 0 {
		from = w.ops[w.i-1].End
	}
	for i := range w.ops[:min(w.i+1, len(w.ops))] {
		if op := &w.ops[i]; !op.Keep && op.Kind == store.OperationSet && namesMessage(op.Key) {
			v.suspect(idOf(op.Key))
		}
	}
	v.scan(d.Data[from:])
}

// batchHead is what stands before the operations of a batch.
const batchHead = 12

// namesMessage reports whether a key is that of a message's envelope or body.
func namesMessage(key []byte) bool {
	return len(key) == idKeySize && (key[0] == keyEnvelope || key[0] == keyBody || key[0] == keyLargeBody)
}

// scan looks for keys of envelopes and bodies where nothing is read any more. It
// only names them.
func (v *vetter) scan(rest []byte) {
	const head = 2 // the kind of the operation, and the length of the key
	for i := 0; i+head+idKeySize < len(rest); i++ {
		if rest[i] != byte(store.OperationSet) || rest[i+1] != idKeySize {
			continue
		}
		key := rest[i+head:][:idKeySize]
		n, width := binary.Uvarint(rest[i+head+idKeySize:])
		if !namesMessage(key) || width <= 0 || n == 0 {
			continue
		}
		if at := i + head + idKeySize + width; at < len(rest) && rest[at] == recordVersion {
			v.suspect(idOf(key))
		}
	}
}

// walk goes over the operations of one damaged record.
type walk struct {
	ops []store.Operation
	i   int
}

// run decides about operations until one is met behind which nothing is to be
// trusted. It stays there.
func (w *walk) run() {
	for w.i < len(w.ops) {
		n := w.step()
		if n == 0 {
			return
		}
		w.i += n
	}
}

// step decides about one operation or two that belong together, and gives how
// many; 0: the one at hand is the last that makes sense.
func (w *walk) step() int {
	op := &w.ops[w.i]
	var next *store.Operation
	if w.i+1 < len(w.ops) && sameID(op, &w.ops[w.i+1]) {
		next = &w.ops[w.i+1]
	}
	switch {
	case op.Certain && (next == nil || next.Certain || op.Key[0] != keyEnvelope):
		return 1
	case op.Kind == store.OperationDelete:
		return w.deletion(op, next)
	case op.Kind == store.OperationDeleteRange:
		return fits(len(op.Key) == idKeySize && len(op.Value) == idKeySize && op.Key[0] == keyHistory)
	case op.Key[0] == keyEnvelope && len(op.Key) == idKeySize && next != nil && isBody(next, store.OperationSet):
		return w.message(op, next)
	case op.Key[0] == keyMark:
		// The mark of the message before it, whose ID is its value.
		return fits(w.i > 0 && len(w.ops[w.i-1].Key) == idKeySize && string(op.Value) == string(w.ops[w.i-1].Key[1:]))
	case !knownSize(op.Key):
		return 0
	case !soundValue(op):
		return fits(next != nil)
	case op.Key[0] == keyHistory && w.i > 0 && sameID(&w.ops[w.i-1], op):
		op.Keep = true
	case op.Key[0] == keySuspension:
		op.Keep = binary.BigEndian.Uint64(op.Key[1:]) < lastSuspension
	}
	return 1
}

// fits gives 1 for what makes sense, 0 for what ends the reading.
func fits(ok bool) int {
	if ok {
		return 1
	}
	return 0
}

// deletion decides about a deletion, and about that of the body behind it.
func (w *walk) deletion(op, next *store.Operation) int {
	if !knownSize(op.Key) && op.Key[0] != keyMark && op.Key[0] != keySuspension {
		return 0
	}
	if op.Key[0] == keyEnvelope && next != nil && isBody(next, store.OperationDelete) {
		op.Keep, next.Keep = true, true
		return 2
	}
	return 1
}

// message decides about an envelope and a body of one ID.
func (w *walk) message(op, body *store.Operation) int {
	env, err := decodeEnvelope(idOf(op.Key), op.Value)
	sized, sound := bodySize(body)
	op.Keep = op.Certain || err == nil
	body.Keep = body.Certain || sound
	switch {
	case err != nil && !sound:
		return 0
	case err != nil:
		return 2
	case env.large != (body.Key[0] == keyLargeBody):
		body.Keep = body.Certain
		return 2 * fits(sound)
	case sound && sized != env.Size:
		op.Keep, body.Keep = op.Certain, body.Certain
		return 2
	case !sound && !plausibleBody(env, body.Value):
		return 0
	}
	return 2
}

// bodySize gives the size of a message by the record of its body, prefix and
// all, and whether that is sound.
func bodySize(op *store.Operation) (int64, bool) {
	if op.Key[0] == keyBody {
		prefix, body, err := splitSmallRecord(op.Value)
		return int64(len(prefix) + len(body)), err == nil
	}
	l, err := decodeLarge(op.Value)
	return int64(len(l.prefix)) + l.size, err == nil
}

// plausibleBody reports whether the damaged record of a body has the length that
// its envelope leads one to expect.
func plausibleBody(env *Envelope, value []byte) bool {
	if !env.large {
		// A version, the length of the prefix in up to three octets, both parts, a sum.
		over := int64(len(value)) - env.Size - 1 - sumSize
		return over >= 1 && over <= 3
	}
	if len(value) < 1+sumSize {
		return false
	}
	r := recordReader{s: string(value[1 : len(value)-sumSize])}
	size, _, prefix := r.uint(), r.uint(), r.uint()
	return !r.bad && prefix == uint64(len(r.s)) && size+prefix == uint64(env.Size)
}

func isBody(op *store.Operation, kind store.OperationKind) bool {
	return op.Kind == kind && len(op.Key) == idKeySize && (op.Key[0] == keyBody || op.Key[0] == keyLargeBody)
}

// sameID reports whether two keys are of one message.
func sameID(a, b *store.Operation) bool {
	return knownSize(a.Key) && knownSize(b.Key) && len(a.Key) >= idKeySize && len(b.Key) >= idKeySize &&
		idOf(a.Key) == idOf(b.Key)
}

// knownSize reports whether a key has the size of its kind.
func knownSize(key []byte) bool {
	switch key[0] {
	case keyEnvelope, keyBody, keyLargeBody, keyDamaged:
		return len(key) == idKeySize
	case keyState:
		return len(key) == stateKeySize
	case keyNotice:
		return len(key) == noticeKeySize
	case keyHistory:
		return len(key) == historyKeySize
	case keySuspension:
		return len(key) == suspensionKeySize
	}
	return false
}

// soundValue reports whether a value is a record whose sum fits.
func soundValue(op *store.Operation) bool { return checkRecord(op.Value) == nil }
