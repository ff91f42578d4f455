package queue

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"postrider/queue/store"
)

// Content is the stored message, exactly as it goes on the wire before
// dot-stuffing. Where File is nil, Head and Data together are all of it, and
// stay valid and unchanged until Close; else File follows Head and Data.
// File reports damage as an error in the place of io.EOF, so whoever sends it
// must not end the message before it has read to the end.
type Content struct {
	Head []byte // the prefix
	Data []byte // the body, where it is small
	File io.Reader
	Size int64 // of everything

	buf  *buffer
	file vfs.File
}

// Close gives back what the content holds. A second call does nothing.
func (c *Content) Close() error {
	if c.buf != nil {
		c.Head, c.Data = nil, nil
		c.buf.drop()
		c.buf = nil
	}
	if c.file != nil {
		f := c.file
		c.file = nil
		return f.Close()
	}
	return nil
}

// damage is an error that will not go away by itself: the record or the file
// is missing or does not match its sum.
type damage struct {
	id   ID
	what string
	err  error
}

func (d *damage) Error() string {
	return fmt.Sprintf("queue: message %s: %s: %v", d.id, d.what, d.err)
}

func (d *damage) Unwrap() error { return d.err }

// readContent gets a message's content from the disk.
func (q *Queue) readContent(id ID) (*Content, error) {
	buf := q.buffers.get(0)
	var err error
	buf.b, err = q.store.Get(idKey(keyBody, id), buf.b)
	if errors.Is(err, store.ErrAbsent) {
		buf.drop()
		return q.readLarge(id)
	}
	if err != nil {
		buf.drop()
		return nil, q.readError(id, "read its body", err)
	}
	prefix, body, err := splitSmallRecord(buf.b)
	if err != nil {
		buf.drop()
		return nil, &damage{id, "read its body", err}
	}
	return &Content{Head: prefix, Data: body, Size: int64(len(prefix) + len(body)), buf: buf}, nil
}

// readError tells a store or a system that does not work at present from a
// record that does not read.
func (q *Queue) readError(id ID, what string, err error) error {
	if errors.Is(err, store.ErrFailed) || exhausted(err) {
		return fmt.Errorf("queue: message %s: %s: %w", id, what, err)
	}
	return &damage{id, what, err}
}

// exhausted reports whether the system lacked something to read with, which
// says nothing of what was to be read.
func exhausted(err error) bool {
	for _, lack := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EAGAIN, unix.EINTR} {
		if errors.Is(err, lack) {
			return true
		}
	}
	return false
}

func (q *Queue) readLarge(id ID) (*Content, error) {
	record, err := q.store.Get(idKey(keyLargeBody, id), nil)
	if err != nil {
		return nil, q.readError(id, "read its body", err)
	}
	l, err := decodeLarge(record)
	if err != nil {
		return nil, &damage{id, "read its body's record", err}
	}
	_, name := q.bodyFile(id)
	f, err := q.fs.Open(name)
	if err != nil {
		return nil, q.readError(id, "open its body's file", err)
	}
	info, err := f.Stat()
	if err == nil && info.Size() != l.size {
		err = fmt.Errorf("%s has %d octets, not %d", name, info.Size(), l.size)
	}
	if err != nil {
		_ = f.Close() // only read from
		return nil, &damage{id, "open its body's file", err}
	}
	return &Content{
		Head: []byte(l.prefix),
		File: &fileReader{id: id, name: name, f: f, left: l.size, want: l.sum},
		Size: int64(len(l.prefix)) + l.size,
		file: f,
	}, nil
}

// fileReader reads a body's file and compares its sum at the end.
type fileReader struct {
	id   ID
	name string
	f    io.Reader
	left int64
	sum  uint32
	want uint32
	// damaged is told what it finds; nil: nobody.
	damaged func(error)
}

func (r *fileReader) found(err error) error {
	err = &damage{r.id, "read " + r.name, err}
	if r.damaged != nil {
		r.damaged(err)
	}
	return err
}

func (r *fileReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		if r.sum != r.want {
			return 0, r.found(errDamaged)
		}
		return 0, io.EOF
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.f.Read(p)
	r.sum = crc32.Update(r.sum, castagnoli, p[:n])
	r.left -= int64(n)
	if err == io.EOF {
		err = nil
		if r.left > 0 {
			err = r.found(io.ErrUnexpectedEOF)
		}
	}
	return n, err
}
