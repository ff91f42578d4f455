package delivery

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"postrider/mta/smtpclient"
	"postrider/mta/tlspolicy"
	"postrider/queue"
	"postrider/resolver"
)

// fault is why one host, at one address, could not be used: scope host. Whether
// it becomes an outcome depends on the hosts that are left.
type fault struct {
	stage  queue.Stage
	reply  smtpclient.Reply // zero where no reply decided
	status string
	text   string // ours; where reply is set, it is not used
	remote *queue.Remote
	// isPermanent: asking this host again is of no use. All hosts must agree
	// before anything fails for good.
	isPermanent bool
	// isOwn: the reason is this message, or we ended it; the host is not to blame.
	isOwn     bool
	isAborted bool
	// isUnreachable: this host has no way to addresses of that family.
	isUnreachable bool
}

// outcome is the fault as the end of an attempt, with others failed hosts
// before it.
func (f *fault) outcome(others int, isPermanent bool) queue.Outcome {
	o := queue.Outcome{
		Verdict: queue.Deferred,
		Scope:   queue.ScopeSite,
		Stage:   f.stage,
		Status:  withClass(f.status, '4'),
		Text:    f.text,
		Remote:  f.remote,
	}
	if isPermanent {
		o.Verdict, o.Status = queue.Failed, withClass(f.status, '5')
	}
	if f.isOwn {
		o.Scope = queue.ScopeMessage
	}
	if f.reply.Code != 0 {
		o.Code, o.Text = f.reply.Code, replyText(f.reply)
		return o
	}
	if others > 0 {
		o.Text += fmt.Sprintf(" (as did %d more of its hosts or addresses)", others)
	}
	o.Text = oneLine(o.Text)
	return o
}

// words is the fault in one line.
func (f *fault) words() string {
	o := f.outcome(0, false)
	if o.Code != 0 {
		return fmt.Sprintf("%d %s", o.Code, o.Text)
	}
	return o.Text
}

// hostLabel names a host for people: "mx1.a.test [192.0.2.1]:25".
func hostLabel(name string, addr netip.AddrPort) string {
	s := "[" + addr.Addr().String() + "]"
	if name != "" {
		s = name + " " + s
	}
	if addr.Port() != 25 {
		s += fmt.Sprintf(":%d", addr.Port())
	}
	return s
}

// dialFault judges why a connection could not be made (RFC 3463, section 3.5:
// X.4.1, no answer from host).
func dialFault(label string, err error) *fault {
	f := &fault{stage: queue.StageConnect, status: "4.4.1"}
	var refusal *GuardError
	var timeout net.Error
	switch {
	case errors.As(err, &refusal):
		f.stage, f.isPermanent, f.status = queue.StagePolicy, true, refusal.status()
		f.text = fmt.Sprintf("%s is not dialled: %s", label, refusal.Reason)
		return f
	case errors.Is(err, syscall.ECONNREFUSED):
		f.text = "connection refused"
	case errors.As(err, &timeout) && timeout.Timeout():
		f.text = "timed out"
	default:
		f.isUnreachable = errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
		f.text = bareError(err)
	}
	f.text = fmt.Sprintf("connecting to %s failed: %s", label, f.text)
	return f
}

// bareError is the innermost text of a network error, without the addresses
// that the label has already.
func bareError(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		err = op.Err
	}
	var sys syscall.Errno
	if errors.As(err, &sys) {
		return sys.Error()
	}
	return err.Error()
}

// sessionStages maps the stages of a session to those of an outcome.
var sessionStages = map[smtpclient.Stage]queue.Stage{
	smtpclient.StageGreeting: queue.StageGreeting,
	smtpclient.StageEHLO:     queue.StageEHLO,
	smtpclient.StageSTARTTLS: queue.StageSTARTTLS,
	smtpclient.StageTLS:      queue.StageSTARTTLS,
	smtpclient.StageIdle:     queue.StageMAIL,
	smtpclient.StageReset:    queue.StageMAIL,
	smtpclient.StageMail:     queue.StageMAIL,
	smtpclient.StageRcpt:     queue.StageRCPT,
	smtpclient.StageData:     queue.StageDATA,
	smtpclient.StageContent:  queue.StageBody,
	smtpclient.StageFinal:    queue.StageFinal,
}

// sessionFault judges what ended a session.
func sessionFault(label string, err error) *fault {
	var e *smtpclient.Error
	if !errors.As(err, &e) {
		return &fault{stage: queue.StageConnect, status: "4.4.2", text: fmt.Sprintf("talking to %s failed: %v", label, err)}
	}
	f := &fault{stage: sessionStages[e.Stage], status: "4.4.2"}
	switch e.Kind {
	case smtpclient.KindReply:
		f.reply = e.Reply
		f.status = replyStatus(e.Reply, f.stage)
		// RFC 7504, section 2: 521 in place of a greeting says that the host
		// never takes mail. Any other refusal there may be meant for us, or for today.
		f.isPermanent = e.Reply.Code == 521
	case smtpclient.KindTimeout:
		f.text = fmt.Sprintf("%s did not answer in time at: %v", label, e.Stage)
	case smtpclient.KindProtocol:
		f.status = "4.5.0"
		f.text = fmt.Sprintf("%s broke the protocol at: %v: %v", label, e.Stage, e.Err)
	case smtpclient.KindTLS:
		f.status = "4.7.5"
		f.text = fmt.Sprintf("the TLS handshake with %s failed: %s", label, tlsWords(e.Err))
	case smtpclient.KindAborted:
		f.isAborted, f.isOwn = true, true
		f.text = fmt.Sprintf("the session with %s was ended by us at: %v", label, e.Stage)
	case smtpclient.KindInput:
		// Only our own name is an input of a session that carries nothing yet.
		f.isOwn = true
		f.status = "4.3.5"
		f.text = fmt.Sprintf("greeting %s is impossible: %v", label, e.Err)
	default:
		f.text = fmt.Sprintf("the connection to %s was lost at: %v", label, e.Stage)
	}
	return f
}

// tlsWords shortens what the TLS library says.
func tlsWords(err error) string {
	return strings.TrimPrefix(bareError(err), "tls: ")
}

// refusedFault is a host that its TLS demand excludes.
func refusedFault(name string, demand tlspolicy.Requirement) *fault {
	return &fault{
		stage:       queue.StagePolicy,
		status:      demand.Refused.Status,
		isPermanent: demand.Refused.Permanent(),
		isOwn:       demand.Source == tlspolicy.FromMessage,
		text:        fmt.Sprintf("%s is not used: %s", name, demand.Refused.Text),
		remote:      &queue.Remote{Host: name, Demand: demand.String()},
	}
}

// addresslessFault is a host without an address.
func addresslessFault(h *resolver.Host) *fault {
	f := &fault{stage: queue.StageDNS, status: "4.4.3", text: fmt.Sprintf("%s has no address", h.Name), remote: &queue.Remote{Host: h.Name}}
	if h.Err != nil {
		f.text = h.Err.Error()
	}
	var e *resolver.Error
	if errors.As(h.Err, &e) {
		f.status, f.isPermanent = e.Status, !e.Temporary()
	}
	return f
}

// Error makes a fault an error, so that it can end a session like one.
func (f *fault) Error() string { return f.words() }
