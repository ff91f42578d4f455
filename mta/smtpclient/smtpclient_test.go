package smtpclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"postrider/mta/smtptest"
)

// long timeouts are never reached where a test passes.
var long = Timeouts{
	Greeting: time.Minute, Command: time.Minute, TLS: time.Minute, Data: time.Minute,
	Block: time.Minute, Final: time.Minute, Message: time.Minute,
}

func pipelining(more ...string) []string { return append([]string{"PIPELINING"}, more...) }

var chunking = pipelining("CHUNKING", "8BITMIME", "SIZE 0")

// start starts a scripted server.
func start(t testing.TB, script smtptest.Script) *smtptest.Server {
	t.Helper()
	server, err := smtptest.Start("127.0.0.1:0", script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server
}

// dial makes a session that has not been greeted.
func dial(t testing.TB, server *smtptest.Server, o Options) *Session {
	t.Helper()
	conn, err := net.Dial("tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return over(t, conn, o)
}

func over(t testing.TB, conn net.Conn, o Options) *Session {
	if o.LocalName == "" {
		o.LocalName = "client.test"
	}
	if o.Timeouts == (Timeouts{}) {
		o.Timeouts = long
	}
	s := New(conn, o)
	s.patience = 100 * time.Millisecond
	t.Cleanup(func() { s.Close() })
	return s
}

// greeted makes a session that is ready to run.
func greeted(t testing.TB, server *smtptest.Server, o Options) *Session {
	t.Helper()
	s := dial(t, server, o)
	if err := s.Greet(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// message is a transaction with content in memory.
func message(from string, content string, to ...string) *Transaction {
	tx := &Transaction{From: from, Open: func() (Body, io.Closer, error) {
		return Body{Head: []byte("Received: by test\r\n"), Data: []byte(content), Size: int64(len(content)) + 19}, nil, nil
	}}
	for _, address := range to {
		tx.Rcpts = append(tx.Rcpts, Rcpt{Address: address})
	}
	return tx
}

// sent is what arrives of message's content.
func sent(content string) string { return "Received: by test\r\n" + content }

// messages are n small ones.
func messages(n int) []*Transaction {
	var txs []*Transaction
	for i := range n {
		txs = append(txs, message(fmt.Sprintf("from%d@a.test", i), fmt.Sprintf("\r\nbody %d\r\n", i), fmt.Sprintf("to%d@b.test", i)))
	}
	return txs
}

func large() string { return strings.Repeat(strings.Repeat("x", 76)+"\r\n", 4000) } // 312,000 octets

// run runs transactions and returns their results, in the order of done.
func run(t testing.TB, s *Session, txs ...*Transaction) ([]Result, error) {
	t.Helper()
	return runContext(t, t.Context(), s, txs...)
}

func runContext(t testing.TB, ctx context.Context, s *Session, txs ...*Transaction) ([]Result, error) {
	t.Helper()
	var results []Result
	next := 0
	err := s.Run(ctx, func() (*Transaction, bool) {
		if next == len(txs) {
			return nil, false
		}
		next++
		return txs[next-1], true
	}, func(tx *Transaction, r *Result) {
		if len(results) >= next || tx != txs[len(results)] {
			t.Errorf("done is called out of order for transaction %d", len(results))
		}
		kept := *r
		kept.Rcpts = slices.Clone(r.Rcpts)
		results = append(results, kept)
	})
	if len(results) != next {
		t.Fatalf("%d transactions were taken, done was called for %d", next, len(results))
	}
	return results, err
}

// mustDeliver runs transactions that all get through.
func mustDeliver(t testing.TB, s *Session, txs ...*Transaction) {
	t.Helper()
	results, err := run(t, s, txs...)
	if err != nil || len(results) != len(txs) {
		t.Fatalf("%d of %d transactions done, %v", len(results), len(txs), err)
	}
	for i, r := range results {
		if r.Err != nil || r.Final.Code != 250 || !r.Sent || r.Untried {
			t.Fatalf("transaction %d: %+v", i, r)
		}
	}
}

// wantError checks the type of what ended a session.
func wantError(t testing.TB, err error, stage Stage, kind Kind, cause error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an *Error", err)
	}
	if e.Stage != stage || e.Kind != kind || cause != nil && !errors.Is(err, cause) {
		t.Fatalf("got %q (%v, %v), want %v, %v, %v", e, e.Stage, e.Kind, stage, kind, cause)
	}
	return e
}

// flights are the parts of each flight of the only session.
func flights(server *smtptest.Server) [][]string {
	var all [][]string
	for _, f := range server.Flights() {
		all = append(all, f.Parts)
	}
	return all
}

func wantFlights(t testing.TB, server *smtptest.Server, want ...[]string) {
	t.Helper()
	if got := flights(server); !reflect.DeepEqual(got, want) {
		t.Errorf("flights:\n%q\nwant:\n%q", got, want)
	}
}

func wantNoViolations(t testing.TB, server *smtptest.Server) {
	t.Helper()
	if v := server.Violations(); len(v) > 0 {
		t.Errorf("violations: %q", v)
	}
}

// wantArrived checks what the server took, message by message.
func wantArrived(t testing.TB, server *smtptest.Server, contents ...string) {
	t.Helper()
	var got []string
	for _, tx := range server.Transactions() {
		if tx.IsAccepted {
			got = append(got, string(tx.Content))
		}
	}
	if !slices.Equal(got, contents) {
		t.Errorf("arrived: %.300q\nwant: %.300q", got, contents)
	}
}

func TestOneFlightForAMessageWithChunking(t *testing.T) {
	t.Parallel()
	server := start(t, smtptest.Script{Extensions: chunking})
	s := greeted(t, server, Options{})
	tx := message("a@a.test", "\r\n.dot\r\n", "b@b.test", "c@b.test")
	tx.Params = "SIZE=28 BODY=8BITMIME"
	tx.Rcpts[1].Params = "NOTIFY=NEVER"
	mustDeliver(t, s, tx, message("", "\r\n\r\n", "d@b.test"))
	wantFlights(t, server, []string{"EHLO client.test"},
		[]string{"MAIL FROM:<a@a.test> SIZE=28 BODY=8BITMIME", "RCPT TO:<b@b.test>", "RCPT TO:<c@b.test> NOTIFY=NEVER", "BDAT 27 LAST", "(27 octets)"},
		[]string{"MAIL FROM:<>", "RCPT TO:<d@b.test>", "BDAT 23 LAST", "(23 octets)"})
	wantArrived(t, server, sent("\r\n.dot\r\n"), sent("\r\n\r\n"))
	wantNoViolations(t, server)
}

func TestNextEnvelopeTravelsWithTheContentOfDATA(t *testing.T) {
	t.Parallel()
	server := start(t, smtptest.Script{Extensions: pipelining()})
	s := greeted(t, server, Options{})
	mustDeliver(t, s, message("a@a.test", "\r\n.dot\r\n..\r\n", "b@b.test"), message("c@a.test", "\r\n", "d@b.test"))
	wantFlights(t, server, []string{"EHLO client.test"},
		[]string{"MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>", "DATA"},
		[]string{"(31 octets)", "MAIL FROM:<c@a.test>", "RCPT TO:<d@b.test>", "DATA"},
		[]string{"(21 octets)"})
	wantArrived(t, server, sent("\r\n.dot\r\n..\r\n"), sent("\r\n"))
	wantNoViolations(t, server)
}

func TestCommandByCommand(t *testing.T) {
	t.Parallel()
	server := start(t, smtptest.Script{})
	s := greeted(t, server, Options{})
	mustDeliver(t, s, message("a@a.test", "\r\n.\r\n", "b@b.test", "c@b.test"), message("c@a.test", "\r\n", "d@b.test"))
	wantFlights(t, server, []string{"EHLO client.test"},
		[]string{"MAIL FROM:<a@a.test>"}, []string{"RCPT TO:<b@b.test>"}, []string{"RCPT TO:<c@b.test>"}, []string{"DATA"}, []string{"(24 octets)"},
		[]string{"MAIL FROM:<c@a.test>"}, []string{"RCPT TO:<d@b.test>"}, []string{"DATA"}, []string{"(21 octets)"})
	wantArrived(t, server, sent("\r\n.\r\n"), sent("\r\n"))
	wantNoViolations(t, server)
}

func TestChunkingWithoutPipelining(t *testing.T) {
	t.Parallel()
	server := start(t, smtptest.Script{Extensions: []string{"CHUNKING"}})
	s := greeted(t, server, Options{})
	mustDeliver(t, s, message("a@a.test", "\r\n", "b@b.test"))
	wantFlights(t, server, []string{"EHLO client.test"},
		[]string{"MAIL FROM:<a@a.test>"}, []string{"RCPT TO:<b@b.test>"}, []string{"BDAT 21 LAST", "(21 octets)"})
	wantNoViolations(t, server)
}

func TestExtensionsSwitchedOff(t *testing.T) {
	t.Parallel()
	server := start(t, smtptest.Script{Extensions: chunking})
	s := greeted(t, server, Options{NoChunking: true, NoPipelining: true})
	mustDeliver(t, s, message("a@a.test", "\r\n", "b@b.test"))
	wantFlights(t, server, []string{"EHLO client.test"},
		[]string{"MAIL FROM:<a@a.test>"}, []string{"RCPT TO:<b@b.test>"}, []string{"DATA"}, []string{"(21 octets)"})
}

func TestLargeContentWaitsForItsRecipients(t *testing.T) {
	t.Parallel()
	n := len(sent(large()))
	t.Run("BDAT", func(t *testing.T) {
		t.Parallel()
		server := start(t, smtptest.Script{Extensions: chunking})
		s := greeted(t, server, Options{})
		mustDeliver(t, s, message("a@a.test", large(), "b@b.test"), message("c@a.test", large(), "d@b.test"), message("e@a.test", "\r\n", "f@b.test"))
		bdat := fmt.Sprintf("BDAT %d LAST", n)
		octets := fmt.Sprintf("(%d octets)", n)
		// The second envelope spares its round trip; the third as well.
		wantFlights(t, server, []string{"EHLO client.test"},
			[]string{"MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>"},
			[]string{bdat, octets, "RSET", "MAIL FROM:<c@a.test>", "RCPT TO:<d@b.test>"},
			[]string{bdat, octets, "RSET", "MAIL FROM:<e@a.test>", "RCPT TO:<f@b.test>"},
			[]string{"BDAT 21 LAST", "(21 octets)"})
		wantArrived(t, server, sent(large()), sent(large()), sent("\r\n"))
		wantNoViolations(t, server)
	})
	t.Run("DATA", func(t *testing.T) {
		t.Parallel()
		server := start(t, smtptest.Script{Extensions: pipelining()})
		s := greeted(t, server, Options{})
		dots := strings.Repeat(".\r\n", 100<<10)
		mustDeliver(t, s, message("a@a.test", dots, "b@b.test"), message("c@a.test", large(), "d@b.test"))
		wantFlights(t, server, []string{"EHLO client.test"},
			[]string{"MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>", "DATA"},
			[]string{fmt.Sprintf("(%d octets)", len(sent(dots))), "MAIL FROM:<c@a.test>", "RCPT TO:<d@b.test>", "DATA"},
			[]string{fmt.Sprintf("(%d octets)", n)})
		wantArrived(t, server, sent(dots), sent(large()))
		wantNoViolations(t, server)
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		server := start(t, smtptest.Script{Extensions: chunking, On: map[string][]smtptest.Step{"RCPT TO:<grey@b.test>": smtptest.Say("450 4.2.0 greylisted")}})
		s := greeted(t, server, Options{})
		results, err := run(t, s, message("a@a.test", large(), "grey@b.test"), message("c@a.test", "\r\n", "d@b.test"))
		if err != nil || results[0].Rcpts[0].Code != 450 || results[0].Sent || results[0].Err != nil || results[1].Final.Code != 250 {
			t.Fatalf("%+v, %v", results, err)
		}
		wantFlights(t, server, []string{"EHLO client.test"},
			[]string{"MAIL FROM:<a@a.test>", "RCPT TO:<grey@b.test>"},
			[]string{"RSET", "MAIL FROM:<c@a.test>", "RCPT TO:<d@b.test>", "BDAT 21 LAST", "(21 octets)"})
		wantNoViolations(t, server)
	})
}

func TestLargeContentFromAFile(t *testing.T) {
	t.Parallel()
	for name, extensions := range map[string][]string{"BDAT": chunking, "DATA": pipelining(), "command by command": nil} {
		for _, size := range []int{100, MaxOneFlight - 19, MaxOneFlight - 18, 3*pieceSize - 19, 1 << 20} {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				t.Parallel()
				server := start(t, smtptest.Script{Extensions: extensions})
				s := greeted(t, server, Options{})
				content := dotLines(size)
				tx, closed := fileMessage(content, int64(size))
				mustDeliver(t, s, tx)
				wantArrived(t, server, sent(content))
				wantNoViolations(t, server)
				if !*closed {
					t.Error("the file was not closed")
				}
			})
		}
	}
}

// dotLines are size octets in lines that begin with a dot.
func dotLines(size int) string {
	const line = "..................................\r\n"
	n := (size - 2) / len(line)
	return strings.Repeat(line, n) + strings.Repeat(".", size-2-n*len(line)) + "\r\n"
}

// fileMessage has its content in a File that is said to have size octets.
func fileMessage(content string, size int64) (*Transaction, *bool) {
	closed := new(bool)
	tx := message("a@a.test", "", "b@b.test")
	tx.Open = func() (Body, io.Closer, error) {
		return Body{Head: []byte("Received: by test\r\n"), File: strings.NewReader(content), Size: size + 19},
			closerFunc(func() error { *closed = true; return nil }), nil
	}
	return tx, closed
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

func TestRepliesAreMatchedPerRecipient(t *testing.T) {
	t.Parallel()
	for name, extensions := range map[string][]string{"BDAT": chunking, "DATA": pipelining(), "command by command": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := start(t, smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{
				"RCPT TO:<no@":   smtptest.Say("550 5.1.1 no such user\nreally"),
				"RCPT TO:<full@": smtptest.Say("452 4.2.2 mailbox full"),
				"RCPT TO:<fwd@":  smtptest.Say("251 2.1.5 will forward"),
				"(end)":          smtptest.Say("250 2.0.0 taken"),
			}})
			s := greeted(t, server, Options{})
			results, err := run(t, s, message("a@a.test", "\r\n", "no@b.test", "ok@b.test", "full@b.test", "fwd@b.test"), messages(1)[0])
			if err != nil {
				t.Fatal(err)
			}
			var codes []int
			for _, r := range results[0].Rcpts {
				codes = append(codes, r.Code)
			}
			if !slices.Equal(codes, []int{550, 250, 452, 251}) {
				t.Errorf("got %v", codes)
			}
			if want := (Reply{Code: 550, Enhanced: "5.1.1", Lines: []string{"5.1.1 no such user", "really"}}); !reflect.DeepEqual(results[0].Rcpts[0], want) {
				t.Errorf("got %+v", results[0].Rcpts[0])
			}
			if want := (Reply{Code: 250, Enhanced: "2.0.0", Lines: []string{"2.0.0 taken"}}); !reflect.DeepEqual(results[0].Final, want) {
				t.Errorf("got %+v", results[0].Final)
			}
			if results[1].Final.Code != 250 {
				t.Errorf("the second: %+v", results[1])
			}
			wantNoViolations(t, server)
		})
	}
}

// RFC 2920, section 3.1.
func TestAllRecipientsRefusedButDATAAccepted(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"250 2.0.0 taken, says the server", "554 5.5.1 no valid recipients"} {
		server := start(t, smtptest.Script{Extensions: pipelining(), On: map[string][]smtptest.Step{
			"RCPT TO:<no@": smtptest.Say("550 5.1.1 no such user"),
			"DATA":         smtptest.Do(smtptest.Step{Reply: "354 go ahead"}, smtptest.Step{}),
			"(end)":        smtptest.Do(smtptest.Step{Reply: answer}, smtptest.Step{}),
		}})
		s := greeted(t, server, Options{})
		results, err := run(t, s, message("a@a.test", "\r\nsecret\r\n", "no@b.test", "no@c.test"), message("c@a.test", "\r\n", "d@b.test"))
		if err != nil {
			t.Fatal(err)
		}
		if r := results[0]; r.Sent || r.Final.Code != 0 || r.Err != nil || r.Rcpts[1].Code != 550 {
			t.Errorf("counted as sent: %+v", r)
		}
		if results[1].Final.Code != 250 {
			t.Errorf("the second: %+v", results[1])
		}
		wantFlights(t, server, []string{"EHLO client.test"},
			[]string{"MAIL FROM:<a@a.test>", "RCPT TO:<no@b.test>", "RCPT TO:<no@c.test>", "DATA"},
			[]string{"(0 octets)"},
			[]string{"MAIL FROM:<c@a.test>", "RCPT TO:<d@b.test>", "DATA"},
			[]string{"(21 octets)"})
		wantArrived(t, server, sent("\r\n"))
	}
}

func TestRefusedRecipientKeepsTheNextEnvelopeBack(t *testing.T) {
	t.Parallel()
	server := start(t, smtptest.Script{Extensions: pipelining(), On: map[string][]smtptest.Step{"RCPT TO:<no@": smtptest.Say("550 5.1.1 no")}})
	s := greeted(t, server, Options{})
	if _, err := run(t, s, message("a@a.test", "\r\n", "no@b.test", "b@b.test"), messages(1)[0]); err != nil {
		t.Fatal(err)
	}
	wantFlights(t, server, []string{"EHLO client.test"},
		[]string{"MAIL FROM:<a@a.test>", "RCPT TO:<no@b.test>", "RCPT TO:<b@b.test>", "DATA"},
		[]string{"(21 octets)"},
		[]string{"MAIL FROM:<from0@a.test>", "RCPT TO:<to0@b.test>", "DATA"},
		[]string{"(29 octets)"})
}

// What was left open must not take in the next message, under its own sender.
func TestRSETAfterATransactionThatFailed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		extensions []string
		on         map[string][]smtptest.Step
	}{
		{"recipients refused, BDAT", chunking, map[string][]smtptest.Step{"RCPT TO:<to0@": smtptest.Say("550 5.1.1 no")}},
		{"recipients refused, DATA", pipelining(), map[string][]smtptest.Step{"RCPT TO:<to0@": smtptest.Say("550 5.1.1 no")}},
		{"recipients refused, command by command", nil, map[string][]smtptest.Step{"RCPT TO:<to0@": smtptest.Say("550 5.1.1 no")}},
		{"BDAT refused", chunking, map[string][]smtptest.Step{"BDAT": smtptest.Do(smtptest.Step{Reply: "451 4.3.0 no"}, smtptest.Step{})}},
		{"DATA refused", pipelining(), map[string][]smtptest.Step{"DATA": smtptest.Do(smtptest.Step{Reply: "451 4.3.0 no"}, smtptest.Step{})}},
		{"DATA refused, command by command", nil, map[string][]smtptest.Step{"DATA": smtptest.Do(smtptest.Step{Reply: "451 4.3.0 no"}, smtptest.Step{})}},
	}
	for _, tt := range tests {
		for _, inFlight := range []int{1, 4} {
			t.Run(fmt.Sprint(tt.name, " ", inFlight), func(t *testing.T) {
				t.Parallel()
				server := start(t, smtptest.Script{Extensions: tt.extensions, On: tt.on})
				s := greeted(t, server, Options{InFlight: inFlight})
				s.window = inFlight
				results, err := run(t, s, messages(2)...)
				if err != nil || results[0].Final.Code == 250 || results[1].Final.Code != 250 {
					t.Fatalf("%+v, %v", results, err)
				}
				wantNoViolations(t, server)
				last := server.Transactions()[len(server.Transactions())-1]
				if last.From != "from1@a.test" || last.Rcpts[0].Address != "to1@b.test" || len(last.Rcpts) != 1 {
					t.Errorf("arrived as %+v", last)
				}
			})
		}
	}
}

func TestMAILRefused(t *testing.T) {
	t.Parallel()
	for name, extensions := range map[string][]string{"BDAT": chunking, "DATA": pipelining(), "command by command": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := start(t, smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{
				"MAIL FROM:<bad@": smtptest.Say("553 5.1.8 bad sender")}})
			s := greeted(t, server, Options{})
			results, err := run(t, s, message("bad@a.test", "\r\n", "b@b.test"), messages(1)[0])
			if err != nil || results[0].Mail.Code != 553 || results[0].Err != nil || results[0].Final.Code == 250 || results[1].Final.Code != 250 {
				t.Fatalf("%+v, %v", results, err)
			}
			wantNoViolations(t, server)
		})
	}
}
