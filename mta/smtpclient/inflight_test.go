package smtpclient

import (
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"testing"

	"postrider/mta/smtptest"
)

// sizes are how many BDATs came in each flight after EHLO.
func sizes(server *smtptest.Server) []int {
	var all []int
	for _, parts := range flights(server)[1:] {
		n := 0
		for _, part := range parts {
			if len(part) > 4 && part[:4] == "BDAT" {
				n++
			}
		}
		all = append(all, n)
	}
	return all
}

func TestSeveralInFlight(t *testing.T) {
	t.Parallel()
	server := start(t, smtptest.Script{Extensions: chunking})
	s := greeted(t, server, Options{InFlight: 4})
	mustDeliver(t, s, messages(14)...)
	// One, then one more for each that was taken.
	if got := sizes(server); !slices.Equal(got, []int{1, 2, 4, 4, 3}) {
		t.Errorf("got %v", got)
	}
	// Whatever follows one that is not decided yet begins with RSET.
	want := []string{"MAIL FROM:<from1@a.test>", "RCPT TO:<to1@b.test>", "BDAT 29 LAST", "(29 octets)",
		"RSET", "MAIL FROM:<from2@a.test>", "RCPT TO:<to2@b.test>", "BDAT 29 LAST", "(29 octets)"}
	if got := flights(server)[2]; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
	wantNoViolations(t, server)
	for i, tx := range server.Transactions() {
		if !tx.IsAccepted || tx.From != fmt.Sprintf("from%d@a.test", i) || string(tx.Content) != sent(fmt.Sprintf("\r\nbody %d\r\n", i)) {
			t.Errorf("message %d arrived as %+v", i, tx)
		}
	}
}

func TestRefusalBringsTheFlightBackToOne(t *testing.T) {
	t.Parallel()
	server := start(t, smtptest.Script{Extensions: chunking, On: map[string][]smtptest.Step{"RCPT TO:<to6@": smtptest.Say("450 4.2.0 later")}})
	s := greeted(t, server, Options{InFlight: 4})
	results, err := run(t, s, messages(14)...)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if (r.Final.Code == 250) != (i != 6) {
			t.Errorf("message %d: %+v", i, r)
		}
	}
	// 6 is the last of the third flight.
	if got := sizes(server); !slices.Equal(got, []int{1, 2, 4, 1, 2, 4}) {
		t.Errorf("got %v", got)
	}
	wantNoViolations(t, server)
}

func TestInFlightIsBoundedInOctets(t *testing.T) {
	t.Parallel()
	server := start(t, smtptest.Script{Extensions: chunking})
	s := greeted(t, server, Options{InFlight: 16})
	s.window = 16
	content := dotLines(60 << 10)
	var txs []*Transaction
	for range 8 {
		txs = append(txs, message("a@a.test", content, "b@b.test"))
	}
	mustDeliver(t, s, txs...)
	if got := sizes(server); got[0] != maxInFlight/(60<<10) {
		t.Errorf("got %v", got)
	}
	wantNoViolations(t, server)
}

// What is known when the connection breaks: those that were answered are
// settled, those whose content was sent are in doubt.
func TestDisconnectWithSeveralInFlight(t *testing.T) {
	t.Parallel()
	for _, inFlight := range []int{1, 4} {
		server := start(t, smtptest.Script{Extensions: chunking, On: map[string][]smtptest.Step{"MAIL FROM:<from2@": {{Then: smtptest.Close}}}})
		s := greeted(t, server, Options{InFlight: inFlight})
		s.window = inFlight
		results, err := run(t, s, messages(10)...)
		e := wantError(t, err, StageMail, KindClosed, nil)
		if len(results) < min(2+inFlight, 4) {
			t.Fatalf("%d in flight: %d results", inFlight, len(results))
		}
		for i, r := range results {
			if i < 2 && (r.Final.Code != 250 || r.Err != nil) {
				t.Errorf("%d: %+v", i, r)
			}
			if i >= 2 && (r.Final.Code != 0 || r.Err != e || r.Sent == r.Untried) {
				t.Errorf("%d is neither in doubt nor untried: %+v", i, r)
			}
			// Up to 3 went along with the first; what followed met the closed door.
			if i >= 2 && i < 1+inFlight && !r.Sent {
				t.Errorf("%d is not in doubt: %+v", i, r)
			}
		}
	}
}

// A server that says 421 and closes has taken nothing of what lies behind.
func Test421WithSeveralInFlight(t *testing.T) {
	t.Parallel()
	server := start(t, smtptest.Script{Extensions: chunking, On: map[string][]smtptest.Step{
		"MAIL FROM:<from1@": {{Reply: "421 4.7.0 too many messages", Then: smtptest.Close}}}})
	s := greeted(t, server, Options{InFlight: 4})
	s.window = 4
	results, err := run(t, s, messages(10)...)
	wantError(t, err, StageMail, KindReply, nil)
	if len(results) < 4 {
		t.Fatalf("%d results", len(results))
	}
	if r := results[1]; r.Mail.Code != 421 || r.Final.Code != 421 || r.Untried {
		t.Errorf("%+v", r)
	}
	for _, r := range results[2:] {
		if !r.Untried || r.Final.Code != 0 {
			t.Errorf("%+v", r)
		}
	}
}

// A server that says 421 and goes on all the same is heard to the end.
func Test421FromAServerThatGoesOn(t *testing.T) {
	t.Parallel()
	server := start(t, smtptest.Script{Extensions: chunking, On: map[string][]smtptest.Step{
		"MAIL FROM:<from1@": {{Reply: "421 4.7.0 not this one"}}}})
	s := greeted(t, server, Options{InFlight: 4})
	s.window = 4
	results, err := run(t, s, messages(10)...)
	wantError(t, err, StageMail, KindReply, nil)
	if len(results) != 4 {
		t.Fatalf("%d results", len(results))
	}
	for i, r := range results {
		if isAccepted := i != 1; (r.Final.Code == 250) != isAccepted || r.Untried {
			t.Errorf("%d: %+v", i, r)
		}
	}
}

// What was sent of whom when a write breaks off: to the octet.
func TestWriteBreaksOff(t *testing.T) {
	t.Parallel()
	const envelope = "MAIL FROM:<from0@a.test>\r\nRCPT TO:<to0@b.test>\r\nBDAT 29 LAST\r\n"
	const content = "Received: by test\r\n\r\nbody 0\r\n"
	first := len(envelope) + len(content)
	tests := []struct {
		octets  int
		sent    []bool
		untried []bool
	}{
		{0, []bool{false, false, false}, []bool{false, true, true}},
		{len(envelope), []bool{false, false, false}, []bool{false, true, true}},
		{len(envelope) + 1, []bool{false, false, false}, []bool{false, true, true}},
		{first - 1, []bool{false, false, false}, []bool{false, true, true}},
		{first, []bool{true, false, false}, []bool{false, true, true}},
		{first + len("RSET\r\n") + len(envelope), []bool{true, false, false}, []bool{false, true, true}},
		{first + len("RSET\r\n") + len(envelope) + 1, []bool{true, false, false}, []bool{false, false, true}},
		{2*first + len("RSET\r\n"), []bool{true, true, false}, []bool{false, false, true}},
		{3*first + 2*len("RSET\r\n") - 1, []bool{true, true, false}, []bool{false, false, false}},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.octets), func(t *testing.T) {
			t.Parallel()
			client, server := net.Pipe()
			go func() {
				io.ReadFull(server, make([]byte, tt.octets))
				server.Close()
			}()
			s := over(t, client, Options{InFlight: 3})
			s.ext, s.window = Extensions{Pipelining: true, Chunking: true}, 3
			results, err := run(t, s, messages(3)...)
			if err == nil || len(results) != 3 {
				t.Fatalf("%+v, %v", results, err)
			}
			for i, r := range results {
				if r.Sent != tt.sent[i] || r.Untried != tt.untried[i] || r.Err == nil {
					t.Errorf("%d: %+v", i, r)
				}
			}
		})
	}
}
