package pickup_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"postrider/mta/intake"
	"postrider/mta/pickup"
	"postrider/queue"
)

// BenchmarkFiles takes files of 4 KB that lie in the directory, down to the
// last mark, with the real queue.
func BenchmarkFiles(b *testing.B) {
	q, err := queue.Open(queue.Options{Dir: b.TempDir(), MinFree: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	r, err := intake.New(intake.Options{Queue: q, Hostname: "mx.home.test"})
	if err != nil {
		b.Fatal(err)
	}
	dir := filepath.Join(b.TempDir(), "pickup")
	opts := pickup.Options{Marks: q, Intake: pickup.ToReceiver(r), Dirs: []string{dir}, Rest: time.Millisecond, Rescan: time.Hour}
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	content := []byte("x-sender: ann@a.test\nx-receiver: bob@b.test\n" + message + strings.Repeat("a line of text such as people write, with 70 octets in it, or so.\n", 58))
	for i := range b.N {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.eml", i)), content, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	w, err := pickup.New(opts)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	for q.Depth(time.Now()).Messages < int64(b.N) {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "files/s")
}
