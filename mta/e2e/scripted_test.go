//go:build e2e

package e2e

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"postrider/mta/smtptest"
	"postrider/resolver/resolvertest"
)

// scripted runs the binary before one scripted mail host.
func scripted(t *testing.T, domain string, script smtptest.Script, extra string) (*postrider, *smtptest.Server, *resolvertest.Zone) {
	t.Helper()
	const addr = "127.0.0.33"
	mx, err := smtptest.Start(addr+":0", script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mx.Close() })
	z := resolvertest.Start(t)
	z.Add(domain+". 300 IN MX 10 mx."+domain+".", "mx."+domain+". 300 IN A "+addr)
	p := newPostrider(t, z.Addr(), mx.Addr().(*net.TCPAddr).Port, extra)
	p.start()
	return p, mx, z
}

// TestRecipientsAHostDoesNotTakeAtOnce: what LIMITS (RFC 9422) or 452 (RFC
// 5321, section 4.5.3.1.10) keeps from one transaction goes in the next ones,
// long before the schedule would try again.
func TestRecipientsAHostDoesNotTakeAtOnce(t *testing.T) {
	const domain = "limits.test"
	for name, tt := range map[string]struct {
		script  smtptest.Script
		perMail []int
		most    int // transactions of a session
	}{
		"RCPTMAX":             {smtptest.Script{Extensions: []string{"PIPELINING", "LIMITS RCPTMAX=2"}}, []int{1, 2, 2}, 100},
		"RCPTMAX and MAILMAX": {smtptest.Script{Extensions: []string{"PIPELINING", "CHUNKING", "LIMITS MAILMAX=1 RCPTMAX=2"}}, []int{1, 2, 2}, 1},
		"452 4.5.3": {smtptest.Script{Extensions: []string{"PIPELINING"}, On: map[string][]smtptest.Step{
			"RCPT": smtptest.Do(smtptest.Step{}, smtptest.Step{}, smtptest.Step{}, smtptest.Step{Reply: "452 4.5.3 too many recipients"},
				smtptest.Step{Reply: "452 4.5.3 too many recipients"}, smtptest.Step{})}}, []int{2, 3}, 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, mx, _ := scripted(t, domain, tt.script, "[[destination]]\ndomain = \""+domain+"\"\nretry = [\"1h\"]\n")
			p.run("From: <app@sender.test>\nSubject: all\n\ntext\n", "sendmail", "--config", p.config, "-f", "app@sender.test",
				"r1@"+domain, "r2@"+domain, "r3@"+domain, "r4@"+domain, "r5@"+domain)
			var perMail []int
			sessions, who := make(map[int]int), make(map[string]int)
			waitFor(t, "all recipients", func() bool {
				perMail = nil
				clear(sessions)
				clear(who)
				for _, tx := range mx.Transactions() {
					n := 0
					for _, to := range tx.Rcpts {
						if tx.IsAccepted && to.IsAccepted {
							n++
							who[to.Address]++
						}
					}
					perMail = append(perMail, n)
					sessions[tx.Session]++
				}
				return len(who) == 5
			})
			slices.Sort(perMail)
			if !slices.Equal(perMail, tt.perMail) {
				t.Errorf("recipients of the transactions: %v, want %v", perMail, tt.perMail)
			}
			for _, n := range sessions {
				if n > tt.most {
					t.Errorf("a session had %d transactions", n)
				}
			}
			for to, n := range who {
				if n != 1 {
					t.Errorf("%s got it %d times", to, n)
				}
			}
		})
	}
}

// TestTLSReportsOff: with one setting nothing is counted or kept for TLS
// reports, and so none is sent.
func TestTLSReportsOff(t *testing.T) {
	for name, tt := range map[string]struct {
		extra string
		kept  bool
	}{"on": {"", true}, "off": {"[tlsrpt]\nenabled = false\n", false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, _, z := scripted(t, "asks.test", smtptest.Script{}, tt.extra)
			z.Add(`_smtp._tls.asks.test. 300 IN TXT "v=TLSRPTv1; rua=mailto:tls@asks.test"`)
			p.traceWith(p.submitTo("r@asks.test"), "delivered")
			if err := p.proc.Terminate(); err != nil { // what was counted is kept at the end, if not before
				t.Fatal(err)
			}
			kept, err := filepath.Glob(filepath.Join(p.state(), "tls-reports", "*"))
			if err != nil || (len(kept) > 0) != tt.kept {
				t.Errorf("kept: %q, %v", kept, err)
			}
			if _, err := os.Stat(filepath.Join(p.state(), "tls-reports")); !tt.kept && !os.IsNotExist(err) {
				t.Errorf("there is a place for what is not kept: %v", err)
			}
		})
	}
}
