package rehearsal

import (
	"context"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"postrider/mta/intake"
	"postrider/mta/pickup"
	"postrider/queue"
)

// The sample messages, taken by the real pickup, become the envelopes that
// the table expects, and the broken ones are set aside with the reason.
func TestSpoolIsTakenAsExpected(t *testing.T) {
	t.Parallel()
	e := loadSpool(t)
	q, err := queue.Open(queue.Options{Dir: filepath.Join(t.TempDir(), "queue"), MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := intake.New(intake.Options{Queue: q, Hostname: "mail.sender.test", LocalMailTo: "ops@shop.test"})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "pickup")
	if err := os.Mkdir(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	rejected := 0
	for _, m := range e.Messages {
		content, err := os.ReadFile(filepath.Join(spoolDir, m.File))
		if err != nil {
			t.Fatal(err)
		}
		part := filepath.Join(dir, m.File+".part")
		if err := os.WriteFile(part, content, 0o660); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(part, filepath.Join(dir, m.File)); err != nil {
			t.Fatal(err)
		}
		if m.Rejected != "" {
			rejected++
		}
	}
	watcher, err := pickup.New(pickup.Options{Marks: q, Intake: pickup.ToReceiver(receiver), Logger: slog.New(slog.DiscardHandler), Dirs: []string{dir}, Rest: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = q.Run(ctx) })
	wg.Go(func() { _ = watcher.Run(ctx) })
	defer func() {
		stop()
		wg.Wait()
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}()

	want := len(e.Messages) - rejected
	over := time.Now().Add(30 * time.Second)
	var reasons []string
	for {
		reasons, _ = filepath.Glob(filepath.Join(dir, "bad", "*.error"))
		if int(q.Depth(time.Now()).Messages) >= want && len(reasons) >= rejected || time.Now().After(over) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}

	got := make(map[EnvelopeKey]bool)
	messages, err := q.List(t.Context(), time.Now(), queue.Selector{}, queue.ID{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		for _, r := range m.Envelope.Recipients {
			got[KeyOf(m.Envelope.Sender, r.Address)] = true
		}
	}
	fates := e.Fates()
	for key := range fates {
		if !got[key] {
			t.Errorf("%s: nothing goes from <%s> to <%s>", fates[key].Message.File, key.Sender, key.Recipient)
		}
	}
	for key := range got {
		if _, ok := fates[key]; !ok {
			t.Errorf("nobody expects mail from <%s> to <%s>", key.Sender, key.Recipient)
		}
	}
	checkRejected(t, e, reasons)
}

func checkRejected(t *testing.T, e *Expected, reasons []string) {
	t.Helper()
	texts := make(map[string]string)
	for _, path := range reasons {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[strings.TrimSuffix(filepath.Base(path), ".error")] = string(text)
	}
	expected := 0
	for _, m := range e.Messages {
		if m.Rejected == "" {
			continue
		}
		expected++
		if text := texts[m.File]; !strings.Contains(text, m.Rejected) {
			t.Errorf("%s: the reason is %q, and should name %q", m.File, text, m.Rejected)
		}
	}
	if len(texts) != expected {
		t.Errorf("%d files were rejected: %q", len(texts), slices.Sorted(maps.Keys(texts)))
	}
}
