package api

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"strings"
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
	case (a.Pace != 0 || a.AtOnce) && name != "retry" && name != "release":
		return result, problem(400, "\"pace\" and \"at_once\" go with retry and release alone")
	case a.Pace < 0 || a.Pace > 0 && a.AtOnce:
		return result, problem(400, "\"pace\" is a number of recipients per second; \"at_once\" stands instead of it")
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
	if sel.nothing {
		return result, nil
	}
	if (name == "retry" || name == "release") && !a.AtOnce {
		// A flush of a long queue is no stampede.
		p := pacedAction{name: name, op: op, sel: sel, pace: cmp.Or(a.Pace, defaultPace), reason: a.Reason}
		counted, err := s.count(ctx, &sel)
		if err != nil {
			return result, err
		}
		if counted.Recipients > p.pace {
			return s.startPaced(ctx, p, counted)
		}
	}
	result.Recipients, err = op(ctx, s.opts.Now(), sel.Selector, a.Reason)
	if name == "retry" && result.Recipients > 0 {
		s.wakeSelected(&sel)
	}
	return result, err
}

// defaultPace is how many recipients a retry or a release makes due in a
// second where nothing else is said.
const defaultPace = 1000

// wakeSelected lets the destinations of a retry be tried, though they rest.
func (s *Server) wakeSelected(sel *selection) {
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
			s.wake(d.Domain)
		}
	}
}

func (s *Server) wake(domain string) {
	if s.opts.Wake != nil {
		s.opts.Wake(domain)
	}
}

// count tells how many open recipients match now.
func (s *Server) count(ctx context.Context, sel *selection) (result wire.ActionResult, err error) {
	if !sel.nothing {
		result.Messages, result.Recipients, err = s.opts.Queue.Count(ctx, s.opts.Now(), sel.Selector)
	}
	return result, err
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
	case a.Pace != 0 || a.AtOnce:
		return suspension, problem(400, "\"pace\" and \"at_once\" go with retry and release alone")
	case a.For != "" && name == "resume":
		return suspension, problem(400, "\"for\" goes with suspend alone")
	}
	suspension = wire.Suspension{Site: sel.Site, Tag: sel.Tag, Since: instant(now), Reason: a.Reason}
	if suspension.Domain, err = domainPattern(sel.Domain); err != nil {
		return suspension, err
	}
	if suspension.Sender, err = senderPattern(sel.Sender); err != nil {
		return suspension, err
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
