package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"postrider/mta/rehearsal"
)

// lockedBuffer may be written to while it is read.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startSink runs the command until stop is called, which returns what it printed.
func startSink(t *testing.T, args ...string) (said string, stop func() string) {
	t.Helper()
	var stdout, stderr lockedBuffer
	r, w := io.Pipe()
	c := newSinkCommand()
	c.SetArgs(append([]string{"--listen", "127.0.0.1:0", "--dns", "127.0.0.1:0"}, args...))
	c.SetOut(&stdout)
	c.SetErr(io.MultiWriter(&stderr, w))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.ExecuteContext(ctx); w.Close() }()
	// The announcement ends with the line that allows the network.
	seen := ""
	for buf := make([]byte, 1024); !strings.Contains(seen, "allow_networks"); {
		n, err := r.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, seen)
		}
		seen += string(buf[:n])
	}
	go io.Copy(io.Discard, r)
	return seen, func() string {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("sink: %v", err)
		}
		return stdout.String()
	}
}

func find(t *testing.T, pattern, in string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(in)
	if m == nil {
		t.Fatalf("no %q in %q", pattern, in)
	}
	return m[1]
}

func TestLoadIntoSink(t *testing.T) {
	t.Parallel()
	said, stop := startSink(t, "--verify", "--json", "--stats", "127.0.0.1:0", "--tls", "--without", "chunking", "--refuse", "@d1.load.test=550 5.1.1 no")
	target := find(t, `SMTP on (\S+)`, said)
	runLoad := func(args ...string) (string, error) {
		var out bytes.Buffer
		c := newLoadCommand()
		c.SetArgs(append(args, "--messages", "100", "--tls", target))
		c.SetOut(&out)
		c.SetErr(io.Discard)
		err := c.ExecuteContext(t.Context())
		return out.String(), err
	}
	out, err := runLoad("--domains", "1", "--size", "2kB", "--json")
	var r rehearsal.Result
	if err != nil || json.Unmarshal([]byte(out), &r) != nil || r.Accepted != 100 || r.Octets != 200_000 || r.Wait.P99 == 0 {
		t.Errorf("%v, %s", err, out)
	}
	out, err = runLoad("--domains", "2")
	if err == nil || !strings.Contains(err.Error(), "50 of 100 messages were not accepted") || !strings.Contains(out, "50 refused") || !strings.Contains(out, "messages/s") {
		t.Errorf("%v, %s", err, out)
	}
	if _, err = runLoad("--way", "chunked", "--domains", "1"); err == nil || !strings.Contains(err.Error(), "BDAT was answered 500") {
		t.Errorf("%v", err)
	}

	response, err := http.Get(find(t, `counts on (\S+)`, said))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var over rehearsal.Stats
	if err := json.NewDecoder(response.Body).Decode(&over); err != nil || over.Messages != 150 || over.Copies != 150 || over.Duplicates != 0 {
		t.Errorf("%v, %+v", err, over)
	}
	var last rehearsal.Stats
	if out := stop(); json.Unmarshal([]byte(out), &last) != nil || last.Messages != 150 || last.TLS == 0 {
		t.Errorf("%s", out)
	}
}

func TestSinkTellsWhatCame(t *testing.T) {
	t.Parallel()
	said, stop := startSink(t, "--verify")
	load, err := rehearsal.NewLoad(rehearsal.LoadOptions{Target: find(t, `SMTP on (\S+)`, said), Messages: 10})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := load.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	out := stop()
	for _, want := range []string{"10 messages, 41.0 kB", "10 recipients at 10 domains", "0 of 10;"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
}

func TestSinkAndLoadUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--refuse", "x"}, {"--without", "xyzzy"}, {"--max-size", "x"}, {"--host-address", "x"}, {"argument"},
	} {
		c := newSinkCommand()
		c.SetArgs(args)
		c.SetErr(io.Discard)
		c.SetOut(io.Discard)
		if err := c.ExecuteContext(t.Context()); err == nil {
			t.Errorf("sink %v: no error", args)
		}
	}
	for _, args := range [][]string{
		{"--size", "x"}, {"--size", "10B"}, {"--way", "x"}, {"--allow-network", "x"}, {"nowhere"}, {"127.0.0.1:25", "more"}, {"192.0.2.1:25"},
	} {
		c := newLoadCommand()
		c.SetArgs(args)
		c.SetErr(io.Discard)
		c.SetOut(io.Discard)
		if err := c.ExecuteContext(t.Context()); err == nil {
			t.Errorf("load %v: no error", args)
		}
	}
}

// What cannot be listened for leaves nothing open.
func TestSinkCannotListen(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, args := range [][]string{
		{"--listen", taken.Addr().String()},
		{"--listen", "127.0.0.1:0", "--dns", taken.Addr().String()},
		{"--listen", "127.0.0.1:0", "--dns", "127.0.0.1:0", "--stats", taken.Addr().String()},
		{"--listen", "127.0.0.1:0", "--dns", "127.0.0.1:0", "--stats", "0.0.0.0:0"},
		{"--listen", "0.0.0.0:0", "--dns", "127.0.0.1:0"},
		{"--listen", "127.0.0.1:0", "--record", "rubbish"},
	} {
		c := newSinkCommand()
		c.SetArgs(args)
		c.SetErr(io.Discard)
		c.SetOut(io.Discard)
		if err := c.ExecuteContext(t.Context()); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%v: %v", args, err)
		}
	}
}
