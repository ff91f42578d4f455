//go:build e2e

package e2e

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	"postrider/mta/smtptest"
	"postrider/resolver/resolvertest"
)

// TestLostAnswerIsInDoubt: a host takes the whole message and hangs up without
// an answer. The message comes again, and the trace says why there may be two.
func TestLostAnswerIsInDoubt(t *testing.T) {
	for name, extensions := range map[string][]string{"DATA": nil, "one flight": {"PIPELINING", "CHUNKING"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mx, err := smtptest.Start("127.0.0.24:0", smtptest.Script{Extensions: extensions, On: map[string][]smtptest.Step{
				smtptest.OnEnd: smtptest.Do(smtptest.Step{Then: smtptest.Close}, smtptest.Step{})}})
			if err != nil {
				t.Fatal(err)
			}
			defer mx.Close()
			z := resolvertest.Start(t)
			z.Add("doubt.test. 300 IN MX 10 mx.doubt.test.", "mx.doubt.test. 300 IN A 127.0.0.24")
			p := newPostrider(t, z.Addr(), mx.Addr().(*net.TCPAddr).Port, "")
			p.start()
			var sent struct{ ID string }
			out := p.run("", "send", "--config", p.config, "--from", "app@sender.test", "--to", "r@doubt.test", "--subject", "x", "--json", "text")
			if err := json.Unmarshal([]byte(out), &sent); err != nil || sent.ID == "" {
				t.Fatalf("%v: %s", err, out)
			}
			var trace string
			waitFor(t, "the second attempt", func() bool {
				trace = p.run("", "trace", "--config", p.config, sent.ID)
				return strings.Contains(trace, "in doubt") && len(mx.Transactions()) == 2
			})
			if n := strings.Count(trace, "in doubt"); n != 1 {
				t.Errorf("%d attempts are in doubt:\n%s", n, trace)
			}
		})
	}
}
