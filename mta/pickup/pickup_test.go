package pickup_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postrider/mta/intake"
	"postrider/mta/pickup"
	"postrider/queue"
)

func TestMain(m *testing.M) {
	log.SetFlags(0)
	goleak.VerifyTestMain(m)
}

const message = "From: ann@a.test\nTo: bob@b.test\nSubject: x\n\ntext\n"

// spool is a watcher on a directory, with a real intake and a real queue, that
// tells of each message.
type spool struct {
	t    *testing.T
	dir  string
	q    *queue.Queue
	opts pickup.Options

	taken   chan queue.ID // of each message that was committed
	refuse  func(env *queue.Envelope) error
	stop    func()
	receive *intake.Receiver
}

func newSpool(t *testing.T, change func(*pickup.Options)) *spool {
	t.Helper()
	q, err := queue.Open(queue.Options{Dir: t.TempDir(), MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	r, err := intake.New(intake.Options{Queue: q, Hostname: "mx.home.test"})
	if err != nil {
		t.Fatal(err)
	}
	s := &spool{t: t, dir: filepath.Join(t.TempDir(), "pickup"), q: q, taken: make(chan queue.ID, 10_000), receive: r}
	s.opts = pickup.Options{Marks: q, Intake: s, Dirs: []string{s.dir}, Rest: time.Millisecond, Rescan: time.Hour}
	if change != nil {
		change(&s.opts)
	}
	t.Cleanup(func() {
		if s.stop != nil {
			s.stop()
		}
		q.Close()
	})
	return s
}

// start runs the watcher until stop.
func (s *spool) start() {
	s.t.Helper()
	w, err := pickup.New(s.opts)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := w.Open(); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	s.stop = func() {
		s.stop = nil
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	}
}

// Begin implements pickup.Intake over the real one.
func (s *spool) Begin(now time.Time, m intake.Meta) (pickup.Message, error) {
	if s.refuse != nil {
		if err := s.refuse(m.Envelope); err != nil {
			return nil, err
		}
	}
	msg, err := s.receive.Begin(now, m)
	if err != nil {
		return nil, err
	}
	return &telling{msg, s}, nil
}

type telling struct {
	*intake.Message
	s *spool
}

func (t *telling) Commit(ctx context.Context) (queue.ID, error) {
	id, err := t.Message.Commit(ctx)
	if err != nil {
		return id, err
	}
	// The file is still there: a crash now must not make a second message of it.
	if marked, err := t.s.q.Marked(id.String()); err != nil || !marked || !exists(t.s.dir, ".taken", id.String()+".eml") {
		t.s.t.Errorf("%s is queued without a mark or without its file: %t, %v", id, marked, err)
	}
	t.s.taken <- id
	return id, nil
}

// moveIn writes a file elsewhere and moves it into the directory.
func (s *spool) moveIn(name, content string) {
	s.t.Helper()
	tmp := filepath.Join(filepath.Dir(s.dir), name+".tmp")
	if err := os.WriteFile(tmp, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(s.dir, name)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *spool) next() queue.ID {
	s.t.Helper()
	select {
	case id := <-s.taken:
		return id
	case <-time.After(30 * time.Second):
		s.t.Fatal("no message came")
	}
	panic("unreachable")
}

// until waits for a condition that nothing tells of.
func (s *spool) until(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			s.t.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func exists(path ...string) bool {
	_, err := os.Lstat(filepath.Join(path...))
	return err == nil
}

// empty reports whether a directory has no files but hidden ones and bad/.
func empty(dir string) bool {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() != "bad" && (e.Name()[0] != '.' || strings.HasSuffix(e.Name(), ".eml")) {
			return false
		}
	}
	return true
}

func (s *spool) messages() int {
	s.t.Helper()
	return int(s.q.Depth(time.Now()).Messages)
}

func (s *spool) recipients(id queue.ID) string {
	s.t.Helper()
	m, err := s.q.Message(id)
	if err != nil {
		s.t.Fatal(err)
	}
	var list []string
	for _, r := range m.Envelope.Recipients {
		list = append(list, r.Address)
	}
	return m.Envelope.Sender + " > " + strings.Join(list, " ")
}

// watched starts the watcher and waits until it sees what is moved in.
func (s *spool) watched() {
	s.t.Helper()
	s.start()
	for i := range 1000 {
		probe := fmt.Sprintf("probe%d.eml", i)
		s.moveIn(probe, message)
		select {
		case <-s.taken:
			s.until("the last probe is taken", func() bool { return !exists(s.dir, probe) && empty(filepath.Join(s.dir, ".taken")) })
			for len(s.taken) > 0 {
				<-s.taken
			}
			return
		case <-time.After(30 * time.Millisecond):
		}
	}
	s.t.Fatal("nothing is seen that is moved in")
}

func TestMovedInIsTakenAtOnce(t *testing.T) {
	t.Parallel()
	s := newSpool(t, func(o *pickup.Options) { o.Rest = time.Hour }) // so that no reading of the directory finds it
	s.watched()
	before := s.messages()
	s.moveIn("a.eml", message)
	id := s.next()
	if got := s.recipients(id); got != "ann@a.test > bob@b.test" {
		t.Error(got)
	}
	s.moveIn("B.EML", message)
	s.next()
	if n := s.messages(); n != before+2 {
		t.Errorf("%d messages", n-before)
	}
	s.until(".taken is empty", func() bool { return empty(filepath.Join(s.dir, ".taken")) })
	s.until("the mark is removed", func() bool { marked, err := s.q.Marked(id.String()); return err == nil && !marked })
}

func TestWrittenInPlace(t *testing.T) {
	t.Parallel()
	s := newSpool(t, nil)
	s.start()
	if err := os.WriteFile(filepath.Join(s.dir, "a.eml"), []byte(message), 0o600); err != nil {
		t.Fatal(err)
	}
	s.next()
}

// TestBeingWritten: a file is left alone until it has rested, however often
// the directory is read.
func TestBeingWritten(t *testing.T) {
	t.Parallel()
	s := newSpool(t, func(o *pickup.Options) { o.Rest, o.Rescan = time.Hour, time.Millisecond })
	s.start()
	s.stop()
	if err := os.WriteFile(filepath.Join(s.dir, "a.eml"), []byte(message), 0o600); err != nil {
		t.Fatal(err)
	}
	s.watched()
	before := s.messages()
	for range 20 { // the directory is read in between
		s.moveIn("b.eml", message)
		s.next()
	}
	s.stop()
	if !exists(s.dir, "a.eml") || s.messages() != before+20 {
		t.Errorf("%d messages were made", s.messages()-before)
	}
}

func TestPresentAtStart(t *testing.T) {
	t.Parallel()
	s := newSpool(t, nil)
	s.start()
	s.stop()
	const n = 1300 // more than one reading of the directory, and one claim, takes
	for i := range n {
		s.moveIn(fmt.Sprintf("%d.eml", i), message)
	}
	s.start()
	for range n {
		s.next()
	}
	s.until("the directory is empty", func() bool { return empty(s.dir) })
}

func TestOtherNamesAreLeftAlone(t *testing.T) {
	t.Parallel()
	s := newSpool(t, nil)
	s.start()
	for _, name := range []string{".hidden.eml", "a.eml.tmp", "a.txt", ".eml"} {
		s.moveIn(name, message)
	}
	if err := os.Mkdir(filepath.Join(s.dir, "directory.eml"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.moveIn("z.eml", message)
	s.next()
	s.stop()
	s.start() // reads the directory
	s.moveIn("z.eml", message)
	s.next()
	for _, name := range []string{".hidden.eml", "a.eml.tmp", "a.txt", ".eml", "directory.eml"} {
		if !exists(s.dir, name) {
			t.Errorf("%s is gone", name)
		}
	}
}

func TestEnvelopes(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"header", "From: ann@a.test\nTo: bob@b.test\nCc: carl@c.test\nBcc: dora@d.test\n\nx\n", "ann@a.test > bob@b.test carl@c.test dora@d.test"},
		{"PowerMTA", "x-sender: bounce@a.test\nx-receiver: eve@e.test\n" + message, "bounce@a.test > eve@e.test"},
		{".NET", "X-Sender: bounce@a.test\r\nX-Receiver: eve@e.test\r\nX-Receiver:\r\n emil@e.test\r\n" + message, "bounce@a.test > eve@e.test emil@e.test"},
		{"receiver only", "x-receiver: eve@e.test\n" + message, "ann@a.test > eve@e.test"},
		{"sender only", "x-sender: bounce@a.test\n" + message, "bounce@a.test > bob@b.test"},
		{"null sender", "x-sender: <>\n" + message, " > bob@b.test"},
		{"byte order mark", "\xef\xbb\xbf" + message, "ann@a.test > bob@b.test"},
		{"byte order mark before x-sender", "\xef\xbb\xbfx-sender: bounce@a.test\n" + message, "bounce@a.test > bob@b.test"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSpool(t, nil)
			s.start()
			s.moveIn("a.eml", tt.in)
			id := s.next()
			if got := s.recipients(id); got != tt.want {
				t.Errorf("got %q; want %q", got, tt.want)
			}
			content := strings.ToLower(s.content(id))
			for _, lost := range []string{"x-sender", "x-receiver", "bcc:", "\xef\xbb\xbf"} {
				if strings.Contains(content, lost) {
					t.Errorf("%q was sent:\n%s", lost, content)
				}
			}
			if !strings.Contains(content, "by mx.home.test (pickup) id "+id.String()) || !strings.Contains(content, "from: ann@a.test\r\n") {
				t.Errorf("sent\n%s", content)
			}
		})
	}
}

func (s *spool) content(id queue.ID) string {
	s.t.Helper()
	c, err := s.q.OpenMessage(id)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	all := string(c.Head) + string(c.Data)
	if c.File != nil {
		b, err := io.ReadAll(c.File)
		if err != nil {
			s.t.Fatal(err)
		}
		all += string(b)
	}
	return all
}

// TestLargeFiles crosses the sizes of the buffers.
func TestLargeFiles(t *testing.T) {
	t.Parallel()
	s := newSpool(t, nil)
	s.start()
	for _, size := range []int{64<<10 - 4, 64<<10 - 3, 64 << 10, 64<<10 + 1, 300 << 10} {
		head := "x-receiver: bob@b.test\n" + "From: ann@a.test\n\n"
		text := strings.Repeat("a line\n", size/7)[:size-len(head)-1] + "\n"
		s.moveIn("a.eml", head+text)
		_, got, _ := strings.Cut(s.content(s.next()), "\r\n\r\n")
		if want := strings.ReplaceAll(text, "\n", "\r\n"); got != want {
			t.Errorf("a file of %d octets: %d of text became %d", size, len(want), len(got))
		}
	}
	var head strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&head, "x-receiver: recipient.number.%d@domain%d.test\n", i, i%50)
	}
	s.moveIn("b.eml", head.String()+message)
	if n := strings.Count(s.recipients(s.next()), "@domain"); n != 5000 {
		t.Errorf("%d recipients; want 5000", n)
	}
}

func TestEachFileOnce(t *testing.T) {
	t.Parallel()
	s := newSpool(t, nil)
	s.start()
	const writers, each = 4, 200
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				s.moveIn(fmt.Sprintf("%d-%d.eml", w, i), strings.Replace(message, "bob@", fmt.Sprintf("b%d-%d@", w, i), 1))
			}
		})
	}
	seen := make(map[string]bool)
	for range writers * each {
		to := s.recipients(s.next())
		if seen[to] {
			t.Errorf("%s came twice", to)
		}
		seen[to] = true
	}
	wg.Wait()
	s.stop()
	if len(s.taken) != 0 || s.messages() != writers*each || !empty(s.dir) {
		t.Errorf("%d messages", s.messages())
	}
}

func TestDirectoryIsLocked(t *testing.T) {
	t.Parallel()
	s := newSpool(t, nil)
	s.start()
	w, err := pickup.New(s.opts)
	if err != nil {
		t.Fatal(err)
	}
	err = w.Run(context.Background())
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by process %d", os.Getpid())) || !strings.Contains(err.Error(), s.dir) {
		t.Errorf("got %v", err)
	}
	s.stop()
	s.start() // the lock is given back
}

func TestDirectoryModes(t *testing.T) {
	t.Parallel()
	s := newSpool(t, nil)
	s.start()
	for path, want := range map[string]fs.FileMode{
		s.dir:                          0o770 | fs.ModeSetgid,
		filepath.Join(s.dir, "bad"):    0o770 | fs.ModeSetgid,
		filepath.Join(s.dir, ".taken"): 0o700,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode() &^ fs.ModeDir; path != filepath.Join(s.dir, ".taken") && got != want || got.Perm() != want.Perm() {
			t.Errorf("%s has mode %v; want %v", path, got, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	s := newSpool(t, nil)
	for _, o := range []pickup.Options{
		{},
		{Marks: s.q, Intake: s},
		{Marks: s.q, Intake: s, Dirs: []string{"/a", "/a"}},
	} {
		if _, err := pickup.New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := pickup.New(pickup.Options{Marks: s.q, Intake: s, Dirs: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Run(context.Background()); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("a file was taken for a directory: %v", err)
	}
}
