package smtpclient

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"postrider/mta/smtptest"
)

// TestRandomServers carries many transactions to servers that refuse, say 421,
// hang up and lose replies at random, and compares what the client knows in the
// end with what the server has.
func TestRandomServers(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 0))
			server := start(t, randomScript(r))
			o := Options{InFlight: 1 + r.IntN(5)}
			results := make(map[string]Result)
			rcpts := make(map[string][]string)
			for id := 0; id < 100; {
				s := dial(t, server, o)
				if s.Greet(t.Context()) != nil {
					continue
				}
				s.window = o.InFlight
				// With each session new transactions: none is tried twice here.
				var txs []*Transaction
				for range 1 + r.IntN(40) {
					tx := randomTransaction(r, id)
					for _, rcpt := range tx.Rcpts {
						rcpts[tx.From] = append(rcpts[tx.From], rcpt.Address)
					}
					txs = append(txs, tx)
					id++
				}
				got, err := run(t, s, txs...)
				for i, result := range got {
					results[txs[i].From] = result
				}
				if err == nil {
					s.Quit()
				}
				s.Close()
			}
			server.WaitIdle(time.Minute)
			compare(t, server, results, rcpts)
		})
	}
}

func randomScript(r *rand.Rand) smtptest.Script {
	extensions := [][]string{chunking, chunking, pipelining(), {"CHUNKING"}, nil}[r.IntN(5)]
	// How often something goes wrong: on some servers seldom, on others often.
	usual := []int{97, 90, 70}[r.IntN(3)]
	steps := func(faults ...smtptest.Step) []smtptest.Step {
		var all []smtptest.Step
		for range 400 {
			step := smtptest.Step{}
			if r.IntN(100) >= usual {
				step = faults[r.IntN(len(faults))]
			}
			all = append(all, step)
		}
		return append(all, smtptest.Step{})
	}
	refusals := []smtptest.Step{
		{Reply: "450 4.2.0 later"}, {Reply: "451 4.3.0 later"}, {Reply: "550 5.1.1 no"}, {Reply: "550 5.7.1 no\nand no"},
		{Reply: "421 4.3.2 closing", Then: smtptest.Close}, {Reply: "421 4.3.2 closing, or not"}, {Then: smtptest.Close}, {Then: smtptest.Reset},
		{Raw: "25", Then: smtptest.Close}, {Raw: "garbage\r\n", Then: smtptest.Close},
	}
	lost := append(slices.Clone(refusals), smtptest.Step{Raw: "250 2.0.0 tak", Then: smtptest.Close}, smtptest.Step{Reply: "250 2.0.0 taken", Then: smtptest.Close})
	return smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{
		"MAIL": steps(refusals...), "RCPT": steps(refusals...), "DATA": steps(append(refusals, smtptest.Step{Reply: "354 in any case"})...), smtptest.OnEnd: steps(lost...),
		smtptest.OnContent: steps(smtptest.Step{After: 10, Then: smtptest.Close}, smtptest.Step{After: 10, Reply: "552 5.3.4 too much", Then: smtptest.Close}),
	}}
}

func randomTransaction(r *rand.Rand, id int) *Transaction {
	content := "\r\nsmall\r\n"
	if r.IntN(10) == 0 {
		content = large()
	}
	tx := message(fmt.Sprintf("from%d@a.test", id), content)
	for i := range 1 + r.IntN(3) {
		tx.Rcpts = append(tx.Rcpts, Rcpt{Address: fmt.Sprintf("to%d@b%d.test", i, id)})
	}
	return tx
}

// compare finds what the client believes and the server does not know, and the
// other way round.
func compare(t *testing.T, server *smtptest.Server, results map[string]Result, rcpts map[string][]string) {
	t.Helper()
	taken := make(map[string][]string)
	for _, tx := range server.Transactions() {
		if !tx.IsAccepted {
			continue
		}
		if taken[tx.From] != nil {
			t.Errorf("%s was taken twice", tx.From)
		}
		for _, rcpt := range tx.Rcpts {
			if rcpt.IsAccepted {
				taken[tx.From] = append(taken[tx.From], rcpt.Address)
			}
		}
		if _, ok := results[tx.From]; !ok {
			t.Errorf("%s was taken and never tried", tx.From)
		}
	}
	for from, result := range results {
		for i, address := range rcpts[from] {
			has := slices.Contains(taken[from], address)
			switch believes := verdict(result, i); {
			case believes == "in doubt":
			case (believes == "delivered") != has:
				t.Errorf("%s: the client believes that %s is %s: %+v", from, address, believes, result)
			}
		}
	}
}

// verdict reads a result as its documentation says.
func verdict(r Result, i int) string {
	switch {
	case r.Untried:
		return "untried"
	case r.Mail.Code != 0 && !isSuccess(r.Mail.Code), r.Rcpts[i].Code != 0 && !isSuccess(r.Rcpts[i].Code):
		return "refused"
	case isSuccess(r.Final.Code):
		return "delivered"
	case r.Final.Code != 0 || r.Data.Code != 0 && r.Data.Code != 354:
		return "refused"
	case r.Sent:
		return "in doubt"
	}
	return "not sent"
}
