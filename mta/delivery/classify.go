package delivery

import (
	"errors"
	"fmt"

	"postrider/mta/smtpclient"
	"postrider/queue"
)

// This is the failure policy, by scope:
//
//	recipient  a reply to RCPT: 4xx and 5xx are meant for this one.
//	message    a reply to MAIL, to DATA or to the content; what is wrong with
//	           the message itself.
//	host       no connection, no greeting, no usable TLS, a lost connection,
//	           a 421 before anything was decided: another host may do.
//	site       the same, of every host. Deferred, whatever the codes were: 554
//	           in place of a greeting may be meant for us, or for today. The one
//	           exception is RFC 7504's 521, said by every host.
//	local      what we ended ourselves: Untried.
//
// Unknown is Deferred. Only an explicit 5xx to a command of the transaction, or a
// proven local fact, is Failed.

// next is what an ended transaction leads to.
type next uint8

const (
	decided   next = iota // classify turns it into outcomes
	again                 // it was not come to: the same, over another connection
	elsewhere             // the host failed, or ended its service, before anything was decided
)

type end struct {
	next  next
	fault *fault // with elsewhere
}

// judgeEnd decides where a transaction goes.
func judgeEnd(f *flight, res *smtpclient.Result, label string) end {
	if res.Untried {
		return end{next: again}
	}
	e := sessionError(res)
	switch {
	case e != nil && e.Kind == smtpclient.KindInput:
		return end{}
	case saysGoodbye(res):
		return end{elsewhere, goodbyeFault(res)} // RFC 5321, section 3.8: the host ends its service
	case res.Final.Code != 0, res.Data.Code >= 400, e != nil && isRefused(res):
		return end{}
	case e == nil:
		return end{}
	case res.Mail.Code == 0 && (f.isFirst || f.number > 0) && e.Kind == smtpclient.KindClosed:
		// The host closed the connection after the message before, or while
		// idle, as this one was on its way. It did not come to MAIL, so it is
		// hardly in doubt, and to wait would not make it less so.
		return end{next: again}
	case res.Sent || e.Kind == smtpclient.KindAborted:
		return end{}
	case e.Kind == smtpclient.KindReply && e.Reply.Code != 421:
		return end{} // refused while the content was sent
	default:
		return end{elsewhere, sessionFault(label, e)}
	}
}

// sessionError is what ended the session, or the transaction; nil where replies
// tell all.
func sessionError(res *smtpclient.Result) *smtpclient.Error {
	if res.Err == nil {
		return nil
	}
	e, ok := res.Err.(*smtpclient.Error)
	if !ok {
		e = &smtpclient.Error{Stage: smtpclient.StageContent, Kind: smtpclient.KindClosed, Err: res.Err}
	}
	return e
}

// isRefused reports whether replies decided for every recipient.
func isRefused(res *smtpclient.Result) bool {
	if res.Mail.Code >= 400 {
		return res.Mail.Code != 421
	}
	for i := range res.Rcpts {
		if code := res.Rcpts[i].Code; code < 400 || code == 421 {
			return false
		}
	}
	return true
}

// saysGoodbye reports whether 421 came before anything was decided for good.
// Content that travelled along with the envelope does not change that: a host
// that says 421 to MAIL or RCPT did not take it.
func saysGoodbye(res *smtpclient.Result) bool {
	if res.Mail.Code >= 400 {
		return res.Mail.Code == 421
	}
	bye, accepted := false, 0
	for i := range res.Rcpts {
		switch code := res.Rcpts[i].Code; {
		case code == 421:
			bye = true
		case code >= 500:
			return false
		case code/100 == 2:
			accepted++
		}
	}
	if accepted == len(res.Rcpts) && (res.Data.Code == 421 || res.Final.Code == 421 && !res.Sent) {
		return true // in place of the content, or in its midst
	}
	// It may go on in spite of what it said; the reply to the content then
	// decides for those that it accepted.
	isDecided := res.Data.Code >= 400 || res.Final.Code != 0 && res.Final.Code != 421
	return bye && (accepted == 0 || !isDecided)
}

func goodbyeFault(res *smtpclient.Result) *fault {
	f := &fault{stage: queue.StageMAIL, reply: res.Mail}
	for i := 0; f.reply.Code != 421 && i < len(res.Rcpts); i++ {
		f.stage, f.reply = queue.StageRCPT, res.Rcpts[i]
	}
	if f.reply.Code != 421 {
		f.stage, f.reply = queue.StageDATA, res.Data
	}
	if f.reply.Code != 421 {
		f.stage, f.reply = queue.StageBody, res.Final
	}
	f.status = replyStatus(f.reply, f.stage)
	return f
}

// classify fills in the outcomes of a decided transaction, and what it tells
// about the site.
func classify(f *flight, res *smtpclient.Result, s *session, from peer, rules Rules, r *Report) {
	if res.Mail.Code != 0 {
		r.Site = SiteAlive
	}
	whole, reach := messageOutcome(f, res, s)
	if reach != nobody {
		rules.judge(&whole, from, r)
	}
	accepted := 0
	for n, i := range f.who {
		o := &f.outcomes[i]
		switch reply := res.Rcpts[n]; {
		case reach == everybody:
			*o = whole
		case reply.Code/100 == 2:
			accepted++
			*o = whole
			o.Passed = s.ext.DSN && o.Verdict == queue.Delivered
		case reply.Code == 452 && accepted > 0 && isTooMany(reply):
			// RFC 5321, section 4.5.3.1.10: the rest goes at once, in the next
			// transaction. For the first recipient it would never end.
			r.MaxRecipients = accepted
		case reply.Code != 0:
			*o = replyOutcome(reply, queue.ScopeRecipient, queue.StageRCPT, s)
			rules.judge(o, from, r)
		default:
			*o = lostOutcome(res, s)
		}
	}
}

// isTooMany tells 452 for the number of recipients from 452 for a full disk.
func isTooMany(r smtpclient.Reply) bool {
	return r.Enhanced == "" || r.Enhanced == "4.5.3" || r.Enhanced == "5.5.3"
}

// reach is whom the outcome of a message is for.
type reach uint8

const (
	nobody      reach = iota // all were refused one by one
	theAccepted              // those that RCPT accepted
	everybody
)

// messageOutcome is what the message as a whole came to.
func messageOutcome(f *flight, res *smtpclient.Result, s *session) (queue.Outcome, reach) {
	e := sessionError(res)
	switch {
	case e != nil && e.Kind == smtpclient.KindInput:
		return inputOutcome(f, e, s), everybody
	case res.Mail.Code >= 400:
		return replyOutcome(res.Mail, queue.ScopeMessage, queue.StageMAIL, s), everybody
	case res.Data.Code >= 400:
		return replyOutcome(res.Data, queue.ScopeMessage, queue.StageDATA, s), theAccepted
	case res.Final.Code != 0:
		return replyOutcome(res.Final, queue.ScopeMessage, queue.StageFinal, s), theAccepted
	case e == nil:
		return queue.Outcome{}, nobody
	case res.Mail.Code == 0:
		return lostOutcome(res, s), everybody
	case e.Kind == smtpclient.KindReply && !res.Sent:
		return replyOutcome(e.Reply, queue.ScopeMessage, queue.StageBody, s), theAccepted
	default:
		return lostOutcome(res, s), theAccepted
	}
}

// inputOutcome is what is wrong on our side with one transaction.
func inputOutcome(f *flight, e *smtpclient.Error, s *session) queue.Outcome {
	var o queue.Outcome
	switch {
	case f.openErr != nil:
		o = openOutcome(f.openErr)
	case errors.Is(e, smtpclient.ErrAddress):
		o = localFailure(s, queue.ScopeMessage, "5.1.3", fmt.Sprintf("not sent: %v", e.Err))
	case errors.Is(e, smtpclient.ErrParameter):
		o = localFailure(s, queue.ScopeMessage, "5.5.4", fmt.Sprintf("not sent: %v", e.Err))
	default:
		o = openOutcome(e.Err)
	}
	o.Remote = s.remote
	return o
}

// lostOutcome is for recipients whose reply never came.
func lostOutcome(res *smtpclient.Result, s *session) queue.Outcome {
	f := sessionFault(s.label, res.Err)
	if f.isAborted && !res.Sent {
		return queue.Outcome{} // Untried
	}
	o := queue.Outcome{Verdict: queue.Deferred, Scope: queue.ScopeHost, Stage: f.stage, Status: f.status, Text: oneLine(f.text), Remote: s.remote}
	if f.reply.Code != 0 {
		o.Code, o.Text = f.reply.Code, replyText(f.reply)
		o.Status = replyStatus(f.reply, f.stage)
	}
	if f.isAborted {
		o.Scope = queue.ScopeLocal
	}
	o.InDoubt = res.Sent
	return o
}

// replyOutcome turns a reply into an outcome.
func replyOutcome(reply smtpclient.Reply, scope queue.Scope, stage queue.Stage, s *session) queue.Outcome {
	o := queue.Outcome{Verdict: queue.Deferred, Scope: scope, Stage: stage, Code: reply.Code,
		Status: replyStatus(reply, stage), Text: replyText(reply), Remote: s.remote}
	switch reply.Code / 100 {
	case 2:
		o.Verdict = queue.Delivered
	case 5:
		o.Verdict = queue.Failed
	}
	return o
}
