package sendmail

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"postrider/mta/api/client"
	"postrider/mta/api/wire"
)

// taken is one message that the server below was given.
type taken struct {
	sender     string
	recipients []string
	query      map[string][]string
	content    string
}

// server answers on a socket as package api does, and keeps what it gets.
type server struct {
	socket string
	answer func(w http.ResponseWriter) bool // true: it has answered

	mu  sync.Mutex
	got []taken
}

func startServer(t *testing.T) *server {
	t.Helper()
	s := &server{socket: filepath.Join(t.TempDir(), "s")}
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	hs := &http.Server{Handler: s}
	go hs.Serve(l)
	t.Cleanup(func() { hs.Close() })
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(r.Body)
	if err != nil {
		return // broken off: nothing is queued
	}
	if s.answer != nil && s.answer(w) {
		return
	}
	q := r.URL.Query()
	s.mu.Lock()
	s.got = append(s.got, taken{q.Get("sender"), q["recipient"], q, string(content)})
	id := fmt.Sprintf("id%d", len(s.got))
	s.mu.Unlock()
	w.WriteHeader(http.StatusCreated)
	json.NewEncoder(w).Encode(wire.Injected{ID: id})
}

func (s *server) messages() []taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got
}

func refuseWith(status int, p wire.Problem) func(w http.ResponseWriter) bool {
	return func(w http.ResponseWriter) bool {
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(p)
		return true
	}
}

// call runs the command as a program would.
func call(t *testing.T, sockets []string, pickup, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	a, err := Parse(args)
	if err != nil {
		return ExitCode(err), "", err.Error()
	}
	var out, errs bytes.Buffer
	c := &Command{Sockets: sockets, Pickup: pickup, User: "www-data", Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs}
	code = c.Run(context.Background(), a)
	return code, out.String(), errs.String()
}

func TestDeliver(t *testing.T) {
	t.Parallel()
	const header = "From: a@sender.test\nTo: Anna <anna@shop.test>, root\nBcc: =?utf-8?q?x?= <ben@shop.test>\nSubject: hi\n\n"
	for name, c := range map[string]struct {
		args       []string
		stdin      string
		sender     string
		recipients []string
		content    string
		query      map[string]string
	}{
		"cron":            {[]string{"-FCronDaemon", "-odi", "-oem", "-oi", "-t", "-f", "root"}, header + "x\n", "root", []string{"anna@shop.test", "root", "ben@shop.test"}, header + "x\n", nil},
		"php":             {[]string{"-t", "-i"}, header, "www-data", []string{"anna@shop.test", "root", "ben@shop.test"}, header, nil},
		"git":             {[]string{"-i", "-f", "dev@sender.test", "anna@shop.test", "ben@shop.test"}, header, "dev@sender.test", []string{"anna@shop.test", "ben@shop.test"}, header, nil},
		"attached value":  {[]string{"-fdev@sender.test", "anna@shop.test"}, header, "dev@sender.test", []string{"anna@shop.test"}, header, nil},
		"-r":              {[]string{"-r", "Dev <dev@sender.test>", "--", "anna@shop.test"}, header, "dev@sender.test", []string{"anna@shop.test"}, header, nil},
		"null sender":     {[]string{"-f", "<>", "anna@shop.test"}, header, "", []string{"anna@shop.test"}, header, nil},
		"empty -f":        {[]string{"-f", "", "anna@shop.test"}, header, "", []string{"anna@shop.test"}, header, nil},
		"lists of names":  {[]string{"Anna <anna@shop.test>, ben@shop.test", "carla@shop.test"}, header, "www-data", []string{"anna@shop.test", "ben@shop.test", "carla@shop.test"}, header, nil},
		"-t and names":    {[]string{"-ti", "carla@shop.test"}, header, "www-data", []string{"carla@shop.test", "anna@shop.test", "root", "ben@shop.test"}, header, nil},
		"resent":          {[]string{"-t"}, "Resent-To: dora@shop.test\n" + header, "www-data", []string{"dora@shop.test"}, "Resent-To: dora@shop.test\n" + header, nil},
		"folded To":       {[]string{"-t"}, "To: a@shop.test,\n\tb@shop.test\n\nx", "www-data", []string{"a@shop.test", "b@shop.test"}, "To: a@shop.test,\n\tb@shop.test\n\nx", nil},
		"body is no To":   {[]string{"-t"}, "To: a@shop.test\n\nTo: b@shop.test\n", "www-data", []string{"a@shop.test"}, "To: a@shop.test\n\nTo: b@shop.test\n", nil},
		"dot ends":        {[]string{"a@shop.test"}, "S: x\r\n\r\none\r\n..\r\n.\r\ntwo\r\n", "www-data", []string{"a@shop.test"}, "S: x\r\n\r\none\r\n..\r\n", nil},
		"dot kept by -i":  {[]string{"-i", "a@shop.test"}, "S: x\n\none\n.\ntwo\n", "www-data", []string{"a@shop.test"}, "S: x\n\none\n.\ntwo\n", nil},
		"dot kept by -oi": {[]string{"-oi", "a@shop.test"}, "S: x\n\none\n.\ntwo\n", "www-data", []string{"a@shop.test"}, "S: x\n\none\n.\ntwo\n", nil},
		"text alone":      {[]string{"a@shop.test"}, "just this", "www-data", []string{"a@shop.test"}, "just this", nil},
		"full name":       {[]string{"-F", "Größe Web", "-f", "w@sender.test", "a@shop.test"}, "Subject: x\n\ny\n", "w@sender.test", []string{"a@shop.test"}, "From: =?utf-8?q?Gr=C3=B6=C3=9Fe_Web?= <w@sender.test>\r\nSubject: x\n\ny\n", nil},
		"dsn":             {[]string{"-N", "success,delay", "-R", "hdrs", "-V", "env1", "a@shop.test"}, "S: x\n\n", "www-data", []string{"a@shop.test"}, "S: x\n\n", map[string]string{"notify": "success,delay", "ret": "headers", "envid": "env1"}},
		"-q and others":   {[]string{"-q15m", "-d8.99", "-B", "8BITMIME", "-O", "X=y", "-om", "-G", "-Ac", "a@shop.test"}, "S: x\n\n", "www-data", []string{"a@shop.test"}, "S: x\n\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			code, stdout, stderr := call(t, []string{s.socket}, "", c.stdin, c.args...)
			if code != ExitOK || stdout+stderr != "" {
				t.Fatalf("exit code %d, output %q %q", code, stdout, stderr)
			}
			got := s.messages()
			if len(got) != 1 {
				t.Fatalf("%d messages", len(got))
			}
			if got[0].sender != c.sender || !slices.Equal(got[0].recipients, c.recipients) {
				t.Errorf("from <%s> to %q, want from <%s> to %q", got[0].sender, got[0].recipients, c.sender, c.recipients)
			}
			if got[0].content != c.content {
				t.Errorf("content %q, want %q", got[0].content, c.content)
			}
			further := maps.Clone(got[0].query)
			delete(further, "sender")
			delete(further, "recipient")
			if via := further["via"]; len(via) != 1 || via[0] != "sendmail" {
				t.Errorf("via %q", via)
			}
			delete(further, "via")
			for name, values := range further {
				if strings.Join(values, ",") != c.query[name] {
					t.Errorf("%s is %q, want %q", name, values, c.query[name])
				}
			}
			if len(further) != len(c.query) {
				t.Errorf("query has %v, want %v", further, c.query)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		text string
	}{
		"nobody":        {nil, "no recipients"},
		"unknown":       {[]string{"-Z"}, "-Z is unknown"},
		"no value":      {[]string{"a@shop.test", "-f"}, "-f needs a value"},
		"daemon":        {[]string{"-bd"}, "postrider serve"},
		"verify":        {[]string{"-bv", "a@shop.test"}, "postrider explain"},
		"odd mode":      {[]string{"-bz"}, "-bz is not available"},
		"notify":        {[]string{"-N", "sometimes", "a@shop.test"}, "never, or some of"},
		"never and":     {[]string{"-N", "never,delay", "a@shop.test"}, "cannot go with others"},
		"ret":           {[]string{"-R", "half", "a@shop.test"}, "full or hdrs"},
		"-f two":        {[]string{"-f", "a@sender.test, b@sender.test", "a@shop.test"}, "not one address"},
		"-t and no To":  {[]string{"-t"}, "no To, Cc or Bcc"},
		"envid":         {[]string{"-V", "a b", "a@shop.test"}, "without blanks"},
		"name injected": {[]string{"-F", "x\nBcc: y@shop.test", "a@shop.test"}, "may not be in a header field"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, _, stderr := call(t, nil, "", "Subject: x\n\n", c.args...)
			if code != ExitUsage || !strings.Contains(stderr, c.text) {
				t.Errorf("exit code %d, %q; want %d and %q", code, stderr, ExitUsage, c.text)
			}
		})
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter) bool
		args   []string
		stdin  io.Reader
		want   int
	}{
		"no such user here":  {answer: refuseWith(422, wire.Problem{Text: "no mailbox", Code: 550, Status: "5.1.1"}), want: ExitNoUser},
		"too large":          {answer: refuseWith(413, wire.Problem{Text: "too large", Code: 552, Status: "5.3.4"}), want: ExitDataErr},
		"disk full":          {answer: refuseWith(503, wire.Problem{Text: "no room", Code: 452, Status: "4.3.1"}), want: ExitTempFail},
		"broken server":      {answer: refuseWith(500, wire.Problem{Text: "oops"}), want: ExitTempFail},
		"server that dies":   {answer: func(http.ResponseWriter) bool { panic(http.ErrAbortHandler) }, want: ExitTempFail},
		"bad address":        {args: []string{"a@@shop.test"}, want: ExitDataErr},
		"unreadable message": {stdin: io.MultiReader(strings.NewReader("S: x\n\n"+strings.Repeat("x", maxHeader)), broken{}), want: ExitIOErr},
		"unreadable header":  {stdin: broken{}, want: ExitIOErr},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			s.answer = c.answer
			if c.args == nil {
				c.args = []string{"a@shop.test"}
			}
			if c.stdin == nil {
				c.stdin = strings.NewReader("S: x\n\n")
			}
			a, err := Parse(c.args)
			if err != nil {
				t.Fatal(err)
			}
			var stderr bytes.Buffer
			command := &Command{Sockets: []string{s.socket}, Pickup: t.TempDir(), User: "u", Stdin: c.stdin, Stdout: io.Discard, Stderr: &stderr}
			if code := command.Run(context.Background(), a); code != c.want {
				t.Errorf("exit code %d (%s), want %d", code, &stderr, c.want)
			}
			if left, _ := os.ReadDir(command.Pickup); len(left) > 0 {
				t.Errorf("a message was left in the pickup directory, too: %v", left)
			}
		})
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("input/output error") }

func TestServerAway(t *testing.T) {
	t.Parallel()
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	dir := t.TempDir()
	code, stdout, stderr := call(t, []string{nowhere}, dir, "Subject: x\n\nhello\n", "-v", "-f", "<>", "anna@shop.test", "ben@shop.test")
	if code != ExitOK || !strings.Contains(stdout, dir) || stderr != "" {
		t.Fatalf("exit code %d, %q %q", code, stdout, stderr)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || !strings.HasSuffix(files[0].Name(), ".eml") || strings.HasPrefix(files[0].Name(), ".") {
		t.Fatalf("%v %v", files, err)
	}
	text, _ := os.ReadFile(filepath.Join(dir, files[0].Name()))
	if want := "x-sender: <>\nx-receiver: <anna@shop.test>\nx-receiver: <ben@shop.test>\nSubject: x\n\nhello\n"; string(text) != want {
		t.Errorf("file is %q, want %q", text, want)
	}

	t.Run("no directory either", func(t *testing.T) {
		t.Parallel()
		code, _, stderr := call(t, []string{nowhere}, filepath.Join(nowhere, "pickup"), "x", "a@shop.test")
		if code != ExitTempFail || !strings.Contains(stderr, "postrider serve") {
			t.Errorf("exit code %d, %q", code, stderr)
		}
	})
	t.Run("with wishes", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		code, _, stderr := call(t, []string{nowhere}, dir, "S: x\n\n", "-N", "failure,delay", "-R", "hdrs", "-V", "e1", "a@shop.test")
		files, _ := filepath.Glob(filepath.Join(dir, "*.eml"))
		if code != ExitOK || len(files) != 1 {
			t.Fatalf("exit code %d, %q, %v", code, stderr, files)
		}
		text, _ := os.ReadFile(files[0])
		if want := "x-sender: <www-data> RET=HDRS ENVID=e1\nx-receiver: <a@shop.test> NOTIFY=FAILURE,DELAY\nS: x\n\n"; string(text) != want {
			t.Errorf("file is %q, want %q", text, want)
		}
	})
	// In the pickup directory the message's own X- fields would be obeyed.
	for name, content := range map[string]string{
		"injected receiver":      "Subject: x\nX-Receiver: victim@shop.test\n\nbody",
		"behind a lone CR":       "Subject: x\rx-reCeiver: victim@shop.test\n\nbody",
		"injected sender":        "x-sender: victim@shop.test\n\n",
		"in text without header": "hello\nX-Receiver: victim@shop.test\n",
		"behind a huge header":   "X: " + strings.Repeat("y", maxHeader) + "\nX-Receiver: victim@shop.test\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			code, _, _ := call(t, []string{nowhere}, dir, content, "-i", "a@shop.test")
			if left, _ := os.ReadDir(dir); code != ExitTempFail || len(left) != 0 {
				t.Errorf("exit code %d, %v", code, left)
			}
		})
	}
	t.Run("an address with brackets", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		code, _, _ := call(t, []string{nowhere}, dir, "Subject: x\n\n", `"a>b"@shop.test`)
		if left, _ := os.ReadDir(dir); code != ExitTempFail || len(left) != 0 {
			t.Errorf("exit code %d, %v", code, left)
		}
	})
	t.Run("a receiver in the body", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		code, _, _ := call(t, []string{nowhere}, dir, "Subject: x\n\nX-Receiver: is a field\n", "-i", "a@shop.test")
		if left, _ := os.ReadDir(dir); code != ExitOK || len(left) != 1 {
			t.Errorf("exit code %d, %v", code, left)
		}
	})
	t.Run("unreadable message leaves nothing", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		c := &Command{Sockets: []string{nowhere}, Pickup: dir, User: "u", Stdout: io.Discard, Stderr: io.Discard,
			Stdin: io.MultiReader(strings.NewReader("S: x\n\n"+strings.Repeat("x", maxHeader)), broken{})}
		code := c.Run(context.Background(), Args{Mode: ModeDeliver, Recipients: []string{"a@shop.test"}})
		if left, _ := os.ReadDir(dir); code != ExitIOErr || len(left) != 0 {
			t.Errorf("exit code %d, %v", code, left)
		}
	})
	t.Run("the second socket answers", func(t *testing.T) {
		t.Parallel()
		s := startServer(t)
		code, stdout, _ := call(t, []string{nowhere, s.socket}, "", "x", "-v", "a@shop.test")
		if code != ExitOK || stdout != "queued as id1\n" || len(s.messages()) != 1 {
			t.Errorf("exit code %d, %q", code, stdout)
		}
	})
}

func TestNothingToDo(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-q"}, {"-q30m", "-v"}, {"-bi"}, {"-I"}} {
		if code, _, stderr := call(t, nil, "", "", args...); code != ExitOK || stderr != "" {
			t.Errorf("%v: exit code %d, %q", args, code, stderr)
		}
	}
}

func TestSMTPOnStandardInput(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stdin   string
		answer  func(w http.ResponseWriter) bool
		replies string // first digits of each
		want    int
	}{
		"two messages": {
			"EHLO localhost\r\nMAIL FROM:<a@sender.test>\r\nRCPT TO:<b@shop.test>\r\nRCPT TO:<c@shop.test>\r\nDATA\r\nSubject: 1\r\n\r\n..dot\r\n.\r\n" +
				"MAIL FROM:<>\r\nRCPT TO:<d@shop.test>\r\nDATA\r\nSubject: 2\r\n\r\n.\r\nQUIT\r\n", nil, "220 250 250 250 250 354 250 250 250 354 250 221", 2,
		},
		"no QUIT":      {"HELO localhost\r\nMAIL FROM:<a@sender.test>\r\nRCPT TO:<b@shop.test>\r\nDATA\r\nx\r\n.\r\n", nil, "220 250 250 250 354 250", 1},
		"broken off":   {"HELO localhost\r\nMAIL FROM:<a@sender.test>\r\nRCPT TO:<b@shop.test>\r\nDATA\r\nx\r\n", nil, "220 250 250 250 354", 0},
		"refused":      {"HELO localhost\r\nMAIL FROM:<a@sender.test>\r\nRCPT TO:<b@shop.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n", refuseWith(422, wire.Problem{Text: "no", Code: 550, Status: "5.1.1"}), "220 250 250 250 354 550 221", 0},
		"server fails": {"HELO localhost\r\nMAIL FROM:<a@sender.test>\r\nRCPT TO:<b@shop.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n", refuseWith(503, wire.Problem{Text: "no room"}), "220 250 250 250 354 451 221", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			s.answer = c.answer
			code, stdout, stderr := call(t, []string{s.socket}, "", c.stdin, "-bs")
			if code != ExitOK || stderr != "" {
				t.Errorf("exit code %d, %q", code, stderr)
			}
			var replies []string
			for line := range strings.Lines(stdout) {
				if line[3] == ' ' {
					replies = append(replies, line[:3])
				}
			}
			if got := strings.Join(replies, " "); got != c.replies {
				t.Errorf("replies %s, want %s\n%s", got, c.replies, stdout)
			}
			got := s.messages()
			if len(got) != c.want {
				t.Fatalf("%d messages, want %d", len(got), c.want)
			}
			if name == "two messages" {
				if got[0].sender != "a@sender.test" || !slices.Equal(got[0].recipients, []string{"b@shop.test", "c@shop.test"}) || got[0].content != "Subject: 1\r\n\r\n.dot\r\n" {
					t.Errorf("first is %+v", got[0])
				}
				if got[1].sender != "" || got[1].content != "Subject: 2\r\n\r\n" {
					t.Errorf("second is %+v", got[1])
				}
				if !strings.Contains(stdout, "queued as id1") {
					t.Errorf("the ID is not told: %s", stdout)
				}
			}
		})
	}
}

func TestUnreachableSaysWhatToDo(t *testing.T) {
	t.Parallel()
	err := &client.Unreachable{Socket: "/s", Err: os.ErrPermission}
	if !strings.Contains(err.Error(), "group postrider") || !strings.Contains(err.Error(), "/s") {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("-t -i\x00-f\x00a@b.test")
	f.Add("-oi -ti x@y.test -- -z")
	f.Fuzz(func(t *testing.T, line string) {
		a, err := Parse(strings.Fields(line))
		if err == nil && a.Mode == ModeDeliver && len(a.Recipients) == 0 && !a.FromHeader {
			t.Error("a message for nobody")
		}
	})
}

// Reading up to a lone dot gives the lines before it, whatever the buffers.
func FuzzUntilDot(f *testing.F) {
	for _, s := range []string{"a\n.\nb", ".\r\n", "..\n.", strings.Repeat("x", 40) + ".\n.\n", "x.\n.x\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, content string) {
		var want strings.Builder
		for line := range strings.Lines(content) {
			if strings.TrimRight(line, "\r\n") == "." {
				break
			}
			want.WriteString(line)
		}
		got, err := io.ReadAll(iotest.OneByteReader(&untilDot{r: bufio.NewReaderSize(strings.NewReader(content), 16)}))
		if err != nil || string(got) != want.String() {
			t.Errorf("%q became %q (%v), want %q", content, got, err, want.String())
		}
		if _, err := readHeader(bufio.NewReaderSize(strings.NewReader(content), maxHeader)); err != nil {
			t.Error(err)
		}
	})
}
