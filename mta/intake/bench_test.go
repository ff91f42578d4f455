package intake_test

import (
	"context"
	"strings"
	"testing"

	"postrider/mta/intake"
	"postrider/queue"
)

// discard is a queue whose Submit costs nothing.
type discard struct{ *queue.Queue }

func (d discard) Submit(_ context.Context, s queue.Submission) error {
	s.Body.Discard()
	return nil
}

// BenchmarkMessage is the hot path but for the queue and the signature.
func BenchmarkMessage(b *testing.B) {
	header := "Received: from x.test by y.test; Sat, 4 Jul 2026 09:29:59 +0200\r\n" + full +
		"To: Bob <bob@b.test>\r\nSubject: an invoice\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nX-Mailer: bench\r\n\r\n"
	text := strings.Repeat("a line of text such as people write, with 70 octets in it, or so.\r\n", 55)
	for _, bm := range []struct{ name, content string }{
		{"4KB", header + text},
		{"4KB-LF", strings.ReplaceAll(header+text, "\r\n", "\n")},
		{"100KB", header + strings.Repeat(text, 27)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			r := newReceiver(b, discard{bodies}, nil)
			content := []byte(bm.content)
			ctx := context.Background()
			b.ReportAllocs()
			b.SetBytes(int64(len(content)))
			for b.Loop() {
				env := &queue.Envelope{Sender: "ann@a.test", Recipients: []queue.Recipient{{Address: "bob@b.test"}}}
				msg, err := r.Begin(now, intake.Meta{Envelope: env, Protocol: "ESMTP"})
				if err != nil {
					b.Fatal(err)
				}
				for p := content; len(p) > 0; {
					n := min(len(p), 16<<10)
					if _, err := msg.Write(p[:n]); err != nil {
						b.Fatal(err)
					}
					p = p[n:]
				}
				if _, err := msg.Commit(ctx); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
