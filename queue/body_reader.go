package queue

import (
	"bytes"
	"fmt"
	"io"
)

// Reader reads what was written to the body so far, from its start. It may be
// used until the next Write, Discard or Submit; any number may be open. Intake
// needs it to write a message anew whose lines turned out to be too long.
func (b *Body) Reader() (io.ReadCloser, error) {
	switch {
	case b.err != nil:
		return nil, b.err
	case b.buf == nil:
		return nil, errBodyGone
	case b.file == nil:
		return io.NopCloser(bytes.NewReader(b.buf.b)), nil
	}
	f, err := b.q.fs.Open(b.name)
	if err != nil {
		return nil, fmt.Errorf("queue: read the file of a large body: %w", err)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(f, bytes.NewReader(b.buf.b)), f}, nil
}
