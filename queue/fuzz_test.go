package queue

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

// sealed closes a record with its sum, so that fuzzing gets past it.
func sealed(b []byte) []byte {
	b = append([]byte{recordVersion}, b...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// unsealed takes version and sum away.
func unsealed(b []byte) []byte { return bytes.Clone(b[1 : len(b)-sumSize]) }

func fullEnvelope() *Envelope {
	return &Envelope{
		ID: ID{1, 2, 3, 15: 9}, Sender: "sender@source.test", Body: Body8BitMIME, SMTPUTF8: true, RequireTLS: true,
		TLSIgnored: true, Ret: RetHeaders, EnvID: "env", Priority: PriorityUrgent, Tag: "tag", Held: true, Size: 1234,
		ArrivedAt: epoch, NotBefore: epoch.Add(time.Hour), DeliverBy: epoch.Add(2 * time.Hour), MessageID: "<1@source.test>",
		Origin: Origin{Via: "smtp", Client: netip.MustParseAddr("2001:db8::1"), HELO: "client", User: "user", TLS: true},
		Recipients: []Recipient{
			{Address: "a@x.test", Domain: "x.test", Notify: NotifySuccess | NotifyDelay, ORcpt: "rfc822;b@x.test"},
			{Address: "ü@ü.test", Domain: "xn--tda.test"},
			{Address: "a@[192.0.2.1]", Domain: "[192.0.2.1]", Notify: NotifyNever},
			{Address: "@x.test", Domain: "x.test"},
		},
		large: true,
	}
}

func encoded(f func(*recordWriter)) []byte {
	var w recordWriter
	w.begin()
	f(&w)
	return bytes.Clone(w.end())
}

func TestEnvelopeRoundTrip(t *testing.T) {
	t.Parallel()
	for _, e := range []*Envelope{fullEnvelope(), {Recipients: []Recipient{{Address: "a@b", Domain: "b"}}, ArrivedAt: epoch}} {
		got, err := decodeEnvelope(e.ID, encoded(e.encode))
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%+v\nreads as %+v (%v)", e, got, err)
		}
	}
}

func TestStatesRoundTrip(t *testing.T) {
	t.Parallel()
	remote := &Remote{Host: "mx.test", IP: netip.MustParseAddr("192.0.2.1"), TLS: "TLS1.3", Demand: "enable", HELO: "here"}
	full := Outcome{Verdict: Deferred, Scope: ScopeSite, Stage: StageQueue, Code: 451, Status: "4.7.1", Text: "later",
		Remote: remote, RetryAfter: time.Minute, InDoubt: true, Passed: true, Class: "policy"}
	states := make([]recipientState, statesPerPart)
	states[0] = recipientState{due: 1, lastAt: -2, heldAt: 3, paused: 4, last: &full, attempts: 5, status: StatusHeld, warned: true, dirty: true}
	states[63] = recipientState{last: &Outcome{Verdict: Failed, Remote: remote}, status: StatusFailed, dirty: true}
	got := make([]recipientState, statesPerPart)
	if err := decodePart(encoded(func(w *recordWriter) { encodePart(w, states) }), got); err != nil || !reflect.DeepEqual(got, states) {
		t.Errorf("%+v\nreads as %+v (%v)", states, got, err)
	}
	if got[0].last.Remote != got[63].last.Remote {
		t.Error("a shared remote is read twice")
	}
}

func FuzzEnvelope(f *testing.F) {
	f.Add(unsealed(encoded(fullEnvelope().encode)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, payload []byte) {
		e, err := decodeEnvelope(ID{1}, sealed(payload))
		if err != nil {
			return
		}
		again, err := decodeEnvelope(ID{1}, encoded(e.encode))
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Fatalf("%+v\nwritten again reads as %+v (%v)", e, again, err)
		}
	})
}

func FuzzStates(f *testing.F) {
	states := []recipientState{{last: &Outcome{Verdict: Failed, Text: "x", Remote: &Remote{Host: "mx"}}, dirty: true}}
	f.Add(unsealed(encoded(func(w *recordWriter) { encodePart(w, states) })))
	f.Fuzz(func(t *testing.T, payload []byte) {
		states := make([]recipientState, 3)
		if decodePart(sealed(payload), states) != nil {
			return
		}
		again := make([]recipientState, 3)
		if err := decodePart(encoded(func(w *recordWriter) { encodePart(w, states) }), again); err != nil {
			t.Fatalf("%+v: %v", states, err)
		}
	})
}

// FuzzOthers reads the octets as every other kind of record, and as a body.
func FuzzOthers(f *testing.F) {
	env := fullEnvelope()
	events := []happening{{recipient: 1, kind: EventFailed, outcome: &Outcome{Verdict: Failed}, text: "x"}, {recipient: -1, kind: EventDamaged}}
	var w recordWriter
	encodeHistory(&w, env, Timing{Connect: time.Second}, 1, events)
	f.Add(unsealed(w.end()))
	f.Add(unsealed(encodeSuspension(&Suspension{Domain: "x.test", Since: epoch})))
	f.Add(unsealed(encoded(func(w *recordWriter) { (&largeRecord{size: 70000, sum: 1}).encode(w, []byte("prefix")) })))
	small := make([]byte, smallRecordSize([]byte("prefix"), []byte("body")))
	putSmallRecord(small, []byte("prefix"), []byte("body"))
	f.Add(unsealed(small))
	f.Fuzz(func(t *testing.T, payload []byte) {
		record := sealed(payload)
		var st story
		if e, err := st.decodeHistory(ID{1}, record); err == nil {
			st.tell(e)
		}
		_, _ = decodeSuspension(record)
		_, _ = decodeLarge(record)
		key := make([]byte, noticeKeySize)
		putNoticeKey(key, env.ID, 0, NoticeFailure)
		_, _ = decodeNotice(env, key, record)
		if prefix, body, err := splitSmallRecord(record); err == nil {
			again := make([]byte, smallRecordSize(prefix, body))
			putSmallRecord(again, prefix, body)
			if p, b, err := splitSmallRecord(again); err != nil || !bytes.Equal(p, prefix) || !bytes.Equal(b, body) {
				t.Fatalf("%q %q reads as %q %q (%v)", prefix, body, p, b, err)
			}
		}
	})
}

func FuzzID(f *testing.F) {
	f.Add("01mba5ne48jf4195vshvetcgrq")
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := ParseID(text); err == nil && reread(t, id) != id {
			t.Fatalf("%q reads as %s", text, id)
		}
	})
}

// reread reads what an ID writes.
func reread(t *testing.T, id ID) ID {
	t.Helper()
	back, err := ParseID(id.String())
	if err != nil {
		t.Fatal(err)
	}
	return back
}
