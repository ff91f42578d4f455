package queue

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestSelectors(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	mail := func(at time.Time, sender, tag string, to ...string) ID {
		e := envelope(q.Queue, at, to...)
		e.Sender, e.Tag = sender, tag
		return q.submit(e, testBody)
	}
	ids := []ID{
		mail(epoch, "a@src.test", "news", "1@x.test", "2@y.test"),
		mail(epoch.Add(time.Hour), "b@src.test", "", "3@x.test"),
		mail(epoch.Add(2*time.Hour), "", "", "4@sub.y.test"),
	}
	now := epoch.Add(3 * time.Hour)
	q.Due(now, nil)
	full := deferred()
	full.Class = ClassMailboxFull
	settle(q.take(now, "x.test"), now, full) // 1@x.test
	q.settled()
	q.take(now, "y.test") // 2@y.test is active
	for name, c := range map[string]struct {
		s    Selector
		want string // which messages
		n    int    // recipients
	}{
		"all":              {Selector{}, "012", 4},
		"ids":              {Selector{IDs: []ID{ids[2], ids[0], {}}}, "02", 3},
		"domain":           {Selector{Domain: "X.test"}, "01", 2},
		"subdomains":       {Selector{Domain: "*.y.test"}, "2", 1},
		"domains":          {Selector{Domains: []string{"y.test", "sub.y.test"}}, "02", 2},
		"sender":           {Selector{Sender: "A@src.test"}, "0", 2},
		"sender domain":    {Selector{Sender: "@src.test"}, "01", 3},
		"null sender":      {Selector{Sender: NullSender}, "2", 1},
		"class":            {Selector{Class: ClassMailboxFull}, "0", 1},
		"no such class":    {Selector{Class: ClassMailboxDisabled}, "", 0},
		"waiting by tag":   {Selector{Tag: "news", Status: []Status{StatusWaiting}}, "0", 1},
		"recipient":        {Selector{Recipient: "3@x.test"}, "1", 1},
		"tag":              {Selector{Tag: "news"}, "0", 2},
		"active":           {Selector{Status: []Status{StatusActive}}, "0", 1},
		"waiting":          {Selector{Status: []Status{StatusWaiting, StatusHeld}}, "012", 3},
		"held":             {Selector{Status: []Status{StatusHeld}}, "", 0},
		"older":            {Selector{OlderThan: 2 * time.Hour}, "01", 3},
		"together":         {Selector{OlderThan: time.Hour, Domain: "x.test", Tag: "news"}, "0", 1},
		"no such together": {Selector{Domain: "x.test", Recipient: "2@y.test"}, "", 0},
	} {
		found, err := q.List(t.Context(), now, c.s, ID{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, m := range found {
			got += strconv.Itoa(slices.Index(ids, m.Envelope.ID))
		}
		if got != c.want {
			t.Errorf("%s: list gives %q, want %q", name, got, c.want)
		}
		if messages, n, err := q.Count(t.Context(), now, c.s); messages != len(c.want) || n != c.n || err != nil {
			t.Errorf("%s: counted %d recipients of %d messages, want %d of %d (%v)", name, n, messages, c.n, len(c.want), err)
		}
		if n, err := q.Retry(t.Context(), now, c.s, ""); n != c.n || err != nil {
			t.Errorf("%s: %d recipients, want %d (%v)", name, n, c.n, err)
		}
	}
	page, err := q.List(t.Context(), now, Selector{}, ids[0], 1)
	if err != nil || len(page) != 1 || page[0].Envelope.ID != ids[1] {
		t.Errorf("second page %+v %v", page, err)
	}
}

// A walk notes only so many messages at a time, and still meets each one once.
func TestLowest(t *testing.T) {
	t.Parallel()
	id := func(n int) ID { return ID{14: byte(n >> 8), 15: byte(n)} }
	for name, c := range map[string]struct{ from, most, end, want int }{
		"all":     {0, 0, 1000, 999},
		"in part": {0, 100, 1000, 100},
		"behind":  {700, 100, 1000, 100},
		"the end": {950, 100, 1000, 49},
		"many":    {0, 600, 1000, 600},
	} {
		l := lowest{from: id(c.from), most: c.most}
		for i := range 2 * c.end { // in no order, and each one twice
			l.add(id(i * 7 % c.end))
		}
		l.sort()
		if len(l.ids) < c.want || c.most > 0 && len(l.ids) >= 2*c.most {
			t.Errorf("%s: %d IDs, want %d or some more", name, len(l.ids), c.want)
		}
		for i, got := range l.ids {
			if got != id(c.from+1+i) {
				t.Fatalf("%s: ID %d is %x", name, i, got)
			}
		}
		if left := c.from+1+len(l.ids) < c.end; l.left != left {
			t.Errorf("%s: left is %v with %d of them", name, l.left, len(l.ids))
		}
	}
}

func TestCancelIsSilentFailIsNot(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	cancelled, failed := q.send(epoch, "a@x.test"), q.send(epoch, "a@y.test")
	active := q.take(epoch, "x.test") // cancelled when it settles
	if n, err := q.Cancel(t.Context(), epoch, Selector{IDs: []ID{cancelled}}, "a mistake"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := q.Fail(t.Context(), epoch, Selector{IDs: []ID{failed}}, "no longer wanted"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	settle(active, epoch, deferred())
	if e := q.lastEvent(cancelled); e.Kind != EventCancelled || e.Text != "a mistake" || e.Recipient != "a@x.test" {
		t.Errorf("event %+v", e)
	}
	b, _ := q.DueNotices(epoch)
	if b == nil || b.Envelope.ID != failed || b.Notices[0].Outcome.Text != "no longer wanted" {
		t.Fatalf("notices %+v", b)
	}
	if err := q.Dismiss(b, epoch); err != nil {
		t.Fatal(err)
	}
	q.settled()
	q.wantKeys("")
	if again, _ := q.DueNotices(epoch.Add(time.Hour)); again != nil {
		t.Fatalf("notices of the cancelled: %+v", again)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	a, b := q.send(epoch, "a@x.test"), q.send(epoch.Add(time.Hour), "a@x.test")
	for range 2 {
		settle(q.take(epoch.Add(time.Hour), "x.test"), epoch, delivered()) // found in the history, too
	}
	q.settled()
	for _, id := range []ID{a, b} {
		text := id.String()
		for n := 8; n <= len(text); n++ {
			if got, err := q.Find(text[:n]); got != id || err != nil {
				t.Fatalf("%q: %s %v", text[:n], got, err)
			}
		}
		if got, err := q.Find(strings.ToUpper(text)); got != id || err != nil {
			t.Errorf("in capitals: %s %v", got, err)
		}
	}
	if _, err := q.Find(a.String()[:3]); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("ambiguous: %v", err)
	}
	if _, err := q.Find("7"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown: %v", err)
	}
	if _, err := q.Find("no!"); err == nil {
		t.Error("not an ID")
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	last := q.NewID(epoch)
	for i := range 1000 {
		now := epoch.Add(time.Duration(i%7-3) * time.Hour) // the clock goes back
		id := q.NewID(now)
		if compareID(id, last) <= 0 || id.String() <= last.String() {
			t.Fatalf("%s after %s", id, last)
		}
		last = id
		back, err := ParseID(id.String())
		if back != id || err != nil {
			t.Fatalf("%s reads as %s (%v)", id, back, err)
		}
	}
	id := q.NewID(epoch.Add(24 * time.Hour))
	if d := epoch.Add(24 * time.Hour).Sub(id.Time()); d < 0 || d > time.Millisecond {
		t.Errorf("time of an ID is off by %v", d)
	}
	node := id[6:8]
	q.restart()
	if again := q.NewID(epoch); !slices.Equal(again[6:8], node) {
		t.Error("a restart changes the node")
	}
	for _, bad := range []string{"", "x", strings.Repeat("0", 25), strings.Repeat("0", 27), "8" + strings.Repeat("0", 25), strings.Repeat("u", 26), strings.Repeat("é", 13)} {
		if id, err := ParseID(bad); err == nil {
			t.Errorf("%q reads as %s", bad, id)
		}
	}
}

func TestMarks(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	e := envelope(q.Queue, epoch, "a@x.test")
	body := q.NewBody()
	if err := q.Submit(t.Context(), Submission{Envelope: e, Body: body, Mark: "pickup/1.eml"}); err != nil {
		t.Fatal(err)
	}
	q.crash()
	for _, mark := range []string{"pickup/1.eml", "pickup/2.eml"} {
		if marked, err := q.Marked(mark); marked != (mark == "pickup/1.eml") || err != nil {
			t.Errorf("%s: %v %v", mark, marked, err)
		}
	}
	if err := q.Unmark("pickup/1.eml"); err != nil {
		t.Fatal(err)
	}
	if marked, err := q.Marked("pickup/1.eml"); marked || err != nil {
		t.Errorf("unmarked: %v %v", marked, err)
	}
}

func TestSubmitRefuses(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	twice := q.send(epoch, "a@x.test")
	for name, change := range map[string]func(*Submission){
		"no envelope":    func(s *Submission) { s.Envelope = nil },
		"no ID":          func(s *Submission) { s.Envelope.ID = ID{} },
		"no time":        func(s *Submission) { s.Envelope.ArrivedAt = time.Time{} },
		"no recipient":   func(s *Submission) { s.Envelope.Recipients = nil },
		"no domain":      func(s *Submission) { s.Envelope.Recipients[0].Domain = "" },
		"bad priority":   func(s *Submission) { s.Envelope.Priority = 9 },
		"no body":        func(s *Submission) { s.Body = nil },
		"discarded body": func(s *Submission) { s.Body.Discard() },
		"known ID":       func(s *Submission) { s.Envelope.ID = twice },
	} {
		s := Submission{Envelope: envelope(q.Queue, epoch, "a@x.test"), Body: q.NewBody()}
		change(&s)
		if err := q.Submit(t.Context(), s); err == nil || errors.Is(err, ErrFull) {
			t.Errorf("%s: %v", name, err)
		}
	}
	body := q.NewBody()
	q.stop()
	if err := q.Submit(t.Context(), Submission{Envelope: envelope(q.Queue, epoch, "a@x.test"), Body: body}); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	q.start()
}

func TestHistoryIsCut(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t, func(o *Options) { o.History = 24 * time.Hour })
	old := q.send(epoch, "a@x.test")
	settle(q.take(epoch, "x.test"), epoch, delivered())
	held := envelope(q.Queue, epoch, "a@y.test", "b@y.test")
	q.submit(held, testBody)
	settle(q.take(epoch, "y.test"), epoch, deferred())
	if _, err := q.Hold(t.Context(), epoch, Selector{IDs: []ID{held.ID}}, "wait"); err != nil {
		t.Fatal(err)
	}
	later := epoch.Add(23 * time.Hour)
	recent := q.send(later, "a@x.test")
	settle(q.take(later, "x.test"), later, delivered())
	q.settled()
	q.trim(epoch.Add(23 * time.Hour))
	if _, err := q.History(old); err != nil {
		t.Errorf("cut too early: %v", err)
	}
	q.trim(epoch.Add(25 * time.Hour))
	if _, err := q.History(old); !errors.Is(err, ErrNotFound) {
		t.Errorf("still there: %v", err)
	}
	if events, err := q.History(held.ID); err != nil || len(events) != 5 {
		t.Errorf("history of a message in the queue: %d events (%v)", len(events), err)
	}
	if _, err := q.History(recent); err != nil {
		t.Errorf("a recent one: %v", err)
	}
}

func TestHistoryIsCutBySize(t *testing.T) {
	for name, set := range map[string]func(o *Options){
		"its own": func(o *Options) { o.HistorySize = 200_000 },
		"a tenth of the disk's": func(o *Options) {
			o.space = func() diskSpace { return diskSpace{free: 1 << 40, total: 2_000_000} }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cutBySize(t, set)
		})
	}
}

func cutBySize(t *testing.T, set func(o *Options)) {
	q := newTestQueue(t, set)
	var ids []ID
	for i := range 4000 {
		at := epoch.Add(time.Duration(i) * time.Minute)
		e := envelope(q.Queue, at, "a@x.test")
		e.EnvID = strconv.FormatUint(randomUint64(), 36) + strconv.FormatUint(randomUint64(), 36) + strconv.FormatUint(randomUint64(), 36)
		ids = append(ids, q.submit(e, testBody))
		settle(q.take(at, "x.test"), at, delivered())
	}
	now := epoch.Add(4000 * time.Minute)
	q.restart() // to see tables, not the log
	q.trim(now)
	if _, err := q.History(ids[0]); !errors.Is(err, ErrNotFound) {
		t.Errorf("the oldest: %v", err)
	}
	if _, err := q.History(ids[len(ids)-1]); err != nil {
		t.Errorf("the newest: %v", err)
	}
}

func TestLockNamesProcess(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "queue")
	q, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	want := "process " + strconv.Itoa(os.Getpid())
	if _, err := Open(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("second open: %v", err)
	}
	if _, err := CheckDir(t.Context(), Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("check: %v", err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if q, err = Open(Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if report, err := CheckDir(t.Context(), Options{Dir: dir}); err != nil || len(report.Problems) > 0 {
		t.Errorf("check: %+v %v", report, err)
	}
	if err := q.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

// TestNewerFormat: a store of a newer program is refused, not misread.
func TestNewerFormat(t *testing.T) {
	t.Parallel()
	q := newTestQueue(t)
	q.overwrite(versionKey, func([]byte) []byte { return []byte{storeFormat + 1} })
	q.stop()
	if _, err := Open(q.opts); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Fatalf("open: %v", err)
	}
	q.startAnew()
}

// startAnew goes on with an empty queue, after a test has broken this one.
func (q *testQueue) startAnew() {
	q.t.Helper()
	fs := vfs.NewCrashableMem()
	q.fs, q.opts.fs = fs, fs
	q.start()
}

// TestCheckFinds: the checker sees what it is there to see.
func TestCheckFinds(t *testing.T) {
	for name, c := range map[string]struct {
		change func(q *testQueue, id ID)
		want   string
	}{
		"damaged body": {func(q *testQueue, id ID) { q.overwrite(idKey(keyBody, id), flip) }, "damaged"},
		"no body":      {func(q *testQueue, id ID) { q.overwrite(idKey(keyBody, id), gone) }, "no body"},
		"no envelope": {func(q *testQueue, id ID) {
			q.overwrite(idKey(keyEnvelope, id), gone)
		}, "without its message"},
		"stray file": {func(q *testQueue, id ID) {
			_, name := q.bodyFile(q.NewID(epoch))
			f, err := q.fs.Create(name, vfs.WriteCategoryUnspecified)
			if err != nil {
				q.t.Fatal(err)
			}
			f.Close()
		}, "named by no record"},
		"lost in memory": {func(q *testQueue, id ID) {
			q.mu.Lock()
			defer q.mu.Unlock()
			i := q.index.first(id)
			q.detach(i)
			q.slab.at(i).open = 0
			q.attach(i, 0)
		}, "the schedule has not"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := newTestQueue(t, func(o *Options) { o.BodyMemory = 1 })
			q.send(epoch, "a@x.test")
			c.change(q, q.send(epoch, "b@x.test"))
			report, err := q.Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, p := range report.Problems {
				found = found || strings.Contains(p.String(), c.want)
			}
			if !found {
				t.Errorf("problems %v, want %q", report.Problems, c.want)
			}
			q.stop()
			if name != "lost in memory" {
				offline, err := CheckDir(t.Context(), q.opts)
				// What a kill leaves behind is told apart from what is wrong.
				stray := name == "stray file" && offline.Leftovers == 1
				if err != nil || (len(offline.Problems) == 0) != stray {
					t.Errorf("offline: %+v %v", offline, err)
				}
			}
			q.startAnew()
		})
	}
}
