package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"postrider/queue/store"
)

// logFile gives the newest log of a queue that is stopped.
func (q *testQueue) logFile() (name string, data []byte) {
	q.t.Helper()
	names, err := q.fs.List(q.storeDir())
	if err != nil {
		q.t.Fatal(err)
	}
	for _, n := range names {
		if n = q.fs.PathJoin(q.storeDir(), n); strings.HasSuffix(n, ".log") && n > name {
			name = n
		}
	}
	return name, q.readFile(name)
}

func (q *testQueue) readFile(name string) []byte {
	q.t.Helper()
	f, err := q.fs.Open(name)
	if err != nil {
		q.t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		q.t.Fatal(err)
	}
	data := make([]byte, info.Size())
	if _, err := f.ReadAt(data, 0); err != nil {
		q.t.Fatal(err)
	}
	return data
}

func (q *testQueue) writeFile(name string, data []byte) {
	q.t.Helper()
	f, err := q.fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		q.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		q.t.Fatal(err)
	}
}

const blockOfLog = 32 << 10

// sendGroup submits messages at once, so that they share records of the log; the
// content of each tells whose it is.
func (q *testQueue) sendGroup(n int) (sent map[ID]string) {
	q.t.Helper()
	sent = make(map[ID]string)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			to := fmt.Sprintf("r%d@there.test", i)
			size := []int{100, 1500, 9000}[i%3]
			if i%10 == 9 {
				size = 2 * smallBody
			}
			id := q.submit(envelope(q.Queue, epoch, to), to+"\r\n"+strings.Repeat("x", size))
			mu.Lock()
			sent[id] = to
			mu.Unlock()
		})
	}
	wg.Wait()
	return sent
}

// left reads all that can be taken, and fails where content and recipient are not
// those that were submitted together.
func (q *testQueue) left(sent map[ID]string) (found map[ID]bool) {
	q.t.Helper()
	found = make(map[ID]bool)
	q.Due(epoch, nil)
	for {
		c, ok := q.Take(epoch, "there.test", 10)
		if !ok {
			return found
		}
		id := c.Envelope.ID
		content, err := c.Content()
		if err != nil {
			q.t.Fatalf("%s cannot be read and was not set aside: %v", id, err)
		}
		text := readAll(q.t, content, nil)
		if to := c.Envelope.Recipients[0].Address; sent[id] != to || !strings.Contains(string(text), to+"\r\n") {
			q.t.Fatalf("%s is for %s, with the content %.20q, and was for %s", id, to, text, sent[id])
		}
		found[id] = true
		settle(c, epoch, delivered())
	}
}

// TestFlippedOctetsInTheLog: the log of a stopped queue is damaged, anywhere.
// Each message is delivered as it was submitted, or set aside and named, and 16
// octets cost two of them at most, where they do not hit what holds the log
// together.
func TestFlippedOctetsInTheLog(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 8))
	var log syncBuffer
	q := newTestQueue(t, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	sent := q.sendGroup(30)
	q.stop()
	name, data := q.logFile()
	end := len(strings.TrimRight(string(data), "\x00"))
	sound := q.fs
	many, worst := 0, 0
	const rounds = 300
	for range rounds {
		q.fs = vfs.NewMem()
		if ok, err := vfs.Clone(sound, q.fs, q.opts.Dir, q.opts.Dir); !ok || err != nil {
			t.Fatal(ok, err)
		}
		q.opts.fs = q.fs
		bad := append([]byte(nil), data...)
		at := rng.IntN(end - 40)
		if rng.IntN(10) == 0 { // a chunk begins with each block, and holds it together
			at = at / blockOfLog * blockOfLog
		}
		for i := range 1 + rng.IntN(16) {
			bad[at+i] ^= byte(1 + rng.IntN(255))
		}
		q.writeFile(name, bad)
		log.mu.Lock()
		log.b.Reset()
		log.mu.Unlock()
		q.start()
		found := q.left(sent)
		q.settled()
		lost := 0
		for id := range sent {
			if found[id] {
				continue
			}
			lost++
			if !strings.Contains(log.String(), "set aside\" id="+id.String()) {
				t.Errorf("damage at %d of %d: %s is lost and not named\n%s", at, end, id, log.String())
			}
		}
		report, err := q.Check(context.Background())
		if err != nil || len(report.Problems) > 0 || len(report.SetAside) < lost {
			t.Errorf("damage at %d: %d lost, check %+v (%v)", at, lost, report, err)
		}
		if lost > 2 {
			many++
		}
		worst = max(worst, lost)
		q.stop()
		if t.Failed() {
			break
		}
	}
	q.start()
	t.Logf("more than two were lost in %d of %d rounds, %d at most", many, rounds, worst)
	if many > rounds/10 {
		t.Errorf("more than two were lost in %d of %d rounds", many, rounds)
	}
}

// operations makes a damaged record of operations that are none of them certain.
func operations(ops ...store.Operation) *store.DamagedRecord {
	d := &store.DamagedRecord{Data: make([]byte, batchHead)}
	for _, op := range ops {
		op.At = len(d.Data)
		d.Data = append(d.Data, byte(op.Kind), byte(len(op.Key)))
		d.Data = append(d.Data, op.Key...)
		if op.Kind == store.OperationSet {
			d.Data = append(d.Data, byte(len(op.Value)&0x7f|0x80), byte(len(op.Value)>>7))
			d.Data = append(d.Data, op.Value...)
		}
		op.End = len(d.Data)
		d.Operations = append(d.Operations, op)
	}
	return d
}

func set(key, value []byte) store.Operation {
	return store.Operation{Kind: store.OperationSet, Key: key, Value: value}
}

func deleted(key []byte) store.Operation {
	return store.Operation{Kind: store.OperationDelete, Key: key}
}

// TestVet: what is kept of a damaged record, and whom it names.
func TestVet(t *testing.T) {
	t.Parallel()
	var source idSource
	source.start(1)
	a, b, c := source.next(epoch), source.next(epoch), source.next(epoch)
	const body = "the content\r\n"
	env := func(id ID) store.Operation {
		e := &Envelope{ID: id, ArrivedAt: epoch, Size: int64(len(body)), Recipients: []Recipient{{Address: "a@there.test", Domain: "there.test"}}}
		return set(idKey(keyEnvelope, id), encoded(e.encode))
	}
	content := func(id ID) store.Operation {
		value := make([]byte, smallRecordSize(nil, []byte(body)))
		putSmallRecord(value, nil, []byte(body))
		return set(idKey(keyBody, id), value)
	}
	bad := func(op store.Operation) store.Operation { op.Value = flip(append([]byte(nil), op.Value...)); return op }
	short := func(op store.Operation) store.Operation { op.Value = op.Value[:len(op.Value)-5]; return op }
	longer := func(op store.Operation) store.Operation {
		op.Value = make([]byte, smallRecordSize(nil, []byte(body+"more")))
		putSmallRecord(op.Value, nil, []byte(body+"more"))
		return op
	}
	as := func(kind byte, op store.Operation) store.Operation {
		op.Key = append([]byte{kind}, op.Key[1:]...)
		return op
	}
	part := func(id ID) []byte { k := make([]byte, stateKeySize); putStateKey(k, id, 0); return k }
	past := func(id ID) []byte { k := make([]byte, historyKeySize); putHistoryKey(k, id, 1, 1); return k }
	story := encoded(func(w *recordWriter) { w.byte(0) })
	for name, c := range map[string]struct {
		ops   []store.Operation
		keep  string // one letter for each operation: k is kept
		named []ID
	}{
		"all sound":                 {[]store.Operation{env(a), content(a), env(b), content(b)}, "kkkk", nil},
		"a body damaged":            {[]store.Operation{env(a), bad(content(a)), env(b), content(b)}, "k.kk", []ID{a}},
		"an envelope damaged":       {[]store.Operation{bad(env(a)), content(a), env(b), content(b)}, ".kkk", []ID{a}},
		"both":                      {[]store.Operation{bad(env(a)), bad(content(a)), env(b), content(b)}, "....", []ID{a, b}},
		"the length of a body":      {[]store.Operation{env(a), short(content(a)), env(b), content(b)}, "k...", []ID{a, b}},
		"the key of an envelope":    {[]store.Operation{env(c), content(a), env(b), content(b)}, "..kk", []ID{a, c}},
		"the kind of an envelope":   {[]store.Operation{as(keyBody, env(a)), content(a), env(b), content(b)}, "..kk", []ID{a}},
		"the kind of a body":        {[]store.Operation{env(a), as(keyLargeBody, content(a)), env(b), content(b)}, "k...", []ID{a, b}},
		"an end":                    {[]store.Operation{deleted(idKey(keyEnvelope, a)), deleted(idKey(keyBody, a)), deleted(part(a)), set(past(a), story)}, "kk.k", nil},
		"half an end":               {[]store.Operation{deleted(idKey(keyEnvelope, a)), deleted(idKey(keyBody, b)), set(past(b), story)}, "..k", nil},
		"a state":                   {[]store.Operation{set(part(a), story), set(past(a), story), env(b), content(b)}, ".kkk", nil},
		"a state damaged":           {[]store.Operation{bad(set(part(a), story)), set(past(a), story), env(b), content(b)}, ".kkk", nil},
		"history damaged":           {[]store.Operation{set(part(a), story), bad(set(past(a), story)), env(b), content(b)}, "....", []ID{b}},
		"a mark":                    {[]store.Operation{env(a), content(a), set(markKey("x"), a[:]), env(b), content(b)}, "kk.kk", nil},
		"the mark of another":       {[]store.Operation{env(a), content(a), set(markKey("x"), c[:]), env(b), content(b)}, "kk...", []ID{b}},
		"history of another":        {[]store.Operation{deleted(idKey(keyEnvelope, a)), deleted(idKey(keyBody, a)), set(past(b), story), set(past(b), story)}, "kk.k", nil},
		"a body of another size":    {[]store.Operation{env(a), longer(content(a)), env(b), content(b)}, "..kk", []ID{a}},
		"a suspension":              {[]store.Operation{set(suspensionKey(3), story), set(suspensionKey(1<<40), story), bad(set(suspensionKey(4), story)), env(b)}, "k...", []ID{b}},
		"a key of an unknown size":  {[]store.Operation{set([]byte("e1"), story), env(b), content(b)}, "...", []ID{b}},
		"deletions of another kind": {[]store.Operation{deleted(versionKey), deleted(idKey(keyEnvelope, a)), deleted(idKey(keyBody, a))}, "...", nil},
	} {
		v := newVetter()
		d := operations(c.ops...)
		v.vet(d)
		kept := ""
		for _, op := range d.Operations {
			if op.Keep {
				kept += "k"
			} else {
				kept += "."
			}
		}
		lost, _ := v.take()
		ok := kept == c.keep && len(lost) == len(c.named)
		for _, id := range c.named {
			if _, named := lost[id]; !named {
				ok = false
			}
		}
		if !ok {
			t.Errorf("%s: kept %s, want %s; named %v, want %v", name, kept, c.keep, lost, c.named)
		}
	}
}

// TestSuspectsThatAreNotLost: a damaged record names messages that are there, or
// have ended. They are left alone.
func TestSuspectsThatAreNotLost(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	ended, there := q.send(epoch, "a@there.test"), q.send(epoch, "b@there.test")
	settle(q.take(epoch, "there.test"), epoch, delivered())
	q.settled()
	if _, err := q.Message(ended); !errors.Is(err, ErrNotFound) {
		ended, there = there, ended
	}
	gone := q.NewID(epoch)
	for _, id := range []ID{ended, there, gone} {
		q.vetter.suspect(id)
	}
	if err := q.nameLost(); err != nil {
		t.Fatal(err)
	}
	q.settled()
	report, err := q.Check(context.Background())
	if err != nil || len(report.SetAside) != 1 || report.SetAside[0] != gone || len(report.Problems) > 0 {
		t.Errorf("check %+v (%v), want %s alone to be set aside", report, err, gone)
	}
	if events, err := q.History(gone); err != nil || len(events) != 1 || events[0].Kind != EventDamaged {
		t.Errorf("its history: %v %v", events, err)
	}
	if d := q.Depth(epoch); d.Messages != 1 {
		t.Errorf("depth %+v", d)
	}
}

// TestManySuspects: their number is bounded.
func TestManySuspects(t *testing.T) {
	t.Parallel()
	v := newVetter()
	for i := range maxSuspects + 10 {
		v.suspect(ID{8: byte(i >> 16), 9: byte(i >> 8), 10: byte(i)})
	}
	if lost, more := v.take(); len(lost) != maxSuspects || !more {
		t.Errorf("%d, more %v", len(lost), more)
	}
	if lost, more := v.take(); len(lost) != 0 || more {
		t.Errorf("again %d, more %v", len(lost), more)
	}
}
