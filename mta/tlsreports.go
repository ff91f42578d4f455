package mta

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"postrider/mta/delivery"
	"postrider/mta/intake"
	"postrider/mta/mtasts"
	"postrider/mta/tlspolicy"
	"postrider/mta/tlsrpt"
	"postrider/queue"
)

// tlsRecorder counts, for the reports of RFC 8460, what TLS came to on each
// connection, under each policy that it was held to.
type tlsRecorder struct {
	recorder *tlsrpt.Recorder
	sts      *mtasts.Policies
}

// Connection implements delivery.Observer.
func (t *tlsRecorder) Connection(c *delivery.Connection) {
	switch {
	case c.Message == tlspolicy.MessageTLSIgnored:
		// A message that asks for no policy, as these reports do themselves: two
		// hosts would write to each other for ever.
		return
	case c.TLSResult == delivery.TLSNotTried || c.TLSResult == delivery.TLSNoRequire:
		return // TLS was not asked for, or the message's own demand failed
	}
	failure := t.failure(c)
	now := time.Now()
	isDANE := c.Demand.Source == tlspolicy.FromDANE || c.Demand.TLSAUnusable
	if isDANE {
		t.recorder.Record(now, c.Domain, tlsrpt.Policy{Type: tlsrpt.TLSA, Domain: c.Host, Lines: tlsaLines(c.Demand.TLSA)}, t.daneFailure(c, failure))
	}
	switch policy, ok := t.stsPolicy(c); {
	case ok:
		t.recorder.Record(now, c.Domain, policy, failure)
	case !isDANE:
		t.recorder.Record(now, c.Domain, tlsrpt.Policy{Type: tlsrpt.NoPolicy, Domain: c.Domain}, failure)
	}
}

// fetchFailed counts an MTA-STS policy that could not be had (RFC 8460,
// section 4.3.2.2). There was no policy to name, so it is counted apart.
func (t *tlsRecorder) fetchFailed(err *mtasts.Error) {
	if result := err.Kind.ResultType(); result != "" {
		t.recorder.Record(time.Now(), err.Domain, tlsrpt.Policy{Type: tlsrpt.STS, Domain: err.Domain},
			&tlsrpt.Failure{Result: result, Reason: err.Error()})
	}
}

func (t *tlsRecorder) failure(c *delivery.Connection) *tlsrpt.Failure {
	if c.TLSResult == delivery.TLSOK {
		return nil
	}
	f := &tlsrpt.Failure{
		Result: c.TLSResult.String(), SendingIP: c.Local,
		ReceivingMX: c.Host, ReceivingIP: c.Addr.Addr(),
	}
	if c.TLSErr != nil {
		f.Reason = c.TLSErr.Error()
	}
	return f
}

// daneFailure is what became of a session under the TLSA records of its host.
// Records of which none can be matched are a failure however well the session
// went (RFC 8460, section 4.3.2.1): their owner takes them for protection.
func (t *tlsRecorder) daneFailure(c *delivery.Connection, failure *tlsrpt.Failure) *tlsrpt.Failure {
	if !c.Demand.TLSAUnusable {
		return failure
	}
	return &tlsrpt.Failure{
		Result: tlsrpt.TLSAInvalid, SendingIP: c.Local, ReceivingMX: c.Host, ReceivingIP: c.Addr.Addr(),
		Reason: "none of the TLSA records can be used",
	}
}

// stsPolicy is the MTA-STS policy that a connection was held to, or watched
// for. It is known: the plan was made with it.
func (t *tlsRecorder) stsPolicy(c *delivery.Connection) (tlsrpt.Policy, bool) {
	if c.Demand.STS == tlspolicy.STSNone {
		return tlsrpt.Policy{}, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	p, state, _ := t.sts.Lookup(ctx, c.Domain)
	if state == mtasts.Absent {
		return tlsrpt.Policy{}, false
	}
	lines := []string{"version: STSv1", "mode: " + string(p.Mode)}
	for _, mx := range p.MX {
		lines = append(lines, "mx: "+mx)
	}
	lines = append(lines, fmt.Sprintf("max_age: %d", int64(p.MaxAge/time.Second)))
	return tlsrpt.Policy{Type: tlsrpt.STS, Domain: c.Domain, Lines: lines, MXHosts: p.MX}, true
}

func tlsaLines(records []tlspolicy.TLSA) []string {
	lines := make([]string, len(records))
	for i, r := range records {
		lines[i] = fmt.Sprintf("%d %d %d %x", r.Usage, r.Selector, r.MatchingType, r.Data)
	}
	return lines
}

// reportMailer sends TLS reports through the ring: signed and queued like any
// other message.
type reportMailer struct{ intake *intake.Receiver }

// SendReport implements tlsrpt.Mailer.
func (m reportMailer) SendReport(ctx context.Context, from, to string, message []byte) error {
	draft, err := m.intake.Begin(time.Now(), intake.Meta{
		Protocol: "TLSRPT", SkipReceived: true,
		Envelope: &queue.Envelope{
			Sender: from, Origin: queue.Origin{Via: "tlsrpt"},
			// Nobody waits for a report about a report (RFC 8460, section 5.3).
			Recipients: []queue.Recipient{{Address: to, Notify: queue.NotifyNever}},
		},
	})
	if err != nil {
		return err
	}
	defer draft.Abort()
	if _, err := io.Copy(draft, bytes.NewReader(message)); err != nil {
		return err
	}
	_, err = draft.Commit(ctx)
	return err
}
