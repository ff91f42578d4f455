package demo

import (
	"fmt"
	"path/filepath"
	"time"
)

// shownFaults bounds the list of faults under the table.
const shownFaults = 20

func (p *play) announce() {
	fmt.Fprintf(p.Out, "a rehearsal internet on loopback: DNS at %s, %d receiving servers on port %d\n",
		p.world.dns.Addr(), len(p.world.receivers), p.world.port)
	fmt.Fprintf(p.Out, "postrider takes mail at %s and in %s\n\n", p.submission, p.pickup())
}

func (p *play) progress(a account) {
	if !p.Terminal {
		return
	}
	fmt.Fprintf(p.Out, "\r\033[K%5.1f s  %d of %d delivered, %d of %d reports, %d still to come",
		time.Since(p.started).Seconds(), a.delivered+a.deferred, a.expected, a.reported, a.bounced, a.open)
}

func (p *play) clearProgress() {
	if p.Terminal {
		fmt.Fprint(p.Out, "\r\033[K")
	}
}

func (p *play) table(a account) {
	took := p.ledger.lastArrival().Sub(p.started)
	row := func(name string, got, want int) {
		mark := "ok"
		if got != want {
			mark = "MISSING"
		}
		fmt.Fprintf(p.Out, "  %-46s %6d of %-6d %s\n", name, got, want, mark)
	}
	fmt.Fprintf(p.Out, "%d files in the pickup directory, %d messages over SMTP\n\n", len(p.expected.Messages), p.Injected)
	row("recipients delivered at the first attempt", a.delivered, a.expected-a.wasDeferred)
	row("recipients deferred, then delivered", a.deferred, a.wasDeferred)
	row("recipients bounced, with a report to the sender", a.reported, a.bounced)
	row("bad files put aside with the reason", a.refused, a.rejected)
	row("DKIM signatures verified with the key in DNS", a.signed, a.signed+a.invalid)
	row("messages signed", a.mails, a.mails+a.unsigned)
	fmt.Fprintf(p.Out, "\n  recipients reached over TLS %d, in clear %d\n", a.overTLS, a.delivered+a.deferred-a.overTLS)
	fmt.Fprintf(p.Out, "  all of it took %.1f s; the %d over SMTP were accepted at %.0f messages/s\n\n",
		took.Seconds(), p.Injected, p.injectionRate)
	for i, f := range a.faults {
		if i == shownFaults {
			fmt.Fprintf(p.Out, "  ... and %d more\n", len(a.faults)-i)
			break
		}
		fmt.Fprintf(p.Out, "  ! %s\n", f)
	}
	if len(a.faults) == 0 {
		fmt.Fprintln(p.Out, "every message met what was expected of it")
	}
}

func (p *play) invite() {
	fmt.Fprintf(p.Out, `
left running until you press ctrl-C:
  submit to        %s
  spool directory  %s
  metrics          http://%s/metrics
  the queue        %s queue list --config %s
  its log          %s
`, p.submission, p.pickup(), p.http, p.Binary, p.configFile(), filepath.Join(p.dir, "postrider.log"))
}
