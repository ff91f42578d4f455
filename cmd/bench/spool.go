package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// playSpool starts a server whose spool directory is full of files, and waits
// until all have arrived. The time begins with the start of the server.
func playSpool(ctx context.Context, _ *rig, t *turn) (res result, err error) {
	server, ok := t.server.(*postriderServer)
	if !ok {
		return res, fmt.Errorf("%s has no spool directory", t.server.name())
	}
	if err := writeSpool(filepath.Join(server.stateDir(t.dir), "pickup"), t.messages, t.size, t.domains); err != nil {
		return res, err
	}
	began := time.Now()
	s, err := t.launch(ctx)
	if err != nil {
		return res, err
	}
	defer s.end()
	s.before = usage{} // files are taken before the server greets
	if err := arrived(ctx, t.sink, int64(t.messages)); err != nil {
		return res, err
	}
	used, err := s.stop()
	if err != nil {
		return res, err
	}
	stats, n := t.sink.Stats(), float64(t.messages)
	res.Messages, res.Ready = t.messages, s.ready
	res.Elapsed = stats.Last.Sub(began)
	res.Rate = n / res.Elapsed.Seconds()
	res.CPU = time.Duration(float64(used.CPU) / n)
	res.PeakRSS, res.Written = used.PeakRSS, float64(used.BytesWritten)/n
	res.Lost, res.Duplicates = t.messages-int(stats.Copies), int(stats.Duplicates)
	return res, nil
}

// writeSpool writes files as a batch mailer does, at rest for long enough to
// be taken at once.
func writeSpool(dir string, files, size, domains int) error {
	if err := os.MkdirAll(dir, 0o770); err != nil {
		return err
	}
	line := strings.Repeat("batch ", 12) + "\n"
	body := strings.Repeat(line, size/len(line)+1)
	past := time.Now().Add(-time.Minute)
	for i := range files {
		header := fmt.Sprintf("From: batch@sender.test\nTo: r@d%d.load.test\nSubject: Batch %d\nMessage-ID: <%d@batch.sender.test>\nDate: %s\n\n",
			i%domains, i, i, past.Format(time.RFC1123Z))
		name := filepath.Join(dir, fmt.Sprintf("%08d.eml", i))
		if err := os.WriteFile(name, []byte(header+body[:size-len(header)]), 0o660); err != nil {
			return err
		}
		if err := os.Chtimes(name, past, past); err != nil {
			return err
		}
	}
	return nil
}
