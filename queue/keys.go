package queue

import "encoding/binary"

// The store's keys: one letter, then the ID, then what tells the records of a
// message apart. IDs are ordered by time, and so are the keys.
const (
	keyMeta       = 'v' // "version", "node"
	keyEnvelope   = 'e' // id: the envelope
	keyBody       = 'm' // id: prefix and body
	keyLargeBody  = 'M' // id: prefix, and size and sum of the body's file
	keyState      = 's' // id, part: what became of 64 recipients so far
	keyNotice     = 'n' // id, recipient, kind: a notice not yet reported
	keyMark       = 'p' // a pickup mark
	keyHistory    = 'h' // id, time, number: what happened
	keySuspension = 'x' // number: a suspension
	keyDamaged    = 'z' // id: why the message was set aside
)

const (
	idKeySize         = 1 + 16
	stateKeySize      = idKeySize + 2
	noticeKeySize     = idKeySize + 5
	historyKeySize    = idKeySize + 12
	suspensionKeySize = 1 + 8
)

var (
	versionKey = []byte{keyMeta, 'v', 'e', 'r', 's', 'i', 'o', 'n'}
	nodeKey    = []byte{keyMeta, 'n', 'o', 'd', 'e'}
)

func putIDKey(key []byte, kind byte, id ID) {
	key[0] = kind
	copy(key[1:], id[:])
}

func idKey(kind byte, id ID) []byte {
	key := make([]byte, idKeySize)
	putIDKey(key, kind, id)
	return key
}

func putStateKey(key []byte, id ID, part int) {
	putIDKey(key, keyState, id)
	binary.BigEndian.PutUint16(key[idKeySize:], uint16(part))
}

func putNoticeKey(key []byte, id ID, recipient int, kind NoticeKind) {
	putIDKey(key, keyNotice, id)
	binary.BigEndian.PutUint32(key[idKeySize:], uint32(recipient))
	key[idKeySize+4] = byte(kind)
}

func putHistoryKey(key []byte, id ID, at int64, number uint32) {
	putIDKey(key, keyHistory, id)
	binary.BigEndian.PutUint64(key[idKeySize:], uint64(at))
	binary.BigEndian.PutUint32(key[idKeySize+8:], number)
}

func markKey(mark string) []byte {
	return append([]byte{keyMark}, mark...)
}

// idOf reads the ID from a key that has one.
func idOf(key []byte) (id ID) {
	copy(id[:], key[1:])
	return id
}

// keysOf gives the bounds of all keys of one kind, or of those of one message.
func keysOf(kind byte) (lower, upper []byte) { return []byte{kind}, []byte{kind + 1} }

func keysOfMessage(kind byte, id ID) (lower, upper []byte) {
	lower = idKey(kind, id)
	return lower, after(lower)
}

// after gives the lowest key above all that begin with prefix.
func after(prefix []byte) []byte {
	upper := append([]byte(nil), prefix...)
	for i := len(upper) - 1; i >= 0; i-- {
		upper[i]++
		if upper[i] != 0 {
			return upper[:i+1]
		}
	}
	return nil
}
