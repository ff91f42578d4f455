package rehearsal

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Keep is what is kept of the messages.
type Keep struct {
	// Dir gets each message as a file <time>-<number>.eml, with x-sender and
	// x-receiver lines before it, as pickup directories read them.
	Dir string
	// Last is how many messages are kept in memory.
	Last int
}

// Message is one that was received and kept.
type Message struct {
	At      time.Time
	From    string // empty: the null reverse-path
	To      []string
	HELO    string
	Client  netip.Addr
	TLS     bool
	Content []byte // as it came, dots unstuffed
}

// kept are the messages that are kept.
type kept struct {
	Keep
	mu     sync.Mutex
	number int64
	ring   []Message // the oldest at number % Last, once it is full
}

func (k *kept) on() bool { return k.Dir != "" || k.Last > 0 }

func (k *kept) open() error {
	if k.Dir == "" {
		return nil
	}
	if err := os.MkdirAll(k.Dir, 0o700); err != nil {
		return fmt.Errorf("directory for messages: %w", err)
	}
	return nil
}

func (k *kept) add(m Message) error {
	k.mu.Lock()
	number := k.number
	k.number++
	if k.Last > 0 {
		if len(k.ring) < k.Last {
			k.ring = append(k.ring, m)
		} else {
			k.ring[int(number%int64(k.Last))] = m
		}
	}
	k.mu.Unlock()
	if k.Dir == "" {
		return nil
	}
	return m.write(filepath.Join(k.Dir, fmt.Sprintf("%s-%d.eml", m.At.UTC().Format("20060102T150405.000000"), number)))
}

// write makes the file appear whole.
func (m *Message) write(path string) error {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	fmt.Fprintf(w, "x-sender: %s\r\n", m.From)
	for _, to := range m.To {
		fmt.Fprintf(w, "x-receiver: %s\r\n", to)
	}
	w.Write(m.Content)
	if err := w.Flush(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

func (k *kept) list() []Message {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.ring) < k.Last || k.Last == 0 {
		return append([]Message(nil), k.ring...)
	}
	oldest := int(k.number % int64(k.Last))
	return append(append([]Message(nil), k.ring[oldest:]...), k.ring[:oldest]...)
}
