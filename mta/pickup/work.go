package pickup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"postrider/mta/intake"
	"postrider/queue"
)

// buffers hold the head of a file, and mostly all of it.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// badFile is a file that cannot become a message.
type badFile struct {
	err    error
	advice string
}

func (b *badFile) Error() string { return b.err.Error() }
func (b *badFile) Unwrap() error { return b.err }

// work makes a message of a claimed file.
func (w *Watcher) work(ctx context.Context, f *file) result {
	if f.again {
		was, err := w.opts.Marks.Marked(mark(f.id))
		if err != nil {
			f.dir.trouble("ask for a mark", err)
			return noRoom
		}
		if was { // only the unlinking was left to do
			return f.unlink()
		}
	}
	err := w.submit(ctx, f)
	var refusal *intake.Error
	var broken *badFile
	switch {
	case err == nil:
		w.log.Info("picked up", "id", f.id.String(), "dir", f.dir.path, "file", f.name)
		return f.unlink()
	case errors.As(err, &refusal) && !refusal.Temporary():
		return f.setAside(&badFile{err, "Correct the message and move it here again."})
	case errors.As(err, &broken):
		return f.setAside(broken)
	case errors.Is(err, fs.ErrNotExist):
		w.log.Warn("a file that was taken is gone", "dir", f.dir.path, "file", f.name, "id", f.id.String())
		return bad
	case errors.As(err, &refusal) && (refusal.Code == 452 || refusal.Status == "4.3.2"):
		f.dir.trouble("hand a file to the queue", err)
		return noRoom
	}
	w.log.Warn("a file waits", "dir", f.dir.path, "file", f.name, "id", f.id.String(), "error", err)
	return notNow
}

// submit hands a file to intake, and returns when it is on stable storage.
func (w *Watcher) submit(ctx context.Context, f *file) error {
	in, err := f.open()
	if err != nil {
		return err
	}
	defer in.Close()
	buf := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	head, err := readHead(in, buf[:])
	if err != nil {
		return fmt.Errorf("read %s: %w", f.name, err)
	}
	if bytes.HasPrefix(head, []byte("\xff\xfe")) || bytes.HasPrefix(head, []byte("\xfe\xff")) {
		return &badFile{errors.New("line 1: the file is UTF-16"), "Write it as UTF-8 or ASCII."}
	}
	if len(head) >= maxHead && !headEnds(head) { // recipients in what was not read would get nothing
		return &badFile{fmt.Errorf("its header is larger than %d octets", maxHead), "Make several files of it, each for some of the recipients."}
	}
	head = bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")) // a sign that some programs put before UTF-8
	e, err := readEnvelope(head)
	if err != nil {
		return &badFile{err, "Correct the line and move the file here again."}
	}
	msg, err := w.opts.Intake.Begin(time.Now(), f.meta(e))
	if err != nil {
		return err
	}
	defer msg.Abort()
	if _, err := msg.Write(head[e.skip:]); err != nil {
		return err
	}
	if len(head) >= len(buf)-3 { // else it was all of the file
		if _, err := io.CopyBuffer(onlyWriter{msg}, onlyReader{in}, buf[:]); err != nil {
			return err
		}
	}
	// Who stops us must not make us doubt whether the message is queued.
	_, err = msg.Commit(context.WithoutCancel(ctx))
	return err
}

// onlyWriter and onlyReader keep io.CopyBuffer from other ways than through its buffer.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)

// meta is what the file says of the message.
func (f *file) meta(e *envelopeLines) intake.Meta {
	env := &queue.Envelope{
		ID: f.id, Recipients: e.recipients, Tag: e.tag, EnvID: e.envID, Ret: e.ret,
		SMTPUTF8: e.smtpUTF8, RequireTLS: e.requireTLS,
		Origin: queue.Origin{Via: "pickup"},
	}
	if e.sender != nil {
		env.Sender = *e.sender
	}
	m := intake.Meta{
		Envelope: env, Protocol: "pickup", Mark: mark(f.id),
		SenderFromHeader: e.sender == nil, RecipientsFromHeader: len(e.recipients) == 0,
		FirstLine: e.skipLines + 1,
	}
	if !e.ended {
		m.DropFields = []string{senderField, receiverField}
	}
	return m
}

// open opens the claimed file, which somebody else made: it may be anything.
func (f *file) open() (*os.File, error) {
	in, err := os.OpenFile(f.path(), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, syscall.ELOOP):
		return nil, &badFile{errors.New("it is a symbolic link"), "Move the file itself here."}
	case errors.Is(err, fs.ErrPermission):
		return nil, &badFile{errors.New("the server may not read it"), "Give its group the right to read it (chmod g+r) before moving it here."}
	case err != nil:
		return nil, err
	}
	info, err := in.Stat()
	if err != nil {
		in.Close()
		return nil, err
	}
	broken := ""
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink != 1 {
		broken = "it has other names (hard links)"
	}
	if !info.Mode().IsRegular() {
		broken = "it is no regular file"
	}
	if broken != "" {
		in.Close()
		return nil, &badFile{errors.New(broken), "Move a file of its own here."}
	}
	return in, nil
}

// readHead reads the file into buf, and on as long as its header may go on.
func readHead(in io.Reader, buf []byte) ([]byte, error) {
	n, err := io.ReadFull(in, buf)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return buf[:n], nil
	}
	head := buf
	for err == nil && len(head) < maxHead && !headEnds(head) {
		more := make([]byte, 2*len(head))
		copy(more, head)
		n, err = io.ReadFull(in, more[len(head):])
		head = more[:len(head)+n]
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return head, err
}

// headEnds reports whether the header's end is within the head.
func headEnds(head []byte) bool {
	l := lineReader{text: head}
	for {
		text, ok := l.next()
		if !ok {
			return false
		}
		if len(text) == 0 {
			return true
		}
	}
}

// unlink removes a file that has become a message.
func (f *file) unlink() result {
	if err := os.Remove(f.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		// The mark keeps it from being sent again, now and after a restart.
		f.dir.trouble("remove a file from .taken", err)
		f.again = true
		return notNow
	}
	return accepted
}

// setAside moves a file to bad/, with a text beside it.
func (f *file) setAside(why *badFile) result {
	d := f.dir
	name := f.name
	if _, err := os.Lstat(filepath.Join(d.badDir(), name)); err == nil {
		name = f.id.String() + "-" + name
	}
	text := fmt.Sprintf("file:   %s\nid:     %s\ntime:   %s\nreason: %v\n\n%s\n",
		f.name, f.id, time.Now().Format(time.RFC3339), why.err, why.advice)
	note := filepath.Join(d.badDir(), name+".error")
	err := os.WriteFile(note, []byte(text), 0o600)
	if err == nil {
		err = os.Chmod(note, 0o640) // for the group, whatever the umask
	}
	if err == nil {
		err = os.Rename(f.path(), filepath.Join(d.badDir(), name))
	}
	if err != nil {
		d.trouble("set a bad file aside", err)
		f.again = true
		return notNow
	}
	d.log.Warn("a file cannot be sent; it was moved to bad", "file", f.name, "id", f.id.String(), "error", why.err)
	return bad
}
