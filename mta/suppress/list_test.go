package suppress

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postrider/mta/dispatch"
	"postrider/queue"
)

var epoch = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

var discard = slog.New(slog.DiscardHandler)

func open(t *testing.T, file string, change func(*Options)) *List {
	t.Helper()
	o := Options{File: file}
	if change != nil {
		change(&o)
	}
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func rcpt(address string) *queue.Recipient {
	return &queue.Recipient{Address: address, Domain: strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])}
}

func (l *List) is(now time.Time, address string) bool {
	_, is := l.Suppressed(now, rcpt(address))
	return is
}

func TestWhatIsSuppressed(t *testing.T) {
	t.Parallel()
	l := open(t, filepath.Join(t.TempDir(), "list"), func(o *Options) { o.After, o.ExpireAfter = 2, 24*time.Hour })
	l.Refused(epoch, rcpt("Anna@Shop.test"), "550 5.1.1 no such user")
	if l.is(epoch, "anna@shop.test") {
		t.Error("suppressed after one answer of two")
	}
	l.Delivered(rcpt("ANNA@shop.test"))
	l.Refused(epoch, rcpt("anna@shop.test"), "550 5.1.1 no such user")
	if l.is(epoch, "anna@shop.test") {
		t.Error("a delivery did not start the count anew")
	}
	l.Refused(epoch.Add(time.Hour), rcpt("anna@shop.test"), "550 5.1.1 gone")
	e, is := l.Suppressed(epoch.Add(time.Hour), rcpt("aNNa@SHOP.test"))
	if !is || e.Count != 2 || e.Reason != "550 5.1.1 gone" || !e.FirstAt.Equal(epoch) || e.Source != Bounce {
		t.Errorf("%+v %v", e, is)
	}
	if l.is(epoch.Add(25*time.Hour), "anna@shop.test") {
		t.Error("still suppressed a day after the last answer")
	}
	l.Refused(epoch.Add(30*time.Hour), rcpt("anna@shop.test"), "550 5.1.1 no such user")
	if l.is(epoch.Add(30*time.Hour), "anna@shop.test") {
		t.Error("answers that are too old count")
	}
	if err := l.Add(epoch, []Entry{{Address: "Ben@Bücher.test", Source: Operator}}); err != nil {
		t.Fatal(err)
	}
	if !l.is(epoch.Add(1000*24*time.Hour), "ben@xn--bcher-kva.test") {
		t.Error("what was put there by hand has ended, or the domain is not found")
	}
	l.Delivered(rcpt("ben@xn--bcher-kva.test"))
	if !l.is(epoch, "ben@xn--bcher-kva.test") {
		t.Error("a delivery took away what was put there by hand")
	}
	l.expire(epoch.Add(100 * 24 * time.Hour))
	if n := len(l.Entries(func(*Entry) bool { return true }, "", 0)); n != 1 {
		t.Errorf("%d entries are left", n)
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "list")
	l := open(t, file, nil)
	l.Refused(epoch, rcpt("a@x.test"), "550 5.1.1 \x00 no\r\nsuch user")
	if err := l.Add(epoch, []Entry{{Address: "b@x.test", Source: Operator, Reason: "asked"}, {Address: "c@x.test", Source: Import}}); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Remove(func(e *Entry) bool { return e.Address == "c@x.test" }); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	// A crash in the midst of a line, and lines of somebody else.
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(f, "garbage\n%s\n{}\n{\"address\":\"d@x", strings.Repeat("x", 10_000))
	f.Close()
	for range 2 { // the second time the file has been written anew
		l = open(t, file, nil)
		if !l.is(epoch, "a@x.test") || !l.is(epoch, "b@x.test") || l.is(epoch, "c@x.test") || len(l.entries) != 2 {
			t.Fatalf("%+v", l.entries)
		}
		l.Refused(epoch, rcpt("a@x.test"), "550 5.1.1")
		if err := l.flush(); err != nil {
			t.Fatal(err)
		}
	}
	if e := l.entries["a@x.test"]; e.Count != 3 {
		t.Errorf("%+v", e)
	}
	if text, _ := os.ReadFile(file); strings.Contains(string(text), "garbage") {
		t.Errorf("%s", text)
	}
	if _, err := Open(Options{File: "list_test.go"}); err == nil {
		t.Error("a file of another kind is taken for a list")
	}
}

func TestFull(t *testing.T) {
	t.Parallel()
	l := open(t, filepath.Join(t.TempDir(), "list"), func(o *Options) { o.MaxEntries = 3 })
	for i, a := range []string{"a@x.test", "b@x.test", "c@x.test", "d@x.test"} {
		l.Refused(epoch.Add(time.Duration(i)*time.Second), rcpt(a), "550 5.1.1")
	}
	if l.is(epoch, "a@x.test") || !l.is(epoch, "b@x.test") || !l.is(epoch, "d@x.test") || len(l.entries) != 3 {
		t.Errorf("%+v", l.entries)
	}
	add := func(addresses ...string) error {
		var entries []Entry
		for _, a := range addresses {
			entries = append(entries, Entry{Address: a, Source: Operator})
		}
		return l.Add(epoch, entries)
	}
	if err := add("1@x.test", "2@x.test", "3@x.test", "4@x.test"); err != ErrFull || len(l.entries) != 3 {
		t.Errorf("%v with %d entries", err, len(l.entries))
	}
	if err := add("1@x.test", "2@x.test", "3@x.test"); err != nil || len(l.entries) != 3 {
		t.Errorf("%v with %d entries", err, len(l.entries))
	}
	l.Refused(epoch, rcpt("e@x.test"), "550 5.1.1")
	if l.is(epoch, "e@x.test") {
		t.Error("more entries than may be")
	}
	if err := add("1@x.test", "not an address"); err == nil {
		t.Error("no error")
	}
}

// The file does not grow with the answers, but with the addresses.
func TestFileIsWrittenAnew(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "list")
	l := open(t, file, nil)
	for range 3 * spare {
		l.Refused(epoch, rcpt("a@x.test"), "550 5.1.1")
	}
	for range 2 {
		if err := l.flush(); err != nil {
			t.Fatal(err)
		}
		l.Refused(epoch, rcpt("a@x.test"), "550 5.1.1")
	}
	if info, err := os.Stat(file); err != nil || info.Size() > 1000 {
		t.Errorf("%d octets, %v", info.Size(), err)
	}
}

// scripted is a source of claims that notes how they were settled.
type scripted struct {
	dispatch.Source
	claims  []dispatch.Claim
	settled [][]queue.Outcome
}

func (s *scripted) Take(time.Time, string, int) (c dispatch.Claim, ok bool) {
	if len(s.claims) == 0 {
		return c, false
	}
	c, s.claims = s.claims[0], s.claims[1:]
	c.Handle, c.Envelope = settling{s: s}, &queue.Envelope{ArrivedAt: epoch}
	return c, true
}

type settling struct {
	dispatch.Handle
	s *scripted
}

func (settling) Content() (*queue.Content, error) { return nil, nil }
func (settling) Release(time.Time)                {}
func (h settling) Settle(_ time.Time, outcomes []queue.Outcome, _ queue.Timing) {
	h.s.settled = append(h.s.settled, outcomes)
}

func TestGate(t *testing.T) {
	t.Parallel()
	l := open(t, filepath.Join(t.TempDir(), "list"), nil)
	if err := l.Add(epoch, []Entry{{Address: "b@x.test", Source: Operator, Reason: "asked"}}); err != nil {
		t.Fatal(err)
	}
	claim := func(addresses ...string) (c dispatch.Claim) {
		for _, a := range addresses {
			c.Recipients = append(c.Recipients, *rcpt(a))
		}
		return c
	}
	s := &scripted{claims: []dispatch.Claim{claim("b@x.test"), claim("a@x.test", "b@x.test", "c@x.test", "d@x.test", "e@x.test"), claim("b@x.test", "c@x.test")}}
	failed := 0
	g := &Gate{Source: s, List: l, Logger: discard, Failed: func(o []queue.Outcome, _ time.Duration) { failed += len(o) }}
	c, ok := g.Take(epoch, "x.test", 10)
	if !ok || len(c.Recipients) != 4 || c.Recipients[1].Address != "c@x.test" {
		t.Fatalf("%+v", c.Recipients)
	}
	if len(s.settled) != 1 || s.settled[0][0].Status != "5.7.0" || s.settled[0][0].Verdict != queue.Failed || !strings.Contains(s.settled[0][0].Text, "asked") {
		t.Fatalf("%+v", s.settled)
	}
	unknown := queue.Outcome{Verdict: queue.Failed, Scope: queue.ScopeRecipient, Code: 550, Status: "5.1.1", Class: queue.ClassInvalidRecipient, Text: "no such user"}
	full := unknown
	full.Class = queue.ClassMailboxFull
	ours := unknown
	ours.Code = 0
	c.Handle.Settle(epoch, []queue.Outcome{{Verdict: queue.Delivered}, unknown, full, ours}, queue.Timing{})
	got := s.settled[1]
	if len(got) != 5 || got[0].Verdict != queue.Delivered || got[1].Status != "5.7.0" || got[2].Text != "no such user" || got[3].Class != queue.ClassMailboxFull || got[4].Code != 0 {
		t.Fatalf("%+v", got)
	}
	// Only the answer that there is no such mailbox was learned from.
	for a, want := range map[string]bool{"a@x.test": false, "c@x.test": true, "d@x.test": false, "e@x.test": false} {
		if l.is(epoch, a) != want {
			t.Errorf("%s: %v", a, !want)
		}
	}
	if _, ok := g.Take(epoch, "x.test", 10); ok || len(s.settled) != 3 || !strings.Contains(s.settled[2][1].Text, "550 5.1.1 no such user") {
		t.Errorf("%+v", s.settled[2:])
	}
	if failed != 4 {
		t.Errorf("%d were counted", failed)
	}
}

func BenchmarkSuppressed(b *testing.B) {
	l, err := Open(Options{File: filepath.Join(b.TempDir(), "list")})
	if err != nil {
		b.Fatal(err)
	}
	l.Refused(epoch, rcpt("a@x.test"), "550 5.1.1")
	r := rcpt("somebody.else@x.test")
	b.ReportAllocs()
	for b.Loop() {
		l.Suppressed(epoch, r)
	}
}
