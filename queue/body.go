package queue

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// bodyFileCategory names our writing in the file system's statistics.
const bodyFileCategory vfs.DiskWriteCategory = "postrider-body"

// Body is content on its way into the queue: the message as it will be sent,
// CRLF line ends, without the prefix. It is used by one goroutine.
type Body struct {
	q    *Queue
	buf  *buffer // what is not in the file yet; all of a small body
	size int64
	sum  uint32
	file vfs.File // of a large body, while it is written
	name string   // of the file, where there is one
	err  error    // the first failure; every later call repeats it
}

// NewBody makes a body to be written by one goroutine and then handed to
// Submit, or discarded. It stays in memory up to 128 KiB, then spills to a file.
func (q *Queue) NewBody() *Body {
	return &Body{q: q, buf: q.buffers.get(0)}
}

var errBodyGone = errors.New("queue: body was submitted or discarded before")

// Write appends to the body. Errors come from the disk, where a large body is
// written as it arrives, and are of kind ErrFull; after one the body can only
// be discarded.
func (b *Body) Write(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.buf == nil {
		return 0, errBodyGone
	}
	written := len(p)
	b.sum = crc32.Update(b.sum, castagnoli, p)
	b.size += int64(len(p))
	for len(b.buf.b)+len(p) > smallBody {
		n := smallBody - len(b.buf.b)
		b.append(p[:n])
		p = p[n:]
		if err := b.spill(); err != nil {
			return 0, err
		}
	}
	b.append(p)
	return written, nil
}

func (b *Body) append(p []byte) {
	b.buf = b.q.buffers.grow(b.buf, len(p))
	b.buf.b = append(b.buf.b, p...)
}

// spill moves what is in the buffer to the end of the file, as long as the
// disk has room for more than the mail that is there.
func (b *Body) spill() error {
	if b.err = b.q.room.check(); b.err != nil {
		return b.err
	}
	if b.file == nil {
		b.name = b.q.fs.PathJoin(b.q.tempDir(), strconv.FormatUint(b.q.tempNames.Add(1), 36))
		b.file, b.err = b.q.fs.Create(b.name, bodyFileCategory)
		if b.err != nil {
			b.err = fmt.Errorf("%w: make a file for a large body: %w", ErrFull, b.err)
			b.name = ""
			return b.err
		}
	}
	if _, b.err = b.file.Write(b.buf.b); b.err != nil {
		b.err = fmt.Errorf("%w: write the file of a large body: %w", ErrFull, b.err)
		return b.err
	}
	b.buf.b = b.buf.b[:0]
	return nil
}

// Size tells the octets written so far.
func (b *Body) Size() int64 { return b.size }

// Discard gives back memory and file. It may be called at any time, also
// after Submit, where it does nothing: defer it.
func (b *Body) Discard() {
	if b.buf != nil {
		b.buf.drop()
		b.buf = nil
	}
	if b.file != nil {
		_ = b.file.Close() // it is about to be removed
		b.file = nil
	}
	if b.name != "" {
		if err := b.q.fs.Remove(b.name); err != nil {
			b.q.log.Warn("cannot remove the file of a discarded body", "file", b.name, "error", err)
		}
		b.name = ""
	}
}

// large reports whether the body is in a file.
func (b *Body) large() bool { return b.name != "" }

// settleFile brings a large body to rest under its final name, on stable
// storage: the file's content, then the name in its directory.
func (b *Body) settleFile(id ID) error {
	if b.file != nil {
		if len(b.buf.b) > 0 {
			if err := b.spill(); err != nil {
				return err
			}
		}
		err := b.file.Sync()
		if cerr := b.file.Close(); err == nil {
			err = cerr
		}
		b.file = nil
		if err != nil {
			b.err = fmt.Errorf("%w: sync the file of a large body: %w", ErrFull, err)
			return b.err
		}
	}
	dir, name := b.q.bodyFile(id)
	if b.name != name {
		if err := b.q.fs.Rename(b.name, name); err != nil {
			return fmt.Errorf("%w: name the file of a large body: %w", ErrFull, err)
		}
		b.name = name
	}
	if err := syncDir(b.q.fs, dir); err != nil {
		return fmt.Errorf("%w: sync the directory of a large body: %w", ErrFull, err)
	}
	return nil
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// bodyFile names the file of a large body. The directory is the ID's last
// octet: the first ones are time and would fill one directory after another.
func (q *Queue) bodyFile(id ID) (dir, name string) {
	dir = q.fs.PathJoin(q.opts.Dir, "b", hex.EncodeToString(id[15:]))
	return dir, q.fs.PathJoin(dir, id.String())
}

func (q *Queue) tempDir() string { return q.fs.PathJoin(q.opts.Dir, "tmp") }

// smallRecordSize and putSmallRecord lay out the record of a small body: the
// length of the prefix, the prefix, the body.
func smallRecordSize(prefix, body []byte) int {
	var scratch [binary.MaxVarintLen64]byte
	return 1 + binary.PutUvarint(scratch[:], uint64(len(prefix))) + len(prefix) + len(body) + sumSize
}

func putSmallRecord(value, prefix, body []byte) {
	b := append(value[:0], recordVersion)
	b = binary.AppendUvarint(b, uint64(len(prefix)))
	b = append(b, prefix...)
	b = append(b, body...)
	binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// splitSmallRecord gives the parts of the record of a small body.
func splitSmallRecord(record []byte) (prefix, body []byte, err error) {
	end := len(record) - sumSize
	if end < 2 || record[0] != recordVersion ||
		crc32.Checksum(record[:end], castagnoli) != binary.LittleEndian.Uint32(record[end:]) {
		return nil, nil, errDamaged
	}
	n, width := binary.Uvarint(record[1:end])
	rest := record[min(1+max(width, 0), end):end]
	if width <= 0 || n > uint64(len(rest)) {
		return nil, nil, errDamaged
	}
	return rest[:n], rest[n:], nil
}

// largeRecord is the record of a large body.
type largeRecord struct {
	prefix string
	size   int64 // of the file
	sum    uint32
}

func (l *largeRecord) encode(w *recordWriter, prefix []byte) {
	w.uint(uint64(l.size))
	w.uint(uint64(l.sum))
	w.uint(uint64(len(prefix)))
	w.b = append(w.b, prefix...)
}

func decodeLarge(record []byte) (l largeRecord, err error) {
	r, err := openRecord(record)
	if err != nil {
		return l, err
	}
	l.size = int64(r.uint())
	l.sum = uint32(r.uint())
	l.prefix = r.string()
	if l.size < 0 {
		r.fail()
	}
	return l, r.end()
}
