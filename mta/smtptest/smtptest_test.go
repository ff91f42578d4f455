package smtptest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// talk sends each flight and returns the replies to all of them.
func talk(t *testing.T, conn net.Conn, replies int, flights ...string) string {
	t.Helper()
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	go func() {
		for _, flight := range flights {
			io.WriteString(conn, flight)
		}
	}()
	var b strings.Builder
	in := bufio.NewReader(conn)
	for range replies {
		line, err := in.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			fmt.Fprintf(&b, "(%v)", err)
			break
		}
	}
	return b.String()
}

func TestUsualManners(t *testing.T) {
	t.Parallel()
	server, err := Start("[::1]:0", Script{Extensions: []string{"PIPELINING", "CHUNKING"}})
	if err != nil {
		t.Skip(err) // a machine without IPv6
	}
	defer server.Close()
	conn, err := net.Dial("tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	got := talk(t, conn, 13, "EHLO c.test\r\nMAIL FROM:<a@a.test> SIZE=3\r\nRCPT TO:<b@b.test>\r\nBDAT 3\r\na\r\nBDAT 2 LAST\r\n\r\n"+
		"MAIL FROM:<>\r\nRCPT TO:<c@b.test>\r\nDATA\r\n", "..\r\n.\r\nQUIT\r\n")
	want := "220 mx.test ESMTP\r\n250-mx.test\r\n250-PIPELINING\r\n250 CHUNKING\r\n250 2.1.0 sender ok\r\n250 2.1.5 recipient ok\r\n" +
		"250 2.0.0 3 octets\r\n250 2.0.0 queued as 1\r\n250 2.1.0 sender ok\r\n250 2.1.5 recipient ok\r\n354 go ahead\r\n250 2.0.0 queued as 2\r\n221 2.0.0 bye\r\n"
	if got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	txs := server.Transactions()
	if len(txs) != 2 || string(txs[0].Content) != "a\r\n\r\n" || !txs[0].IsChunked || txs[0].FromParams != "SIZE=3" || txs[0].HELO != "c.test" ||
		string(txs[1].Content) != ".\r\n" || txs[1].IsChunked || !txs[1].IsAccepted {
		t.Errorf("%+v", txs)
	}
	if server.Sessions() != 1 {
		t.Errorf("%d sessions", server.Sessions())
	}
}

func TestScript(t *testing.T) {
	t.Parallel()
	server := New(Script{Name: "odd.test", On: map[string][]Step{
		OnConnect:           Say("220 hello\nthere"),
		"rcpt":              Say("550 5.1.1 no"),
		"RCPT TO:<ok@":      {{}},
		"RCPT TO:<later@":   Do(Step{Reply: "450 4.2.0 later"}, Step{}),
		"RCPT TO:<ok@b.two": {{Raw: "25"}, {Raw: "0 ok\r\n"}},
	}})
	defer server.Close()
	got := talk(t, server.Pipe(), 9, "HELO c.test\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<no@b.test>\r\nRCPT TO:<ok@b.test>\r\nRCPT TO:<later@b.test>\r\n"+
		"RCPT TO:<later@b.test>\r\nRCPT TO:<ok@b.two>\r\nRCPT TO:<ok@b.two>\r\n")
	want := "220-hello\r\n220 there\r\n250 odd.test\r\n250 2.1.0 sender ok\r\n550 5.1.1 no\r\n250 2.1.5 recipient ok\r\n450 4.2.0 later\r\n" +
		"250 2.1.5 recipient ok\r\n250 ok\r\n"
	if got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func TestViolations(t *testing.T) {
	t.Parallel()
	server := New(Script{})
	defer server.Close()
	talk(t, server.Pipe(), 8, "MAIL FROM:<a@a.test>\r\nEHLO c\r\nMAIL FROM:<a@a.test>\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>x\r\nNOSUCH\r\nNOOP\n\r\n")
	want := []string{"MAIL before EHLO", "nested MAIL", `malformed RCPT "TO:<b@b.test>x"`, `unknown command "NOSUCH"`, "line feed without carriage return"}
	if got := server.Violations(); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// A flight is what came before the server was waited for.
func TestFlights(t *testing.T) {
	t.Parallel()
	server := New(Script{})
	defer server.Close()
	conn := server.Pipe()
	in := bufio.NewReader(conn)
	for _, flight := range []string{"", "HELO c\r\n", "MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n", "a\r\n.\r\nNOOP\r\n"} {
		if flight != "" {
			io.WriteString(conn, flight)
		}
		for range max(1, strings.Count(strings.ReplaceAll(flight, "a\r\n.\r\n", "x\n"), "\n")) {
			if _, err := in.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
	}
	conn.Close()
	if !server.WaitIdle(time.Minute) {
		t.Fatal("the session goes on")
	}
	var got [][]string
	for _, f := range server.Flights() {
		got = append(got, f.Parts)
	}
	want := [][]string{{"HELO c"}, {"MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>", "DATA"}, {"(3 octets)", "NOOP"}}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %q", got)
	}
}

// Close ends sessions that hang, and those that drip.
func TestCloseEndsAll(t *testing.T) {
	t.Parallel()
	server, err := Start("127.0.0.1:0", Script{On: map[string][]Step{
		OnConnect: Do(Step{Then: Hang}, Step{Endless: "220-more\r\n", Drip: time.Hour}, Step{Wait: time.Hour})}})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		conn, err := net.Dial("tcp", server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if !server.wait(time.Minute, func() bool { return server.used[strings.ToUpper(OnConnect)] == 3 }) {
		t.Fatal("not all sessions began")
	}
	server.Close()
	if !server.WaitIdle(0) && len(server.conns) > 0 {
		t.Error("sessions are left")
	}
}
