package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"

	"postrider/config"
	"postrider/mta/api/wire"
	"postrider/queue"
)

// operation acts on what a selector of the queue's own matches.
type operation func(ctx context.Context, now time.Time, s queue.Selector, reason string) (int, error)

// act steers the queue: POST /v1/queue/{action}.
func (s *Server) act(w http.ResponseWriter, r *http.Request) error {
	if _, err := contentType(r, typeJSON); err != nil {
		return err
	}
	var a wire.Action
	if err := readJSON(w, r, maxJSON, &a); err != nil {
		return err
	}
	if a.Selector.Empty() && !a.All {
		return problem(400, "the selector is empty: set \"all\" to mean everything")
	}
	if len(a.Reason) > maxReason || strings.ContainsFunc(a.Reason, unicode.IsControl) {
		return problem(400, "the reason is one line of at most %d octets", maxReason)
	}
	extendWrite(w, messageTimeout) // a million messages are not walked in a second
	name := r.PathValue("action")
	var result wire.ActionResult
	var err error
	switch name {
	case "suspend", "resume":
		result, err = s.suspendOrResume(r.Context(), name, &a)
	default:
		result, err = s.steer(r.Context(), name, &a)
	}
	if err != nil {
		return err
	}
	result.Action, result.DryRun = name, a.DryRun
	if !a.DryRun {
		selector, _ := json.Marshal(a.Selector) // strings alone: cannot fail
		s.log.Info("queue "+name, "user", peerOf(r).user, "selector", string(selector), "recipients", result.Recipients, "reason", a.Reason)
	}
	return answer(w, http.StatusOK, result)
}

func (s *Server) operation(name string) (operation, error) {
	switch name {
	case "retry":
		return s.opts.Queue.Retry, nil
	case "hold":
		return s.opts.Queue.Hold, nil
	case "release":
		return s.opts.Queue.Unhold, nil
	case "cancel":
		return s.opts.Queue.Cancel, nil
	case "fail":
		return s.opts.Queue.Fail, nil
	}
	return nil, problem(http.StatusNotFound, "action %q is unknown: use retry, hold, release, cancel, fail, suspend or resume", name)
}

const maxReason = 500 // octets: it stands in a report, and in every event

// steer does, or counts, one of the actions on recipients.
func (s *Server) steer(ctx context.Context, name string, a *wire.Action) (result wire.ActionResult, err error) {
	op, err := s.operation(name)
	if err != nil {
		return result, err
	}
	switch {
	case a.For != "":
		return result, problem(400, "\"for\" goes with suspend alone")
	case a.Pace != 0 && name != "retry":
		return result, problem(400, "\"pace\" goes with retry alone")
	case a.Pace < 0:
		return result, problem(400, "\"pace\" is a number of recipients per second")
	}
	sel, err := s.selectionOf(a.Selector)
	if err != nil {
		return result, err
	}
	if name == "release" && len(sel.Status) == 0 {
		sel.Status = []queue.Status{queue.StatusHeld}
	}
	if a.DryRun {
		return s.count(ctx, &sel)
	}
	if a.Pace > 0 {
		return s.startPaced(ctx, pacedRetry{sel, a.Pace, a.Reason})
	}
	result.Recipients, err = s.apply(ctx, &sel, op, a.Reason)
	if name == "retry" && result.Recipients > 0 {
		s.wake(&sel)
	}
	return result, err
}

// wake lets the destinations of a retry be tried, though they rest.
func (s *Server) wake(sel *selection) {
	if s.opts.Wake == nil {
		return
	}
	named := make(map[string]bool)
	for _, id := range sel.IDs {
		if m, err := s.opts.Queue.Message(id); err == nil {
			for _, r := range m.Envelope.Recipients {
				named[r.Domain] = true
			}
		}
	}
	for _, d := range s.opts.Queue.Domains(s.opts.Now(), 0) {
		if sel.matchesDomain(d.Domain) && (len(sel.IDs) == 0 || named[d.Domain]) {
			s.opts.Wake(d.Domain)
		}
	}
}

// apply acts on a selection. What the queue can select by itself it does in
// one go; else the messages are found first.
func (s *Server) apply(ctx context.Context, sel *selection, op operation, reason string) (int, error) {
	if sel.nothing {
		return 0, nil
	}
	if sel.class == "" && !sel.nullSender {
		return op(ctx, s.opts.Now(), sel.Selector, reason)
	}
	total := 0
	var failed error
	b := batch{op: op, reason: reason, status: sel.Status}
	flush := func() bool {
		n, err := b.flush(ctx, s.opts.Now())
		total += n
		failed = err
		return err == nil
	}
	err := s.walk(ctx, sel, queue.ID{}, page, func(m *queue.Message, hits []int) bool {
		b.add(m, hits)
		return b.recipients < batchSize || flush()
	})
	if err == nil && failed == nil {
		flush()
	}
	if err == nil {
		err = failed
	}
	return total, err
}

// batch gathers what is to be acted on: whole messages together, single
// recipients of a message one by one.
type batch struct {
	op         operation
	reason     string
	status     []queue.Status
	whole      []queue.ID
	single     []queue.Selector
	recipients int
}

// batchSize is how many recipients are acted on in one call, about.
const batchSize = 500

func (b *batch) add(m *queue.Message, hits []int) {
	b.recipients += len(hits)
	opened := 0
	for i := range m.States {
		if open(m.States[i].Status) {
			opened++
		}
	}
	if opened == len(hits) {
		b.whole = append(b.whole, m.Envelope.ID)
		return
	}
	for _, i := range hits {
		b.single = append(b.single, queue.Selector{
			IDs: []queue.ID{m.Envelope.ID}, Recipient: m.Envelope.Recipients[i].Address, Status: b.status,
		})
	}
}

func (b *batch) flush(ctx context.Context, now time.Time) (int, error) {
	selectors := b.single
	if len(b.whole) > 0 {
		selectors = append(selectors, queue.Selector{IDs: b.whole, Status: b.status})
	}
	b.whole, b.single, b.recipients = nil, nil, 0
	total := 0
	for _, sel := range selectors {
		n, err := b.op(ctx, now, sel, b.reason)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// pacedRetry makes recipients due little by little, so that a flush is no
// stampede.
type pacedRetry struct {
	sel    selection
	pace   int // recipients per second
	reason string
}

// startPaced counts what a paced retry will touch and hands it to Run. What
// is left of it at a stop keeps the due times that it had.
func (s *Server) startPaced(ctx context.Context, p pacedRetry) (result wire.ActionResult, err error) {
	result, err = s.count(ctx, &p.sel)
	if err != nil || result.Recipients == 0 {
		return result, err
	}
	select {
	case s.paced <- p:
		result.Paced = true
		return result, nil
	case <-ctx.Done():
		return result, ctx.Err()
	case <-s.stopping:
		return result, problem(http.StatusServiceUnavailable, "the server is stopping")
	case <-time.After(time.Second):
		return result, problem(http.StatusServiceUnavailable, "%d paced retries are at work: wait for one of them to end", maxPaced)
	}
}

const maxPaced = 16

// pace runs the paced retries until ctx ends.
func (s *Server) pace(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxPaced)
	for {
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		select {
		case <-ctx.Done():
			return
		case p := <-s.paced:
			wg.Go(func() {
				defer func() { <-slots }()
				s.runPaced(ctx, p)
			})
		}
	}
}

func (s *Server) runPaced(ctx context.Context, p pacedRetry) {
	total, err := 0, error(nil)
	b := batch{op: s.opts.Queue.Retry, reason: p.reason, status: p.sel.Status}
	step := max(1, min(p.pace/10, batchSize)) // recipients at a time
	flush := func() bool {
		n := b.recipients
		var touched int
		touched, err = b.flush(ctx, s.opts.Now())
		total += touched
		if err != nil {
			return false
		}
		pause := time.NewTimer(time.Duration(n) * time.Second / time.Duration(p.pace))
		defer pause.Stop()
		select {
		case <-pause.C:
			return true
		case <-ctx.Done():
			err = ctx.Err()
			return false
		}
	}
	walked := s.walk(ctx, &p.sel, queue.ID{}, page, func(m *queue.Message, hits []int) bool {
		b.add(m, hits)
		return b.recipients < step || flush()
	})
	if walked == nil && err == nil && b.recipients > 0 {
		flush()
	}
	if err == nil {
		err = walked
	}
	if err != nil {
		s.log.Warn("a paced retry ended early", "recipients", total, "error", err)
		return
	}
	s.log.Info("a paced retry is done", "recipients", total)
}

// suspendOrResume keeps mail back, or lets it go.
func (s *Server) suspendOrResume(ctx context.Context, name string, a *wire.Action) (result wire.ActionResult, err error) {
	if s.opts.Suspensions == nil {
		return result, unavailable(name)
	}
	now := s.opts.Now()
	suspension, err := suspensionOf(name, a, now)
	if err != nil {
		return result, err
	}
	sel, err := s.selectionOf(a.Selector)
	if err != nil {
		return result, err
	}
	if result, err = s.count(ctx, &sel); err != nil || a.DryRun {
		return result, err
	}
	if name == "suspend" {
		result.Suspensions = []wire.Suspension{suspension}
		return result, s.opts.Suspensions.Suspend(ctx, now, suspension)
	}
	result.Suspensions, err = s.opts.Suspensions.Resume(ctx, now, suspension)
	return result, err
}

func suspensionOf(name string, a *wire.Action, now time.Time) (suspension wire.Suspension, err error) {
	sel := a.Selector
	switch {
	case len(sel.IDs)+len(sel.Status) > 0, sel.Recipient+sel.Class+sel.OlderThan != "":
		return suspension, problem(400, "%s goes by domain, site, sender or tag: it catches mail that comes later, too", name)
	case a.Pace != 0:
		return suspension, problem(400, "\"pace\" goes with retry alone")
	case a.For != "" && name == "resume":
		return suspension, problem(400, "\"for\" goes with suspend alone")
	}
	suspension = wire.Suspension{Site: sel.Site, Sender: sel.Sender, Tag: sel.Tag, Since: instant(now), Reason: a.Reason}
	if suspension.Domain, err = domainPattern(sel.Domain); err != nil {
		return suspension, err
	}
	if sel.Sender != "<>" {
		if suspension.Sender, err = senderPattern(sel.Sender); err != nil {
			return suspension, err
		}
	}
	if a.For != "" {
		d, err := config.ParseDuration(a.For)
		if err != nil {
			return suspension, problem(400, "for: %v", err)
		}
		suspension.Until = instant(now.Add(d))
	}
	return suspension, nil
}

// count tells how many open recipients match now.
func (s *Server) count(ctx context.Context, sel *selection) (result wire.ActionResult, err error) {
	if sel.byDomain() && !sel.nothing {
		// The common case of many: known without looking at messages.
		for _, d := range s.opts.Queue.Domains(s.opts.Now(), 0) {
			result.Recipients += int(sel.countIn(&d))
		}
		return result, nil
	}
	err = s.walk(ctx, sel, queue.ID{}, page, func(_ *queue.Message, hits []int) bool {
		result.Messages++
		result.Recipients += len(hits)
		return true
	})
	return result, err
}
