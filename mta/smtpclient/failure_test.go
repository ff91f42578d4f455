package smtpclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"postrider/mta/smtptest"
)

func TestDisconnectAfterTheFinalDot(t *testing.T) {
	t.Parallel()
	for manner, extensions := range manners {
		t.Run(manner, func(t *testing.T) {
			t.Parallel()
			server := start(t, smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{smtptest.OnEnd: {{Then: smtptest.Close}}}})
			results, err := run(t, greeted(t, server, Options{}), messages(1)...)
			wantError(t, err, StageFinal, KindClosed, nil)
			if r := results[0]; !r.Sent || r.Final.Code != 0 || r.Untried || r.Err == nil {
				t.Errorf("not in doubt: %+v", r)
			}
		})
	}
}

func TestDisconnectInContent(t *testing.T) {
	t.Parallel()
	for manner, extensions := range manners {
		for _, then := range []smtptest.Then{smtptest.Close, smtptest.Reset} {
			t.Run(fmt.Sprint(manner, then), func(t *testing.T) {
				t.Parallel()
				server := start(t, smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{smtptest.OnContent: {{After: 1000, Then: then}}}})
				s := greeted(t, server, Options{})
				results, err := run(t, s, message("a@a.test", strings.Repeat(large(), 30), "b@b.test"), messages(1)[0])
				wantError(t, err, StageContent, KindClosed, nil)
				if r := results[0]; r.Sent || r.Untried || r.Final.Code != 0 || len(results) != 1 {
					t.Errorf("%+v", results)
				}
			})
		}
	}
}

// A reply that comes while the content is being sent must not be lost in the
// broken connection that follows it, nor wait behind a write that is stuck.
func TestEarlyReplyInContent(t *testing.T) {
	t.Parallel()
	for manner, extensions := range manners {
		for name, then := range map[string]smtptest.Then{"closes": smtptest.Close, "hangs": smtptest.Hang, "reads on": smtptest.Continue} {
			for _, code := range []int{552, 452, 421} {
				t.Run(fmt.Sprint(manner, " ", name, " ", code), func(t *testing.T) {
					t.Parallel()
					server := start(t, smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{
						smtptest.OnContent: {{After: 1000, Reply: fmt.Sprint(code, " 5.3.4 too much"), Then: then}}}})
					s := greeted(t, server, Options{})
					results, err := run(t, s, message("a@a.test", strings.Repeat(large(), 100), "b@b.test"), messages(1)[0])
					e := wantError(t, err, StageContent, KindReply, nil)
					if r := results[0]; r.Final.Code != code || r.Sent || r.Untried || r.Err != nil || e.Reply.Code != code || len(results) != 1 {
						t.Errorf("%+v, %+v", results, e)
					}
				})
			}
		}
	}
}

// A server that accepts what it has not seen is not believed.
func TestEarlySuccessInContent(t *testing.T) {
	t.Parallel()
	for manner, extensions := range manners {
		t.Run(manner, func(t *testing.T) {
			t.Parallel()
			server := start(t, smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{
				smtptest.OnContent: {{After: 1000, Reply: "250 2.0.0 taken", Then: smtptest.Hang}}}})
			results, err := run(t, greeted(t, server, Options{}), message("a@a.test", strings.Repeat(large(), 100), "b@b.test"))
			wantError(t, err, StageContent, KindProtocol, nil)
			if r := results[0]; r.Final.Code != 0 || r.Sent || r.Untried || r.Err == nil {
				t.Errorf("%+v", r)
			}
		})
	}
}

func Test421Anywhere(t *testing.T) {
	t.Parallel()
	for manner, extensions := range manners {
		for _, then := range []smtptest.Then{smtptest.Close, smtptest.Hang, smtptest.Continue} {
			for key, stage := range map[string]Stage{
				smtptest.OnConnect: StageGreeting, "EHLO": StageEHLO, "MAIL FROM:<from1@": StageMail,
				"RCPT TO:<to1@": StageRcpt, "DATA": StageData, smtptest.OnEnd: StageFinal,
			} {
				if key == "DATA" && manner == "BDAT" {
					continue
				}
				t.Run(fmt.Sprint(manner, " ", key, then), func(t *testing.T) {
					t.Parallel()
					bye := smtptest.Step{Reply: "421 4.3.2 closing", Then: then}
					steps := smtptest.Do(bye)
					if key == "DATA" || key == smtptest.OnEnd {
						steps = smtptest.Do(smtptest.Step{}, bye) // the second message
					}
					server := start(t, smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{key: steps}})
					s := dial(t, server, Options{InFlight: 1})
					err := s.Greet(t.Context())
					if stage <= StageEHLO {
						if e := wantError(t, err, stage, KindReply, nil); e.Reply.Code != 421 {
							t.Errorf("%+v", e)
						}
						return
					}
					results, err := run(t, s, messages(3)...)
					if e := wantError(t, err, stage, KindReply, nil); e.Reply.Code != 421 {
						t.Errorf("%+v", e)
					}
					r := results[1]
					if results[0].Final.Code != 250 || r.Untried || r.Final.Code == 250 {
						t.Errorf("%+v", results)
					}
					// Nothing of it is in doubt.
					if isMailOK := r.Mail.Code == 250; isMailOK && r.Rcpts[0].Code == 250 && r.Sent && r.Final.Code == 0 {
						t.Errorf("in doubt after 421: %+v", r)
					}
					if len(results) == 3 && !results[2].Untried {
						t.Errorf("the third: %+v", results[2])
					}
				})
			}
		}
	}
}

func TestGreetingRefused(t *testing.T) {
	t.Parallel()
	server := start(t, smtptest.Script{On: map[string][]smtptest.Step{smtptest.OnConnect: smtptest.Say("554 5.7.1 no service\nfor you")}})
	s := dial(t, server, Options{})
	e := wantError(t, s.Greet(t.Context()), StageGreeting, KindReply, nil)
	if e.Reply.Code != 554 || len(e.Reply.Lines) != 2 || e.Reply.Enhanced != "5.7.1" {
		t.Errorf("%+v", e.Reply)
	}
	if want := `greeting: server says 554 "5.7.1 no service"`; e.Error() != want {
		t.Errorf("got %s, want %s", e, want)
	}
}

func TestHELOWhereEHLOIsUnknown(t *testing.T) {
	t.Parallel()
	for _, code := range []int{500, 502, 550} {
		server := start(t, smtptest.Script{Name: "old.test", On: map[string][]smtptest.Step{"EHLO": smtptest.Say(fmt.Sprint(code, " what?"))}})
		s := greeted(t, server, Options{})
		if ext := s.Extensions(); ext.Name != "old.test" || ext.Pipelining {
			t.Errorf("%+v", ext)
		}
		mustDeliver(t, s, messages(1)...)
		if got := flights(server)[1][0]; got != "HELO client.test" {
			t.Errorf("got %q", got)
		}
	}
}

func TestNoHELOAfterATemporaryRefusal(t *testing.T) {
	t.Parallel()
	for _, code := range []int{421, 450} {
		server := start(t, smtptest.Script{On: map[string][]smtptest.Step{"EHLO": smtptest.Say(fmt.Sprint(code, " later"))}})
		s := dial(t, server, Options{})
		if e := wantError(t, s.Greet(t.Context()), StageEHLO, KindReply, nil); e.Reply.Code != code {
			t.Errorf("%+v", e)
		}
		server.WaitIdle(time.Minute)
		wantFlights(t, server, []string{"EHLO client.test"})
	}
}

func TestBadLocalName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a b", "a\r\nMAIL", "ä.test", strings.Repeat("a", 256)} {
		server := start(t, smtptest.Script{})
		s := dial(t, server, Options{LocalName: name})
		wantError(t, s.Greet(t.Context()), StageEHLO, KindInput, ErrLocalName)
	}
}

// A server that takes or gives an octet now and then keeps no deadline away.
func TestDripDoesNotFeedADeadline(t *testing.T) {
	t.Parallel()
	short := long
	short.Command, short.Final, short.Greeting, short.Data = 60*time.Millisecond, 60*time.Millisecond, 60*time.Millisecond, 60*time.Millisecond
	for key, stage := range map[string]Stage{
		smtptest.OnConnect: StageGreeting, "EHLO": StageEHLO, "MAIL": StageMail, "RCPT": StageRcpt, "DATA": StageData, smtptest.OnEnd: StageFinal,
	} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			server := start(t, smtptest.Script{Extensions: pipelining(), On: map[string][]smtptest.Step{
				key: {{Endless: "250-still thinking\r\n", Drip: 5 * time.Millisecond}}}})
			s := dial(t, server, Options{Timeouts: short})
			err := s.Greet(t.Context())
			if err == nil {
				_, err = run(t, s, messages(1)...)
			}
			wantError(t, err, stage, KindTimeout, nil)
		})
	}
}

// A deadline is for a piece of the content, whatever the server takes of it.
func TestContentTakenOctetByOctet(t *testing.T) {
	t.Parallel()
	for name, ext := range map[string]Extensions{"BDAT": {Pipelining: true, Chunking: true}, "DATA": {Pipelining: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, server := net.Pipe()
			defer server.Close()
			go func() {
				b := make([]byte, 4096)
				server.Read(b)
				io.WriteString(server, "250 a\r\n250 b\r\n")
				if !ext.Chunking {
					io.WriteString(server, "354 c\r\n")
				}
				for {
					if _, err := server.Read(b[:1]); err != nil {
						return
					}
					time.Sleep(time.Millisecond)
				}
			}()
			o := Options{Timeouts: long}
			o.Timeouts.Block = 60 * time.Millisecond
			s := over(t, client, o)
			s.ext = ext
			results, err := run(t, s, message("a@a.test", large(), "b@b.test"))
			wantError(t, err, StageContent, KindTimeout, nil)
			if r := results[0]; r.Sent || r.Untried {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestDeadlineOfTheWholeTransaction(t *testing.T) {
	t.Parallel()
	server := start(t, smtptest.Script{On: map[string][]smtptest.Step{"RCPT": {{Wait: 20 * time.Millisecond, Reply: "250 2.1.5 ok"}}}})
	o := Options{Timeouts: long}
	o.Timeouts.Message = 500 * time.Millisecond // and all recipients together take 2 s
	var to []string
	for i := range 100 {
		to = append(to, fmt.Sprintf("to%d@b.test", i))
	}
	results, err := run(t, greeted(t, server, o), message("a@a.test", "\r\n", to...))
	wantError(t, err, StageRcpt, KindTimeout, nil)
	if r := results[0]; r.Rcpts[0].Code != 250 || r.Rcpts[99].Code != 0 || r.Sent || r.Untried {
		t.Errorf("%+v", r)
	}
}

func TestWhatCannotBeWritten(t *testing.T) {
	t.Parallel()
	bad := map[string]struct {
		change func(*Transaction)
		cause  error
	}{
		"CRLF in the sender":      {func(tx *Transaction) { tx.From = "a@a.test>\r\nRCPT TO:<x@x.test" }, ErrAddress},
		"LF in a recipient":       {func(tx *Transaction) { tx.Rcpts[0].Address = "b\n@b.test" }, ErrAddress},
		"NUL":                     {func(tx *Transaction) { tx.Rcpts[0].Address = "b\x00@b.test" }, ErrAddress},
		"path ends early":         {func(tx *Transaction) { tx.Rcpts[0].Address = "b@b.test> NOTIFY=NEVER" }, ErrAddress},
		"angle bracket":           {func(tx *Transaction) { tx.Rcpts[0].Address = "b>@b.test" }, ErrAddress},
		"blank":                   {func(tx *Transaction) { tx.Rcpts[0].Address = "a b@b.test" }, ErrAddress},
		"quote without end":       {func(tx *Transaction) { tx.Rcpts[0].Address = `"b@b.test` }, ErrAddress},
		"backslash hides a quote": {func(tx *Transaction) { tx.Rcpts[0].Address = `"b\"@b.test` }, ErrAddress},
		"backslash before CR":     {func(tx *Transaction) { tx.Rcpts[0].Address = "\"b\\\r\"@b.test" }, ErrAddress},
		"backslash at the end":    {func(tx *Transaction) { tx.Rcpts[0].Address = `"b\` }, ErrAddress},
		"Latin-1":                 {func(tx *Transaction) { tx.Rcpts[0].Address = "\xe4@b.test" }, ErrAddress},
		"too long":                {func(tx *Transaction) { tx.Rcpts[0].Address = strings.Repeat("b", 400) + "@b.test" }, ErrAddress},
		"no address":              {func(tx *Transaction) { tx.Rcpts[0].Address = "" }, ErrAddress},
		"no recipient":            {func(tx *Transaction) { tx.Rcpts = nil }, ErrNoRecipient},
		"CRLF in a parameter":     {func(tx *Transaction) { tx.Params = "SIZE=1\r\nDATA" }, ErrParameter},
		"blank before parameters": {func(tx *Transaction) { tx.Params = " SIZE=1" }, ErrParameter},
		"NUL in rcpt parameters":  {func(tx *Transaction) { tx.Rcpts[0].Params = "NOTIFY=\x00" }, ErrParameter},
		"endless parameters":      {func(tx *Transaction) { tx.Rcpts[0].Params = strings.Repeat("x", 2000) }, ErrParameter},
		"Latin-1 in a parameter":  {func(tx *Transaction) { tx.Rcpts[0].Params = "ORCPT=utf-8;\xe4" }, ErrParameter},
		"content cannot be opened": {func(tx *Transaction) {
			tx.Open = func() (Body, io.Closer, error) { return Body{}, nil, io.ErrClosedPipe }
		}, io.ErrClosedPipe},
		"content without its end": {func(tx *Transaction) { *tx = *message("a@a.test", "x", "b@b.test") }, ErrContentEnd},
		"content shorter than said": {func(tx *Transaction) {
			tx.Open = func() (Body, io.Closer, error) { return Body{Data: []byte("x\r\n"), Size: 4}, nil, nil }
		}, ErrContentSize},
		"content longer than said": {func(tx *Transaction) {
			tx.Open = func() (Body, io.Closer, error) { return Body{Data: []byte("x\r\n"), Size: 2}, nil, nil }
		}, ErrContentSize},
		"small file too short":   {func(tx *Transaction) { file, _ := fileMessage("x\r\n", 4); tx.Open = file.Open }, ErrContentSize},
		"small file too long":    {func(tx *Transaction) { file, _ := fileMessage("x\r\n", 2); tx.Open = file.Open }, ErrContentSize},
		"small file without end": {func(tx *Transaction) { file, _ := fileMessage("xxx", 3); tx.Open = file.Open }, ErrContentEnd},
	}
	for manner, extensions := range manners {
		for name, b := range bad {
			t.Run(manner+"/"+name, func(t *testing.T) {
				t.Parallel()
				server := start(t, smtptest.Script{Extensions: extensions})
				s := greeted(t, server, Options{InFlight: 4})
				s.window = 4
				txs := messages(4)
				b.change(txs[1])
				results, err := run(t, s, txs...)
				if err != nil {
					t.Fatal(err)
				}
				for i, r := range results {
					if i == 1 {
						wantError(t, r.Err, StageContent, KindInput, b.cause)
						if r.Sent || r.Untried {
							t.Errorf("%+v", r)
						}
					} else if r.Final.Code != 250 {
						t.Errorf("message %d: %+v", i, r)
					}
				}
				if n := len(server.Transactions()); n != 3 {
					t.Errorf("%d transactions", n)
				}
				wantNoViolations(t, server)
			})
		}
	}
}

// A quoted local part is passed on, whatever it holds.
func TestQuotedAddress(t *testing.T) {
	t.Parallel()
	const odd = `"a b>\" <\\"@b.test`
	server := start(t, smtptest.Script{Extensions: chunking})
	mustDeliver(t, greeted(t, server, Options{}), message(odd, "\r\n", odd, "größe@b.test"))
	tx := server.Transactions()[0]
	if tx.From != odd || tx.Rcpts[0].Address != odd || tx.Rcpts[1].Address != "größe@b.test" {
		t.Errorf("%+v", tx)
	}
}

// Content that breaks off can be taken back only by hanging up: an end would
// deliver it.
func TestContentBreaksOff(t *testing.T) {
	t.Parallel()
	broken := errors.New("disk on fire")
	bodies := map[string]struct {
		content string
		then    error // of the read after it
		cause   error
	}{
		"too short":   {large()[1:], io.EOF, ErrContentSize},
		"too long":    {large() + "x", io.EOF, ErrContentSize},
		"read error":  {large()[:200<<10], broken, broken},
		"end unknown": {large(), broken, broken},
	}
	for manner, extensions := range manners {
		for name, b := range bodies {
			t.Run(manner+"/"+name, func(t *testing.T) {
				t.Parallel()
				server := start(t, smtptest.Script{Extensions: extensions})
				tx := message("a@a.test", "", "b@b.test")
				tx.Open = func() (Body, io.Closer, error) {
					file := io.MultiReader(strings.NewReader(b.content), errReader{b.then})
					return Body{File: file, Size: int64(len(large()))}, nil, nil
				}
				results, err := run(t, greeted(t, server, Options{}), tx)
				wantError(t, err, StageContent, KindInput, b.cause)
				if r := results[0]; r.Sent || r.Untried || r.Final.Code != 0 || !errors.Is(r.Err, b.cause) {
					t.Errorf("%+v", r)
				}
				server.WaitIdle(time.Minute)
				if txs := server.Transactions(); len(txs) > 0 {
					t.Errorf("the server has %d octets for a message", len(txs[0].Content))
				}
			})
		}
	}
	t.Run("no line end for DATA", func(t *testing.T) {
		t.Parallel()
		server := start(t, smtptest.Script{Extensions: pipelining()})
		tx := message("a@a.test", "", "b@b.test")
		tx.Open = func() (Body, io.Closer, error) {
			return Body{File: strings.NewReader(large() + "x"), Size: int64(len(large())) + 1}, nil, nil
		}
		_, err := run(t, greeted(t, server, Options{}), tx)
		wantError(t, err, StageContent, KindInput, ErrContentEnd)
	})
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

func TestContextEndStopsHandingOut(t *testing.T) {
	t.Parallel()
	for manner, extensions := range manners {
		t.Run(manner, func(t *testing.T) {
			t.Parallel()
			server := start(t, smtptest.Script{Extensions: extensions})
			s := greeted(t, server, Options{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			txs := messages(5)
			open := txs[1].Open
			txs[1].Open = func() (Body, io.Closer, error) { cancel(); return open() }
			results, err := runContext(t, ctx, s, txs...)
			if err != nil || len(results) != 2 || results[1].Final.Code != 250 {
				t.Fatalf("%+v, %v", results, err)
			}
			mustDeliver(t, s, messages(1)...) // the session is still of use
		})
	}
}

func TestCloseEndsTheTransactionUnderWay(t *testing.T) {
	t.Parallel()
	for manner, extensions := range manners {
		t.Run(manner, func(t *testing.T) {
			t.Parallel()
			server := start(t, smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{"RCPT": {{Then: smtptest.Hang}}}})
			s := greeted(t, server, Options{})
			go func() {
				server.WaitCommand("RCPT", time.Minute)
				s.Close()
			}()
			results, err := run(t, s, message("a@a.test", large(), "b@b.test"))
			var e *Error
			if !errors.As(err, &e) || e.Kind != KindAborted {
				t.Fatal(err)
			}
			if r := results[0]; !r.Untried || r.Sent || r.Err == nil {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestContextEndsTheGreeting(t *testing.T) {
	t.Parallel()
	server := start(t, smtptest.Script{On: map[string][]smtptest.Step{smtptest.OnConnect: {{Then: smtptest.Hang}}}})
	s := dial(t, server, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantError(t, s.Greet(ctx), StageGreeting, KindAborted, nil)
}

// Replies that nobody asked for would be taken for those of the next message.
func TestUnsolicitedReply(t *testing.T) {
	t.Parallel()
	for manner, extensions := range manners {
		t.Run(manner, func(t *testing.T) {
			t.Parallel()
			server := start(t, smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{
				smtptest.OnEnd: {{Raw: "250 2.0.0 taken\r\n250 2.0.0 taken\r\n"}}}})
			s := greeted(t, server, Options{NoPipelining: manner == "DATA"})
			results, err := run(t, s, messages(2)...)
			wantError(t, err, StageIdle, KindProtocol, ErrUnsolicitedReply)
			if len(results) != 1 || results[0].Final.Code != 250 {
				t.Errorf("%+v", results)
			}
		})
	}
	t.Run("before the content", func(t *testing.T) {
		t.Parallel()
		server := start(t, smtptest.Script{Extensions: pipelining(), On: map[string][]smtptest.Step{
			"DATA": {{Raw: "354 go ahead\r\n250 2.0.0 taken\r\n"}}}})
		results, err := run(t, greeted(t, server, Options{}), messages(1)...)
		wantError(t, err, StageContent, KindProtocol, nil)
		if r := results[0]; r.Sent || r.Final.Code != 0 {
			t.Errorf("%+v", r)
		}
	})
}

// The server said why it resets the connection before the write that fails.
func TestReplyBeforeAWriteThatFails(t *testing.T) {
	t.Parallel()
	for name, ext := range map[string]Extensions{"BDAT": {Pipelining: true, Chunking: true}, "command by command": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, server := tcpPair(t)
			s := over(t, client, Options{})
			s.ext = ext
			tx := messages(1)[0]
			open := tx.Open
			tx.Open = func() (Body, io.Closer, error) {
				io.WriteString(server, "421 4.3.2 going down\r\n")
				server.(*net.TCPConn).SetLinger(0)
				server.Close()
				return open()
			}
			results, err := run(t, s, tx)
			if e := wantError(t, err, StageMail, KindReply, nil); e.Reply.Code != 421 || results[0].Mail.Code != 421 || results[0].Sent {
				t.Errorf("%v, %+v", err, results)
			}
		})
	}
}
