package tlsrpt

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// memory is a Store.
type memory struct {
	mu     sync.Mutex
	data   map[string][]byte
	puts   int
	broken error
}

func newMemory() *memory { return &memory{data: make(map[string][]byte)} }

func (m *memory) Get(key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.data[key], m.broken
}

func (m *memory) Put(key string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken == nil {
		m.data[key] = data
		m.puts++
	}
	return m.broken
}

func (m *memory) Delete(key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken == nil {
		delete(m.data, key)
	}
	return m.broken
}

func (m *memory) Keys() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.data)), m.broken
}

func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.data)
}

const day = 24 * time.Hour

var (
	noon    = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	sts     = Policy{Type: STS, Domain: "d.test", Lines: []string{"version: STSv1", "mode: enforce"}, MXHosts: []string{"*.d.test"}}
	tlsa    = Policy{Type: TLSA, Domain: "mx.d.test", Lines: []string{"3 1 1 00ff"}}
	expired = &Failure{Result: CertificateExpired, SendingIP: netip.MustParseAddr("192.0.2.1"), ReceivingMX: "mx.d.test", HELO: "mx", ReceivingIP: netip.MustParseAddr("2001:db8::1"), Reason: "expired yesterday"}
)

func newRecorder(t *testing.T, interval time.Duration, store Store) *Recorder {
	t.Helper()
	r, err := NewRecorder(interval, store, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRecord(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, day, newMemory())
	for range 3 {
		r.Record(noon, "d.test", sts, nil)
	}
	for range 2 {
		again := *expired
		r.Record(noon.Add(time.Hour), "d.test", sts, &again)
	}
	r.Record(noon, "d.test", sts, &Failure{Result: "nonsense", Reason: "a\r\nb"})
	r.Record(noon, "d.test", tlsa, nil)
	r.Record(noon, "e.test", Policy{Type: "nonsense", Domain: "e.test"}, nil)
	r.Record(noon.Add(12*time.Hour-time.Nanosecond), "e.test", Policy{Type: NoPolicy, Domain: "e.test"}, nil)
	r.Record(noon.Add(12*time.Hour), "d.test", sts, nil) // the next day

	if due := r.Due(noon.Add(12*time.Hour - time.Nanosecond)); len(due) != 0 {
		t.Errorf("%v is due before the day is over", due)
	}
	midnight := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	want := []Tally{
		{Domain: "d.test", Start: midnight, Interval: day, Policies: []PolicyTally{
			{Policy: sts, Successes: 3, Failures: 3, Details: []Detail{{*expired, 2}, {Failure{Result: ValidationFailure, Reason: "a??b"}, 1}}},
			{Policy: tlsa, Successes: 1},
		}},
		{Domain: "e.test", Start: midnight, Interval: day, Policies: []PolicyTally{
			{Policy: Policy{Type: NoPolicy, Domain: "e.test"}, Successes: 1},
			{Policy: Policy{Type: NoPolicy, Domain: "e.test"}, Successes: 1},
		}},
	}
	got := r.Due(noon.Add(16 * time.Hour)) // 4 hours past midnight all are due
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n%+v, want\n%+v", got, want)
	}
}

func TestReportsAreSpread(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, day, newMemory())
	const domains = 90
	for i := range domains {
		r.Record(noon, fmt.Sprintf("d%d.test", i), sts, nil)
	}
	end := noon.Add(12 * time.Hour)
	early, late := len(r.Due(end.Add(time.Hour))), len(r.Due(end.Add(3*time.Hour)))
	if early == 0 || early > domains/2 || late <= early || late == domains {
		t.Errorf("%d of %d after an hour, %d after three", early, domains, late)
	}
	if all := len(r.Due(end.Add(4 * time.Hour))); all != domains {
		t.Errorf("%d of %d after four hours", all, domains)
	}
}

func TestRestartKeepsTallies(t *testing.T) {
	t.Parallel()
	store := newMemory()
	r := newRecorder(t, day, store)
	r.Record(noon, "d.test", sts, expired)
	r.Record(noon, "d.test", tlsa, nil)
	if err := r.Save(); err != nil {
		t.Fatal(err)
	}
	want := r.Due(noon.Add(2 * day))
	r = newRecorder(t, day, store)
	if got := r.Due(noon.Add(2 * day)); len(got) != 1 || !reflect.DeepEqual(got, want) {
		t.Errorf("\n%+v, want\n%+v", got, want)
	}
	// It goes on where it was.
	r.Record(noon, "d.test", sts, expired)
	r.Record(noon, "d.test", sts, nil)
	p := r.Due(noon.Add(2 * day))[0].Policies[0]
	if p.Successes != 1 || p.Failures != 2 || len(p.Details) != 1 || p.Details[0].Count != 2 {
		t.Errorf("%+v", p)
	}
}

func TestSaveWritesWhatChanged(t *testing.T) {
	t.Parallel()
	store := newMemory()
	r := newRecorder(t, day, store)
	r.Record(noon, "d.test", sts, nil)
	r.Record(noon, "e.test", sts, nil)
	save := func(puts int) {
		t.Helper()
		if err := r.Save(); err != nil || store.puts != puts {
			t.Errorf("%v, %d writes, want %d", err, store.puts, puts)
		}
	}
	save(2)
	save(2)
	r.Record(noon, "e.test", sts, nil)
	save(3)
	r.Record(noon, "e.test", sts, nil)
	store.broken = errors.New("disk is full")
	if err := r.Save(); !errors.Is(err, store.broken) {
		t.Errorf("%v", err)
	}
	store.broken = nil
	save(4)
}

func TestForgetAndPostpone(t *testing.T) {
	t.Parallel()
	store := newMemory()
	r := newRecorder(t, day, store)
	r.Record(noon, "d.test", sts, nil)
	if err := r.Save(); err != nil {
		t.Fatal(err)
	}
	later := noon.Add(2 * day)
	due := r.Due(later)
	r.Postpone(due[0], later.Add(time.Hour))
	if n := len(r.Due(later)); n != 0 {
		t.Errorf("%d are due though postponed", n)
	}
	if n := len(r.Due(later.Add(time.Hour))); n != 1 {
		t.Errorf("%d are due", n)
	}
	if err := r.Forget(due[0]); err != nil || len(store.data) != 0 || len(r.Due(later.Add(time.Hour))) != 0 || r.size != 0 {
		t.Errorf("%v, %d in the store, size %d", err, len(store.data), r.size)
	}
	r.Postpone(due[0], later) // it is gone: nothing happens
	if err := r.Save(); err != nil || len(store.data) != 0 {
		t.Errorf("%v, %d in the store", err, len(store.data))
	}
}

func TestDamagedTallyIsDropped(t *testing.T) {
	t.Parallel()
	store := newMemory()
	r := newRecorder(t, day, store)
	r.Record(noon, "d.test", sts, nil)
	if err := r.Save(); err != nil {
		t.Fatal(err)
	}
	var good []byte
	for _, data := range store.data {
		good = data
	}
	store.data["20260101T000000Z.other.test"] = good // under a name not its own
	store.data["20260101T000000Z.e.test"] = []byte("{")
	store.data["20260101T000000Z.f.test"] = []byte(`{"version":2}`)
	r = newRecorder(t, day, store)
	if due := r.Due(noon.Add(2 * day)); len(due) != 1 || due[0].Domain != "d.test" || len(store.data) != 1 {
		t.Errorf("%+v, %d in the store", due, len(store.data))
	}
}

func TestRecorderNeedsItsStore(t *testing.T) {
	t.Parallel()
	store := newMemory()
	store.broken = errors.New("no such directory")
	if _, err := NewRecorder(day, store, nil); !errors.Is(err, store.broken) {
		t.Error(err)
	}
	if _, err := NewRecorder(time.Millisecond, newMemory(), nil); err == nil {
		t.Error("an interval of a millisecond is taken")
	}
}

func TestBoundsOfATally(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, day, newMemory())
	for i := range 5 * maxDetails {
		r.Record(noon, "d.test", sts, &Failure{Result: CertificateExpired, HELO: fmt.Sprint(i) + strings.Repeat("x", 5*maxText)})
	}
	for i := range 5 * maxPolicies {
		p := tlsa
		p.Lines = make([]string, 5*maxLines)
		p.Lines[0] = fmt.Sprint(i)
		r.Record(noon, "d.test", p, nil)
	}
	got := r.Due(noon.Add(2 * day))[0]
	p := got.Policies[0]
	if len(got.Policies) != maxPolicies || len(p.Details) != maxDetails || p.Failures != 5*maxDetails || len(p.Details[0].HELO) != maxText || len(got.Policies[1].Policy.Lines) != maxLines {
		t.Errorf("%d policies, %d details, %d failures, %d octets", len(got.Policies), len(p.Details), p.Failures, len(p.Details[0].HELO))
	}
}

func TestBoundsOfAllTallies(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, day, newMemory())
	for i := range maxTallies + 10 {
		r.Record(noon, fmt.Sprintf("d%d.test", i), sts, nil)
	}
	if len(r.tallies) != maxTallies || r.Dropped() != 10 {
		t.Errorf("%d tallies, %d dropped", len(r.tallies), r.Dropped())
	}
	r.Record(noon, "d0.test", sts, nil) // one that is there
	if r.Dropped() != 10 {
		t.Error("a domain that is counted already was dropped")
	}
}

func TestMemoryOfAllTallies(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, day, newMemory())
	long := strings.Repeat("x", maxText-10)
	for i := range 1000 {
		for k := range maxDetails {
			r.Record(noon, fmt.Sprintf("d%d.test", i), sts, &Failure{Result: CertificateExpired, HELO: long, Reason: long, ReceivingMX: fmt.Sprint(k)})
		}
	}
	if r.size > maxMemory || r.size < maxMemory*9/10 {
		t.Errorf("%d octets, the bound is %d", r.size, maxMemory)
	}
	size := 0
	for _, ta := range r.tallies {
		size += ta.size
	}
	if size != r.size {
		t.Errorf("the tallies sum up to %d, not %d", size, r.size)
	}
}

func TestUnfitDomainIsNotCounted(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, day, newMemory())
	for _, d := range []string{"", "[192.0.2.1]", "a b.test", "a\r\n.test"} {
		r.Record(noon, d, sts, nil)
	}
	if len(r.tallies) != 0 || r.Dropped() != 4 {
		t.Errorf("%d tallies, %d dropped", len(r.tallies), r.Dropped())
	}
}

func TestConcurrentRecording(t *testing.T) {
	t.Parallel()
	r := newRecorder(t, day, newMemory())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 200 {
				r.Record(noon, fmt.Sprintf("d%d.test", i%7), sts, expired)
				if i%50 == 0 {
					r.Due(noon.Add(2 * day))
				}
			}
		})
	}
	wg.Wait()
	var total int64
	for _, ta := range r.Due(noon.Add(2 * day)) {
		total += ta.Policies[0].Failures
	}
	if total != 8*200 {
		t.Errorf("%d sessions, want %d", total, 8*200)
	}
}

// The store may hand back anything.
func FuzzDecodeTally(f *testing.F) {
	ta := newTally("d.test", noon.Truncate(day), day)
	ta.add(sts, expired, maxMemory)
	ta.add(tlsa, nil, maxMemory)
	data, err := ta.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"version":1,"domain":"d.test","start":"2026-01-01T00:00:00Z","interval":1,"policies":[null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ta, err := decodeTally("20260101T000000Z.d.test", data)
		if err != nil {
			return
		}
		ta.add(sts, expired, maxMemory)
		if _, err := NewReport(ta.export(), Sender{"Org", "s.test", "p@s.test"}); err != nil {
			t.Fatal(err)
		}
	})
}
